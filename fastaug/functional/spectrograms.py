"""Spectrograms (B, C, F, N)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaug.functional.shapes import as_batch, like

__all__ = ["mask_spectrogram"]


def mask_spectrogram(
    x: Tensor,
    freq_start: Tensor,
    freq_size: Tensor,
    time_start: Tensor,
    time_size: Tensor,
    fill: float | str = 0.0,
    *,
    active: Tensor | None = None,
) -> Tensor:
    """Bins [start, start + size) and frames likewise replaced, in every channel.

    Shapes: (B, C, F, N), (C, F, N) or (F, N), kept.

    Args:
        freq_start, freq_size, time_start, time_size: int64 (B, masks); size 0 is no mask.
        fill: a number, or "mean" for the example's mean.
    """
    batch = as_batch(x, 4)
    bins = _covered(batch.shape[2], freq_start, freq_size)
    frames = _covered(batch.shape[3], time_start, time_size)
    masked = bins[:, None, :, None] | frames[:, None, None, :]
    if active is not None:
        masked = masked & active[:, None, None, None]
    value: float | Tensor = (
        batch.mean((1, 2, 3), keepdim=True, dtype=torch.float64).to(batch.dtype) if isinstance(fill, str) else fill
    )
    return like(torch.where(masked, value, batch), x)


def _covered(size: int, start: Tensor, width: Tensor) -> Tensor:
    """bool (B, size): positions inside any of the intervals [start, start + width) of (B, masks)."""
    at = torch.arange(size, device=start.device)
    return ((at >= start[..., None]) & (at < (start + width)[..., None])).any(1)
