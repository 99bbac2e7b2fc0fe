"""What to load for a batch, and what became of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastaug.shards.record import BadRecord

__all__ = ["HERE", "Part", "Row", "Task", "Way", "merge_rows"]


@dataclass(frozen=True)
class Task:
    """One record to load.

    Attributes:
        record: index in the source. occurrence: earlier deliveries of it in this epoch.
        position: place in this rank's order, which makes the draws of a replacement unique.
        segments: ordinals of the segments wanted, for ``crop="segments"``.
    """

    record: int
    occurrence: int
    position: int
    segments: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Way:
    """By what to decode.

    Attributes:
        threads: of one native call. device: whose kernels decode, into samples there; None: the CPU.
    """

    threads: int = 1
    device: torch.device | None = None


HERE = Way()


@dataclass
class Row:
    """One row of a batch: V crops of one example, at ``audio[:, at]``, float32 (V, rows, C, T)."""

    key: str
    sample_id: int
    fields: dict[str, Any]
    label: Any
    occurrence: int
    segment: int
    starts: list[int]
    lengths: list[int]
    audio: Tensor
    at: int


@dataclass
class Part:
    """What became of some tasks, in their order.

    Attributes:
        rows: those that could be had. errors: records that could not.
        outcomes: of every record tried, whether it was good.
    """

    rows: list[Row] = field(default_factory=list)
    errors: list[BadRecord] = field(default_factory=list)
    outcomes: list[bool] = field(default_factory=list)

    def __iadd__(self, other: Part) -> Part:
        self.rows += other.rows
        self.errors += other.errors
        self.outcomes += other.outcomes
        return self


def merge_rows(rows: list[Task]) -> list[Task]:
    """Adjacent rows of one delivery as one task, so that each member is opened once a batch."""
    tasks: list[Task] = []
    for row in rows:
        if tasks and tasks[-1].position == row.position:
            tasks[-1] = dataclasses.replace(tasks[-1], segments=tasks[-1].segments + row.segments)
        else:
            tasks.append(row)
    return tasks
