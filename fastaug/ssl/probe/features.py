"""Frozen features of labelled clips, segment by segment, and what makes comparing them fair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastaug.ssl.metrics import labelled


@dataclass
class Features:
    """Frozen features of the segments of some clips.

    Attributes:
        values: float32 (N, D), one row per segment.
        clip: int64 (N,), which clip each row belongs to.
        labels: of the clips, as in ``Batch.labels``.
        keys: of the clips.
        turn: int64 (N,), for several random crops a clip the epoch that a row is for; zeros otherwise (the default).
    """

    values: Tensor
    clip: Tensor
    labels: Tensor
    keys: list[str]
    turn: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        if not len(self.turn):
            self.turn = torch.zeros(len(self.clip), dtype=torch.int64)
        if not len(self.values) == len(self.clip) == len(self.turn):
            raise ValueError(f"Features: {len(self.values)} values, {len(self.clip)} clips, {len(self.turn)} turns")

    def select(self, clips: Tensor) -> Features:
        """The features of some clips, given as indices."""
        new = torch.full((len(self.keys),), -1)
        new[clips] = torch.arange(len(clips))
        rows = new[self.clip] >= 0
        keys = [self.keys[i] for i in clips.tolist()]
        return Features(self.values[rows], new[self.clip[rows]], self.labels[clips], keys, self.turn[rows])

    def segments(self, rows: Tensor) -> Features:
        """Some segments, given as indices, of the same clips."""
        return Features(self.values[rows], self.clip[rows], self.labels, self.keys, self.turn[rows])

    def pooled(self) -> Features:
        """One row a clip (and turn): the mean of its segments."""
        turns = int(self.turn.max()) + 1 if len(self.turn) else 1
        place = self.turn * len(self.keys) + self.clip
        used, row = place.unique(return_inverse=True)
        sums = torch.zeros(len(used), self.values.shape[1]).index_add_(0, row, self.values)
        means = sums / torch.bincount(row, minlength=len(used))[:, None]
        turn = used // len(self.keys) if turns > 1 else torch.zeros_like(used)
        return Features(means, used % max(len(self.keys), 1), self.labels, self.keys, turn)

    def drop_unlabelled(self) -> Features:
        return self.select(labelled(self.labels).nonzero()[:, 0])


def join(turns: Sequence[Features]) -> Features:
    """Features of the same clips, cropped anew for each turn, as one."""
    first = turns[0]
    place = {key: i for i, key in enumerate(first.keys)}
    clip = [torch.tensor([place[key] for key in t.keys])[t.clip] for t in turns]
    turn = [torch.full((len(t.clip),), i) for i, t in enumerate(turns)]
    return Features(torch.cat([t.values for t in turns]), torch.cat(clip), first.labels, first.keys, torch.cat(turn))


def extract(batches: Iterable[Any], encoders: dict[str, Callable[[Any], Tensor]]) -> dict[str, Features]:
    """Features of all segments under several encoders, decoding everything once.

    Args:
        batches: of a labelled Pipeline with ``crop="segments"``.
        encoders: name -> function of a Batch, giving (B, D); called without gradient.
    """
    number: dict[str, int] = {}
    values: dict[str, list[Tensor]] = {name: [] for name in encoders}
    clip: list[int] = []
    labels: list[Tensor] = []
    for batch in batches:
        if batch.labels is None:
            raise ValueError("a probe needs labels; the batches have none")
        for row, key in enumerate(batch.keys):
            if key not in number:
                number[key] = len(number)
                labels.append(batch.labels[row].cpu())
            clip.append(number[key])
        with torch.no_grad():
            for name, encoder in encoders.items():
                values[name].append(encoder(batch).float().cpu())
    if not clip:
        raise ValueError("nothing to extract features from: the split gave no batch")
    index, stacked = torch.tensor(clip), torch.stack(labels)
    return {name: Features(torch.cat(v), index, stacked, list(number)) for name, v in values.items()}


def logmel_statistics(spectrograms: Tensor) -> Tensor:
    """Mean and deviation over time of log-mel bands, deviation of their change: (B, C, F, N) -> (B, 3CF).

    The baseline that needs no learning; what a network adds must be seen beside it.
    """
    mean, std = spectrograms.mean(-1), spectrograms.std(-1, correction=0)
    return torch.cat([mean, std, spectrograms.diff(dim=-1).std(-1, correction=0)], dim=1).flatten(1)


@torch.no_grad()
def calibrate_batch_norm(encoder: nn.Module, inputs: Iterable[Tensor]) -> nn.Module:
    """Give a (randomly initialised) encoder true batch-norm statistics: the average over ``inputs``, weights untouched.

    Without it a random encoder in eval mode normalises by mean 0 and variance 1 and loses for the wrong reason.
    Returns the encoder in eval mode.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    encoder.train()
    for x in inputs:
        encoder(x)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return encoder.eval()
