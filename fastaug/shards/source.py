"""An indexable set of records: how many each shard holds, the key of record i, and how to read it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastaug.shards.record import BadRecord, Record

__all__ = ["Source", "digest_of", "subset"]


@dataclass
class Source:
    """An indexable set of records.

    Attributes:
        sizes: number of records in each shard, in order.
        read: record index → Record.
        key: record index → key.
        digest: identifies the set of records and their order; a checkpoint holds it.
        bad: what could not even be indexed.
        label_info: label name → {"classes": [...], "multi": bool}, from dataset.json or the folder names.
        mixture: (number of shards, weight) of each source of a `Mix`; empty otherwise.
        announce: has the bytes of a record fetched from storage, without waiting; None where that is not possible.
    """

    sizes: list[int]
    read: Callable[[int], Record]
    key: Callable[[int], str]
    digest: str
    bad: list[BadRecord] = field(default_factory=list)
    label_info: dict[str, dict[str, Any]] = field(default_factory=dict)
    mixture: tuple[tuple[int, float], ...] = ()
    announce: Callable[[int], None] | None = None

    def __len__(self) -> int:
        return sum(self.sizes)


def subset(source: Source, indices: Sequence[int]) -> Source:
    """Some records of a source, in the given order, as one shard."""
    chosen = list(indices)
    keys = [source.key(i) for i in chosen]

    def read(i: int) -> Record:
        return source.read(chosen[i])

    return Source([len(chosen)], read, keys.__getitem__, digest_of(keys), label_info=source.label_info)


def digest_of(keys: Iterable[str]) -> str:
    """Identifies an ordered set of keys."""
    text = "".join(f"{key}\0" for key in keys)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
