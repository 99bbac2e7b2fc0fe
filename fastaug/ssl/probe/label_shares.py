"""Few labels: which training clips keep theirs.

The choice is a function of the seed and the clips' keys alone, and nested: what 1 % holds, 10 % holds too. A share is
of *clips*. (A released code took a share of the segments of each distinct set of labels, at least one of each, and
called 4 % of the segments 1 %; `share_of_label_sets` repeats that for comparison.)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastaug.ssl.metrics import is_multi, labelled

__all__ = ["choose_share", "choose_shots", "share_of_label_sets"]


def choose_share(labels: Tensor, keys: Sequence[str], classes: Sequence[str], share: float, seed: int = 0) -> Tensor:
    """int64 indices, ascending, of ⌊share · labelled clips + 0.5⌋ clips.

    With one label a clip the classes keep their proportions as nearly as whole clips allow; with several, clips are
    drawn at random.

    Args:
        labels: of the training clips, as in ``Batch.labels``; unlabelled ones are never chosen.
        share: 0 < share <= 1.

    Raises:
        ValueError: a share outside (0, 1], or one that would leave out a class that the training clips have; names the
            class and the least share that holds every class.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of labels must lie in (0, 1], got {share:g}")
    order = _order(labels, keys, seed)
    count = math.floor(share * len(order) + 0.5)
    chosen = order[:count]
    present = _hot(labels, len(classes))
    missing = ((present[order].sum(0) > 0) & (present[chosen].sum(0) == 0)).nonzero()[:, 0].tolist()
    if missing:
        last = max(missing, key=lambda c: _first(present, order, c))
        least = (_first(present, order, last) + 1) / len(order)
        raise ValueError(
            f"{100 * share:g} % of {len(order)} labelled clips is {count}, without any of class {classes[last]!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + f" (seed {seed}); the least share with every class is {math.ceil(1e4 * least) / 1e4:g}"
        )
    return chosen.sort().values


def choose_shots(labels: Tensor, keys: Sequence[str], classes: Sequence[str], shots: int, seed: int = 0) -> Tensor:
    """int64 indices, ascending: ``shots`` clips of each class.

    With several labels a clip, the first ``shots`` clips of every tag in one random order, taken together: at least so
    many of each.

    Raises:
        ValueError: fewer than one shot, or a class with fewer clips; names it.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, got {shots}")
    order, present = _hashed(labels, keys, seed), _hot(labels, len(classes))
    chosen: set[int] = set()
    for c, name in enumerate(classes):
        of_class = order[present[order, c] > 0][:shots]
        if len(of_class) < shots:
            raise ValueError(f"{shots} shots: class {name!r} has {len(of_class)} labelled training clips")
        chosen.update(of_class.tolist())
    return torch.tensor(sorted(chosen))


def share_of_label_sets(labels: Tensor, clip: Tensor, share: float, seed: int = 0) -> Tensor:
    """Indices of segments, as released code chose them: max(1, ⌊share · n⌋ of the n segments of each set of labels).

    Args:
        labels: of the clips, as in ``Batch.labels``.
        clip: int64 (N,), the clip of each segment.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of labels must lie in (0, 1], got {share:g}")
    rows = labelled(labels)[clip].nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    _, kind = labels[clip[rows]].unique(dim=0, return_inverse=True)
    of_kind = [rows[kind == k] for k in kind.unique().tolist()]
    chosen = [some[: max(1, int(len(some) * share))] for some in of_kind]
    return torch.cat(chosen).sort().values if chosen else rows


def _hashed(labels: Tensor, keys: Sequence[str], seed: int) -> Tensor:
    """Labelled clips in the random order of a seed: that of a keyed hash of their keys."""
    of_seed = seed.to_bytes(8, "little", signed=True)
    digest = [hashlib.blake2b(key.encode("utf-8", "surrogateescape"), key=of_seed).digest() for key in keys]
    known = labelled(labels).nonzero()[:, 0].tolist()
    return torch.tensor(sorted(known, key=lambda i: (digest[i], keys[i])), dtype=torch.int64)


def _order(labels: Tensor, keys: Sequence[str], seed: int) -> Tensor:
    """The order whose beginnings are the shares."""
    order = _hashed(labels, keys, seed)
    if is_multi(labels):
        return order
    # Clip j of the n of its class stands at (j + 0.5) / n: every beginning holds all classes in proportion.
    place = torch.empty(len(order), dtype=torch.float64)
    for c in labels[order].unique().tolist():
        of_class = (labels[order] == c).nonzero()[:, 0]
        place[of_class] = (torch.arange(len(of_class), dtype=torch.float64) + 0.5) / len(of_class)
    return order[place.argsort(stable=True)]


def _hot(labels: Tensor, classes: int) -> Tensor:
    """(clips, classes) float: 1 where a clip has the label, 0 for unlabelled clips."""
    if is_multi(labels):
        return torch.nan_to_num(labels)
    hot = torch.zeros(len(labels), classes)
    known = labelled(labels)
    hot[known, labels[known]] = 1.0
    return hot


def _first(present: Tensor, order: Tensor, c: int) -> int:
    return int((present[order, c] > 0).nonzero()[0, 0])
