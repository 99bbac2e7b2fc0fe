"""The sox command line as a peer, at its best: one process per thread over one long float file in memory, no dither.

A process per clip would charge sox a few milliseconds of start-up for every clip; one long file charges it nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

Effects = Sequence[Any]


def memory_folder() -> str | None:
    """A folder in RAM where there is one, so that sox is not timed on a disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def program() -> str:
    found = shutil.which("sox")
    if found is None:
        raise FileNotFoundError("sox is not installed (Debian: apt-get install sox)")
    return found


def raw(rate: int, channels: int = 1) -> list[str]:
    return ["-t", "raw", "-e", "floating-point", "-b", "32", "-r", str(rate), "-c", str(channels)]


def one_clip(clip: np.ndarray, rate: int, effects: Effects) -> np.ndarray:
    """(T,) float32 through one sox process; whatever length it gives."""
    command = [program(), "-D", "-V1", *raw(rate), "-", *raw(rate), "-", *map(str, effects)]
    done = subprocess.run(command, input=clip.astype(np.float32).tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, dtype=np.float32)


def per_clip(clips: np.ndarray, rate: int, effects: Sequence[Effects]) -> np.ndarray:
    """(B, 1, T) → (B, 1, T), each clip with its own effects, cut or zero-padded to T: for proving agreement."""
    out = np.zeros_like(clips)
    for row, clip, chain in zip(out, clips, effects, strict=True):
        got = one_clip(clip[0], rate, chain)[: clips.shape[-1]]
        row[0, : len(got)] = got
    return out


def long_files(clips: np.ndarray, rate: int, effects: Sequence[Effects], threads: int) -> Callable[[], None]:
    """A function that runs all clips: one sox process per distinct chain of effects (and per thread, if there are fewer
    chains than threads) over all its clips in one file, ``threads`` processes at a time."""
    folder = tempfile.TemporaryDirectory(dir=memory_folder())
    groups: dict[tuple[str, ...], list[np.ndarray]] = {}
    for clip, chain in zip(clips, effects, strict=True):
        groups.setdefault(tuple(map(str, chain)), []).append(clip[0])
    commands = []
    for chain, members in groups.items():
        parts = max(1, -(-threads // len(groups)))
        for part in range(parts):
            source = Path(folder.name) / f"{len(commands)}.in"
            np.concatenate(members[part::parts]).astype(np.float32).tofile(source)
            commands.append([program(), "-D", "-V1", *raw(rate), str(source), *raw(rate), f"{source}.out", *chain])
    pool = ThreadPoolExecutor(threads)

    def run() -> None:
        assert folder.name  # the closure keeps the folder alive
        list(pool.map(lambda command: subprocess.run(command, check=True, capture_output=True), commands))

    return run
