"""Contrastive losses.

``nt_xent`` follows Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (2020), eq. 1;
``pair_cross_entropy`` Saeed et al., "Contrastive Learning of General-Purpose Audio Representations" (2021).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _all(local: Tensor) -> Tensor:
    """All processes' (n, ...) as (world * n, ...), in rank order, without a gradient."""
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """Concatenate equal-sized tensors of all processes along dim 0; the gradient sums what every process sends back.

    Without the sum each process would only learn from its own anchors and the gradient would be too small
    (the fault of several published implementations). ``torch.distributed.nn.functional.all_gather`` does the same
    but is deprecated.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return _all(local)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        summed = grads[0].contiguous()
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


def gather(local: Tensor) -> Tensor:
    """All processes' (n, ...) as (world * n, ...), in rank order, differentiable; n must be the same on all."""
    result: Tensor = _Gather.apply(local)
    return result


def group_ids(values: Sequence[Any], device: torch.device | str = "cpu") -> Tensor:
    """int64 (B,) ids that are equal where the values of a field are, the same in every process; -1 for None.

    63 bits of a hash, so that two of a million values get one id with a probability of 5e-8.
    """

    def number(value: Any) -> int:
        return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "little") >> 1

    return torch.tensor([-1 if v is None else number(v) for v in values], dtype=torch.int64, device=device)


