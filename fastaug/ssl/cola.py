"""COLA: an anchor crop must find another crop of its clip, under a similarity that is learnt too.

Saeed, Grangier and Zeghidour, "Contrastive Learning of General-Purpose Audio Representations" (ICASSP 2021).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from fastaug.ssl.losses import gather

__all__ = ["Cola", "pair_cross_entropy", "triplet"]


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
        self.projector = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(dim, projection_dim), nn.LayerNorm(projection_dim), nn.Tanh()
        )
        self.similarity = nn.Linear(projection_dim, projection_dim, bias=False) if bilinear else None
        if self.similarity is not None:
            # A tenth of the published code's (Keras's 0.05), whose first logits are so large that short runs lose half
            # of what they learn: after 400 steps of the demo 65 instead of 45 % of the anchors find their crop.
            nn.init.normal_(self.similarity.weight, std=0.005)

    def forward(self, crops: Tensor) -> Tensor:
        first, second = self.projector(self.encoder(crops.flatten(0, 1))).chunk(2)
        return torch.stack([first if self.similarity is None else self.similarity(first), first, second])


def pair_cross_entropy(
    queries: Tensor, keys: Tensor, temperature: float | None = None, across_processes: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Cross entropy of finding each row's own key among the keys of the whole batch; one direction, as published.

    Args:
        queries, keys: (B, D), row b of one belonging to row b of the other.
        temperature: None: logits are the plain inner products (the bilinear similarity). Else cosine similarities are
            divided by it, > 0; 0.2 in the published code.
        across_processes: also contrast with the keys of all other processes. None: if torch.distributed runs with more
            than one process.

    Returns:
        The mean over this process's B queries, whose mean over processes is the loss of the joined batch, gradient
        included; and the share of queries whose own key scores highest, in [0, 1]. Both 0-dimensional.
    """
    queries, keys, own = _joined("pair_cross_entropy", queries, keys, temperature is not None, across_processes)
    if temperature is not None and not temperature > 0:
        raise ValueError(f"pair_cross_entropy: temperature must be > 0, got {temperature}")
    logits = queries @ keys.T / (temperature or 1.0)
    found = (logits.detach().argmax(1) == own).float().mean()
    return F.cross_entropy(logits, own), found


def triplet(
    queries: Tensor, keys: Tensor, margin: float = 0.5, across_processes: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Hinge on squared distances of unit vectors: the own key must be closer than every other key, by ``margin``.

    The mean over all (query, other key) pairs, satisfied ones included. Arguments and results as `pair_cross_entropy`;
    margin > 0, in squared distance (0 to 4). Needs two examples or more, over all processes.
    """
    if not margin > 0:
        raise ValueError(f"triplet: margin must be > 0, got {margin}")
    queries, keys, own = _joined("triplet", queries, keys, True, across_processes)
    if len(keys) < 2:
        raise ValueError("triplet: a single pair has nothing to be told from; use a batch of two or more")
    distance = 2 - 2 * queries @ keys.T
    positive = distance.gather(1, own[:, None])
    hinge = F.relu(margin + positive - distance).scatter(1, own[:, None], 0.0)
    found = (distance.detach().argmin(1) == own).float().mean()
    return hinge.sum(1).mean() / (len(keys) - 1), found


def _joined(
    name: str, queries: Tensor, keys: Tensor, unit: bool, across_processes: bool | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of this process, keys of all, and where each query's own key is; float32 even under autocast."""
    if queries.ndim != 2 or queries.shape != keys.shape:
        shapes = f"{tuple(queries.shape)} and {tuple(keys.shape)}"
        raise ValueError(f"{name}: queries and keys must both be (B, D), got {shapes}")
    if across_processes is None:
        across_processes = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    queries, keys = queries.float(), keys.float()
    if unit:
        queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    own = torch.arange(len(queries), device=queries.device)
    if across_processes:
        keys, own = gather(keys), own + dist.get_rank() * len(queries)
    return queries, keys, own
