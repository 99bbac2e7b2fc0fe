"""The order of an epoch, as a pure function of (seed, epoch): no state, no buffer, the same on every machine.

Shards are permuted globally; their records, laid end to end, are the line of the epoch. Each rank takes its part of
the line: neighbouring records, so that it opens about 1 / world_size of the shards; or, where there are fewer shards
than ranks, every world_size-th record. The records of a part are shuffled within a window: record i gets the sort key
i + u · window, so that none moves further than ``window`` places and memory and seeks stay bounded. DataLoader
workers then take the batches of their rank in turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastaug.random import Keys

__all__ = ["Order", "epoch_order"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """One rank's share of an epoch.

    Attributes:
        records: int64 (n,), index of each delivered record in the source.
        occurrences: int64 (n,), how often that record was delivered before in this epoch, on any rank.
    """

    records: Ints
    occurrences: Ints

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, places: slice | Ints) -> Order:
        return Order(self.records[places], self.occurrences[places])


def epoch_order(
    shard_sizes: Sequence[int],
    seed: int,
    epoch: int,
    shuffle: int = 0,
    epoch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    replacement: bool = False,
    mixture: Sequence[tuple[int, float]] = (),
) -> Order:
    """The records that one rank delivers in one epoch.

    Time and memory grow with the rank's own records and with the number of shards; with the records of all ranks
    where ranks take every world_size-th: fewer shards than ranks, ``replacement``, or a mixture.

    Args:
        shard_sizes: records in each shard; record indices count through the shards in this order.
        seed, epoch: decide the permutation, together with nothing else.
        shuffle: window in records; 0 keeps the stored order.
        epoch_size: records delivered in the epoch over all ranks; None delivers each once. A larger number goes
            around again (with ``occurrences`` counting up), a smaller one takes the head of each rank's part.
        rank, world_size: with ``shuffle``, ``replacement`` or a mixture all ranks deliver equally many: epoch_size is
            filled up to a multiple of world_size with repeated records. Without them each record is delivered
            exactly once, and the parts of the ranks, one after another, are the stored order.
        replacement: draw every record uniformly from all, whatever was drawn before.
        mixture: (number of shards, weight) of the sources that the shards belong to, in order. Every place of the
            epoch draws its source in proportion to the weights; each source is gone through on its own.

    Raises:
        ValueError: rank, world_size, shuffle, epoch_size or a weight out of range.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in [0, world_size={world_size}), got {rank}")
    if shuffle < 0 or (epoch_size is not None and epoch_size <= 0):
        raise ValueError(f"shuffle must be ≥ 0 and epoch_size > 0, got {shuffle} and {epoch_size}")
    sizes = np.asarray(shard_sizes, dtype=np.int64)
    total = int(sizes.sum())
    if total == 0:
        return Order(np.zeros(0, np.int64), np.zeros(0, np.int64))
    size = total if epoch_size is None else epoch_size
    if not (shuffle or replacement or mixture):
        places = np.arange(rank * size // world_size, (rank + 1) * size // world_size, dtype=np.int64)
        return Order(places % total, places // total)
    steps = -(-size // world_size)
    every = slice(rank, None, world_size)
    if mixture:
        return _mixed(sizes, seed, epoch, shuffle, steps * world_size, replacement, mixture)[every]
    if replacement:
        return _drawn(total, seed, epoch, np.arange(steps * world_size))[every]
    if min(len(sizes), total) < world_size:
        part = _line(sizes, seed, epoch, shuffle, 0, total)
        return _around(part, np.arange(rank, steps * world_size, world_size))
    begin, end = rank * total // world_size, (rank + 1) * total // world_size
    return _around(_line(sizes, seed, epoch, shuffle, begin, end), np.arange(steps))


def _line(
    sizes: Ints, seed: int, epoch: int, window: int, begin: int, end: int, shard: int = 0, record: int = 0
) -> Ints:
    """Places [begin, end) of the line, shuffled; ``shard`` and ``record`` are the numbers of the source's first."""
    if not window:
        return record + np.arange(begin, end, dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(sizes)])
    shard_keys = Keys.of(seed, (shard + np.arange(len(sizes))).astype(np.uint64), epoch, path="order/shard")
    permuted = np.argsort(shard_keys.words("place")[:, 0].numpy(), kind="stable")
    edges = np.concatenate([[0], np.cumsum(sizes[permuted])])
    places = np.arange(begin, end, dtype=np.int64)
    holder = np.searchsorted(edges, places, side="right") - 1
    sequence = record + first[permuted[holder]] + places - edges[holder]
    record_keys = Keys.of(seed, sequence.astype(np.uint64), epoch, path="order/record")
    displacement = (record_keys.words("place")[:, 0].numpy() * np.int64(window)) / 2.0**32
    result: Ints = sequence[np.argsort(np.arange(len(sequence)) + displacement, kind="stable")]
    return result


def _around(part: Ints, places: Ints) -> Order:
    """The records at those places of a part that is gone around again and again."""
    return Order(part[places % len(part)], places // len(part))


def _drawn(total: int, seed: int, epoch: int, ids: Ints, record: int = 0) -> Order:
    """Records drawn uniformly, with replacement: one an id."""
    keys = Keys.of(seed, ids.astype(np.uint64), epoch, path="order/replacement_draw")
    records = record + keys.integers("record", 0, total).numpy()
    by_record = np.argsort(records, kind="stable")
    ordered = records[by_record]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    occurrences = np.empty(len(records), np.int64)
    occurrences[by_record] = np.arange(len(records)) - np.repeat(starts, np.diff(np.append(starts, len(records))))
    return Order(records, occurrences)


def _mixed(
    sizes: Ints,
    seed: int,
    epoch: int,
    window: int,
    count: int,
    replacement: bool,
    mixture: Sequence[tuple[int, float]],
) -> Order:
    weights = np.array([weight for _, weight in mixture], dtype=np.float64)
    edges = np.concatenate([[0], np.cumsum([shards for shards, _ in mixture])])
    if edges[-1] != len(sizes) or not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"a mixture has positive weights and as many shards as there are, {len(sizes)}; got {mixture}")
    drawn = Keys.of(seed, np.arange(count, dtype=np.uint64), epoch, path="order/mixture").unit("source")[:, 0]
    chosen = np.minimum(np.searchsorted(np.cumsum(weights / weights.sum()), drawn, side="right"), len(weights) - 1)
    mixed = Order(np.empty(count, np.int64), np.empty(count, np.int64))
    for source, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        places = np.flatnonzero(chosen == source)
        own, record = sizes[low:high], int(sizes[:low].sum())
        total = int(own.sum())
        if total == 0:
            raise ValueError(f"source {source} of the mixture holds no records")
        if replacement:
            part = _drawn(total, seed, epoch, np.arange(len(places)) + (source << 40), record)
        else:
            line = _line(own, seed, epoch, window, 0, total, low, record)
            part = _around(line, np.arange(len(places)))
        mixed.records[places], mixed.occurrences[places] = part.records, part.occurrences
    return mixed
