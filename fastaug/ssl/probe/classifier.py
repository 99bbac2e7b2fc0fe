"""The classifier of a network that is trained as a whole: an encoder, and layers on it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastaug.ssl.cola import cola_head
from fastaug.ssl.probe.projectors import load_projector
from fastaug.ssl.probe.protocols import Protocol

__all__ = ["Classifier", "checkpoints_projection", "projection"]

DROPOUT = 0.1  # of COLA's projection in the experiments on FMA


class Classifier(nn.Module):
    """An encoder and a head on it: input -> logits (B, n).

    Args:
        hidden: widths of the head's hidden layers, each followed by a ReLU.
        first: takes the place of the first of them.
    """

    def __init__(
        self, encoder: nn.Module, dim: int, classes: int, hidden: Sequence[int] = (), first: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        widths = [dim, *hidden]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        self.head = nn.Sequential(*([] if first is None else [first]), *layers[first is not None :])
        self.head.append(nn.Linear(widths[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x))
        return logits


def projection(dim: int, width: int) -> nn.Module:
    """COLA's, with new weights: (B, dim) -> (B, width)."""
    return cola_head(dim, width, DROPOUT)


def checkpoints_projection(path: str | Path | None, card: dict[str, Any], protocol: Protocol) -> nn.Module | None:
    """A checkpoint's COLA projection, where the protocol's classifier begins with one of its width."""
    if path is None or not protocol.network_tanh:
        return None
    try:
        found = load_projector(path, card)
    except ValueError:  # none: the identity
        return None
    if not isinstance(found, nn.Sequential) or found[1].out_features != protocol.network_hidden[0]:
        return None
    found[0] = nn.Dropout(DROPOUT)
    return found
