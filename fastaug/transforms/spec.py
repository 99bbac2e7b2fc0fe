"""Masks on spectrograms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys
from fastaug.transforms.base import Params, Transform

__all__ = ["SpecAugment"]


def _words(keys: Keys, param: str, count: int) -> Tensor:
    """int64 (B, count, 2): two raw 32-bit words a mask, one for its width and one for its place."""
    blocks = [keys.words(param, block=block) for block in range(max(1, -(-2 * count // 4)))]
    return torch.cat(blocks, dim=1)[:, : 2 * count].reshape(len(keys), count, 2)


@dataclass(eq=False, repr=False)
class SpecAugment(Transform):
    """Masks of frequency and time at random places, per example, shared by its channels.

    A mask of at most W bins has width ⌊u · (W + 1)⌋, uniform over 0 ... W, and lies anywhere inside the spectrogram.
    Source: Park et al., SpecAugment, Interspeech 2019, section 2 (without time warping).

    Args:
        freq_masks, time_masks: number of masks.
        freq_width, time_width: largest width W, as bins or frames (int) or as a share of the axis (float in [0, 1]).
        fill: a number, or "mean" for the example's mean.

    Draws ``freq_words`` int64 (B, freq_masks, 2) and ``time_words`` int64 (B, time_masks, 2). With ``lengths`` (valid
    frames) time masks lie in the valid part.  Shapes: (B, C, F, N) -> (B, C, F, N).

    Raises:
        ValueError: a negative count or width, a share above 1, or an unknown fill.
    """

    freq_masks: int = 2
    freq_width: int | float = 0.2
    time_masks: int = 2
    time_width: int | float = 0.2
    fill: float | str = "mean"

    batch_dim: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freq_masks < 0 or self.time_masks < 0:
            raise ValueError(f"SpecAugment: counts must not be negative, got {self.freq_masks}, {self.time_masks}")
        for name, width in (("freq_width", self.freq_width), ("time_width", self.time_width)):
            if width < 0 or (isinstance(width, float) and width > 1):
                raise ValueError(f"SpecAugment: {name} is bins or frames (int) or a share in [0, 1], got {width!r}")
        if isinstance(self.fill, str) and self.fill != "mean":
            raise ValueError(f'SpecAugment: fill is a number or "mean", got {self.fill!r}')

    def draw_params(self, keys: Keys) -> Params:
        return {
            "freq_words": _words(keys, "freq_words", self.freq_masks),
            "time_words": _words(keys, "time_words", self.time_masks),
        }

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        freq_words: Tensor,
        time_words: Tensor,
        **_: Any,
    ) -> Tensor:
        bins, frames = samples.shape[-2:]
        whole = torch.full((len(samples),), frames, dtype=torch.int64, device=samples.device)
        valid = whole if lengths is None else lengths.to(samples.device).clamp(max=frames)
        freq_start, freq_size = _place(freq_words, torch.full_like(whole, bins), self.freq_width)
        time_start, time_size = _place(time_words, valid, self.time_width)
        return F.mask_spectrogram(samples, freq_start, freq_size, time_start, time_size, self.fill, active=active)


def _place(words: Tensor, size: Tensor, width: int | float) -> tuple[Tensor, Tensor]:
    """Start and width (B, masks) of masks on axes of ``size`` (B,), from two 32-bit words each."""
    size = size[:, None]
    if isinstance(width, float):
        # the share as an integer fraction, so that every device truncates alike
        most = (size * math.floor(width * 2**24 + 0.5)) >> 24
    else:
        most = size.clamp(max=width)
    chosen = (words[..., 0] * (most + 1)) >> 32
    return (words[..., 1] * (size - chosen + 1)) >> 32, chosen
