"""What a dataset is made of before it is written: entries, their order, and what is checked about them."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = [
    "SPLITS", "DatasetSummary", "Entry", "Quarantined", "check_entries", "label_specs", "seeded_order", "warn_of_leaks",
]  # fmt: skip

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Entry:
    """One file to store.

    Args:
        path: its relative path, with ``/``; gives the key and is kept in the fields.
        audio: where the encoded bytes come from: the bytes, a file, or a function called once, in a worker thread.
        fields: JSON-able facts; label fields hold a class name, or a list of names.
        split: ``"train"``, ``"valid"`` or ``"test"``.
    """

    path: str
    audio: bytes | str | os.PathLike[str] | Callable[[], bytes]
    fields: Mapping[str, Any] = field(default_factory=dict)
    split: str = "train"


@dataclass(frozen=True)
class Quarantined:
    """A file that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class DatasetSummary:
    """What was written.

    Args:
        out: the dataset folder.
        name: dataset name.
        records: records per split.
        shards: shards per split.
        bytes: total size of all shards.
        classes: classes per label field.
        quarantined: files left out.
        leaks: groups that occur in more than one split.
        protocol: how the splits were made.
    """

    out: Path
    name: str
    records: dict[str, int]
    shards: dict[str, int]
    bytes: int
    classes: dict[str, list[str]]
    quarantined: list[Quarantined]
    leaks: int
    protocol: str

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {count:,}" for split, count in self.records.items())
        labels = ", ".join(f"{name} ({len(classes)} classes)" for name, classes in self.classes.items()) or "none"
        lines = [
            f"{self.name}: {sum(self.records.values()):,} records ({splits}) in {sum(self.shards.values())} shards, "
            f"{self.bytes / 2**20:,.1f} MiB, at {self.out}",
            f"labels: {labels}; splits: {self.protocol}",
        ]
        if self.quarantined:
            first = self.quarantined[0]
            lines.append(
                f"left out {len(self.quarantined):,} unreadable files, listed in {self.out / 'quarantine.jsonl'}; "
                f"the first: {first.path} ({first.reason})"
            )
        if self.leaks:
            lines.append(f"{self.leaks:,} groups occur in more than one split")
        return "\n".join(lines)


def seeded_order(entries: Iterable[Entry], seed: int) -> list[Entry]:
    """Entries in a random order fixed by the seed and each path, whatever order they came in."""

    def rank(entry: Entry) -> tuple[bytes, str]:
        text = f"{seed}/order/{entry.path}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=16).digest(), entry.path

    return sorted(entries, key=rank)


def check_entries(entries: list[Entry]) -> None:
    if not entries:
        raise ValueError("no entries to write")
    counts = Counter(entry.path for entry in entries)
    repeated = [path for path, count in counts.items() if count > 1]
    if repeated:
        raise ValueError(f"{len(repeated)} paths occur more than once, for example {sorted(repeated)[0]!r}")
    for entry in entries:
        if entry.split not in SPLITS:
            raise ValueError(f"{entry.path}: split must be one of {', '.join(SPLITS)}, got {entry.split!r}")
        if not PurePosixPath(entry.path).suffix[1:].isalnum():
            raise ValueError(f"{entry.path!r} has no suffix that names its audio format")


def label_specs(
    entries: list[Entry], labels: Mapping[str, Sequence[str] | None] | Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The "labels" of dataset.json, every value checked against its classes."""
    official = labels if isinstance(labels, Mapping) else dict.fromkeys(labels)
    specs = {}
    for name, classes in official.items():
        values = [(entry.path, entry.fields[name]) for entry in entries if entry.fields.get(name) is not None]
        multi = any(isinstance(value, (list, tuple)) for _, value in values)
        names: dict[str, str] = {}  # class -> a file that has it
        for path, value in values:
            if isinstance(value, (list, tuple)) != multi:
                raise ValueError(f"{path}: field {name!r} is {value!r}, but other files have a {_kind(multi)}")
            for item in value if multi else (value,):
                if not isinstance(item, str):
                    raise ValueError(f"{path}: field {name!r} must hold class names, got {item!r}")
                names.setdefault(item, path)
        if classes is not None:
            unknown = sorted(set(names) - set(classes))
            if unknown:
                raise ValueError(f"{names[unknown[0]]}: {unknown[0]!r} is not a class of {name!r}: {list(classes)}")
        specs[name] = {"classes": list(sorted(names) if classes is None else classes), "multi": multi}
    return specs


def _kind(multi: bool) -> str:
    return "list of names" if multi else "single name"


def warn_of_leaks(entries: list[Entry], group_field: str | None) -> int:
    """Warns of groups that two splits share (song or artist leakage); returns their number."""
    if group_field is None:
        return 0
    splits: dict[Any, Counter[str]] = {}
    for entry in entries:
        group = entry.fields.get(group_field)
        if group is not None:
            splits.setdefault(group, Counter())[entry.split] += 1
    shared = {group: counts for group, counts in splits.items() if len(counts) > 1}
    if shared:
        records = sum(sum(counts.values()) for counts in shared.values())
        pairs = Counter("/".join(split for split in SPLITS if split in counts) for counts in shared.values())
        detail = ", ".join(f"{pair} {count}" for pair, count in sorted(pairs.items()))
        warnings.warn(
            f"{len(shared)} of {len(splits)} groups (field {group_field!r}, {records} records) occur in more than one "
            f"split: {detail}. Test scores will be optimistic.",
            stacklevel=4,
        )
    return len(shared)
