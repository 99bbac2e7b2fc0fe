"""No kernel of the CPU takes many more instructions than when its speed was last measured.

Instructions do not depend on the machine, its load or its clock, so this guards speed where nothing can be timed. It
counts what valgrind runs: the clones for AVX2, one thread. It sees more work, not worse use of caches or of the wider
vectors; `make bench` sees those. After a change that is meant to take more, write down what the failing test prints.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

PROGRAM = Path(__file__).with_name("instructions.py")
#: Other versions of GCC, libsndfile and LAME come within this; twice the work does not.
TOLERANCE = 1.4
#: Instructions for each sample (and channel), GCC 12.
EXPECTED = {
    "gain": 0.9,
    "noise": 17.2,
    "delay": 1.0,
    "reverb": 101.5,
    "sinc filter": 32.8,
    "butterworth": 12.9,
    "pitch shift": 104.7,
    "resample, direct": 136.0,
    "resample, half": 42.3,
    "spectrogram": 26.5,
    "flac": 60.5,
    "mp3": 81.8,
}


def reason_to_skip() -> str:
    """Why the counts would not be comparable here, or nothing."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return "the numbers are those of x86-64 on Linux"
    if shutil.which("valgrind") is None:
        return "valgrind is not installed (Debian: apt-get install valgrind)"
    flags = Path("/proc/cpuinfo").read_text().split()
    return "" if {"avx2", "fma"} <= set(flags) else "the numbers are those of AVX2, which this processor lacks"


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, float]]:
    """Instructions a sample of each kernel."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("callgrind")
    t = np.arange(22_050) / 44_100
    noise = np.random.default_rng(0).standard_normal((len(t), 2))
    track = 0.3 * np.sin(2 * np.pi * 440 * t)[:, None] + 0.02 * noise
    files = [str(folder / "track.mp3"), str(folder / "track.flac")]
    for file in files:
        soundfile.write(file, track, 44_100)
    extension = importlib.util.find_spec("fastaug._native")
    assert extension is not None and extension.origin is not None
    out = folder / "out"
    valgrind = ["valgrind", "--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={out}"]
    command = [*valgrind, sys.executable, "-S", "-E", str(PROGRAM), extension.origin, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    samples = {name: int(count) for name, count in (line.split("\t") for line in done.stdout.splitlines())}
    # The first part ends before the first kernel; what follows the last one is in the file without a number.
    found = [total(out.with_name(f"out.{part}")) for part in range(2, len(samples) + 2)]
    yield {name: count / samples[name] for name, count in zip(samples, found, strict=True)}


def total(profile: Path) -> int:
    match = re.search(r"^totals: (\d+)$", profile.read_text(), re.MULTILINE)
    assert match is not None, profile
    return int(match[1])


def test_no_kernel_takes_many_more_instructions(counts: dict[str, float]) -> None:
    assert counts.keys() == EXPECTED.keys()
    grown = {name: f"{count:.1f}, was {EXPECTED[name]}" for name, count in counts.items()
             if count > TOLERANCE * EXPECTED[name]}  # fmt: skip
    assert not grown, f"instructions a sample: {grown}"


def test_the_numbers_written_down_are_not_stale(counts: dict[str, float]) -> None:
    """A kernel that has become much faster is to be guarded at its new speed."""
    shrunk = {name: f"{count:.1f}, was {EXPECTED[name]}" for name, count in counts.items()
              if count * 2 < EXPECTED[name]}  # fmt: skip
    assert not shrunk, f"write down the new numbers: {shrunk}"
