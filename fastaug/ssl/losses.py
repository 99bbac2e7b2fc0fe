"""Contrastive losses.

``nt_xent`` follows Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (2020), eq. 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class _Gather(torch.autograd.Function):
    """Concatenate equal-sized tensors of all processes along dim 0; the gradient sums what every process sends back.

    Without the sum each process would only learn from its own anchors and the gradient would be too small
    (the fault of several published implementations). ``torch.distributed.nn.functional.all_gather`` does the same
    but is deprecated.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        summed = grads[0].contiguous()
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


def gather(local: Tensor) -> Tensor:
    """All processes' (n, ...) as (world * n, ...), in rank order, differentiable; n must be the same on all."""
    result: Tensor = _Gather.apply(local)
    return result


def _gather_ids(local: Tensor) -> Tensor:
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


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
    if across_processes is None:
        across_processes = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if groups is not None and groups.shape != z_i.shape[:1]:
        raise ValueError(f"nt_xent: groups must be ({len(z_i)},), got {tuple(groups.shape)}")
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
    if groups is not None:
        all_groups = _gather_ids(groups) if across_processes else groups
        same = (groups[:, None] == all_groups) & (groups[:, None] >= 0)
        left_out = same.repeat(2, 2).scatter(1, partner[:, None], False)
    logits = logits.masked_fill(left_out.scatter(1, itself[:, None], True), float("-inf"))
    return F.cross_entropy(logits, partner)
