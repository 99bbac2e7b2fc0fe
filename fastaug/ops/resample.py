"""Band-limited sample-rate conversion: whole signals, and exact ranges of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastaug.ops import _library

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
_MAX_TABLE = 1 << 20
#: Samples of the prototype filter per zero crossing.
DENSITY = 128
PHASES = 64  #: kResamplePhases of csrc/resample.h
_LANES, _TILE_OUTPUTS = 16, 4  # kResampleLanes of csrc/resample.h, kTileOutputs of csrc/resample_tile.h
#: Above this distance between neighbouring windows, most of the sorted taps would be zeros.
_MAX_SPREAD = 32


@dataclass(frozen=True)
class Quality:
    """A low-pass for resampling; frequencies are fractions of the lower of the two Nyquist frequencies.

    Args:
        pass_band: flat up to here (ripple at most ``stop_db`` below the signal); everything from 1.0 on is rejected.
        stop_db: rejection of images and aliases.
    """

    pass_band: float
    stop_db: float

    @property
    def support(self) -> float:
        """Half length of the filter in samples of the lower rate (Kaiser's estimate)."""
        return (self.stop_db - 7.95) / (2.285 * math.pi * (1.0 - self.pass_band)) / 2.0

    @property
    def beta(self) -> float:
        """Shape of the Kaiser window (Kaiser & Schafer 1980, for more than 50 dB)."""
        return 0.1102 * (self.stop_db - 8.7)


#: "high" is the default; "fast" costs about a third of it, "best" about twice as much.
QUALITIES = {"fast": Quality(0.80, 85.0), "high": Quality(0.92, 106.0), "best": Quality(0.95, 126.0)}


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
    samples the signal counts as zero. Equal rates give a copy.

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
    y = _convert(x, x_start, from_rate, to_rate, first, last - first, quality, threads)
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
    up, down = _reduced(from_rate, to_rate)
    half = _half_width(up, down, quality)
    return start * down // up - half + 1, (start + length - 1) * down // up + half + 1


def _check(x: Tensor, from_rate: int, to_rate: int, quality: str) -> None:
    if from_rate < 1 or to_rate < 1:
        raise ValueError(f"sample rates must be positive, got from_rate={from_rate}, to_rate={to_rate}")
    if quality not in QUALITIES:
        raise ValueError(f"quality must be one of {', '.join(QUALITIES)}, got {quality!r}")
    if x.dtype != torch.float32 or x.dim() < 1:
        raise ValueError(f"x must be float32 of shape (..., T), got {x.dtype} of shape {tuple(x.shape)}")


def _trim(x: Tensor, x_start: int, total: int) -> tuple[Tensor, int]:
    """Without the samples outside the signal, which count as zero."""
    low, high = max(-x_start, 0), max(min(x.shape[-1], total - x_start), 0)
    return x[..., min(low, high) : high], x_start + low


def _reduced(from_rate: int, to_rate: int) -> tuple[int, int]:
    divisor = math.gcd(from_rate, to_rate)
    return to_rate // divisor, from_rate // divisor


@lru_cache(maxsize=256)
def _half_width(up: int, down: int, quality: str) -> int:
    """Half width of the filter in source samples."""
    return half_width(QUALITIES[quality].support, min(1.0, up / down))


def half_width(support: float, scale: float) -> int:
    """Half width of a filter with its cutoff at ``scale`` of the source's Nyquist frequency, in source samples: a
    multiple of 8, so that the taps fill whole lanes (fa_half_width of csrc/resample.h)."""
    return (int(support / scale) + 2 + 7) // 8 * 8


@lru_cache(maxsize=8)
def prototype(quality: str) -> Tensor:
    """The low-pass at x = -1, 0, 1, … in steps of 1 / 128 zero crossing (float64), zeros from ``support`` on."""
    spec = QUALITIES[quality]
    x = np.arange(-1, int(spec.support * DENSITY) + 8) / DENSITY
    return torch.from_numpy(_low_pass(x, spec))


def _low_pass(x: np.ndarray, spec: Quality) -> np.ndarray:
    """Windowed sinc that is -6 dB in the middle of the transition band, in float64."""
    cutoff = (1.0 + spec.pass_band) / 2.0
    inside = np.clip(1.0 - (x / spec.support) ** 2, 0.0, None)
    window = np.where(inside > 0, np.i0(spec.beta * np.sqrt(inside)) / np.i0(spec.beta), 0.0)
    return cutoff * np.sinc(cutoff * x) * window


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
        up, down, quality, half, False, torch.from_numpy((scale * _low_pass(t * scale, spec)).astype(np.float32))
    )


