"""Which rows make up each batch of an epoch: arrays, cut into tasks when a batch's turn comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastaug.shards.order import Ints, Order
from fastaug.tasks import Task, merge_rows

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """The rows of one rank's epoch.

    Attributes:
        order: the records, in the order of their delivery.
        positions: int64 (rows,), which delivery each row belongs to.
        segments: int64 (rows,), the ordinal of each row's segment in its record.
        batch_size: rows a batch. count: number of batches.
    """

    order: Order
    positions: Ints
    segments: Ints
    batch_size: int
    count: int

    @classmethod
    def of(cls, order: Order, segments: Mapping[int, int] | None, batch_size: int, drop_last: bool) -> Plan:
        """The rows of an order.

        Args:
            segments: number of rows of each record; None for one each.

        Raises:
            ValueError: ``drop_last`` leaves no batch.
        """
        positions, ordinals = np.arange(len(order), dtype=np.int64), np.zeros(len(order), np.int64)
        if segments is not None:
            rows = np.array([segments[record] for record in order.records.tolist()], dtype=np.int64)
            positions = np.repeat(positions, rows)
            ordinals = np.arange(len(positions)) - np.repeat(np.cumsum(rows) - rows, rows)
        count = len(positions) // batch_size if drop_last else -(-len(positions) // batch_size)
        if drop_last and not count:
            raise ValueError(f"drop_last with batch_size={batch_size}: an epoch has only {len(positions)} rows")
        return cls(order, positions, ordinals, batch_size, count)

    def __len__(self) -> int:
        return self.count

    def tasks(self, batch: int) -> list[Task]:
        """What to load for a batch: neighbouring rows of one delivery are one task."""
        rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        positions = self.positions[rows]
        chosen = self.order[positions]
        columns = (chosen.records, chosen.occurrences, positions, self.segments[rows])
        return merge_rows([Task(r, o, p, (s,)) for r, o, p, s in zip(*(c.tolist() for c in columns), strict=True)])
