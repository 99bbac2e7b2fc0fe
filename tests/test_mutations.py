"""Damaged bytes of every native codec: a status of the list, finite samples, ranges equal slices, neighbours whole.

Short and always the same; tests/fuzz/run.sh goes on for as long as one likes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from corpus import encoded, tone
from fastaug.codecs import Status, decode

LENGTH = 700


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bits flipped, bytes set, cut out, doubled, or taken from the other file."""
    b = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(b))) if rng.integers(3) else int(rng.integers(min(len(b), 80)))
        n, kind = int(rng.integers(1, 60)), rng.integers(6)
        if kind == 0:
            b[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            b[at] = int(rng.choice([0, 0x7F, 0x80, 0xFF, rng.integers(256)]))
        elif kind == 2:
            del b[at : at + n]
        elif kind == 3:
            b[at:at] = b[at : at + n]
        elif kind == 4:
            b[at : at + n] = other[at : at + n]
        else:
            del b[max(at, 1) :]
        b = b or bytearray(b"\0")
    return bytes(b)


@pytest.mark.parametrize("codec", ["wav", "flac", "mp3"])
def test_damaged_files(codec: str) -> None:
    rng = np.random.default_rng(0)
    good, other = (encoded(tone(0.35, seed, 16_000, 2), codec, 16_000) for seed in (1, 2))
    expected = np.asarray(decode([good], 100, LENGTH, channels=2)[0][0])
    seen = set()
    for _ in range(400):
        bad = mutated(good, other, rng)
        starts = np.array([100, int(rng.integers(-50, 6000)), 100])
        samples, status = decode([good, bad, good], starts, LENGTH, channels=2)
        assert status[0] == status[2] == Status.OK
        assert np.array_equal(samples[0], expected) and np.array_equal(samples[2], expected)
        seen.add(Status(int(status[1])))
        if status[1] != Status.OK:
            assert not samples[1].any()
            continue
        assert samples[1].isfinite().all()
        cut = int(rng.integers(1, LENGTH))
        for at, count in ((0, cut), (cut, LENGTH - cut)):
            part, told = decode([bad], int(starts[1]) + at, count, channels=2)
            assert told.tolist() == [Status.OK]
            assert np.array_equal(part[0], samples[1, :, at : at + count])
    assert Status.OK in seen and len(seen) >= 4


FUZZ = Path(__file__).parent / "fuzz"


@pytest.mark.skipif(shutil.which("clang++") is None, reason="no clang++")
def test_variables_that_nobody_set_do_not_matter(tmp_path: Path) -> None:
    """Seeds and former findings of the fuzz target of MP3, where such variables are NaN or large."""
    sources = [FUZZ / "once.cpp", FUZZ / "fuzz_mp3.cpp", *(FUZZ.parents[1] / "csrc" / "cpu").glob("mp3*.cpp")]
    flags = ["-std=c++17", "-O1", "-w", "-ffp-contract=off", "-ftrivial-auto-var-init=pattern"]
    subprocess.run(["clang++", *flags, *sources, "-o", tmp_path / "once"], check=True)
    subprocess.run([sys.executable, FUZZ / "seeds.py", "mp3", tmp_path / "seeds"], check=True)
    files = [*(FUZZ / "found" / "mp3").iterdir(), *(tmp_path / "seeds").iterdir()]
    assert len(files) > 60
    subprocess.run([tmp_path / "once", *files], check=True)
