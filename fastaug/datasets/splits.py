"""Seeded splits that keep groups together and every label in proportion."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fastaug.shards.entries import SPLITS, Entry

__all__ = ["split_entries"]


def split_entries(
    entries: Iterable[Entry],
    *,
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    stratify: str | None = None,
    group_field: str | None = "group",
) -> list[Entry]:
    """Assigns train, valid and test.

    Groups (entries that share a value of ``group_field``; without one, each file is its own) are taken label by
    label, in an order hashed from the seed, and each goes to the split that is furthest behind its share. So the sizes
    are right to within a group, overall and within each label, and they do not depend on the order of the entries.

    Args:
        entries: their present splits are ignored.
        seed: of the order.
        fractions: shares of train, valid and test; they must sum to 1. ``(1, 0, 0)`` puts everything into train.
        stratify: field of the labels to keep in proportion (for a list, its first name).
        group_field: field that names the track or artist, which must not be divided.

    Raises:
        ValueError: the fractions are negative or do not sum to 1.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1.0) > 1e-6:
        raise ValueError(f"fractions must be three shares that sum to 1, got {tuple(fractions)}")
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        group = entry.fields.get(group_field) if group_field else None
        groups.setdefault(f"file/{entry.path}" if group is None else f"group/{group}", []).append(entry)
    ordered = sorted(groups, key=lambda name: (_stratum(groups[name], stratify), _hash(seed, name)))
    total, sizes, chosen = 0, [0] * len(SPLITS), []
    for name in ordered:
        total += len(groups[name])
        behind = [share * total - size for share, size in zip(fractions, sizes, strict=True)]
        # A split of share 0 is never chosen, not even when a large group has put all others ahead.
        best = max((i for i in range(len(SPLITS)) if fractions[i] > 0), key=lambda i: behind[i])
        sizes[best] += len(groups[name])
        chosen += [replace(entry, split=SPLITS[best]) for entry in groups[name]]
    return chosen


def _stratum(entries: list[Entry], stratify: str | None) -> str:
    """The commonest label of a group; "" without one."""
    if stratify is None:
        return ""
    labels = [entry.fields.get(stratify) for entry in entries]
    names = [str(label[0] if isinstance(label, (list, tuple)) else label) for label in labels if label]
    if not names:
        return ""
    return min(Counter(names).items(), key=lambda item: (-item[1], item[0]))[0]


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/split/{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
