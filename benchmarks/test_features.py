"""Log-mel spectrograms, in decibels, of one batch: 64 mono clips of 59,049 samples, n_fft 1024, hop 512, 128 bands."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dali
import numpy as np
import pytest
import torch
from clips import clip_by_clip
from harness import Peer, agrees, compare
from limits import work
from materials import CLIPS, RATE, SAMPLES, batch

from fastaug import LogMel
from fastaug._paths import csrc_dir

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


@pytest.mark.parametrize("n_fft", [400, 2048])
def test_logmel_other_lengths(benchmark: Any, threads: int, n_fft: int) -> None:
    """torchaudio's default, which is no power of two, and librosa's; hop of half of it, HTK's bands of height 1."""
    x, settings = batch(), {"n_fft": n_fft, "hop_length": n_fft // 2, "n_mels": 64}
    ours = LogMel(**settings, sample_rate=RATE, mel="htk", log="db")

    def torchaudio() -> Callable[[], torch.Tensor]:
        from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

        layer, decibels = MelSpectrogram(RATE, **settings, pad_mode="constant"), AmplitudeToDB()
        return lambda: decibels(layer(x))

    peer = Peer("torchaudio MelSpectrogram + AmplitudeToDB", "torchaudio", torchaudio, check=agrees(70))
    compare(benchmark, lambda: ours(x), [peer], items=CLIPS, unit="clip", threads=threads)


FFT_SOURCE = """
#include <vector>
#include "fft.h"
template <class Piece>
FA_HD void transform_lanes(const FaFft& fft, float* room, long long times) {
    for (long long i = 0; i < times; ++i) {
        for (unsigned lane = 0; lane < 64; lane += sizeof(Piece)) {
            fa_fft_forward(fft, reinterpret_cast<FaComplex<Piece>*>(room));
        }
    }
}
FA_BY_WIDTH(transform, (const FaFft& fft, float* room, long long times), (fft, room, times))
extern "C" void run(int n, long long tiles) {
    FaFft fft;
    fa_fft_plan(n, fft);
    std::vector<float> table(fa_fft_table_size(fft)), room(32 * n + 16);
    fa_fft_fill_table(fft, table.data());
    fft.table = table.data();
    transform(fft, reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(room.data()) + 63) / 64 * 64), tiles);
}
"""


def transforms_alone(folder: Path) -> Callable[[], None]:
    """The transforms of csrc/fft.h that the batch needs, sixteen frames at a time, on zeros (as fast as other numbers);
    built with the flags of setup.py that matter."""
    source, library = folder / "fft.cpp", folder / "fft.so"
    source.write_text(FFT_SOURCE)
    flags = ["-O3", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
    subprocess.run(["g++", *flags, f"-I{csrc_dir()}", str(source), "-o", str(library)], check=True)
    run, tiles = ctypes.CDLL(str(library)).run, CLIPS * (1 + SAMPLES // HOP) // 16
    return lambda: run(N_FFT // 2, ctypes.c_longlong(tiles))


def test_share_of_the_fft(benchmark: Any, tmp_path: Path) -> None:
    """What part of a log-mel spectrogram its transforms are, on one thread; and torch's FFT of the same frames."""
    x = batch()
    ours = LogMel(n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, sample_rate=RATE, log="db")
    frames = torch.nn.functional.pad(x[:, 0], (N_FFT // 2, N_FFT // 2)).unfold(-1, N_FFT, HOP).contiguous()
    alone = "the FFTs of LogMel alone"
    peers = [
        Peer(alone, None, lambda: transforms_alone(tmp_path), differs="no windows, bands and logarithms"),
        Peer(
            "torch.fft.rfft of the same frames",
            "torch",
            lambda: lambda: torch.fft.rfft(frames),
            differs="the FFT alone",
        ),
    ]
    record = compare(benchmark, lambda: ours(x), peers, items=CLIPS, unit="clip", threads=1)
    share = next((row.get("ratio") for row in record["peers"] if row["name"] == alone), None)
    benchmark.extra_info["fft_share"] = share
    print(f"\n  share of the FFT in LogMel: {share:.0%}" if share else "\n  share of the FFT: not measured")