@lru_cache(maxsize=64)
def _sorted_taps(up: int, down: int, quality: str) -> tuple[Tensor | None, int]:
    """The exact taps in the order of csrc/resample_tile.h, (up, spread + 16, steps): row r holds taps
    r - spread + 16 i, zeros outside. None where tiles do not pay. And the spread."""
    plan, spread = _plan(up, down, quality), -(-(_TILE_OUTPUTS - 1) * down // up)
    if plan.interpolated or spread > _MAX_SPREAD:
        return None, 0
    width, rows = 2 * plan.half, spread + _LANES
    steps = -(-(width + spread) // _LANES)
    padded = torch.nn.functional.pad(plan.taps, (spread, rows + steps * _LANES - spread - width))
    return padded.as_strided((up, rows, steps), (padded.shape[1], 1, _LANES)).contiguous(), spread


@lru_cache(maxsize=64)
def _taps_on(up: int, down: int, quality: str, device: torch.device) -> Tensor:
    return _plan(up, down, quality).taps.to(device)


def _resample(x: Tensor, from_rate: int, to_rate: int, quality: str, threads: int | None = None) -> Tensor:
    length = output_length(x.shape[-1], from_rate, to_rate)
    return _convert(x, 0, from_rate, to_rate, 0, length, quality, threads)


def _convert(
    x: Tensor, x_start: int, from_rate: int, to_rate: int, start: int, length: int, quality: str, threads: int | None
) -> Tensor:
    """Outputs [start, start + length), all inside the signal; what ``x`` does not hold is zero."""
    if from_rate == to_rate:
        return x[..., start - x_start : start - x_start + length].clone(memory_format=torch.contiguous_format)
    y = x.new_empty(*x.shape[:-1], length)
    if y.numel() == 0:
        return y
    plan = _plan(*_reduced(from_rate, to_rate), quality)
    x, stride = _rows(x)
    count, rows = x.shape[-1], y.numel() // length
    sizes = (rows, stride, count, x_start, start, length, plan.up, plan.down)
    if x.device.type == "cuda":
        return _launch(x, y, sizes, plan)
    team = _library.threads() if threads is None else threads
    taps, (tiled, spread) = plan.taps, _sorted_taps(plan.up, plan.down, quality)
    filters = (taps.data_ptr(), plan.half, int(plan.interpolated), _library.pointer(tiled), spread)
    _library.native().fa_resample(x.data_ptr(), y.data_ptr(), *sizes, *filters, team)
    return y


def _launch(x: Tensor, y: Tensor, sizes: tuple[int, ...], plan: _Plan) -> Tensor:
    from fastaug.ops._cuda import launch

    taps = _taps_on(plan.up, plan.down, plan.quality, x.device)
    args = (x, y, *sizes, taps, plan.half, int(plan.interpolated))
    launch("resample.cu", "fa_resample_kernel", (-(-y.numel() * 16 // 256),), (256,), args)
    return y


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """``x`` with evenly spaced contiguous rows, and their distance: slices of a contiguous tensor are not copied."""
    if x.dim() == 1 and (x.stride(0) == 1 or x.shape[0] < 2):
        return x, x.shape[0]
    if x.dim() == 2 and x.stride(1) == 1 and x.stride(0) >= x.shape[1]:
        return x, x.stride(0)
    return x.contiguous(), x.shape[-1]


def _fake(x: Tensor, from_rate: int, to_rate: int, quality: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], output_length(x.shape[-1], from_rate, to_rate))


_library.define(
    "resample(Tensor x, int from_rate, int to_rate, str quality) -> Tensor", cpu=_resample, cuda=_resample, fake=_fake
)
