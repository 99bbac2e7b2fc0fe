"""Masks on spectrograms, and the warping of their time axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys
from fastaug.transforms.base import Params, Transform

__all__ = ["FrequencyMask", "SpecAugment", "TimeMask", "TimeWarp"]

#: A number of masks, or a list (or range) of them to choose from, per example.
Count = int | list[int] | range


@dataclass(eq=False, repr=False)
class FrequencyMask(Transform):
    """Bands of bins at random places, replaced by a constant; shared by an example's channels.

    A mask of at most W bins has width ⌊u · (W + 1)⌋, uniform over 0 ... W, and lies anywhere on the axis.

    Args:
        masks: number of masks; a list (or range) is a choice, per example.
        width: largest width W, as bins (int) or as a share of the axis (float in [0, 1]).
        fill: a number, or "mean" for the mean of the example's valid frames.
        width_hz, bin_hz: instead of ``width``, the largest width in hertz and the centre of each bin (ascending). The
            mask is then an interval of u · width_hz anywhere between half a bin before the first centre and half a bin
            after the last, and covers the bins whose centres lie in it.

    Draws ``freq_words`` int64 (B, masks, 2), and ``freq_count`` int64 (B,) where ``masks`` is a choice; in hertz
    ``freq_start`` and ``freq_size`` int64 (B, masks), in bins.
    Shapes: (B, C, F, N) -> (B, C, F, N).  Source: Park et al., SpecAugment, Interspeech 2019, section 2.

    Raises:
        ValueError: a negative count or width, a share above 1, an unknown fill, or one of the two in hertz alone.
    """

    masks: Count = 1
    width: int | float = 0.2
    fill: float | str = "mean"
    width_hz: float | None = None
    bin_hz: Sequence[float] | None = None

    batch_dim: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_masks(self, self.masks, self.width, self.fill)
        _check_hz(self, self.width_hz, self.bin_hz)

    def draw_params(self, keys: Keys) -> Params:
        return _draw_freq(keys, self.masks, self.width_hz, self.bin_hz)

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        freq_words: Tensor | None = None,
        freq_count: Tensor | None = None,
        freq_start: Tensor | None = None,
        freq_size: Tensor | None = None,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        freq = _bins(samples, self.bin_hz, freq_words, freq_count, self.width, freq_start, freq_size)
        return F.mask_spectrogram(
            samples, *freq, *_nothing(samples), self.fill, lengths=lengths, active=active, inplace=inplace
        )


@dataclass(eq=False, repr=False)
class TimeMask(Transform):
    """Stretches of frames at random places, replaced by a constant; shared by an example's channels.

    Args:
        masks, width, fill: as of `FrequencyMask`, in frames.
        width_seconds, hop_length: instead of ``width``, the largest width in seconds and the samples between frames:
            W = ⌊width_seconds · rate / hop_length + 0.5⌋.

    Draws ``time_words`` int64 (B, masks, 2), and ``time_count`` int64 (B,) where ``masks`` is a choice. With
    ``lengths`` (valid frames) masks lie in the valid part.  Shapes: (B, C, F, N) -> (B, C, F, N).

    Raises:
        ValueError: as `FrequencyMask`.
    """

    masks: Count = 1
    width: int | float = 0.2
    fill: float | str = "mean"
    width_seconds: float | None = None
    hop_length: int | None = None

    batch_dim: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_masks(self, self.masks, self.width, self.fill)
        _check_seconds(self, self.width_seconds, self.hop_length)

    def draw_params(self, keys: Keys) -> Params:
        return _draw(keys, "time", self.masks)

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        time_words: Tensor,
        time_count: Tensor | None = None,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        width = _frames_of(self, self.width, self.width_seconds, self.hop_length, sample_rate)
        time = _place(time_words, time_count, _valid(samples, lengths), width)
        return F.mask_spectrogram(
            samples, *_nothing(samples), *time, self.fill, lengths=lengths, active=active, inplace=inplace
        )


@dataclass(eq=False, repr=False)
class TimeWarp(Transform):
    """A point of the time axis moved by up to ``width`` frames, what lies on either side stretched to fit.

    The point c is uniform over the frames more than W from either end, its shift uniform over -W ... W; both sides are
    interpolated linearly and the ends stay (Park et al. 2019, section 2, with the straight lines that ESPnet and lhotse
    draw for its spline). With ``lengths`` all of it happens in the valid frames.

    Args:
        width: largest shift W, in frames (int) or as a share of the axis (float in [0, 0.5]).

    Draws ``warp_words`` int64 (B, 1, 2).  Shapes: (B, C, F, N) -> (B, C, F, N).

    Raises:
        ValueError: a negative width or a share above 0.5.
    """

    width: int | float = 5

    batch_dim: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_warp("TimeWarp: width", self.width)

    def draw_params(self, keys: Keys) -> Params:
        return {"warp_words": _words(keys, "warp_words", 1)}

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        warp_words: Tensor,
        **_: Any,
    ) -> Tensor:
        center, shift = _bend(warp_words[:, 0], _valid(samples, lengths), self.width)
        return F.time_warp(samples, center, shift, lengths=lengths, active=active)


@dataclass(eq=False, repr=False)
class SpecAugment(Transform):
    """Masks of frequency and time at random places, after a warp of the time axis if wanted, per example.

    Source: Park et al., SpecAugment, Interspeech 2019, section 2. The parts are `TimeWarp`, `FrequencyMask` and
    `TimeMask`; here both kinds of masks are one pass, which touches nothing but the masked cells where the samples may
    be written and the fill is a number. So with spectrograms normalised by the front end, ``fill=0.0`` is the mean and
    costs nothing more.

    Args:
        freq_masks, time_masks: number of masks; a list (or range) is a choice, per example.
        freq_width, time_width: largest width W, as bins or frames (int) or as a share of the axis (float in [0, 1]).
        fill: a number, or "mean" for the mean of the example's valid frames.
        time_warp: largest shift of `TimeWarp`, 0 for none.
        freq_width_hz, bin_hz, time_width_seconds, hop_length: the widths in hertz or seconds, as of the parts.

    Draws ``freq_words`` int64 (B, freq_masks, 2), ``time_words`` int64 (B, time_masks, 2), ``warp_words`` with a warp,
    ``freq_count`` and ``time_count`` where those are choices; ``freq_start`` and ``freq_size`` in hertz. With
    ``lengths`` (valid frames) time masks lie in the valid part.  Shapes: (B, C, F, N) -> (B, C, F, N).

    Raises:
        ValueError: as the parts.
    """

    freq_masks: Count = 2
    freq_width: int | float = 0.2
    time_masks: Count = 2
    time_width: int | float = 0.2
    fill: float | str = "mean"
    time_warp: int | float = 0
    freq_width_hz: float | None = None
    bin_hz: Sequence[float] | None = None
    time_width_seconds: float | None = None
    hop_length: int | None = None

    batch_dim: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_masks(self, self.freq_masks, self.freq_width, self.fill, "freq_")
        _check_masks(self, self.time_masks, self.time_width, self.fill, "time_")
        _check_hz(self, self.freq_width_hz, self.bin_hz, "freq_")
        _check_seconds(self, self.time_width_seconds, self.hop_length, "time_")
        _check_warp("SpecAugment: time_warp", self.time_warp)

    def draw_params(self, keys: Keys) -> Params:
        freq = _draw_freq(keys, self.freq_masks, self.freq_width_hz, self.bin_hz)
        warp = {"warp_words": _words(keys, "warp_words", 1)} if self.time_warp else {}
        return {**freq, **_draw(keys, "time", self.time_masks), **warp}

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        time_words: Tensor,
        freq_words: Tensor | None = None,
        freq_count: Tensor | None = None,
        freq_start: Tensor | None = None,
        freq_size: Tensor | None = None,
        time_count: Tensor | None = None,
        warp_words: Tensor | None = None,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        valid = _valid(samples, lengths)
        if warp_words is not None:
            center, shift = _bend(warp_words[:, 0], valid, self.time_warp)
            samples, inplace = F.time_warp(samples, center, shift, lengths=lengths, active=active), True
        width = _frames_of(self, self.time_width, self.time_width_seconds, self.hop_length, sample_rate)
        freq = _bins(samples, self.bin_hz, freq_words, freq_count, self.freq_width, freq_start, freq_size)
        time = _place(time_words, time_count, valid, width)
        return F.mask_spectrogram(samples, *freq, *time, self.fill, lengths=lengths, active=active, inplace=inplace)


# Checking.


def _check_masks(transform: Transform, masks: Count, width: int | float, fill: float | str, prefix: str = "") -> None:
    name = type(transform).__name__
    counts = [masks] if isinstance(masks, int) else list(masks)
    if not counts or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError(f"{name}: {prefix}masks is a number of masks or a list of them, got {masks!r}")
    if width < 0 or (isinstance(width, float) and width > 1):
        raise ValueError(f"{name}: {prefix}width is a number of cells (int) or a share in [0, 1], got {width!r}")
    if isinstance(fill, str) and fill != "mean":
        raise ValueError(f'{name}: fill is a number or "mean", got {fill!r}')


def _check_hz(transform: Transform, width: float | None, centers: Sequence[float] | None, prefix: str = "") -> None:
    name = type(transform).__name__
    if (width is None) != (centers is None):
        raise ValueError(f"{name}: give {prefix}width_hz and bin_hz together")
    if width is not None and centers is not None:
        rising = all(a < b for a, b in zip(centers, list(centers)[1:], strict=False))
        if not width >= 0 or not len(centers) or not rising:
            raise ValueError(f"{name}: {prefix}width_hz must not be negative and bin_hz ascend, got {width}, {centers}")


def _check_seconds(transform: Transform, width: float | None, hop: int | None, prefix: str = "") -> None:
    name = type(transform).__name__
    if (width is None) != (hop is None):
        raise ValueError(f"{name}: give {prefix}width_seconds and hop_length together")
    if width is not None and hop is not None and not (width >= 0 and hop >= 1):
        raise ValueError(f"{name}: {prefix}width_seconds must not be negative, hop_length positive: {width}, {hop}")


def _check_warp(name: str, width: int | float) -> None:
    if width < 0 or (isinstance(width, float) and width > 0.5):
        raise ValueError(f"{name} is frames (int) or a share in [0, 0.5], got {width!r}")


# Drawing and placing.


def _words(keys: Keys, param: str, count: int) -> Tensor:
    """int64 (B, count, 2): two raw 32-bit words a mask, one for its width and one for its place."""
    blocks = [keys.words(param, block=block) for block in range(max(1, -(-2 * count // 4)))]
    words = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
    return words[:, : 2 * count].reshape(len(keys), count, 2)


def _draw(keys: Keys, name: str, masks: Count) -> Params:
    if isinstance(masks, int):
        return {f"{name}_words": _words(keys, f"{name}_words", masks)}
    counts = torch.tensor(list(masks), dtype=torch.int64)
    chosen = counts[keys.integers(f"{name}_count", 0, len(counts))]
    return {f"{name}_words": _words(keys, f"{name}_words", int(counts.max())), f"{name}_count": chosen}


def _valid(samples: Tensor, lengths: Tensor | None) -> Tensor | int:
    """Frames of each example that are not padding: int64 (B,), or one number for all."""
    frames = samples.shape[-1]
    return frames if lengths is None else lengths.to(samples.device).clamp(0, frames)


def _most(size: Any, width: int | float) -> Any:
    """The largest width on axes of ``size``; a share is an integer fraction, so that every device truncates alike."""
    if isinstance(width, float):
        return (size * math.floor(width * 2**24 + 0.5)) >> 24
    return size.clamp(max=width) if isinstance(size, Tensor) else min(size, width)


def _place(words: Tensor, count: Tensor | None, size: Tensor | int, width: int | float) -> tuple[Tensor, Tensor]:
    """Start and width (B, masks) of masks on axes of ``size`` ((B,) or one for all), from two 32-bit words each."""
    size = size[:, None] if isinstance(size, Tensor) else size
    shape, place = words.unbind(-1)
    chosen = (shape * (_most(size, width) + 1)) >> 32
    return (place * (size + 1 - chosen)) >> 32, _only(chosen, count)


def _only(sizes: Tensor, count: Tensor | None) -> Tensor:
    """Sizes of the first ``count`` (B,) masks, 0 for the others."""
    if count is None:
        return sizes
    return torch.where(torch.arange(sizes.shape[1], device=sizes.device) < count[:, None], sizes, 0)


def _draw_freq(keys: Keys, masks: Count, width_hz: float | None, bin_hz: Sequence[float] | None) -> Params:
    """Words of frequency masks; in hertz, where the axis is known before the spectrogram, first bin and number of bins
    of masks of u · width_hz."""
    drawn = _draw(keys, "freq", masks)
    if width_hz is None or bin_hz is None:
        return drawn
    words, count = drawn["freq_words"].double() / 2**32, drawn.get("freq_count")
    # Half a bin more at either end, or the outermost centres would have no chance to lie inside.
    bottom = bin_hz[0] - (bin_hz[1] - bin_hz[0]) / 2 if len(bin_hz) > 1 else bin_hz[0]
    top = bin_hz[-1] + (bin_hz[-1] - bin_hz[-2]) / 2 if len(bin_hz) > 1 else bin_hz[0]
    wide = words[..., 0] * min(width_hz, top - bottom)
    low = bottom + words[..., 1] * (top - bottom - wide)
    centers = torch.tensor(list(bin_hz), dtype=torch.float64)
    first = torch.searchsorted(centers, low)
    return {"freq_start": first, "freq_size": _only(torch.searchsorted(centers, low + wide, right=True) - first, count)}


def _bins(
    samples: Tensor,
    bin_hz: Sequence[float] | None,
    words: Tensor | None,
    count: Tensor | None,
    width: int | float,
    start: Tensor | None,
    size: Any,
) -> tuple[Tensor, Tensor]:
    """Bounds of the frequency masks: drawn in bins or shares, or found in hertz."""
    if bin_hz is not None and len(bin_hz) != samples.shape[-2]:
        raise ValueError(f"bin_hz has {len(bin_hz)} centres for {samples.shape[-2]} bins")
    if start is not None:
        return start, size
    assert words is not None
    return _place(words, count, samples.shape[-2], width)


def _nothing(samples: Tensor) -> tuple[Tensor, Tensor]:
    none = torch.empty(len(samples), 0, dtype=torch.int64, device=samples.device)
    return none, none


def _frames_of(
    transform: Transform, width: int | float, seconds: float | None, hop: int | None, sample_rate: int | None
) -> int | float:
    if seconds is None or hop is None:
        return width
    if sample_rate is None:
        raise ValueError(f"{type(transform).__name__} in seconds needs a sample rate: sample_rate=, or a Pipeline")
    return math.floor(seconds * sample_rate / hop + 0.5)


def _bend(words: Tensor, valid: Tensor | int, width: int | float) -> tuple[Tensor, Tensor]:
    """The point that moves and its shift, int64 (B,); the width gives way where the axis is too short."""
    valid = valid if isinstance(valid, Tensor) else torch.full_like(words[:, 0], valid)
    most = torch.minimum(_most(valid, width), ((valid - 3) // 2).clamp(min=0))
    center = most + 1 + ((words[:, 0] * (valid - 2 * most - 2).clamp(min=1)) >> 32)
    return center, ((words[:, 1] * (2 * most + 1)) >> 32) - most
