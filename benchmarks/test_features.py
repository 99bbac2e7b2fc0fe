"""Log-mel spectrograms of one batch: 64 mono clips of 59,049 samples, n_fft 1024, hop 512, 128 bands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from clips import clip_by_clip
from harness import Peer, agrees, compare
from materials import CLIPS, RATE, batch

from fastaug import LogMel

N_FFT, HOP, BANDS = 1024, 512, 128


def test_logmel(benchmark: Any, threads: int) -> None:
    x = batch()
    ours = LogMel(n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, sample_rate=RATE)

    def log(power: torch.Tensor) -> torch.Tensor:
        return torch.log(power + ours.offset)

    def torchaudio() -> Callable[[], torch.Tensor]:
        from torchaudio.transforms import MelSpectrogram

        layer = MelSpectrogram(
            RATE, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, mel_scale="slaney", norm="slaney", pad_mode="constant"
        )
        return lambda: log(layer(x))

    def nnaudio() -> Callable[[], torch.Tensor]:
        from nnAudio.features import MelSpectrogram

        layer = MelSpectrogram(sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, pad_mode="constant", verbose=False)
        return lambda: log(layer(x[:, 0])[:, None]).detach()

    def librosa() -> Callable[[], np.ndarray]:
        import librosa as peer

        def one(row: np.ndarray) -> np.ndarray:
            power = peer.feature.melspectrogram(y=row, sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS)
            return np.log(power + ours.offset)

        run = clip_by_clip(one, list(x.numpy()), threads=threads)
        return lambda: np.stack(run())

    compare(
        benchmark,
        lambda: ours(x),
        [
            Peer("torchaudio MelSpectrogram", "torchaudio", torchaudio, check=agrees(80)),
            Peer("nnAudio MelSpectrogram", "nnAudio", nnaudio, check=agrees(60)),
            Peer("librosa melspectrogram", "librosa", librosa, check=agrees(80)),
        ],
        items=CLIPS,
        unit="clip",
        threads=threads,
    )
