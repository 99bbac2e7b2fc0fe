"""The pointwise pass: a window of every row, a level, white noise and another level, read and written once.

`crop`, `scale` and `add_noise` are this pass with one of its parts. A chain of transforms merges as many parts as it
can with `Pointwise.then`; the bits are those of one part after another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastaug.ops._library import active_rows, check_samples, define, direct, pointer, row_values, threads
from fastaug.ops.rows import call

__all__ = ["Hiss", "Pointwise", "Scaling", "amplitude", "cropping", "flipping", "hissing", "run", "scaling"]

SIGMA, SNR_DB, STD_RATIO = 0, 1, 2  # FaNoiseMode of csrc/noise.h
_THREADS, _TILE = 256, 4096  # of csrc/cuda/pointwise.cu


class Scaling(NamedTuple):
    """A level of every row, (B,) each: ``active`` rows (None: all) times ``factor``, held within [-1, 1] if ``clip``;
    rows with ``flip`` (None: none) upside down."""

    flip: Tensor | None = None
    factor: Tensor | None = None
    active: Tensor | None = None
    clip: bool = False

    def then(self, later: Scaling) -> Scaling | None:
        """Both in one, or None: two products round twice. A change of sign is exact and commutes with the rest."""
        if self.factor is not None and later.factor is not None:
            return None
        flip = later.flip if self.flip is None else self.flip if later.flip is None else self.flip ^ later.flip
        level = self if later.factor is None else later
        return Scaling(flip, level.factor, level.active, level.clip)


class Hiss(NamedTuple):
    """White noise of the rows ``active`` (None: all) as `noise.add_noise` defines it, over ``lengths`` samples."""

    key: Tensor
    level: Tensor
    mode: int
    active: Tensor | None = None
    clip: bool = False
    lengths: Tensor | None = None


class Pointwise(NamedTuple):
    """What the pass does, in this order: samples [start, start + length) of every row, a level, noise, a level."""

    starts: Tensor | None = None
    length: int | None = None
    before: Scaling = Scaling()
    noise: Hiss | None = None
    after: Scaling = Scaling()

    def then(self, later: Pointwise) -> Pointwise | None:
        """``self`` and then ``later`` in one pass with the same bits, or None where that cannot be.

        A window comes first, so it follows nothing else. ``later`` has at most one part.
        """
        if later.starts is not None or (self.noise is not None and later.noise is not None):
            return None
        starts, length, before, noise, after = self
        if later.noise is not None:
            return Pointwise(starts, length, before, later.noise, after)
        level = (before if noise is None else after).then(later.before)
        if level is None:
            return None
        if noise is None:
            return Pointwise(starts, length, level, noise, after)
        return Pointwise(starts, length, before, noise, level)


def amplitude(gain_db: float | Tensor, x: Tensor) -> float | Tensor:
    """Decibels as factors, 10 ** (gain_db / 20): a number for a number, else float32 (B,)."""
    if not isinstance(gain_db, Tensor):
        return float(10.0 ** (gain_db / 20))
    # in float64 and rounded once: a float32 pow differs between a vector's lanes and its tail, so between batch sizes
    return torch.pow(10.0, row_values(gain_db, x, "gain_db", torch.float64) / 20).float()


def cropping(x: Tensor, starts: int | Tensor, length: int) -> Pointwise:
    """Samples [start, start + length), zeros outside. See `pointwise.crop`."""
    if isinstance(starts, float) or (isinstance(starts, Tensor) and starts.is_floating_point()):
        raise TypeError(f"starts must be whole samples (an int or int64), got {getattr(starts, 'dtype', 'a float')}")
    if length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    return Pointwise(row_values(starts, x, "starts", torch.int64), length)


def scaling(x: Tensor, factor: float | Tensor, clip: bool, active: Tensor | None) -> Pointwise:
    """A level. See `pointwise.scale`."""
    return Pointwise(before=Scaling(None, row_values(factor, x, "factor"), active_rows(active, x), clip))


def flipping(x: Tensor, active: Tensor | None) -> Pointwise:
    """Rows upside down."""
    if active is None:
        active = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
    return Pointwise(before=Scaling(active_rows(active, x)))


def hissing(
    x: Tensor,
    key: Tensor,
    *,
    sigma: float | Tensor | None = None,
    snr_db: float | Tensor | None = None,
    std_ratio: float | Tensor | None = None,
    clip: bool = False,
    lengths: Tensor | None = None,
    active: Tensor | None = None,
) -> Pointwise:
    """White noise. See `noise.add_noise`."""
    given = [(mode, value) for mode, value in enumerate((sigma, snr_db, std_ratio)) if value is not None]
    if len(given) != 1:
        raise ValueError(f"add_noise needs exactly one of sigma, snr_db and std_ratio, got {len(given)}")
    mode, value = given[0]
    if key.dtype != torch.int64:
        raise TypeError(f"noise_key must be int64, got {key.dtype}")
    if key.shape != (x.shape[0], 3):
        raise ValueError(f"noise_key must have shape ({x.shape[0]}, 3), got {tuple(key.shape)}")
    level = row_values(value, x, ("sigma", "snr_db", "std_ratio")[mode])
    valid = None if lengths is None else row_values(lengths, x, "lengths", torch.int64)
    key = key.to(x.device, non_blocking=True).contiguous()
    return Pointwise(noise=Hiss(key, level, mode, active_rows(active, x), clip, valid))


def run(x: Tensor, steps: Pointwise, inplace: bool = False) -> Tensor:
    """The pass over x (B, C, T) float32, without a gradient: the ops made of one part have theirs.

    Args:
        inplace: the result may be written into `x` (it is on the CPU, where no window is cut out).

    Raises:
        TypeError, ValueError: `x` is not as above.
    """
    x = check_samples(x)
    if direct(x):
        return run_cpu(x, steps, x if inplace else None)
    before, noise, after = steps.before, steps.noise, steps.after
    hiss = (None, None, SIGMA, None, False, None) if noise is None else noise
    length = x.shape[-1] if steps.length is None else steps.length
    return torch.ops.fastaug.pointwise(x, steps.starts, length, *before, *hiss, *after)


def run_cpu(x: Tensor, steps: Pointwise, y: Tensor | None = None) -> Tensor:
    """The pass on the CPU; into ``y``, which is x or like it, if that is given and no window is cut out."""
    x = x.contiguous()
    starts, length, before, noise, after = steps
    rows, channels, given = x.shape
    if starts is None:
        length = given
    assert length is not None
    if y is None or starts is not None:
        y = x.new_empty(rows, channels, length)
    call(
        "fa_pointwise",
        x.data_ptr(),
        y.data_ptr(),
        pointer(starts),
        *_level(before),
        *_hiss(noise),
        *_level(after),
        rows,
        channels,
        given,
        length,
        threads(y.numel()),
        keep=(x, y, starts, *_tensors(before), *_tensors(noise), *_tensors(after)),
    )
    return y


def run_cuda(x: Tensor, steps: Pointwise) -> Tensor:
    from fastaug.ops._cuda import launch

    x = x.contiguous()
    starts, length, before, noise, after = steps
    rows, channels, given = x.shape
    length = given if starts is None else length
    assert length is not None
    y = x.new_empty(rows, channels, length)
    tiles = -(-length // _TILE)
    grid, sizes = (rows * channels * tiles,), (channels, given, length)
    if y.numel() == 0:
        return y
    level: tuple[Any, ...] = (before.flip, before.factor, before.active, int(before.clip))
    sums = None
    if noise is not None and noise.mode != SIGMA:
        sums = torch.empty(rows, channels * tiles, 2, dtype=torch.float64, device=x.device)
        args = (x, sums, starts, *level, noise.active, noise.lengths, noise.mode, *sizes)
        launch("pointwise.cu", "fa_noise_sums_kernel", grid, (_THREADS,), args)
    hiss: tuple[Any, ...] = (None, None, None, None, None, SIGMA, 0)
    if noise is not None:
        hiss = (noise.key, noise.level, noise.active, noise.lengths, sums, noise.mode, int(noise.clip))
    later = (after.flip, after.factor, after.active, int(after.clip))
    args = (x, y, starts, *level, *hiss, *later, *sizes)
    launch("pointwise.cu", "fa_pointwise_kernel", grid, (_THREADS,), args)
    return y


def _level(level: Scaling) -> tuple[Any, ...]:
    return pointer(level.flip), pointer(level.factor), pointer(level.active), int(level.clip)


def _tensors(part: Scaling | Hiss | None) -> list[Tensor]:
    return [] if part is None else [value for value in part if isinstance(value, Tensor)]


def _hiss(noise: Hiss | None) -> tuple[Any, ...]:
    if noise is None:
        return None, None, None, None, SIGMA, 0
    arrays = (noise.key, noise.level, noise.active, noise.lengths)
    return *map(pointer, arrays), noise.mode, int(noise.clip)


def _steps(starts: Tensor | None, length: int, *flat: Any) -> Pointwise:
    """The arguments of torch.ops.fastaug.pointwise, sorted back."""
    noise = None if flat[4] is None else Hiss(*flat[4:10])
    return Pointwise(starts, length, Scaling(*flat[:4]), noise, Scaling(*flat[10:]))


def _fake(x: Tensor, starts: Tensor | None, length: int, *flat: Any) -> Tensor:
    return x.new_empty(*x.shape[:2], length)


define(
    "pointwise(Tensor x, Tensor? starts, SymInt length, "
    "Tensor? flip, Tensor? factor, Tensor? active, bool clip, "
    "Tensor? noise_key, Tensor? level, int mode, Tensor? noisy, bool noise_clip, Tensor? lengths, "
    "Tensor? flip_after, Tensor? factor_after, Tensor? active_after, bool clip_after) -> Tensor",
    cpu=lambda x, *flat: run_cpu(x, _steps(*flat)),
    cuda=lambda x, *flat: run_cuda(x, _steps(*flat)),
    fake=_fake,
)
