"""The order of an epoch, as a pure function of (seed, epoch): no state, no buffer, the same on every machine.

Shards are permuted globally; the records of the permuted shards, laid end to end, are then shuffled within a
window: record i gets the sort key i + u · window, so that no record moves further than ``window`` places and memory
and seeks stay bounded. Ranks take every world_size-th record of the result.
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


def epoch_order(
    shard_sizes: Sequence[int],
    seed: int,
    epoch: int,
    shuffle: int = 0,
    epoch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Order:
    """The records that one rank delivers in one epoch.

    Args:
        shard_sizes: records in each shard; record indices count through the shards in this order.
        seed, epoch: decide the permutation, together with nothing else.
        shuffle: window in records; 0 keeps the stored order.
        epoch_size: records delivered in the epoch over all ranks; None delivers each once. A larger number wraps
            around (with ``occurrences`` counting up), a smaller one takes the head of the permutation.
        rank, world_size: this rank takes records rank, rank + world_size, … of the global order. With
            ``shuffle`` the global order is first filled up to a multiple of world_size by wrapping around, so that
            every rank has equally many steps; without it, each record is delivered exactly once.

    Raises:
        ValueError: rank, world_size, shuffle or epoch_size out of range.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in [0, world_size={world_size}), got {rank}")
    if shuffle < 0 or (epoch_size is not None and epoch_size <= 0):
        raise ValueError(f"shuffle must be ≥ 0 and epoch_size > 0, got {shuffle} and {epoch_size}")
    total = int(sum(shard_sizes))
    if total == 0:
        return Order(np.zeros(0, np.int64), np.zeros(0, np.int64))
    sequence = _shuffled(shard_sizes, seed, epoch, shuffle) if shuffle else np.arange(total)
    size = total if epoch_size is None else epoch_size
    if shuffle:
        size = -(-size // world_size) * world_size
    positions = np.arange(rank, size, world_size, dtype=np.int64)
    return Order(sequence[positions % total], positions // total)


def _shuffled(shard_sizes: Sequence[int], seed: int, epoch: int, window: int) -> Ints:
    sizes = np.asarray(shard_sizes, dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(sizes)])
    shard_keys = Keys.of(seed, np.arange(len(sizes), dtype=np.uint64), epoch, path="order/shard")
    permuted = np.argsort(shard_keys.words("place")[:, 0].numpy(), kind="stable")
    sequence = np.concatenate([np.arange(first[shard], first[shard + 1]) for shard in permuted])
    record_keys = Keys.of(seed, sequence.astype(np.uint64), epoch, path="order/record")
    displacement = (record_keys.words("place")[:, 0].numpy() * np.int64(window)) / 2.0**32
    result: Ints = sequence[np.argsort(np.arange(len(sequence)) + displacement, kind="stable")]
    return result
