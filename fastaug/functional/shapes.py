"""What an effect takes and gives back: any float dtype and one to three dimensions, computed as a float32 batch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Quantity", "as_batch", "like", "own"]

#: One value an example.
Quantity = float | Tensor


def as_batch(x: Tensor, dims: int = 3) -> Tensor:
    """``x`` as float32 with ``dims`` dimensions, leading ones added."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"samples must be a float tensor, got {x.dtype if isinstance(x, Tensor) else type(x).__name__}")
    if x.dim() == dims:
        return x.float()
    if not dims - 2 <= x.dim() <= dims:
        raise ValueError(f"samples must have {dims - 2} to {dims} dimensions, got shape {tuple(x.shape)}")
    return x.float().reshape(*[1] * (dims - x.dim()), *x.shape)


def own(x: Tensor, inplace: bool) -> bool:
    """True if what `as_batch` made of ``x`` may be written: the caller allows it, or it is a copy of another dtype."""
    return inplace or x.dtype != torch.float32


def like(out: Tensor, x: Tensor) -> Tensor:
    """``out`` with the dtype and the number of dimensions of ``x``."""
    if out.dtype != x.dtype:
        out = out.to(x.dtype)
    if out.dim() == x.dim():
        return out
    return out.reshape(out.shape[out.dim() - x.dim() :])
