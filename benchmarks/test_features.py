"""Log-mel spectrograms, in decibels, of one batch: 64 mono clips of 59,049 samples, n_fft 1024, hop 512, 128 bands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dali
import numpy as np
import torch
from clips import clip_by_clip
from harness import Peer, agrees, compare
from limits import work
from materials import CLIPS, RATE, SAMPLES, batch

from fastaug import LogMel

N_FFT, HOP, BANDS = 1024, 512, 128
FFT_FLOPS = (5 * 512 * 9 + 6 * 513) / HOP  # a sample


def test_logmel(benchmark: Any, threads: int) -> None:
    x = batch()
    ours = LogMel(n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, sample_rate=RATE, log="db")

    def torchaudio() -> Callable[[], torch.Tensor]:
        from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

        layer = MelSpectrogram(
            RATE, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, mel_scale="slaney", norm="slaney", pad_mode="constant"
        )
        decibels = AmplitudeToDB()
        return lambda: decibels(layer(x))

    def nnaudio() -> Callable[[], torch.Tensor]:
        from nnAudio.features import MelSpectrogram

        layer = MelSpectrogram(sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, pad_mode="constant", verbose=False)
        return lambda: (10 * torch.log10(layer(x[:, 0])[:, None].clamp(min=1e-10))).detach()

    def librosa() -> Callable[[], np.ndarray]:
        import librosa as peer

        def one(row: np.ndarray) -> np.ndarray:
            power = peer.feature.melspectrogram(y=row, sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS)
            return peer.power_to_db(power, top_db=None)

        run = clip_by_clip(one, list(x.numpy()), threads=threads)
        return lambda: np.stack(run())

    def of_dali() -> Callable[[], np.ndarray]:
        return dali.decibels(x.numpy()[:, 0], RATE, N_FFT, HOP, BANDS, threads)

    compare(
        benchmark,
        lambda: ours(x),
        [
            Peer("torchaudio MelSpectrogram + AmplitudeToDB", "torchaudio", torchaudio, check=agrees(80)),
            Peer("nnAudio MelSpectrogram", "nnAudio", nnaudio, check=agrees(60)),
            Peer("librosa melspectrogram + power_to_db", "librosa", librosa, check=agrees(80)),
            Peer("DALI mel_filter_bank + to_decibels", dali.PACKAGE, of_dali, check=agrees(60)),
        ],
        items=CLIPS,
        unit="clip",
        threads=threads,
        minimum_ratio={
            "torchaudio MelSpectrogram + AmplitudeToDB": 3,
            "nnAudio MelSpectrogram": 8,
            "librosa melspectrogram + power_to_db": 10,
        },
        # A real FFT by one of half the length, 5 n log2 n, and its untangling; window; squares; a band or two a bin.
        facts=work(SAMPLES, passes=1 + BANDS / HOP, flops=FFT_FLOPS + 2 + 3 + 4),
    )


def test_fft_alone(benchmark: Any, threads: int) -> None:
    """The same frames through torch's FFT and nothing else: what is left for windows, bands and logarithms."""
    x = batch()
    ours = LogMel(n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, sample_rate=RATE, log="db")
    frames = torch.nn.functional.pad(x[:, 0], (N_FFT // 2, N_FFT // 2)).unfold(-1, N_FFT, HOP).contiguous()
    peer = Peer(
        "torch.fft.rfft of the same frames", "torch", lambda: lambda: torch.fft.rfft(frames), differs="the FFT alone"
    )
    compare(benchmark, lambda: ours(x), [peer], items=CLIPS, unit="clip", threads=threads)
