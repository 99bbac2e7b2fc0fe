"""Band-limited sample-rate conversion: whole signals, and exact ranges of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaug.ops import _library
from fastaug.ops._resample_filter import DENSITY, QUALITIES, Quality, blocks, half_width, low_pass, prototype

__all__ = [
    "DENSITY",
    "PHASES",
    "QUALITIES",
    "Quality",
    "half_width",
    "output_length",
    "prototype",
    "resample",
    "resample_range",
    "source_range",
]

#: Largest number of floats in a table with one row of taps per output phase; above it the taps are interpolated.
_MAX_TABLE = 1 << 18
_DECIMATE_OUTPUTS, _DECIMATE_THREADS = 7, 128  # of csrc/cuda/resample.cu
_SHARED_BYTES = 48 * 1024  # what a block may have without asking
PHASES = 64  #: kResamplePhases of csrc/resample.h


@dataclass(frozen=True)
class _Plan:
    """How to convert by ``up / down`` (coprime): the taps, and how they are stored."""

    up: int
    down: int
    quality: str
    half: int
    interpolated: bool
    taps: Tensor


def resample(x: Tensor, from_rate: int, to_rate: int, quality: str = "high", threads: int | None = None) -> Tensor:
    """``x`` at another sample rate.

    Output k is the value at source position k * from_rate / to_rate, in exact integer arithmetic; outside its T
    samples the signal counts as zero. Equal rates give a copy. A NaN or Inf stays within the filter's reach.
    Differentiable: the gradient is resampled back.

    Args:
        x: (..., T) float32, CPU or CUDA.
        from_rate, to_rate: Hz.
        quality: a name in ``QUALITIES``.
        threads: at most so many CPU threads; torch.get_num_threads() when None.

    Returns:
        (..., ceil(T * to_rate / from_rate)) float32.

    Raises:
        ValueError: a rate below 1, an unknown quality, or samples that are not float32.
    """
    _check(x, from_rate, to_rate, quality)
    if _library.direct(x):
        return _resample(x, from_rate, to_rate, quality, threads)
    return torch.ops.fastaug.resample(x, from_rate, to_rate, quality)


def resample_range(
    x: Tensor,
    x_start: int,
    from_rate: int,
    to_rate: int,
    start: int,
    length: int,
    total: int,
    quality: str = "high",
    threads: int | None = None,
) -> Tensor:
    """Output samples [start, start + length) of a signal of which only a part is at hand.

    Bit-identical to ``resample(whole, from_rate, to_rate)[..., start : start + length]``; zeros where that ends.

    Args:
        x: (..., n) float32, source samples [x_start, x_start + n). It must hold what `source_range` names, as far as
            that lies inside the signal.
        start, length: at ``to_rate``; start may be negative.
        total: source samples of the whole signal.

    Raises:
        ValueError: as `resample`, or if ``x`` lacks source samples that the range needs.
    """
    _check(x, from_rate, to_rate, quality)
    if length < 0 or total < 0:
        raise ValueError(f"length and total must not be negative, got length={length}, total={total}")
    low, high = source_range(from_rate, to_rate, start, length, quality)
    low, high = max(low, 0), min(high, total)
    if low < high and (x_start > low or x_start + x.shape[-1] < high):
        raise ValueError(
            f"outputs [{start}, {start + length}) need source samples [{low}, {high}), "
            f"but x holds [{x_start}, {x_start + x.shape[-1]})"
        )
    first, last = max(start, 0), min(start + length, output_length(total, from_rate, to_rate))
    x, x_start = _trim(x, x_start, total)
    if first >= last:
        return x.new_zeros(*x.shape[:-1], length)
    y = convert(x, x_start, from_rate, to_rate, first, last - first, quality, threads)
    return torch.nn.functional.pad(y, (first - start, start + length - last)) if last - first < length else y


def output_length(total: int, from_rate: int, to_rate: int) -> int:
    """ceil(total * to_rate / from_rate): the number of output samples of ``total`` source samples."""
    return -(-total * to_rate // from_rate)


def source_range(from_rate: int, to_rate: int, start: int, length: int, quality: str = "high") -> tuple[int, int]:
    """Source samples [low, high) that outputs [start, start + length) depend on; may reach outside the signal."""
    if length <= 0:
        return 0, 0
    if from_rate == to_rate:
        return start, start + length
    up, down = reduced(from_rate, to_rate)
    grid = blocks(up, down, quality)
    if grid is not None:
        first, last = start // grid.outputs, (start + length - 1) // grid.outputs
        return first * grid.hop - grid.lead, last * grid.hop - grid.lead + grid.samples
    half = _half_width(up, down, quality)
    return start * down // up - half + 1, (start + length - 1) * down // up + half + 1


def _check(x: Tensor, from_rate: int, to_rate: int, quality: str) -> None:
    if from_rate < 1 or to_rate < 1:
        raise ValueError(f"sample rates must be positive, got from_rate={from_rate}, to_rate={to_rate}")
    check_quality(quality)
    if x.dtype != torch.float32 or x.dim() < 1:
        raise ValueError(f"x must be float32 of shape (..., T), got {x.dtype} of shape {tuple(x.shape)}")


def check_quality(quality: str) -> None:
    if quality not in QUALITIES:
        raise ValueError(f"quality must be one of {', '.join(QUALITIES)}, got {quality!r}")


def _trim(x: Tensor, x_start: int, total: int) -> tuple[Tensor, int]:
    """Without the samples outside the signal, which count as zero."""
    low, high = max(-x_start, 0), max(min(x.shape[-1], total - x_start), 0)
    return x[..., min(low, high) : high], x_start + low


def reduced(from_rate: int, to_rate: int) -> tuple[int, int]:
    divisor = math.gcd(from_rate, to_rate)
    return to_rate // divisor, from_rate // divisor


@lru_cache(maxsize=256)
def _half_width(up: int, down: int, quality: str) -> int:
    """Half width of the filter in source samples."""
    return half_width(QUALITIES[quality].support, min(1.0, up / down))


@lru_cache(maxsize=64)
def _plan(up: int, down: int, quality: str) -> _Plan:
    half, scale, spec = _half_width(up, down, quality), min(1.0, up / down), QUALITIES[quality]
    if up * 2 * half > _MAX_TABLE:
        master = prototype(quality)
        taps = torch.empty(PHASES, 3, 2 * half)
        native = _library.native()
        native.fa_resample_table(master.data_ptr(), DENSITY, spec.support, scale, half, taps.data_ptr())
        return _Plan(up, down, quality, half, True, taps)
    t = np.arange(2 * half) - (half - 1) - (np.arange(up) / up)[:, None]
    return _Plan(
        up, down, quality, half, False, torch.from_numpy((scale * low_pass(t * scale, spec)).astype(np.float32))
    )


@lru_cache(maxsize=64)
def _taps_on(up: int, down: int, quality: str, device: torch.device, layout: str = "rows") -> Tensor:
    """The taps as a kernel of csrc/cuda/resample.cu wants them."""
    taps = _plan(up, down, quality).taps
    if layout == "phases":
        steps = _decimate_steps(down, taps.shape[-1])
        taps = torch.nn.functional.pad(taps[0], (0, steps * down - taps.shape[-1])).view(steps, down).t()
    elif layout == "columns":
        taps = taps[torch.arange(up) * down % up].t()
    return taps.contiguous().to(device)


def _resample(x: Tensor, from_rate: int, to_rate: int, quality: str, threads: int | None = None) -> Tensor:
    length = output_length(x.shape[-1], from_rate, to_rate)
    return convert(x, 0, from_rate, to_rate, 0, length, quality, threads)


def convert(
    x: Tensor, x_start: int, from_rate: int, to_rate: int, start: int, length: int, quality: str, threads: int | None
) -> Tensor:
    """Outputs [start, start + length), all inside the signal; what ``x`` does not hold is zero."""
    if from_rate == to_rate:
        return x[..., start - x_start : start - x_start + length].clone(memory_format=torch.contiguous_format)
    y = x.new_empty(*x.shape[:-1], length)
    if y.numel() == 0:
        return y
    plan = _plan(*reduced(from_rate, to_rate), quality)
    x, stride = _rows(x)
    count, rows = x.shape[-1], y.numel() // length
    sizes = (rows, stride, count, x_start, start, length, plan.up, plan.down)
    if x.device.type == "cuda":
        return _launch(x, y, sizes, plan)
    team = _library.threads() if threads is None else threads
    grid, filters = blocks(plan.up, plan.down, quality), (plan.taps.data_ptr(), plan.half, int(plan.interpolated))
    if grid is None:
        _library.native().fa_resample(x.data_ptr(), y.data_ptr(), *sizes, *filters, team)
    else:
        _library.native().fa_resample_blocks(x.data_ptr(), y.data_ptr(), *sizes, *filters, *grid.arguments, team)
    return y


def _launch(x: Tensor, y: Tensor, sizes: tuple[int, ...], plan: _Plan) -> Tensor:
    """The first kernel that fits: whole decimation, a table of phases, anything else."""
    rows, _, _, _, start, length, up, down = sizes
    key, width = (plan.up, plan.down, plan.quality, x.device), 2 * plan.half
    if not plan.interpolated:
        steps = _decimate_steps(down, width)
        pitch = _DECIMATE_OUTPUTS * _DECIMATE_THREADS + steps + _DECIMATE_OUTPUTS | 1
        if up == 1 and 4 * down * pitch <= _SHARED_BYTES:
            grid = rows * -(-length // (_DECIMATE_OUTPUTS * _DECIMATE_THREADS))
            args = (x, y, *sizes[1:6], down, _taps_on(*key, "phases"), plan.half, steps, pitch)
            return run_kernel("fa_decimate_kernel", grid, _DECIMATE_THREADS, args, y, 4 * down * pitch)
        tile = -(-128 // up) * up
        room = 4 * tile // up * down + width + 1
        if tile <= 1024 and 4 * room <= _SHARED_BYTES:
            grid = rows * -(-(length + start % up) // (4 * tile))
            args = (x, y, *sizes[1:], _taps_on(*key, "columns"), plan.half, tile, room)
            return run_kernel("fa_polyphase_kernel", grid, -(-tile // 32) * 32, args, y, 4 * room)
    args = (x, y, *sizes, _taps_on(*key), plan.half, int(plan.interpolated))
    return run_kernel("fa_resample_kernel", -(-y.numel() * 16 // 256), 256, args, y)


def run_kernel(name: str, blocks: int, threads: int, args: tuple[Any, ...], y: Tensor, shared_bytes: int = 0) -> Tensor:
    from fastaug.ops._cuda import launch

    launch("resample.cu", name, (blocks,), (threads,), args, shared_bytes)
    return y


def _decimate_steps(down: int, width: int) -> int:
    return -(-width // (down * _DECIMATE_OUTPUTS)) * _DECIMATE_OUTPUTS


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """``x`` with evenly spaced contiguous rows, and their distance: slices of a contiguous tensor are not copied."""
    if x.dim() == 1 and (x.stride(0) == 1 or x.shape[0] < 2):
        return x, x.shape[0]
    if x.dim() == 2 and x.stride(1) == 1 and x.stride(0) >= x.shape[1]:
        return x, x.stride(0)
    return x.contiguous(), x.shape[-1]


def _fake(x: Tensor, from_rate: int, to_rate: int, quality: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], output_length(x.shape[-1], from_rate, to_rate))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.from_rate, ctx.to_rate, ctx.quality = inputs
    ctx.length = x.shape[-1]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The filter is symmetric and the same both ways but for its gain, the rate it is applied at: resample back."""
    back = torch.ops.fastaug.resample(grad.contiguous(), ctx.to_rate, ctx.from_rate, ctx.quality)
    return back[..., : ctx.length] * (ctx.to_rate / ctx.from_rate), None, None, None


_library.define(
    "resample(Tensor x, int from_rate, int to_rate, str quality) -> Tensor",
    cpu=_resample,
    cuda=_resample,
    fake=_fake,
    backward=_backward,
    setup_context=_setup,
)
