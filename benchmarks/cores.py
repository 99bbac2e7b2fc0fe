"""Which of the machine's cores a case runs on, and how fast each of them is at the moment."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

Place = tuple[int, ...]  # cores
STEPS = 5000  # of the loop: 0.11 ms of a calm core
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
    """Seconds of a fixed loop on the slowest of these cores, on which nothing else of ours runs."""
    if len(place) < 2 or not hasattr(os, "sched_setaffinity"):
        return loop()
    before, found = os.sched_getaffinity(0), []
    try:
        for core in place:
            os.sched_setaffinity(0, (core,))
            found.append(loop())
    finally:
        os.sched_setaffinity(0, before)
    return max(found)


def loop() -> float:
    """The best of three. Bytecode, because nothing is slowed down more by who shares the core (1.8 times, and not at
    all in between; a matrix product 1.1 to 1.3 times)."""
    best = float("inf")
    for _ in range(3):
        total, start = 0, time.perf_counter()
        for number in range(STEPS):
            total += number
        best = min(best, time.perf_counter() - start)
    return best
