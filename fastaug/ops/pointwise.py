"""One pass over the samples: levels, echoes and windows, with values of its own for every example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastaug.ops._library import active_rows, check_samples, define, direct, pointer, row_values, threads
from fastaug.ops.fused import Pointwise, Scaling, cropping, run_cpu, run_cuda, scaling
from fastaug.ops.rows import call

__all__ = ["crop", "echo", "scale"]

_THREADS, _TILE = 256, 4096  # of csrc/cuda/pointwise.cu


def scale(
    x: Tensor, factor: float | Tensor, clip: bool = False, active: Tensor | None = None, inplace: bool = False
) -> Tensor:
    """``x * factor``, held within [-1, 1] if ``clip``.

    Args:
        x: (B, C, T) float32.
        factor: a number or (B,).
        active: bool (B,); rows that are False are copied. Default: all.
        inplace: the result may be written into `x`.

    Returns:
        (B, C, T) float32, new unless `inplace`. A NaN stays where it is. Differentiable in `x` and `factor`; a clipped
        sample has gradient 0.

    Raises:
        TypeError, ValueError: `x`, `factor` or `active` are not as above.
    """
    x = check_samples(x)
    if direct(x, factor if isinstance(factor, Tensor) else None, active):
        # before the factors: a small tensor would be put into the room that a result as large has just left
        y = x if inplace else torch.empty_like(x)
        return run_cpu(x, scaling(x, factor, clip, active), y)
    level = scaling(x, factor, clip, active).before
    return torch.ops.fastaug.scale(x, level.factor, clip, level.active)


def echo(
    x: Tensor,
    offset: int | Tensor,
    dry: float | Tensor = 1.0,
    wet: float | Tensor = 1.0,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """``y[t] = dry * x[t] + wet * x[t - offset]``, where x is zero outside its T samples.

    Args:
        x: (B, C, T) float32.
        offset: samples, a number or int64 (B,); a negative one lets the copy come first.
        dry, wet: numbers or (B,).
        active: bool (B,); rows that are False are copied. Default: all.
        inplace: the result may be written into `x`.

    Returns:
        (B, C, T) float32, new unless `inplace`. A NaN or Inf reaches its own sample and the one `offset` later.
        Differentiable in `x`, `dry` and `wet`.

    Raises:
        TypeError, ValueError: `x`, `offset`, `dry`, `wet` or `active` are not as above.
    """
    x = check_samples(x)
    if isinstance(offset, float) or (isinstance(offset, Tensor) and offset.is_floating_point()):
        raise TypeError(f"offset must be whole samples (an int or int64), got {getattr(offset, 'dtype', 'a float')}")
    offset = row_values(offset, x, "offset", torch.int64)
    dry, wet = row_values(dry, x, "dry"), row_values(wet, x, "wet")
    active = active_rows(active, x)
    if direct(x, offset, dry, wet, active):
        return _echo_cpu(x, offset, dry, wet, active, inplace)
    return torch.ops.fastaug.echo(x, offset, dry, wet, active)


def crop(x: Tensor, starts: int | Tensor, length: int) -> Tensor:
    """Samples [start, start + length) of every row, zeros outside its T samples.

    Args:
        x: (B, C, T) float32.
        starts: samples, a number or int64 (B,); may be negative.

    Returns:
        A new (B, C, length) float32 tensor. Differentiable in `x`.

    Raises:
        TypeError, ValueError: `x` or `starts` are not as above, or `length` is negative.
    """
    x = check_samples(x)
    steps = cropping(x, starts, length)
    if direct(x, steps.starts):
        return run_cpu(x, steps)
    return torch.ops.fastaug.crop(x, steps.starts, length)


def _scaled(factor: Tensor, clip: bool, active: Tensor | None) -> Pointwise:
    return Pointwise(before=Scaling(None, factor.contiguous(), active, clip))


def _scale_cpu(x: Tensor, factor: Tensor, clip: bool, active: Tensor | None) -> Tensor:
    return run_cpu(x, _scaled(factor, clip, active))


def _scale_cuda(x: Tensor, factor: Tensor, clip: bool, active: Tensor | None) -> Tensor:
    return run_cuda(x, _scaled(factor, clip, active))


def _echo_cpu(
    x: Tensor, offset: Tensor, dry: Tensor, wet: Tensor, active: Tensor | None, inplace: bool = False
) -> Tensor:
    x, offset, dry, wet = x.contiguous(), offset.contiguous(), dry.contiguous(), wet.contiguous()
    y = x if inplace else torch.empty_like(x)
    values = (offset.data_ptr(), dry.data_ptr(), wet.data_ptr(), pointer(active))
    kept = (x, y, offset, dry, wet, active)
    call("fa_echo", x.data_ptr(), y.data_ptr(), *values, *x.shape, threads(x.numel()), keep=kept)
    return y


def _echo_cuda(x: Tensor, offset: Tensor, dry: Tensor, wet: Tensor, active: Tensor | None) -> Tensor:
    from fastaug.ops._cuda import launch

    x, offset, dry, wet = x.contiguous(), offset.contiguous(), dry.contiguous(), wet.contiguous()
    y = torch.empty_like(x)
    rows, channels, length = x.shape
    if y.numel():
        grid = (rows * channels * -(-length // _TILE),)
        args = (x, y, offset, dry, wet, active, channels, length)
        launch("pointwise.cu", "fa_echo_kernel", grid, (_THREADS,), args)
    return y


def _crop_cpu(x: Tensor, starts: Tensor, length: int) -> Tensor:
    return run_cpu(x, Pointwise(starts.contiguous(), length))


def _crop_cuda(x: Tensor, starts: Tensor, length: int) -> Tensor:
    return run_cuda(x, Pointwise(starts.contiguous(), length))


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _crop_fake(x: Tensor, starts: Tensor, length: int) -> Tensor:
    return x.new_empty(*x.shape[:2], length)


def _scale_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, factor, ctx.clip, active = inputs
    ctx.save_for_backward(x if ctx.clip or ctx.needs_input_grad[1] else None, factor, active)


def _scale_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, factor, active = ctx.saved_tensors
    if ctx.clip:
        inside = (x * factor[:, None, None]).abs() <= 1
        gradient = torch.where(inside if active is None else inside | ~active[:, None, None], gradient, 0.0)
    of_factor = _row_sums(gradient * x, active) if ctx.needs_input_grad[1] else None
    return torch.ops.fastaug.scale(gradient, factor, False, active), of_factor, None, None


def _echo_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, offset, dry, wet, active = inputs
    ctx.save_for_backward(x if any(ctx.needs_input_grad[2:4]) else None, offset, dry, wet, active)


def _echo_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The adjoint of a delay is the same delay backwards in time."""
    x, offset, dry, wet, active = ctx.saved_tensors
    of_x = torch.ops.fastaug.echo(gradient, -offset, dry, wet, active)
    of_dry = _row_sums(gradient * x, active) if ctx.needs_input_grad[2] else None
    of_wet = None
    if ctx.needs_input_grad[3]:
        of_wet = _row_sums(gradient * torch.ops.fastaug.crop(x, -offset, x.shape[-1]), active)
    return of_x, None, of_dry, of_wet, None


def _row_sums(products: Tensor, active: Tensor | None) -> Tensor:
    sums = products.sum((1, 2), dtype=torch.float64).float()
    return sums if active is None else torch.where(active, sums, 0.0)


def _crop_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, starts, _ = inputs
    ctx.length = x.shape[-1]
    ctx.save_for_backward(starts)


def _crop_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (starts,) = ctx.saved_tensors
    return torch.ops.fastaug.crop(gradient, -starts, ctx.length), None, None


define(
    "scale(Tensor x, Tensor factor, bool clip, Tensor? active) -> Tensor",
    cpu=_scale_cpu,
    cuda=_scale_cuda,
    fake=_fake,
    backward=_scale_backward,
    setup_context=_scale_context,
)
define(
    "echo(Tensor x, Tensor offset, Tensor dry, Tensor wet, Tensor? active) -> Tensor",
    cpu=_echo_cpu,
    cuda=_echo_cuda,
    fake=_fake,
    backward=_echo_backward,
    setup_context=_echo_context,
)
define(
    "crop(Tensor x, Tensor starts, SymInt length) -> Tensor",
    cpu=_crop_cpu,
    cuda=_crop_cuda,
    fake=_crop_fake,
    backward=_crop_backward,
    setup_context=_crop_context,
)
