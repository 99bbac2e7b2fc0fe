"""Batches loaded ahead of the caller: by threads, by the caller itself, or by a device on a stream of its own."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from fastaug.arrival import load_on_device
from fastaug.batch import Batch, Place
from fastaug.loader import Loader
from fastaug.ops import _library
from fastaug.plan import Plan
from fastaug.tasks import Part, Task, Way

__all__ = ["load_ahead"]

# Records of one native call: enough that the Python between two does not count, few enough that threads share a batch.
_CHUNK = (4, 32)
_LANES = 2  # batches on their way through a device: the host's part of one beside the device's of another

Promise = Callable[[], Batch | Part]


def load_ahead(
    loader: Loader,
    plan: Plan,
    indices: Sequence[int],
    epoch: int,
    threads: int,
    prefetch: int,
    device: torch.device | None = None,
) -> Iterator[Batch | Part]:
    """Batches of an epoch, in order, not yet augmented; a `Part` in place of one of which nothing could be had.

    Closing the iterator, leaving its loop included, drops what has not begun and waits for what has.

    Args:
        plan: what every batch of the epoch holds. indices: the batches wanted.
        threads: that decode ahead; 0: none, the caller decodes each batch when it is asked for, with torch's threads.
        prefetch: batches begun ahead of the caller; with ``threads=0`` only their fetching from storage is.
        device: that decodes, and where the samples are; None for the CPU.

    Raises:
        RuntimeError: the iterator has come through a fork: its threads have not.
    """
    begin, pool = _in_the_caller, None
    if threads:
        begin = _by_threads if device is None else _through_a_lane
        pool = ThreadPoolExecutor(threads if device is None else min(_LANES, prefetch + 1), "fastaug-decode")
    way = Way(threads or _library.threads(), device)
    ahead: deque[Promise] = deque()
    waiting, process = iter(indices), os.getpid()
    finalizing = sys.is_finalizing  # held here: an iterator left over at the end sees its module emptied
    try:
        while True:
            if os.getpid() != process:
                raise RuntimeError("this iterator was begun in another process: call iter() again in this one")
            while len(ahead) <= prefetch and (i := next(waiting, None)) is not None:
                ahead.append(begin(loader, plan.tasks(i), Place(epoch, i, len(plan)), way, pool))
            if not ahead:
                return
            yield ahead.popleft()()
    finally:
        if pool is not None and not finalizing():  # by then Python has joined its threads and taken it apart
            pool.shutdown(wait=os.getpid() == process, cancel_futures=True)


def _in_the_caller(
    loader: Loader, tasks: Sequence[Task], place: Place, way: Way, pool: ThreadPoolExecutor | None
) -> Promise:
    loader.announce(tasks)
    return lambda: load_on_device(loader, tasks, place, way).take()


def _by_threads(
    loader: Loader, tasks: Sequence[Task], place: Place, way: Way, pool: ThreadPoolExecutor | None
) -> Promise:
    assert pool is not None
    audio = loader.room(sum(len(task.segments) for task in tasks))
    least, most = _CHUNK
    size, first, jobs = min(max(-(-len(tasks) // (2 * way.threads)), least), most), 0, []
    for i in range(0, len(tasks), size):
        chunk = tasks[i : i + size]
        jobs.append(pool.submit(loader.load, chunk, place.epoch, audio, first))
        first += sum(len(task.segments) for task in chunk)

    def promise() -> Batch | Part:
        part = Part()
        for job in jobs:
            part += job.result()
        return loader.collate(part, audio, place) if part.rows else part

    return promise


def _through_a_lane(
    loader: Loader, tasks: Sequence[Task], place: Place, way: Way, pool: ThreadPoolExecutor | None
) -> Promise:
    assert pool is not None
    job = pool.submit(load_on_device, loader, tasks, place, way)
    return lambda: job.result().take()
