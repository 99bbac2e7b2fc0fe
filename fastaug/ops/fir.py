"""Windowed-sinc low- and high-pass filters, with a cutoff of its own for every example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastaug.ops._library import active_rows, check_samples, define, direct, pointer, row_values, threads
from fastaug.ops.rows import call

__all__ = ["windowed_sinc"]

_THREADS, _TILE = 256, 2304  # of csrc/cuda/fir.cu
_LARGEST_HALF = 1 << 20  # kFirLargestHalf of csrc/fir.h


def windowed_sinc(
    x: Tensor,
    cutoff: float | Tensor,
    highpass: bool | Tensor = False,
    zeros: int = 8,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """``julius.lowpass_filter`` (or ``x`` minus it), row by row: linear phase, no delay, same length.

    The filter has ``2 * int(zeros / cutoff / 2) + 1`` taps, a Hann-windowed sinc of unit gain at 0 Hz; the first and
    last samples are repeated outside the signal. On the CPU, filters above some 50 taps go through an FFT, in blocks of
    256 to 16384 samples: their rounding error is 1e-7 of the loudest samples of their channel.

    Args:
        x: (B, C, T) float32.
        cutoff: fraction of the sample rate, in [0, 0.5], a number or (B,), float32 or float64. A low-pass at 0 gives
            silence. More than zeros / 2^21 unless 0.
        highpass: a bool or bool (B,).
        zeros: zero crossings of the sinc that the window covers, at least 1.
        active: bool (B,); rows that are False are copied. Default: all.
        inplace: the result may be written into `x`, which is then returned (on the CPU, without a gradient).

    Returns:
        (B, C, T) float32, new unless `inplace`. A NaN or Inf spreads over the filter's length in its own channel.
        Differentiable in `x`; RuntimeError in the backward pass if the cutoff asks for a gradient.

    Raises:
        TypeError, ValueError: `x`, `highpass`, `active` or `zeros` are not as above; on the CPU also the cutoff, which
            CUDA would have to wait for.
    """
    x = check_samples(x)
    if zeros < 1:
        raise ValueError(f"zeros must be at least 1, got {zeros}")
    cutoff = row_values(cutoff, x, "cutoff", torch.float64)
    if isinstance(highpass, Tensor) and highpass.dtype != torch.bool:
        raise TypeError(f"highpass must be bool, got {highpass.dtype}")
    highpass = row_values(highpass, x, "highpass", torch.bool)
    active = active_rows(active, x)
    if direct(x, cutoff, active):
        return _cpu(x, cutoff, highpass, zeros, active, inplace)
    return torch.ops.fastaug.windowed_sinc(x, cutoff, highpass, zeros, active)


def _check_cutoff(cutoff: Tensor, zeros: int) -> None:
    if cutoff.numel() == 0:
        return
    low, high = (float(end) for end in torch.aminmax(cutoff))
    if not (low >= 0.0 and high <= 0.5):
        raise ValueError(f"cutoff must be a fraction of the sample rate in [0, 0.5], got {cutoff.tolist()[:8]}")
    if low * 2 * _LARGEST_HALF > zeros:
        return
    if bool(((cutoff > 0) & (cutoff * 2 * _LARGEST_HALF <= zeros)).any()):
        raise ValueError(f"cutoff {float(cutoff[cutoff > 0].min()):g} needs more than 2^21 taps")


def _cpu(
    x: Tensor, cutoff: Tensor, highpass: Tensor, zeros: int, active: Tensor | None, inplace: bool = False
) -> Tensor:
    x, cutoff, highpass = x.contiguous(), cutoff.contiguous(), highpass.contiguous()
    _check_cutoff(cutoff, zeros)
    y = x if inplace else torch.empty_like(x)
    addresses = (x.data_ptr(), y.data_ptr(), cutoff.data_ptr(), highpass.data_ptr(), pointer(active))
    call("fa_windowed_sinc", *addresses, *x.shape, zeros, threads(), keep=(x, y, cutoff, highpass, active))
    return y


def _cuda(x: Tensor, cutoff: Tensor, highpass: Tensor, zeros: int, active: Tensor | None) -> Tensor:
    from fastaug.ops._cuda import launch

    x, cutoff, highpass = x.contiguous(), cutoff.contiguous(), highpass.contiguous()
    y = torch.empty_like(x)
    rows, channels, length = x.shape
    if y.numel():
        blocks = rows * channels * -(-length // _TILE)
        args = (x, y, cutoff, highpass, active, channels, length, zeros)
        launch("fir.cu", "fa_windowed_sinc_kernel", (blocks,), (_THREADS,), args)
    return y


def _fake(x: Tensor, cutoff: Tensor, highpass: Tensor, zeros: int, active: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, cutoff, highpass, ctx.zeros, active = inputs
    ctx.save_for_backward(cutoff, highpass, active)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.needs_input_grad[1]:
        raise RuntimeError("fastaug::windowed_sinc has no gradient with respect to its cutoff: detach it")
    cutoff, highpass, active = ctx.saved_tensors
    adjoint = torch.ops.fastaug.windowed_sinc_adjoint(gradient, cutoff, highpass, ctx.zeros, active)
    return adjoint, None, None, None, None


def _adjoint(gradient: Tensor, cutoff: Tensor, highpass: Tensor, zeros: int, active: Tensor | None) -> Tensor:
    """The taps are symmetric, so the adjoint is the same filter over the gradient between zeros; what it puts outside
    the signal belongs to the edge samples, which stood there. An op of its own: it looks at the cutoffs."""
    length = gradient.shape[-1]
    positive = cutoff[cutoff > 0]
    half = int(zeros / float(positive.min()) / 2) + 1 if gradient.numel() and positive.numel() else 0
    padded = torch.nn.functional.pad(gradient, (half, half))
    run = _cuda if gradient.device.type == "cuda" else _cpu
    wide = run(padded, cutoff, torch.zeros_like(highpass), zeros, None)
    low = wide[..., half : half + length].clone()
    if half:
        low[..., 0] += wide[..., :half].sum(-1)
        low[..., -1] += wide[..., half + length :].sum(-1)
    result = torch.where(highpass[:, None, None], gradient - low, low)
    return result if active is None else torch.where(active[:, None, None], result, gradient)


define(
    "windowed_sinc(Tensor x, Tensor cutoff, Tensor highpass, int zeros, Tensor? active) -> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
define(
    "windowed_sinc_adjoint(Tensor gradient, Tensor cutoff, Tensor highpass, int zeros, Tensor? active) -> Tensor",
    cpu=_adjoint,
    cuda=_adjoint,
    fake=_fake,
)
