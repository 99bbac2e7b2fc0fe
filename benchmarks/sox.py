"""The sox command line as a peer, at its best: one process per thread over ten minutes of float samples in memory, no
dither, less a run of the same files without an effect.

A process per clip would charge sox a few milliseconds of start-up for every clip; this charges it the effect alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

Effects = Sequence[Any]
SECONDS = 600.0  #: of the long files together


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


class LongFiles:
    """Clips through sox at its best: one process per distinct chain of effects (and per thread, if there are fewer
    chains than threads), ``threads`` processes at a time, each over one long file in memory that repeats its clips.

    Args:
        clips: (B, 1, T) float32.
        effects: the chain of each clip.
        seconds: total length of the files; the clips are repeated until it is reached.

    `run` does the work and throws the result away, `no_effect` only reads and converts the same files; `items` is how
    many clips either handles.
    """

    def __init__(
        self, clips: np.ndarray, rate: int, effects: Sequence[Effects], threads: int, seconds: float = SECONDS
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=memory_folder())
        self._pool = ThreadPoolExecutor(threads)
        times = max(1, round(seconds * rate / (len(clips) * clips.shape[-1])))
        self.items = times * len(clips)
        groups: dict[tuple[str, ...], list[np.ndarray]] = {}
        for clip, chain in zip(clips, effects, strict=True):
            groups.setdefault(tuple(map(str, chain)), []).append(clip[0])
        self._commands: list[tuple[list[str], tuple[str, ...]]] = []
        for chain, members in groups.items():
            parts = max(1, -(-threads // len(groups)))
            for part in range(parts):
                source = Path(self._folder.name) / f"{len(self._commands)}.in"
                np.tile(np.concatenate(members[part::parts]), times).astype(np.float32).tofile(source)
                command = [program(), "-D", "-V1", *raw(rate), str(source), *raw(rate), os.devnull]
                self._commands.append((command, chain))

    def run(self) -> None:
        self._all([command + list(chain) for command, chain in self._commands])

    def no_effect(self) -> None:
        self._all([command for command, _ in self._commands])

    def _all(self, commands: list[list[str]]) -> None:
        list(self._pool.map(lambda command: subprocess.run(command, check=True, capture_output=True), commands))