def nt_xent(
    z_i: Tensor,
    z_j: Tensor,
    temperature: float = 0.5,
    across_processes: bool | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Normalised-temperature cross entropy: each view must find its partner among all other views.

    Args:
        z_i, z_j: (B, D) projections of two views, row b of one belonging to row b of the other; need not be normalised.
        temperature: divides the cosine similarities, > 0.
        across_processes: also contrast with the views of all other processes. None: if torch.distributed runs with
            more than one process.
        groups: int64 (B,), e.g. of `group_ids`: examples of one group, say crops of one song, are not each other's
            negatives. Negative numbers mean no group.

    Returns:
        The mean over this process's 2B anchors, 0-dimensional. The mean of that over processes, which is what
        DistributedDataParallel's averaged gradient belongs to, is the loss of the joined batch, gradient included.

    Memory is O(local anchors x all views): anchors stay local, only the keys are gathered.
    """
    if z_i.ndim != 2 or z_i.shape != z_j.shape:
        raise ValueError(f"nt_xent: z_i and z_j must both be (B, D), got {tuple(z_i.shape)} and {tuple(z_j.shape)}")
    if not temperature > 0:
        raise ValueError(f"nt_xent: temperature must be > 0, got {temperature}")
    across_processes = _several_processes() if across_processes is None else across_processes
    same = _same_group("nt_xent", groups, len(z_i), across_processes)
    # At least float32, even under autocast: similarities / temperature exceed what half precision resolves.
    z_i, z_j = (F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1) for z in (z_i, z_j))
    rows = len(z_i)
    offset = dist.get_rank() * rows if across_processes else 0
    keys_i, keys_j = (gather(z_i), gather(z_j)) if across_processes else (z_i, z_j)
    total = len(keys_i)
    logits = torch.cat([z_i, z_j]) @ torch.cat([keys_i, keys_j]).T / temperature  # (2B, 2 * total)

    own = torch.arange(rows, device=z_i.device) + offset
    itself = torch.cat([own, own + total])
    partner = torch.cat([own + total, own])
    left_out = torch.zeros_like(logits, dtype=torch.bool)
    if same is not None:
        left_out = same.repeat(2, 2).scatter(1, partner[:, None], False)
    logits = logits.masked_fill(left_out.scatter(1, itself[:, None], True), float("-inf"))
    return F.cross_entropy(logits, partner)


def _same_group(name: str, groups: Tensor | None, rows: int, across_processes: bool) -> Tensor | None:
    """bool (rows, all rows): which examples of all processes share the group of each of this process's."""
    if groups is None:
        return None
    if groups.shape != (rows,):
        raise ValueError(f"{name}: groups must be ({rows},), got {tuple(groups.shape)}")
    return (groups[:, None] == (_all(groups) if across_processes else groups)) & (groups[:, None] >= 0)


def pair_cross_entropy(
    queries: Tensor,
    keys: Tensor,
    temperature: float | None = None,
    across_processes: bool | None = None,
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of finding each row's own key among the keys of the whole batch; one direction, as published.

    Args:
        queries, keys: (B, D), row b of one belonging to row b of the other.
        temperature: None: logits are the plain inner products (the bilinear similarity). Else cosine similarities are
            divided by it, > 0; 0.2 in the published code.
        across_processes: also contrast with the keys of all other processes. None: if torch.distributed runs with more
            than one process.
        groups: int64 (B,), as for `nt_xent`: other keys of a query's group are no negatives of it.

    Returns:
        The mean over this process's B queries, whose mean over processes is the loss of the joined batch, gradient
        included; and the share of queries whose own key scores highest, in [0, 1]. Both 0-dimensional.
    """
    if temperature is not None and not temperature > 0:
        raise ValueError(f"pair_cross_entropy: temperature must be > 0, got {temperature}")
    unit = temperature is not None
    queries, keys, own, left_out = _joined("pair_cross_entropy", queries, keys, unit, across_processes, groups)
    logits = (queries @ keys.T / (temperature or 1.0)).masked_fill(left_out, float("-inf"))
    found = (logits.detach().argmax(1) == own).float().mean()
    return F.cross_entropy(logits, own), found


def triplet(
    queries: Tensor,
    keys: Tensor,
    margin: float = 0.5,
    across_processes: bool | None = None,
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Hinge on squared distances of unit vectors: the own key must be closer than every other key, by ``margin``.

    The mean over all (query, other key) pairs, satisfied ones included; with ``groups`` over queries of the mean over
    the keys that are left to each, 0 where none is. Arguments and results as `pair_cross_entropy`;
    margin > 0, in squared distance (0 to 4). Needs two examples or more, over all processes.
    """
    if not margin > 0:
        raise ValueError(f"triplet: margin must be > 0, got {margin}")
    queries, keys, own, left_out = _joined("triplet", queries, keys, True, across_processes, groups)
    if len(keys) < 2:
        raise ValueError("triplet: a single pair has nothing to be told from; use a batch of two or more")
    distance = 2 - 2 * queries @ keys.T
    positive = distance.gather(1, own[:, None])
    left_out = left_out.scatter(1, own[:, None], True)
    hinge = F.relu(margin + positive - distance).masked_fill(left_out, 0.0)
    nearest = distance.detach().masked_fill(left_out, float("inf")).scatter(1, own[:, None], positive.detach())
    found = (nearest.argmin(1) == own).float().mean()
    return (hinge.sum(1) / (~left_out).sum(1).clamp(min=1)).mean(), found


def _joined(
    name: str, queries: Tensor, keys: Tensor, unit: bool, across_processes: bool | None, groups: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries of this process, keys of all, where each query's own key is, and bool (B, keys) which others of its
    group to leave out; float32 even under autocast."""
    if queries.ndim != 2 or queries.shape != keys.shape:
        shapes = f"{tuple(queries.shape)} and {tuple(keys.shape)}"
        raise ValueError(f"{name}: queries and keys must both be (B, D), got {shapes}")
    across_processes = _several_processes() if across_processes is None else across_processes
    same = _same_group(name, groups, len(queries), across_processes)
    queries, keys = queries.float(), keys.float()
    if unit:
        queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    own = torch.arange(len(queries), device=queries.device)
    if across_processes:
        keys, own = gather(keys), own + dist.get_rank() * len(queries)
    if same is None:
        left_out = torch.zeros(len(queries), len(keys), dtype=torch.bool, device=queries.device)
    else:
        left_out = same.scatter(1, own[:, None], False)
    return queries, keys, own, left_out
