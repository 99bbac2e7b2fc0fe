"""Spectrograms (B, C, F, N)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaug.functional.shapes import Quantity, as_batch, like, own

__all__ = ["mask_spectrogram", "resized_crop", "time_warp"]


def mask_spectrogram(
    x: Tensor,
    freq_start: Tensor,
    freq_size: Tensor,
    time_start: Tensor,
    time_size: Tensor,
    fill: float | str = 0.0,
    *,
    lengths: Tensor | None = None,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Bins [start, start + size) and frames likewise replaced, in every channel.

    Shapes: (B, C, F, N), (C, F, N) or (F, N), kept.

    Args:
        freq_start, freq_size, time_start, time_size: int64 (B, masks); size 0 is no mask.
        fill: a number, or "mean" for the mean of the example's valid frames.
        lengths: int64 (B,), valid frames; the mean is theirs.
    """
    from fastaug.ops import spec

    bounds = (freq_start, freq_size, time_start, time_size)
    batch = as_batch(x, 4)
    return like(spec.mask(batch, *bounds, fill, lengths, active, own(x, inplace)), x)


def time_warp(
    x: Tensor,
    center: Quantity,
    shift: Quantity,
    *,
    lengths: Tensor | None = None,
    active: Tensor | None = None,
) -> Tensor:
    """Frame ``center`` of each spectrogram moved to ``center + shift``; both sides are stretched, the ends stay.

    Shapes: (B, C, F, N), (C, F, N) or (F, N), kept.

    Args:
        center, shift: frames; center + shift must lie inside, or the ends move.
        lengths: int64 (B,), valid frames: the last of them is an end, and those after it stay as they are.
    """
    from fastaug.ops import spec
    from fastaug.ops._library import row_values

    batch = as_batch(x, 4)
    last = row_values(batch.shape[-1] if lengths is None else lengths, batch, "lengths")[:, None] - 1
    old = row_values(center, batch, "center")[:, None]
    new = old + row_values(shift, batch, "shift")[:, None]
    frame = torch.arange(batch.shape[-1], device=batch.device)
    left = frame * (old / new.clamp(min=1))
    right = old + (frame - new) * ((last - old) / (last - new).clamp(min=1))
    at = torch.where(frame > last, frame, torch.where(frame <= new, left, right))
    return like(spec.warp(batch, at, active=active), x)


def resized_crop(
    x: Tensor,
    freq_start: Quantity,
    freq_size: Quantity,
    time_start: Quantity,
    time_size: Quantity,
    *,
    active: Tensor | None = None,
) -> Tensor:
    """A window of each spectrogram, which may reach beyond it into zeros, resized to the whole by cubic convolution.

    As `torch.nn.functional.interpolate(mode="bicubic", align_corners=True)` of the window.
    Shapes: (B, C, F, N), (C, F, N) or (F, N), kept.

    Args:
        freq_start, freq_size, time_start, time_size: the window in whole bins and frames; starts may be negative.
    """
    from fastaug.ops import spec
    from fastaug.ops._library import row_values

    batch = as_batch(x, 4)
    positions, ranges = [], []
    for size, start, width in ((batch.shape[2], freq_start, freq_size), (batch.shape[3], time_start, time_size)):
        first = row_values(start, batch, "start", torch.int64)[:, None]
        last = row_values(width, batch, "size", torch.int64)[:, None] - 1
        positions.append(first + torch.arange(size, device=batch.device) * (last / max(size - 1, 1)))
        ranges.append(torch.cat([first, first + last], dim=1))
    return like(spec.warp(batch, positions[1], positions[0], ranges[1], ranges[0], True, active), x)
