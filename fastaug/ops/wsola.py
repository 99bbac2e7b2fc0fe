"""Time stretch and pitch shift by WSOLA, as sox's ``tempo`` and ``pitch``, with a factor for every example."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastaug.ops._library import active_rows, check_samples, define, direct, native, pointer, row_values, threads
from fastaug.ops.rows import call

__all__ = ["pitch_shift", "stretch_factor", "stretched_length", "time_stretch"]

#: Rejection of both filters in dB, and where the half-band's pass band ends, as a fraction of the lower Nyquist.
STOP_DB, PASS_BAND = 108.0, 0.91
_HALF_BAND_TAPS = 80  # of csrc/repitch.h
_THREADS, _PITCH_OUTPUTS, _STAGE_BYTES = 128, 864, 40_000  # of csrc/cuda/wsola.cu; what fits any GPU beside statics
_LOWEST, _HIGHEST = 0.1, 100.0  # sox's limits of a tempo


def time_stretch(
    x: Tensor, factor: float | Tensor, sample_rate: int, active: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``x`` at another speed and the same pitch: sox's ``tempo`` with its default (music) settings.

    Args:
        x: (B, C, T) float32. The channels of an example share their cuts.
        factor: speed, 0.1 to 100, a number or float64 (B,): 2 halves the duration. 1 is the identity. A CUDA tensor is
            read back once, since the factors decide the shape of the result: pass a CPU tensor to avoid the wait.
        sample_rate: Hz, at least 1000.
        active: bool (B,); rows that are False keep their samples and length. Default: all.

    Returns:
        (B, C, N) float32, zeros behind each row's end, and the lengths: int64 (B,) on the device of `x`,
        ``int(T / factor + 0.5)``. N is the length of the slowest row; at least T if `active` is given.

    Raises:
        TypeError, ValueError: `x`, `active` or a factor are not as above.
    """
    x = check_samples(x)
    _check_rate(sample_rate)
    longest = _longest(factor, x)
    out_length = longest if active is None else max(longest, x.shape[-1])
    factors = row_values(factor, x, "factor", torch.float64)
    active = active_rows(active, x)
    lengths = stretched_length(x.shape[-1], factors)
    if active is not None:
        lengths = torch.where(active, lengths, x.shape[-1])
    if direct(x, factors, active):
        return _stretch_cpu(x, factors, sample_rate, out_length, active), lengths
    return torch.ops.fastaug.time_stretch(x, factors, sample_rate, out_length, active), lengths


def pitch_shift(
    x: Tensor,
    sample_rate: int,
    semitones: float | Tensor,
    active: Tensor | None = None,
    max_semitones: float = 12.0,
    inplace: bool = False,
) -> Tensor:
    """``x`` at another pitch and the same speed: sox's ``pitch``, WSOLA and resampling, cut or padded to T.

    The resampling is flat up to 0.91 of the lower of the two Nyquist frequencies (of the stretched signal and of the
    result) and rejects by 108 dB what lies beyond 1.09; what lies between fades, and folds into the band from 0.91 to
    1. Unlike sox, samples beyond ±1 are not clipped.

    Args:
        x: (B, C, T) float32.
        sample_rate: Hz, at least 1000.
        semitones: a number or (B,), within ±36; 0 is the identity. The stretch factor is rounded to six significant
            digits, as sox rounds it.
        active: bool (B,); rows that are False are copied. Default: all.
        max_semitones: bound of `semitones` when that is a CUDA tensor, whose values cannot be looked at without waiting
            for the device: it sizes a buffer of T * 2 ** (max_semitones / 12) samples per row, and rows beyond the
            bound become NaN. Unused with a number, and with a CPU tensor outside torch.compile.
        inplace: the result may be written into `x`, which is then returned; a permission, not a promise.

    Returns:
        (B, C, T) float32. A NaN or Inf stays within its own example.

    Raises:
        TypeError, ValueError: `x`, `active` or the semitones are not as above.
    """
    x = check_samples(x)
    _check_rate(sample_rate)
    max_semitones = _largest(semitones, max_semitones)
    if not 0.0 <= max_semitones <= 36.0:
        raise ValueError(f"semitones must lie in [-36, 36], got up to {max_semitones:g}")
    factors = stretch_factor(row_values(semitones, x, "semitones", torch.float64))
    active = active_rows(active, x)
    if direct(x, factors, active):
        return _pitch_checked(x, factors, sample_rate, active, inplace)
    return torch.ops.fastaug.pitch_shift(x, factors, sample_rate, max_semitones, active)


