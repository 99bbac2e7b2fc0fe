"""White Gaussian noise from counters: each row's noise is a function of its key alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastaug.ops._library import check_samples, define, direct
from fastaug.ops.fused import SIGMA, SNR_DB, Hiss, Pointwise, hissing, run_cpu, run_cuda

__all__ = ["add_noise"]

_DB = math.log(10.0) / 20.0


def add_noise(
    x: Tensor,
    noise_key: Tensor,
    *,
    sigma: float | Tensor | None = None,
    snr_db: float | Tensor | None = None,
    std_ratio: float | Tensor | None = None,
    clip: bool = False,
    lengths: Tensor | None = None,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """``x + s * N(0, 1)``, independent for every channel and sample, with one standard deviation `s` per row.

    Element ``(row, channel, t)`` is normal number ``t % 4`` of the Philox4x32-10 block with key ``noise_key[row, :2]``
    and counter ``(t // 4, high word, noise_key[row, 2], channel)``: csrc/normal.h.

    Args:
        x: (B, C, T) float32.
        noise_key: (B, 3) int64, words below 2^32: two words of subkey and the stream. See ``Keys.noise_key``.
        sigma: s itself, a number or (B,).
        snr_db: decibels, a number or (B,): ``s = rms(row) * 10 ** (-snr_db / 20)``, over all channels and samples.
        std_ratio: a number or (B,): ``s = std_ratio * std(row)``, the n - 1 form; a one-sample row gets no noise.
        clip: hold the result within [-1, 1].
        lengths: int64 (B,), valid samples of each row; what follows is copied and does not count in its level.
        active: bool (B,); rows that are False are copied. Default: all.
        inplace: the result may be written into `x`.

    Returns:
        (B, C, T) float32, new unless `inplace`. A NaN or Inf stays in its row: as it is with `sigma`, filling the row
        with the levels relative to the row. Differentiable in `x` and in the level; a clipped sample has gradient 0.

    Raises:
        TypeError: `x` is not float32, `noise_key` not int64, `active` not bool.
        ValueError: a shape is wrong, or not exactly one of `sigma`, `snr_db`, `std_ratio` is given.
    """
    x = check_samples(x)
    levels = {"sigma": sigma, "snr_db": snr_db, "std_ratio": std_ratio}
    if direct(x, active, *(level for level in levels.values() if isinstance(level, Tensor))):
        y = x if inplace else torch.empty_like(x)  # before the levels, as in `pointwise.scale`
        return run_cpu(x, hissing(x, noise_key, **levels, clip=clip, lengths=lengths, active=active), y)
    steps = hissing(x, noise_key, **levels, clip=clip, lengths=lengths, active=active)
    assert steps.noise is not None
    return torch.ops.fastaug.add_noise(x, *steps.noise)


def _steps(key: Tensor, level: Tensor, *rest: Any) -> Pointwise:
    return Pointwise(noise=Hiss(key.contiguous(), level.contiguous(), *rest))


def _cpu(x: Tensor, *noise: Any) -> Tensor:
    return run_cpu(x, _steps(*noise))


def _cuda(x: Tensor, *noise: Any) -> Tensor:
    return run_cuda(x, _steps(*noise))


def _fake(x: Tensor, *noise: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, noise_key, level, ctx.mode, active, ctx.clip, lengths = inputs
    ctx.save_for_backward(x, noise_key, level, active, lengths)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """With y = x + s(x, level) * z and d = sum over the row of gradient * z: grad x = gradient + d * ds/dx."""
    x, noise_key, level, active, lengths = ctx.saved_tensors
    nothing = (None,) * 4
    inside = None if lengths is None else torch.arange(x.shape[-1], device=x.device) < lengths[:, None, None]
    if ctx.clip:
        unclipped = torch.ops.fastaug.add_noise(x, noise_key, level, ctx.mode, active, False, lengths)
        kept = unclipped.abs() <= 1
        kept = kept if active is None else kept | ~active[:, None, None]
        gradient = torch.where(kept if inside is None else kept | ~inside, gradient, 0.0)
    if ctx.mode == SIGMA and not ctx.needs_input_grad[2]:
        return gradient, None, None, *nothing
    zeros, ones = torch.zeros_like(x), torch.ones_like(level)
    # zero in inactive rows and in the padding
    noise = torch.ops.fastaug.add_noise(zeros, noise_key, ones, SIGMA, active, False, lengths)
    along = (gradient * noise).sum((1, 2), dtype=torch.float64)
    level = level.double()
    if ctx.mode == SIGMA:
        return gradient, None, along.float(), *nothing
    wide = x.double() if inside is None else torch.where(inside, x.double(), 0.0)
    n = x.shape[1] * (x.shape[2] if lengths is None else lengths.clamp(1, x.shape[2])[:, None, None])
    if ctx.mode == SNR_DB:
        ratio = torch.exp(-_DB * level)
        size = (wide.square().sum((1, 2), keepdim=True) / n).sqrt()
        slope, of_level = wide / (n * size), -_DB * ratio * size[:, 0, 0]
    else:
        ratio, centred = level, wide - wide.sum((1, 2), keepdim=True) / n
        centred = centred if inside is None else torch.where(inside, centred, 0.0)
        degrees = max(n - 1, 1) if lengths is None else (n - 1).clamp(min=1)
        size = (centred.square().sum((1, 2), keepdim=True) / degrees).sqrt()
        slope, of_level = centred / (degrees * size), size[:, 0, 0]
    # The gradient of a norm at 0 is taken as 0, as torch.norm does.
    slope = torch.where(size > 0, slope, 0.0)
    grad_x = gradient + ((along * ratio)[:, None, None] * slope).float()
    return grad_x, None, (along * of_level).float(), *nothing


define(
    "add_noise(Tensor x, Tensor noise_key, Tensor level, int mode, Tensor? active, bool clip, Tensor? lengths) "
    "-> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
