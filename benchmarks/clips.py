"""How libraries that take one clip at a time are run over many: a loop, or the faster of threads and processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness import QUICK, Run, wall_clock
from turns import same_draws

_job: tuple[Callable[..., Any], list[tuple[Any, ...]], int]


def clip_by_clip(function: Callable[..., Any], *columns: Sequence[Any], threads: int, processes: bool = True) -> Run:
    """A function that calls ``function`` on every row of ``columns`` and returns the list of results.

    With more than one thread, users of such libraries choose between a thread pool (good where the library releases
    the GIL) and worker processes (good where it does not, but every result is copied back). Both are tried here, and
    the faster one is timed. ``processes=False`` leaves the processes out, for functions that may not be called in a
    fork of a process with threads.
    """
    rows = list(zip(*columns, strict=True))
    if threads == 1:
        return lambda: [function(*row) for row in rows]
    function(*rows[0])  # lazy imports and compilation happen before the fork
    candidates = [_in_threads(function, rows, threads)]
    if processes and "fork" in multiprocessing.get_all_start_methods():
        candidates.append(_in_processes(function, rows, threads))
    return fastest(candidates)


def fastest(candidates: Sequence[Run]) -> Run:
    """The one whose best call is the shortest: of the first, and, if that is short, of four more, in turns. Whoever is
    chosen by one call is another one in the next run."""
    best = [wall_clock(run) for run in candidates]
    more = int(max(best) < 0.05) if QUICK else 4 if max(best) < 0.5 else 1
    for _ in range(more):
        best = [min(seconds, wall_clock(run)) for seconds, run in zip(best, candidates, strict=True)]
    return candidates[best.index(min(best))]


def _in_threads(function: Callable[..., Any], rows: list[tuple[Any, ...]], threads: int) -> Run:
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda row: function(*row), rows))


def _in_processes(function: Callable[..., Any], rows: list[tuple[Any, ...]], threads: int) -> Run:
    # With "fork" the rows reach the workers for free; only indices and results travel.
    size = -(-len(rows) // threads)
    pool = multiprocessing.get_context("fork").Pool(threads, _remember, (function, rows, size))
    return lambda: pool.map(_do, range(len(rows)), size)


def _remember(function: Callable[..., Any], rows: list[tuple[Any, ...]], size: int) -> None:
    global _job
    _job = (function, rows, size)


def _do(index: int) -> Any:
    function, rows, size = _job
    if index % size == 0:  # a worker's part begins: with the same draws in every call
        same_draws(index)
    return function(*rows[index])
