"""Which of the machine's cores a case runs on, and how fast each of them is at the moment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Place = tuple[int, ...]  # cores
HASHED = bytes(200_000)  # 0.21 ms of a calm core
PROC = Path("/proc")


def places(cores: Iterable[int], threads: int) -> list[Place]:
    """Where a case of ``threads`` threads may run: sets of so many cores that have none in common."""
    ordered = sorted(cores)
    found = [tuple(ordered[i : i + threads]) for i in range(0, len(ordered) - threads + 1, threads)]
    return found or [tuple(ordered)]


def go(place: Place) -> None:
    """This thread to ``place``, and with it every other of the process and its children that is held to as many cores:
    what contenders of such a case have started. Pools that know more cores belong to other cases and sleep."""
    os.sched_setaffinity(0, place)
    for thread in threads_of(os.getpid()):
        with contextlib.suppress(OSError):  # it has ended
            if len(os.sched_getaffinity(thread)) == len(place):
                os.sched_setaffinity(thread, place)


def threads_of(process: int) -> Iterator[int]:
    """Those of the process and of all that it has started."""
    for folder in glob(PROC / str(process) / "task"):
        yield int(folder.name)
        with contextlib.suppress(OSError):  # ended, or a kernel that does not list children
            for child in (folder / "children").read_text().split():
                yield from threads_of(int(child))


def glob(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def slowest(place: Place) -> float:
    """Seconds of fixed work on the slowest of these cores, on which nothing else of ours runs: on all of them at once,
    for two cores of a virtual machine, each calm while the other rests, may be halves of one."""
    if len(place) < 2 or not hasattr(os, "sched_setaffinity"):
        return hashing()
    while len(_helpers) < len(place):
        _helpers.append(ThreadPoolExecutor(1))
    return max(
        job.result() for job in [pool.submit(hashing, core) for pool, core in zip(_helpers, place, strict=False)]
    )


_helpers: list[ThreadPoolExecutor] = []  # a thread each


def hashing(core: int | None = None) -> float:
    """The better of two, on a core if one is given. Python lets go of its lock meanwhile. A calm core's scatter by 2 %
    (a loop of bytecode by 15 %); one that somebody shares takes 1.3 times as long, two that are halves of one 1.7."""
    if core is not None:
        os.sched_setaffinity(0, (core,))
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        hashlib.blake2b(HASHED).digest()
        best = min(best, time.perf_counter() - start)
    return best