def stretch_factor(semitones: Tensor) -> Tensor:
    """2 ** (-semitones / 12) in float64, rounded to six significant digits as sox's ``%g`` does."""
    factor = torch.exp2(semitones.double() / -12.0)
    digits = torch.where(factor < 1.0, 1e6, 1e5)  # within ±36 semitones; 10 ** n would be inexact on some devices
    return torch.round(factor * digits) / digits


def stretched_length(length: int, factors: Tensor) -> Tensor:
    """int(length / factor + 0.5) for float64 factors, as int64; ``length`` itself where the factor is 1."""
    return torch.floor(length / factors + 0.5).to(torch.int64)


@lru_cache(maxsize=1)
def half_band_taps() -> Tensor:
    """The taps of the half-band of csrc/repitch.h at ±0.5, ±1.5, … (float32, sum 1): a Kaiser-windowed sinc."""
    t = np.arange(_HALF_BAND_TAPS) - (_HALF_BAND_TAPS - 1) / 2
    taps = np.sinc(t) * _kaiser(t / (_HALF_BAND_TAPS / 2), STOP_DB)
    return torch.from_numpy((taps / taps.sum()).astype(np.float32))


def _kaiser(x: np.ndarray, stop_db: float) -> np.ndarray:
    """Kaiser's window on [-1, 1] (Kaiser & Schafer 1980, for more than 50 dB)."""
    beta = 0.1102 * (stop_db - 8.7)
    window = np.i0(beta * np.sqrt(np.clip(1.0 - x**2, 0.0, None))) / np.i0(beta)
    return np.where(np.abs(x) < 1.0, window, 0.0)


def _check_rate(sample_rate: int) -> None:
    if sample_rate < 1000:
        raise ValueError(f"sample_rate must be at least 1000 Hz, got {sample_rate}")


def _longest(factor: float | Tensor, x: Tensor) -> int:
    """Samples of the slowest row, from factors in range."""
    values = [float(v) for v in factor.reshape(-1).tolist()] if isinstance(factor, Tensor) else [float(factor)]
    if not all(_LOWEST <= value <= _HIGHEST for value in values):
        raise ValueError(f"factor must lie in [{_LOWEST:g}, {_HIGHEST:g}], got {values[:8]}")
    return int(x.shape[-1] / min(values) + 0.5) if values else x.shape[-1]


def _largest(semitones: float | Tensor, bound: float) -> float:
    """The largest |semitones| where looking is free, else the caller's bound."""
    if not isinstance(semitones, Tensor):
        return abs(float(semitones))
    if semitones.device.type != "cpu" or torch.compiler.is_compiling() or semitones.numel() == 0:
        return bound
    low, high = torch.aminmax(semitones)
    return max(-float(low), float(high))


def _stretch_cpu(x: Tensor, factors: Tensor, sample_rate: int, out_length: int, active: Tensor | None) -> Tensor:
    x, factors = x.contiguous(), factors.contiguous()
    y = x.new_empty(x.shape[0], x.shape[1], out_length)
    addresses = (x.data_ptr(), y.data_ptr(), factors.data_ptr(), pointer(active))
    native().fa_time_stretch(*addresses, *x.shape, out_length, float(sample_rate), threads())
    return y


