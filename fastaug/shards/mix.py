"""Several sources as one, drawn from in proportion to weights."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastaug.shards.record import Record
from fastaug.shards.source import Source, digest_of

__all__ = ["Mix", "mix_sources"]


@dataclass(frozen=True)
class Mix:
    """A source for `Pipeline` that draws every example from one of several sources.

    Each source is gone through in its own order, shuffled in its own window, and begins again when it is used up;
    an epoch is as long as all of them together unless ``epoch_size`` says otherwise. Keys begin with the source's
    name: ``Mix({"fma": "fma/", "mtat": "mtat/"}, {"fma": 3, "mtat": 1})`` gives "fma/train-000000.tar/000017".

    Args:
        sources: name → anything that Pipeline takes as a source.
        weights: name → share, in any unit; None takes them in proportion to their sizes.

    Raises:
        ValueError: there are no sources, a name is empty or holds "/", or the weights do not fit.
    """

    sources: Mapping[str, Any]
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        bad = [name for name in self.sources if not name or "/" in name]
        if not self.sources or bad:
            raise ValueError(f"Mix takes one source or more, names without '/'; got {bad or 'none'}")
        if self.weights is not None and set(self.weights) != set(self.sources):
            raise ValueError(f"weights for {sorted(self.weights)}, but the sources are {sorted(self.sources)}")
        if self.weights is not None and not all(0 < weight < float("inf") for weight in self.weights.values()):
            raise ValueError(f"weights must be positive numbers, got {dict(self.weights)}")


def mix_sources(mix: Mix, opened: Sequence[Source]) -> Source:
    """One Source of the opened sources of a Mix, in its order.

    Raises:
        ValueError: a source is empty, or the sources disagree about the classes of a label.
    """
    names = list(mix.sources)
    empty = [name for name, source in zip(names, opened, strict=True) if not len(source)]
    if empty:
        raise ValueError(f"sources without records: {', '.join(empty)}")
    weights = [
        float(len(s)) if mix.weights is None else float(mix.weights[n]) for n, s in zip(names, opened, strict=True)
    ]
    first = list(itertools.accumulate((len(source) for source in opened), initial=0))
    parts = (names, list(opened), first)
    return Source(
        sizes=[size for source in opened for size in source.sizes],
        read=partial(_read, *parts),
        key=partial(_key, *parts),
        digest=digest_of(f"{n} {s.digest} {w!r}" for n, s, w in zip(names, opened, weights, strict=True)),
        bad=[bad for source in opened for bad in source.bad],
        label_info=_common_labels(names, opened),
        announce=partial(_announce, *parts),
        mixture=tuple((len(source.sizes), weight) for source, weight in zip(opened, weights, strict=True)),
    )


def _find(first: list[int], record: int) -> tuple[int, int]:
    source = bisect.bisect_right(first, record) - 1
    return source, record - first[source]


def _read(names: list[str], opened: list[Source], first: list[int], record: int) -> Record:
    source, own = _find(first, record)
    found = opened[source].read(own)
    return dataclasses.replace(found, key=f"{names[source]}/{found.key}")


def _announce(names: list[str], opened: list[Source], first: list[int], record: int) -> None:
    source, own = _find(first, record)
    if (announce := opened[source].announce) is not None:
        announce(own)


def _key(names: list[str], opened: list[Source], first: list[int], record: int) -> str:
    source, own = _find(first, record)
    return f"{names[source]}/{opened[source].key(own)}"


def _common_labels(names: Sequence[str], opened: Sequence[Source]) -> dict[str, dict[str, Any]]:
    """Labels that one source or more describe, in the same words."""
    known: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, source in zip(names, opened, strict=True):
        for label, info in source.label_info.items():
            other, found = known.setdefault(label, (name, info))
            if found != info:
                raise ValueError(
                    f"{other} and {name} disagree about the classes of {label!r}: "
                    "give records of one set of classes, or a label of another name"
                )
    return {label: info for label, (_, info) in known.items()}
