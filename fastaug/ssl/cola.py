"""COLA: an anchor crop must find another crop of its clip, under a similarity that is learnt too (`losses` has it).

Saeed, Grangier and Zeghidour, "Contrastive Learning of General-Purpose Audio Representations" (ICASSP 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Cola", "cola_head"]


def cola_head(dim: int, projection_dim: int = 512, dropout: float = 0.0) -> nn.Sequential:
    """From h to z: tanh(LayerNorm(linear(dropout(h)))), (B, dim) -> (B, projection_dim)."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, projection_dim), nn.LayerNorm(projection_dim), nn.Tanh())


class Cola(nn.Module):
    """Encoder, head and similarity as one module, so that DistributedDataParallel sees a single forward: two crops of
    each example (2, B, ...) -> (3, B, D): what first crops ask with, first crops, second crops.

    A crop is z = tanh(LayerNorm(linear(dropout(encoder(x))))); a first crop asks with z W where ``bilinear``, so that
    the inner product with a second crop z' is the similarity z W z', else with z itself.

    Args:
        dropout: share of h that training zeroes. 0.1 in the experiments on FMA; none in the published code.
    """

    def __init__(
        self, encoder: nn.Module, dim: int, projection_dim: int = 512, dropout: float = 0.0, bilinear: bool = True
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = cola_head(dim, projection_dim, dropout)
        self.similarity = nn.Linear(projection_dim, projection_dim, bias=False) if bilinear else None
        if self.similarity is not None:
            # A tenth of the published code's (Keras's 0.05), whose first logits are so large that short runs lose half
            # of what they learn: after 400 steps of the demo 65 instead of 45 % of the anchors find their crop.
            nn.init.normal_(self.similarity.weight, std=0.005)

    def forward(self, crops: Tensor) -> Tensor:
        first, second = self.projector(self.encoder(crops.flatten(0, 1))).chunk(2)
        return torch.stack([first if self.similarity is None else self.similarity(first), first, second])