def _pitch_cpu(x: Tensor, factors: Tensor, sample_rate: int, max_semitones: float, active: Tensor | None) -> Tensor:
    low, high = (float(end) for end in torch.aminmax(factors)) if factors.numel() else (1.0, 1.0)
    if not (low >= 2.0**-3.01 and high <= 2.0**3.01):
        raise ValueError(f"semitones must lie in [-36, 36] and not be NaN, got stretch factors {factors.tolist()[:8]}")
    return _pitch_checked(x, factors, sample_rate, active)


def _pitch_checked(
    x: Tensor, factors: Tensor, sample_rate: int, active: Tensor | None, inplace: bool = False
) -> Tensor:
    x, factors = x.contiguous(), factors.contiguous()
    y = x if inplace else torch.empty_like(x)
    addresses = (x.data_ptr(), y.data_ptr(), factors.data_ptr(), pointer(active))
    taps = half_band_taps()
    rest = (float(sample_rate), taps.data_ptr(), threads())
    call("fa_pitch_shift", *addresses, *x.shape, *rest, keep=(x, y, factors, active, taps))
    return y


def _stretch_cuda(x: Tensor, factors: Tensor, sample_rate: int, out_length: int, active: Tensor | None) -> Tensor:
    x, factors = x.contiguous(), factors.contiguous()
    y = x.new_empty(x.shape[0], x.shape[1], out_length)
    if y.numel():
        _launch_stretch(x, y, factors, active, sample_rate, copy=1)
    return y


def _launch_stretch(x: Tensor, y: Tensor, factors: Tensor, active: Tensor | None, sample_rate: int, copy: int) -> None:
    from fastaug.ops._cuda import launch

    rows, channels, length = x.shape
    search, overlap = int(sample_rate * 82.0 / 5.587 / 1000.0 + 0.5), int(sample_rate * 82.0 / 6.833 / 1000.0 + 4.5)
    bytes_ = 4 * channels * (2 * max(overlap, 16) + search + 8)
    staged = channels <= 2 and bytes_ <= _STAGE_BYTES
    args = (x, y, factors, active, channels, length, y.shape[-1], float(sample_rate), copy, int(staged))
    launch("wsola.cu", "fa_wsola_kernel", (rows,), (_THREADS,), args, bytes_ if staged else 0)


@lru_cache(maxsize=8)
def _filter_on(device: torch.device) -> Tensor:
    return half_band_taps().to(device)


def _pitch_cuda(x: Tensor, factors: Tensor, sample_rate: int, max_semitones: float, active: Tensor | None) -> Tensor:
    from fastaug.ops._cuda import launch

    x, factors = x.contiguous(), factors.contiguous()
    y = torch.empty_like(x)
    rows, channels, length = x.shape
    if x.numel() == 0:
        return y
    largest = 2.0 ** (max_semitones / 12.0) * (1.0 + 1e-5)  # the factor is rounded
    room = int(length * largest + 0.5) + 1
    stretched = x.new_empty(rows, channels, room)
    _launch_stretch(x, stretched, factors, active, sample_rate, copy=0)
    blocks = rows * channels * -(-length // _PITCH_OUTPUTS)
    resample_args = (x, stretched, y, factors, active, _filter_on(x.device), channels, length, room)
    launch("wsola.cu", "fa_pitch_resample_kernel", (blocks,), (_THREADS,), resample_args)
    return y


def _stretch_fake(x: Tensor, factors: Tensor, sample_rate: int, out_length: int, active: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], out_length)


def _pitch_fake(x: Tensor, factors: Tensor, sample_rate: int, max_semitones: float, active: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


# No gradient: the cuts are discrete decisions.
define(
    "time_stretch(Tensor x, Tensor factors, int sample_rate, int out_length, Tensor? active) -> Tensor",
    cpu=_stretch_cpu,
    cuda=_stretch_cuda,
    fake=_stretch_fake,
)
define(
    "pitch_shift(Tensor x, Tensor factors, int sample_rate, float max_semitones, Tensor? active) -> Tensor",
    cpu=_pitch_cpu,
    cuda=_pitch_cuda,
    fake=_pitch_fake,
)
