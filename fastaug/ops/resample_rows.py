"""Band-limited sample-rate conversion with a ratio for every example."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fastaug.ops import _library
from fastaug.ops._resample_filter import cubics
from fastaug.ops.resample import check_quality, convert, output_length, reduced, run_kernel

__all__ = ["resample_rows"]

_THREADS, _CHUNK = 256, 1024  # of fa_resample_rows_kernel in csrc/cuda/resample.cu


def resample_rows(
    x: Tensor,
    from_rate: int | Tensor,
    to_rate: int | Tensor,
    quality: str = "high",
    out_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """``x`` at another sample rate, with a ratio for every example; otherwise as `resample`.

    Args:
        x: (B, C, T) float32, CPU or CUDA.
        from_rate, to_rate: Hz, numbers or integer (B,).
        quality: a name in ``QUALITIES``.
        out_length: N, if known: rows are cut or padded to it. By default the longest row's length, for which rates on
            a CUDA device are read back once; give it to avoid the wait, and under torch.compile.

    Returns:
        (B, C, N) float32, zeros behind each row's end, and the lengths: int64 (B,) on the device of ``x``,
        ceil(T * to_rate / from_rate), at most N.

    Raises:
        TypeError, ValueError: ``x`` or a rate are not as above. A rate below 1 is only seen where the rates are read:
            on CUDA with ``out_length``, its row is NaN.
    """
    x = _library.check_samples(x)
    check_quality(quality)
    rates = [_rate_rows(rate, x, name) for rate, name in ((from_rate, "from_rate"), (to_rate, "to_rate"))]
    lengths = -torch.div(-x.shape[-1] * rates[1], rates[0].clamp(min=1), rounding_mode="floor")
    if out_length is None:
        out_length = _longest(x, (from_rate, to_rate))
    lengths = lengths.clamp(0, out_length)
    if _library.direct(x, *rates):
        return _cpu(x, rates[0], rates[1], out_length, quality), lengths
    return torch.ops.fastaug.resample_rows(x, rates[0], rates[1], out_length, quality), lengths


def _rate_rows(rate: int | Tensor, x: Tensor, name: str) -> Tensor:
    if isinstance(rate, Tensor) and (rate.is_floating_point() or rate.dtype == torch.bool):
        raise TypeError(f"{name} must be whole Hz, got {rate.dtype}")
    return _library.row_values(rate, x, name, torch.int64)


def _longest(x: Tensor, rates: tuple[int | Tensor, int | Tensor]) -> int:
    """Samples of the longest row, from rates in range, read where they lie."""
    lists = [rate.expand(x.shape[0]).tolist() if isinstance(rate, Tensor) else [rate] * x.shape[0] for rate in rates]
    pairs = list(zip(*lists, strict=True))
    _check_pairs(pairs)
    return max((output_length(x.shape[-1], *pair) for pair in pairs), default=0)


def _check_pairs(pairs: list[tuple[int, int]]) -> None:
    if any(rate < 1 for pair in pairs for rate in pair):
        raise ValueError(f"sample rates must be positive, got (from_rate, to_rate) {pairs[:8]}")


def _cpu(x: Tensor, from_rates: Tensor, to_rates: Tensor, out_length: int, quality: str) -> Tensor:
    pairs = list(zip(from_rates.tolist(), to_rates.tolist(), strict=True))
    _check_pairs(pairs)
    y = x.new_zeros(*x.shape[:-1], out_length)
    for ratio in dict.fromkeys(reduced(*pair) for pair in pairs):
        rows = [row for row, pair in enumerate(pairs) if reduced(*pair) == ratio]
        up, down = ratio
        length = min(output_length(x.shape[-1], down, up), out_length)
        part = x[rows[0] : rows[0] + 1] if len(rows) == 1 else x[rows]
        y[rows, :, :length] = convert(part, 0, down, up, 0, length, quality, None)
    return y


def _cuda(x: Tensor, from_rates: Tensor, to_rates: Tensor, out_length: int, quality: str) -> Tensor:
    x = x.contiguous()
    rows, channels, length = x.shape
    y = x.new_empty(rows, channels, out_length)
    table = _cubics_on(quality, x.device)
    blocks_a_row = -(-out_length // _THREADS)
    args = (x, y, from_rates.contiguous(), to_rates.contiguous(), channels, length, out_length, table, table.shape[0])
    shared = 16 * table.shape[0] + 4 * _CHUNK
    return run_kernel("fa_resample_rows_kernel", rows * channels * blocks_a_row, _THREADS, args, y, shared)


@lru_cache(maxsize=8)
def _cubics_on(quality: str, device: torch.device) -> Tensor:
    return cubics(quality).to(device)


def _fake(x: Tensor, from_rates: Tensor, to_rates: Tensor, out_length: int, quality: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], out_length)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, from_rates, to_rates, _, ctx.quality = inputs
    ctx.length = x.shape[-1]
    ctx.save_for_backward(from_rates, to_rates)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    from_rates, to_rates = ctx.saved_tensors
    lengths = -torch.div(-ctx.length * to_rates, from_rates, rounding_mode="floor")
    inside = torch.arange(grad.shape[-1], device=grad.device) < lengths[:, None, None]
    grad = torch.where(inside, grad, 0.0).contiguous()
    back = torch.ops.fastaug.resample_rows(grad, to_rates, from_rates, ctx.length, ctx.quality)
    return back * (to_rates / from_rates).float()[:, None, None], None, None, None, None


_library.define(
    "resample_rows(Tensor x, Tensor from_rates, Tensor to_rates, int out_length, str quality) -> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
    backward=_backward,
    setup_context=_setup,
)
