"""Masks and warps of spectrograms (B, C, F, N)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastaug.ops._library import active_rows, define, direct, native, pointer, threads

__all__ = ["mask", "warp"]

_THREADS, _TILE = 256, 4096  # of csrc/cuda/spec.cu


def mask(
    x: Tensor,
    freq_start: Tensor,
    freq_size: Tensor,
    time_start: Tensor,
    time_size: Tensor,
    fill: float | str = 0.0,
    valid: Tensor | None = None,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Bins [start, start + size) and frames likewise replaced, in every channel of a row.

    Args:
        x: (B, C, F, N) float32.
        freq_start, freq_size, time_start, time_size: int64 (B, masks); a size of 0 is no mask.
        fill: a number, or "mean" for the mean of the row's valid frames.
        valid: int64 (B,), valid frames of each row; all by default. Only the mean depends on it.
        active: bool (B,); rows that are False are copied. Default: all.
        inplace: the result may be written into `x`, which is then returned: a permission, not a promise. Then only
            what is masked is touched, but for the mean.

    Returns:
        (B, C, F, N) float32, a new tensor unless `inplace`. Differentiable in `x`.

    Raises:
        TypeError: `x` is not float32. ValueError: shapes do not fit, or an unknown fill.
    """
    x = _check(x)
    if isinstance(fill, str) and fill != "mean":
        raise ValueError(f'fill must be a number or "mean", got {fill!r}')
    bounds = [_intervals(freq_start, freq_size, x, "freq"), _intervals(time_start, time_size, x, "time")]
    value, mean = (0.0, True) if isinstance(fill, str) else (float(fill), False)
    if valid is not None:
        valid = valid.to(device=x.device, dtype=torch.int64).contiguous()
    args = (x, *bounds[0], *bounds[1], value, mean, valid, active_rows(active, x))
    if direct(x, *bounds[0], *bounds[1], valid, active):
        return _mask_cpu(*args, inplace=inplace)
    if inplace and direct(x, *bounds[0], *bounds[1], valid, active, cuda=True):
        return _mask_cuda(*args, inplace=True)
    return torch.ops.fastaug.spec_mask(*args)


def warp(
    x: Tensor,
    time_at: Tensor,
    freq_at: Tensor | None = None,
    time_range: Tensor | None = None,
    freq_range: Tensor | None = None,
    cubic: bool = False,
    active: Tensor | None = None,
) -> Tensor:
    """Spectrograms read at other positions of their axes, interpolated along time, then along frequency.

    Args:
        x: (B, C, F, N) float32.
        time_at: float32 (B, N), the position that each output frame is read at. freq_at: likewise (B, F), or None.
        time_range, freq_range: int64 (B, 2), first and last position that is used: those beyond are read as the
            nearest within. What lies outside the spectrogram is 0. Default: the whole axis.
        cubic: cubic convolution with a = -0.75 (Keys 1981; torch's "bicubic"), otherwise linear.
        active: bool (B,); rows that are False are copied. Default: all.

    Returns:
        (B, C, F, N) float32, a new tensor. Differentiable in `x`.

    Raises:
        TypeError: `x` is not float32. ValueError: shapes do not fit.
    """
    x = _check(x)
    rows, _, bins, frames = x.shape
    for name, value, width in (
        ("time_at", time_at, frames),
        ("freq_at", freq_at, bins),
        ("time_range", time_range, 2),
        ("freq_range", freq_range, 2),
    ):
        if value is not None and value.shape != (rows, width):
            raise ValueError(f"{name} must have shape {(rows, width)}, got {tuple(value.shape)}")
    times = time_at.to(x.device, torch.float32).contiguous()
    freqs = None if freq_at is None else freq_at.to(x.device, torch.float32).contiguous()
    ranges = [None if r is None else r.to(x.device, torch.int64).contiguous() for r in (freq_range, time_range)]
    args = (x, freqs, ranges[0], times, ranges[1], cubic, active_rows(active, x))
    if direct(x, freqs, times, *ranges, active):
        return _warp_cpu(*args)
    return torch.ops.fastaug.spec_warp(*args)


