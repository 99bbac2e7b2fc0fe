"""White Gaussian noise from counters: each row's noise is a function of its key alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastaug.ops._library import active_rows, check_samples, define, direct, native, pointer, row_values, threads

__all__ = ["add_noise"]

_SIGMA, _SNR_DB, _STD_RATIO = 0, 1, 2  # FaNoiseMode of csrc/noise.h
_THREADS, _SEGMENT = 256, 4096  # of csrc/cuda/noise.cu
_DB = math.log(10.0) / 20.0


def add_noise(
    x: Tensor,
    noise_key: Tensor,
    *,
    sigma: float | Tensor | None = None,
    snr_db: float | Tensor | None = None,
    std_ratio: float | Tensor | None = None,
    active: Tensor | None = None,
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
        active: bool (B,); rows that are False are copied. Default: all.

    Returns:
        A new (B, C, T) float32 tensor. A NaN or Inf stays in its row: as it is with `sigma`, filling the row with the
        levels relative to the row. Differentiable in `x` and in the level.

    Raises:
        TypeError: `x` is not float32, `noise_key` not int64, `active` not bool.
        ValueError: a shape is wrong, or not exactly one of `sigma`, `snr_db`, `std_ratio` is given.
    """
    given = [(mode, value) for mode, value in enumerate((sigma, snr_db, std_ratio)) if value is not None]
    if len(given) != 1:
        raise ValueError(f"add_noise needs exactly one of sigma, snr_db and std_ratio, got {len(given)}")
    mode, value = given[0]
    x = check_samples(x)
    if noise_key.dtype != torch.int64:
        raise TypeError(f"noise_key must be int64, got {noise_key.dtype}")
    if noise_key.shape != (x.shape[0], 3):
        raise ValueError(f"noise_key must have shape ({x.shape[0]}, 3), got {tuple(noise_key.shape)}")
    noise_key = noise_key.to(x.device, non_blocking=True).contiguous()
    level = row_values(value, x, ("sigma", "snr_db", "std_ratio")[mode])
    active = active_rows(active, x)
    if direct(x, noise_key, level, active):
        return _cpu(x, noise_key, level, mode, active)
    return torch.ops.fastaug.add_noise(x, noise_key, level, mode, active)


def _cpu(x: Tensor, noise_key: Tensor, level: Tensor, mode: int, active: Tensor | None) -> Tensor:
    x, noise_key, level = x.contiguous(), noise_key.contiguous(), level.contiguous()
    y = torch.empty_like(x)
    native().fa_noise(
        x.data_ptr(),
        y.data_ptr(),
        noise_key.data_ptr(),
        level.data_ptr(),
        pointer(active),
        *x.shape,
        mode,
        threads(x.numel()),
    )
    return y


def _cuda(x: Tensor, noise_key: Tensor, level: Tensor, mode: int, active: Tensor | None) -> Tensor:
    from fastaug.ops._cuda import launch

    x, noise_key, level = x.contiguous(), noise_key.contiguous(), level.contiguous()
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    rows, channels, length = x.shape
    segments = -(-channels * length // _SEGMENT)
    sums = None
    if mode != _SIGMA:
        sums = torch.empty(rows, segments, 2, dtype=torch.float64, device=x.device)
        grid = (rows * segments,)
        launch("noise.cu", "fa_noise_sums_kernel", grid, (_THREADS,), (x, sums, channels * length, segments, mode))
    grid = (rows * channels * -(-length // _SEGMENT),)
    args = (x, y, noise_key, level, active, sums, channels, length, segments, mode)
    launch("noise.cu", "fa_noise_kernel", grid, (_THREADS,), args)
    return y


def _fake(x: Tensor, noise_key: Tensor, level: Tensor, mode: int, active: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, noise_key, level, mode, active = inputs
    ctx.mode = mode
    ctx.save_for_backward(x, noise_key, level, active)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None, None]:
    """With y = x + s(x, level) * z and d = sum over the row of gradient * z: grad x = gradient + d * ds/dx."""
    x, noise_key, level, active = ctx.saved_tensors
    if ctx.mode == _SIGMA and not ctx.needs_input_grad[2]:
        return gradient, None, None, None, None
    zeros, ones = torch.zeros_like(x), torch.ones_like(level)
    noise = torch.ops.fastaug.add_noise(zeros, noise_key, ones, _SIGMA, active)  # zero in inactive rows
    along = (gradient * noise).sum((1, 2), dtype=torch.float64)
    n = x.shape[1] * x.shape[2]
    wide, level = x.double(), level.double()
    if ctx.mode == _SIGMA:
        return gradient, None, along.float(), None, None
    if ctx.mode == _SNR_DB:
        ratio = torch.exp(-_DB * level)
        size = wide.square().mean((1, 2)).sqrt()
        slope, of_level = wide / (n * size)[:, None, None], -_DB * ratio * size
    else:
        ratio, centred = level, wide - wide.mean((1, 2), keepdim=True)
        size = (centred.square().sum((1, 2)) / max(n - 1, 1)).sqrt()
        slope, of_level = centred / (max(n - 1, 1) * size)[:, None, None], size
    # The gradient of a norm at 0 is taken as 0, as torch.norm does.
    slope = torch.where(size[:, None, None] > 0, slope, 0.0)
    grad_x = gradient + ((along * ratio)[:, None, None] * slope).float()
    return grad_x, None, (along * of_level).float(), None, None


define(
    "add_noise(Tensor x, Tensor noise_key, Tensor level, int mode, Tensor? active) -> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
