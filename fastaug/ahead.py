"""Batches decoded ahead of whoever takes them, by threads."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from fastaug.batch import Batch, Place
from fastaug.loader import Loader, Part, Task
from fastaug.plan import Plan

__all__ = ["load_ahead"]

# Records of one native call: enough that the Python between two does not count, few enough that threads share a batch.
_CHUNK = (4, 32)


@dataclass
class _Begun:
    """A batch on its way: chunks of it that threads work on, or all of it as yet to be done."""

    place: Place
    tasks: Sequence[Task]
    audio: Tensor | None
    jobs: list[Future[Part]]


def load_ahead(
    loader: Loader,
    plan: Plan,
    indices: range,
    epoch: int,
    threads: int,
    prefetch: int,
    pinned: bool = False,
) -> Iterator[Batch | Part]:
    """CPU batches of an epoch, in order; a `Part` in place of one of which nothing could be had.

    Closing the iterator, leaving its loop included, drops what has not begun and waits for what has.

    Args:
        plan: what every batch of the epoch holds. indices: the batches wanted.
        threads: that decode; 0 decodes in the caller's, batch by batch. prefetch: batches begun ahead of the caller.
        pinned: samples in page-locked memory, which torch recycles.

    Raises:
        RuntimeError: the iterator has come through a fork: its threads have not.
    """
    pool = ThreadPoolExecutor(threads, "fastaug-decode") if threads else None
    ahead: deque[_Begun] = deque()
    waiting, process = iter(indices), os.getpid()
    finalizing = sys.is_finalizing  # held here: an iterator left over at the end sees its module emptied
    try:
        while True:
            if os.getpid() != process:
                raise RuntimeError("this iterator was begun in another process: call iter() again in this one")
            while len(ahead) <= prefetch * bool(pool) and (i := next(waiting, None)) is not None:
                ahead.append(_begin(loader, plan.tasks(i), Place(epoch, i, i == len(plan) - 1), pool, threads, pinned))
            if not ahead:
                return
            yield _finished(loader, ahead.popleft())
    finally:
        if pool is not None and not finalizing():  # by then Python has joined its threads and taken it apart
            pool.shutdown(wait=os.getpid() == process, cancel_futures=True)


def _begin(
    loader: Loader, tasks: Sequence[Task], place: Place, pool: ThreadPoolExecutor | None, threads: int, pinned: bool
) -> _Begun:
    audio = loader.room(sum(len(task.segments) for task in tasks), pinned)
    jobs = []
    if pool is not None:
        least, most = _CHUNK
        size, first = min(max(-(-len(tasks) // (2 * threads)), least), most), 0
        for i in range(0, len(tasks), size):
            chunk = tasks[i : i + size]
            jobs.append(pool.submit(loader.load, chunk, place.epoch, audio, first))
            first += sum(len(task.segments) for task in chunk)
    return _Begun(place, tasks, audio, jobs)


def _finished(loader: Loader, begun: _Begun) -> Batch | Part:
    part = Part()
    if not begun.jobs:
        part += loader.load(begun.tasks, begun.place.epoch, begun.audio)
    for job in begun.jobs:
        part += job.result()
    return loader.collate(part, begun.audio, begun.place) if part.rows else part
