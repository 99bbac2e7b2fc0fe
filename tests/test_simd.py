"""The vector code of narrower machines: decoders and effects with AVX2 and with SSE give what AVX-512 gives.

FASTAUG_SIMD chooses at run time between the clones of FA_BY_WIDTH; a process has one choice. AVX2 and AVX-512 fuse the
same multiplications and additions, so that decoders and conversions agree bit for bit. SSE has no fused operation, and
some effects sum in another order in vectors of another width: they agree to rounding. Integers are equal on all."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from corpus import tone
from fastaug import LogMel
from fastaug import functional as F
from fastaug.codecs import decode
from fastaug.ops.fir import windowed_sinc

LEAST_DB = 110.0  # what the design allows between devices
ORDERED = ("pitch", "low", "reverb")  # sums whose order depends on the width
INTEGER = ("flac", "wav")
WIDTHS = ("widest", "avx2", "sse")
CPU = Path("/proc/cpuinfo")
FUSES = CPU.exists() and " fma " in CPU.read_text()  # x86 that has more than SSE


def encoded(form: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    x = tone(1.2, 1, 44_100, 2)
    x[::9_000] = 0.9  # short blocks
    soundfile.write(buffer, x, 44_100, subtype, format=form)
    return buffer.getvalue()


def results() -> dict[str, torch.Tensor]:
    """What every function of vector code makes of fixed inputs."""
    found = {
        "mp3": decode([encoded("MP3", "MPEG_LAYER_III")], channels=None)[0],
        "mp3 mean": decode([encoded("MP3", "MPEG_LAYER_III")])[0],
        "flac": decode([encoded("FLAC", "PCM_16")], channels=None)[0],
        "wav": decode([encoded("WAV", "PCM_24")])[0],
    }
    x = torch.from_numpy(np.stack([tone(1.1, seed, 22_050, 1).T for seed in range(3)]).astype(np.float32))
    two = x.expand(3, 2, x.shape[2]).contiguous()
    keys = torch.arange(9).reshape(3, 3)
    for rate in (16_000, 22_051, 44_100, 11_025):  # blocks of FFTs, interpolated taps, tables of taps
        found[f"resample {rate}"] = F.resample(x, 22_050, rate)
    found["pitch"] = F.pitch_shift(x, 22_050, torch.tensor([-5.0, 0.5, 7.0]))
    found["low"] = F.low_pass(x, 22_050, 1_500.0)
    found["butterworth"] = F.butterworth(x, 22_050, 1_500.0, True)
    found["gain"] = F.gain(two, -3.0)
    found["reverb"] = F.reverb(two, 22_050)
    found["delay"] = F.delay(x, 22_050, 200.0)
    found["fir"] = windowed_sinc(x, torch.tensor([0.45, 0.3, 0.2]))  # few taps
    found["noise"] = F.add_noise(x, keys, sigma=0.1)
    found["noise level"] = F.add_noise(x, keys, snr_db=20.0, clip=True)
    found["mel"] = LogMel(sample_rate=22_050)(x)
    return found


def run(width: str, folder: Path) -> dict[str, np.ndarray]:
    target = folder / f"{width}.npz"
    environment = {**os.environ, "FASTAUG_SIMD": width, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, str(target)], check=True, env=environment)
    return dict(np.load(target))


@pytest.fixture(scope="module")
def by_width(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("widths")
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(WIDTHS, pool.map(lambda width: run(width, folder), WIDTHS), strict=True))


def agreement_db(a: np.ndarray, b: np.ndarray) -> float:
    error = ((a.astype(np.float64) - b) ** 2).sum()
    return np.inf if error == 0 else float(10 * np.log10((b.astype(np.float64) ** 2).sum() / error))


def test_avx2_agrees(by_width: dict[str, dict[str, np.ndarray]]) -> None:
    for name, widest in by_width["widest"].items():
        assert np.abs(widest).max() > 0.01, name
        agreement = agreement_db(by_width["avx2"][name], widest)
        assert agreement == np.inf or (name in ORDERED and agreement >= LEAST_DB), (name, agreement)


def test_sse_agrees(by_width: dict[str, dict[str, np.ndarray]]) -> None:
    agreement = {name: agreement_db(by_width["sse"][name], widest) for name, widest in by_width["widest"].items()}
    assert min(agreement.values()) >= LEAST_DB, agreement
    assert all(agreement[name] == np.inf for name in INTEGER)
    if FUSES:
        assert agreement["mp3"] < np.inf  # else the switch chose the same code


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.savez(sys.argv[1], **{name: x.numpy() for name, x in results().items()})