def _check(x: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        raise TypeError(f"x must be float32, got {x.dtype}")
    if x.dim() != 4:
        raise ValueError(f"x must have shape (B, C, F, N), got {tuple(x.shape)}")
    return x.contiguous()


def _intervals(start: Tensor, size: Tensor, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    for value in (start, size):
        if value.dim() != 2 or value.shape != (len(x), start.shape[1]):
            expected = f"({len(x)}, masks)"
            raise ValueError(f"{name}_start and {name}_size must have shape {expected}, got {tuple(value.shape)}")
    return start.to(x.device, torch.int64).contiguous(), size.to(x.device, torch.int64).contiguous()


def _mask_cpu(
    x: Tensor,
    freq_start: Tensor,
    freq_size: Tensor,
    time_start: Tensor,
    time_size: Tensor,
    fill: float,
    mean: bool,
    valid: Tensor | None,
    active: Tensor | None,
    inplace: bool = False,
) -> Tensor:
    x = x.contiguous()
    y = x if inplace else torch.empty_like(x)
    freq = (pointer(freq_start), pointer(freq_size), freq_start.shape[1])
    time = (pointer(time_start), pointer(time_size), time_start.shape[1])
    flags = (fill, int(mean), pointer(valid), pointer(active))
    native().fa_spec_mask(pointer(x), pointer(y), *freq, *time, *flags, *x.shape, threads(x.numel()))
    return y


def _mask_cuda(
    x: Tensor,
    freq_start: Tensor,
    freq_size: Tensor,
    time_start: Tensor,
    time_size: Tensor,
    fill: float,
    mean: bool,
    valid: Tensor | None,
    active: Tensor | None,
    inplace: bool = False,
) -> Tensor:
    from fastaug.ops._cuda import launch

    x = x.contiguous()
    y = x if inplace else torch.empty_like(x)
    if x.numel() == 0:
        return y
    rows, channels, bins, frames = x.shape
    means = x.new_empty(rows) if mean else None
    if means is not None:
        args = (x, means, valid, active, channels * bins, frames)
        launch("spec.cu", "fa_spec_mean_kernel", (rows,), (_THREADS,), args)
    freq, time = (freq_start, freq_size, freq_start.shape[1]), (time_start, time_size, time_start.shape[1])
    blocks = rows * -(-channels * bins * frames // _TILE)
    tail = (fill, means, active, channels, bins, frames)
    launch("spec.cu", "fa_spec_mask_kernel", (blocks,), (_THREADS,), (x, y, *freq, *time, *tail))
    return y


def _mask_fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _mask_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *bounds, _, ctx.mean, valid, active = inputs
    ctx.frames = x.shape[-1]
    ctx.save_for_backward(*bounds, valid, active)


def _mask_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """What is masked has no gradient of its own; the mean hands on what its copies got, in equal shares."""
    *bounds, valid, active = ctx.saved_tensors
    kept = torch.ops.fastaug.spec_mask(gradient, *bounds, 0.0, False, None, active)
    if ctx.mean:
        sound = torch.full((len(gradient),), ctx.frames, device=gradient.device) if valid is None else valid
        sound = sound.clamp(0, ctx.frames)
        lines = gradient.shape[1] * gradient.shape[2]
        share = (gradient - kept).sum((1, 2, 3), dtype=torch.float64) / (lines * sound).clamp(min=1)
        inside = torch.arange(ctx.frames, device=gradient.device) < sound[:, None]
        kept = kept + (share[:, None] * inside).to(kept.dtype)[:, None, None, :]
    return kept, *[None] * 8


define(
    "spec_mask(Tensor x, Tensor freq_start, Tensor freq_size, Tensor time_start, Tensor time_size, float fill, "
    "bool mean, Tensor? valid, Tensor? active) -> Tensor",
    cpu=_mask_cpu,
    cuda=_mask_cuda,
    fake=_mask_fake,
    backward=_mask_backward,
    setup_context=_mask_context,
)


def _warp_cpu(
    x: Tensor,
    freq_at: Tensor | None,
    freq_range: Tensor | None,
    time_at: Tensor,
    time_range: Tensor | None,
    cubic: bool,
    active: Tensor | None,
) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    axes = (pointer(freq_at), pointer(freq_range), pointer(time_at), pointer(time_range))
    native().fa_spec_warp(
        pointer(x), pointer(y), *axes, int(cubic), pointer(active), *x.shape, threads(x.numel())
    )  # fmt: skip
    return y


def _warp_cuda(
    x: Tensor,
    freq_at: Tensor | None,
    freq_range: Tensor | None,
    time_at: Tensor,
    time_range: Tensor | None,
    cubic: bool,
    active: Tensor | None,
) -> Tensor:
    from fastaug.ops._cuda import launch

    x = x.contiguous()
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    rows, channels, bins, frames = x.shape
    blocks = rows * -(-channels * bins * frames // _TILE)
    args = (x, y, freq_at, freq_range, time_at, time_range, int(cubic), active, channels, bins, frames)
    launch("spec.cu", "fa_spec_warp_kernel", (blocks,), (_THREADS,), args)
    return y


def _warp_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, freq_at, freq_range, time_at, time_range, ctx.cubic, active = inputs
    ctx.save_for_backward(freq_at, freq_range, time_at, time_range, active)


def _warp_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    freq_at, freq_range, time_at, time_range, active = ctx.saved_tensors
    time = _dense(time_at, time_range, ctx.cubic, active)
    back = gradient @ time[:, None]
    if freq_at is not None:
        back = _dense(freq_at, freq_range, ctx.cubic, active).mT[:, None] @ back
    return back, *[None] * 6


def _dense(at: Tensor, bounds: Tensor | None, cubic: bool, active: Tensor | None) -> Tensor:
    """The interpolation along one axis as matrices (B, outputs, inputs); identities for inactive rows."""
    size = at.shape[1]
    low = torch.zeros_like(at[:, :1]) if bounds is None else bounds[:, :1].to(at.dtype)
    high = torch.full_like(low, size - 1) if bounds is None else bounds[:, 1:].to(at.dtype)
    at = torch.minimum(torch.maximum(at, low), high)
    first = at.floor()
    t = at - first
    matrices = at.new_zeros(*at.shape, size)
    for k, distance in enumerate((1 + t, t, 1 - t, 2 - t)):
        near = k in (1, 2)
        if cubic:
            inner = ((1.25 * distance - 2.25) * distance) * distance + 1
            weight = inner if near else ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
        else:
            weight = (1 - distance) * near
        index = torch.minimum(torch.maximum(first + (k - 1), low), high).long()
        inside = (index >= 0) & (index < size)
        matrices.scatter_add_(2, index.clamp(0, size - 1)[..., None], (weight * inside)[..., None])
    if active is not None:
        matrices = torch.where(active[:, None, None], matrices, torch.eye(size, device=at.device))
    return matrices


define(
    "spec_warp(Tensor x, Tensor? freq_at, Tensor? freq_range, Tensor time_at, Tensor? time_range, bool cubic, "
    "Tensor? active) -> Tensor",
    cpu=_warp_cpu,
    cuda=_warp_cuda,
    fake=_mask_fake,
    backward=_warp_backward,
    setup_context=_warp_context,
)
