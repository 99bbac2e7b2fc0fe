"""Windows of spectrograms, resized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys
from fastaug.transforms.base import Params, Transform
from fastaug.transforms.quantities import check_spec

__all__ = ["RandomResizeCrop"]


@dataclass(eq=False, repr=False)
class RandomResizeCrop(Transform):
    """A random window of a larger canvas with the spectrogram in its middle, resized to the spectrogram's size.

    The rest of the canvas is 0, so it is meant for normalised spectrograms. The window has ⌊scale · size⌋ bins and
    frames, within the canvas, at any place in it. Source: Niizumi et al., BYOL for Audio, IJCNN 2021, section III-B.

    Args:
        freq_scale, time_scale: (low, high) of the window's share of the spectrogram.
        canvas: size of the canvas, (frequency, time), as multiples of the spectrogram's.

    Draws ``freq_scale`` and ``time_scale`` float32 (B,), ``words`` int64 (B, 2).
    Shapes: (B, C, F, N) -> (B, C, F, N).

    Raises:
        ValueError: a scale is not positive, or the canvas smaller than the spectrogram.
    """

    freq_scale: tuple[float, float] = (0.6, 1.5)
    time_scale: tuple[float, float] = (0.6, 1.5)
    canvas: tuple[float, float] = (1.0, 1.5)

    batch_dim: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec("RandomResizeCrop: freq_scale", self.freq_scale, 1e-3, 1e3)
        check_spec("RandomResizeCrop: time_scale", self.time_scale, 1e-3, 1e3)
        if len(self.canvas) != 2 or not all(1 <= side <= 1e3 for side in self.canvas):
            raise ValueError(f"RandomResizeCrop: canvas is two multiples of at least 1, got {self.canvas!r}")

    def draw_params(self, keys: Keys) -> Params:
        scales = {name: keys.value(name, getattr(self, name)) for name in ("freq_scale", "time_scale")}
        return {**scales, "words": keys.words("words")[:, :2]}

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        freq_scale: Tensor,
        time_scale: Tensor,
        words: Tensor,
        **_: Any,
    ) -> Tensor:
        freq = _window(samples.shape[2], self.canvas[0], freq_scale, words[:, 0])
        time = _window(samples.shape[3], self.canvas[1], time_scale, words[:, 1])
        return F.resized_crop(samples, *freq, *time, active=active)


def _window(size: int, canvas: float, scale: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """Start, in cells of the spectrogram, and size of the window along one axis, int64 (B,)."""
    room = int(size * canvas)
    width = (scale * size).to(torch.int64).clamp(1, room)
    return ((word * (room - width + 1)) >> 32) - (room - size) // 2, width
