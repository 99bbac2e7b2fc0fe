"""That memory stays flat: a short run of benchmarks/memory.py, whose long one takes minutes, and that it sees leaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from memory import MIB, fit  # noqa: E402

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def wander(rng: np.random.Generator, count: int, alike: float) -> np.ndarray:
    """An autoregression of order one with a standard deviation of 1."""
    steps = rng.standard_normal(count) * np.sqrt(1 - alike**2)
    out = np.empty(count)
    last = rng.standard_normal()
    for i, step in enumerate(steps):
        last = out[i] = alike * last + step
    return out


@pytest.mark.parametrize("alike", [0.0, 0.8])
def test_the_error_of_a_slope_is_what_it_says(alike: float) -> None:
    rng, clips = np.random.default_rng(1), np.arange(400) * 1_600
    lines = [fit(clips, 200 * MIB + 4 * MIB * wander(rng, 400, alike)) for _ in range(200)]
    off = np.array([line.slope / line.error for line in lines])
    assert abs(off.mean()) < 0.25 and 0.85 < off.std() < 1.2
    assert np.mean([line.flat for line in lines]) > 0.95


def test_a_leak_of_ten_bytes_a_clip_is_seen_and_noise_alone_is_not_enough() -> None:
    rng, clips = np.random.default_rng(1), np.arange(400) * 1_600
    noise = 200 * MIB + MIB * wander(rng, 400, 0.3)
    assert fit(clips, noise).flat and not fit(clips, noise + 10 * clips).flat
    assert not fit(clips, noise + 40 * MIB * wander(rng, 400, 0.9)).flat, "too noisy to tell"


SCRIPT = """
import gc, sys, tempfile
from pathlib import Path
import torch
from memory import run, shards
from fastaug import Gain

threads, crops, objects = map(int, sys.argv[1:])

class Leaking(Gain):
    kept = []
    def _apply_to(self, x, *args, **kwargs):
        self.kept.append(x[:crops].clone())
        self.kept += [float(i) for i in range(objects)]
        return super()._apply_to(x, *args, **kwargs)

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:
    line, pipe = run(shards(Path(folder), 40), 1_500, threads, 1.0, Leaking(gain_db=-6.0), every=2)
    pipe.set_epoch(pipe.epoch + 1)
    pipe.epoch_size, blocks = 320, []
    for _ in range(5):
        for batch in pipe:
            pass
        del batch
        gc.collect()
        blocks.append(sys.getallocatedblocks())
print(line, line.slope, blocks)
sys.exit(2 * (line.slope > 3 * line.error + 4_096) + (blocks[-1] - blocks[1] > 300))  # of 960 examples
"""


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(
    ("crops", "objects", "code"),
    [(0, 0, 0), (64, 0, 2), (0, 64, 1)],
    ids=["flat", "half the samples", "a number an example"],
)
def test_a_run_keeps_neither_samples_nor_objects(threads: int, crops: int, objects: int, code: int) -> None:
    """Kept samples show in the memory of the process: a heap's own coming and going is a few MiB. Kept objects show in
    Python's count of its blocks, between epochs (its lists of free tuples take some hundred)."""
    if threads == 0 and code:
        pytest.skip("the watch is the same with threads")
    command = [sys.executable, "-c", SCRIPT, *map(str, (threads, crops, objects))]
    for _ in range(3):  # threads' heaps may still grow in so short a run; what is kept shows every time
        done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=240)
        if done.returncode == code:
            break
    assert done.returncode & ~1 == code & ~1 and (code == 2 or done.returncode == code), done.stdout + done.stderr
