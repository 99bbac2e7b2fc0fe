"""Random windows of the waveform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fastaug import functional as F
from fastaug.ops import fused
from fastaug.ops.fused import Pointwise
from fastaug.random import Keys
from fastaug.transforms.base import Params, Transform

__all__ = ["RandomCrop"]


@dataclass(eq=False, repr=False)
class RandomCrop(Transform):
    """A window at a random place, one place an example; clips shorter than the window are padded with zeros.

    Args:
        samples: length of the window in samples, or
        seconds: its length in seconds, floor(seconds · sample_rate + 0.5) samples.

    Draws ``word`` int64 (B,), 32 random bits; start = ⌊word · (T − n + 1) / 2^32⌋, so that the draw does not depend on
    the length. With ``lengths`` the window lies in the valid part.  Shapes: (B, C, T) -> (B, C, n).

    Raises:
        ValueError: not exactly one of samples and seconds, or not positive.
    """

    samples: int | None = None
    seconds: float | None = None

    keeps_shape: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.samples is None) == (self.seconds is None):
            raise ValueError("RandomCrop: give either samples= or seconds=")
        size = self.samples if self.seconds is None else self.seconds
        if not size or size <= 0:
            raise ValueError(f"RandomCrop: the window must be longer than nothing, got {size!r}")

    @property
    def needs_sample_rate(self) -> bool:  # type: ignore[override]
        return self.seconds is not None

    def size(self, sample_rate: int | None) -> int:
        """Length of the window in samples."""
        if self.samples is not None:
            return self.samples
        assert self.seconds is not None and sample_rate is not None
        return max(1, math.floor(self.seconds * sample_rate + 0.5))

    def draw_params(self, keys: Keys) -> Params:
        return {"word": keys.word("word")}

    def process(
        self, samples: Tensor, active: Tensor, sample_rate: int | None, lengths: Tensor | None, word: Tensor, **_: Any
    ) -> Tensor:
        size = self.size(sample_rate)
        return F.crop(samples, self._starts(samples, size, lengths, word), size)

    def pointwise(
        self, samples: Tensor, active: Tensor, sample_rate: int | None, lengths: Tensor | None, word: Tensor, **_: Any
    ) -> Pointwise:
        size = self.size(sample_rate)
        return fused.cropping(samples, self._starts(samples, size, lengths, word), size)

    def _starts(self, samples: Tensor, size: int, lengths: Tensor | None, word: Tensor) -> Tensor:
        valid = samples.shape[-1] if lengths is None else lengths.to(samples.device, non_blocking=True)
        room = valid - size + 1
        room = max(room, 1) if isinstance(room, int) else room.clamp(min=1)
        return (word * room) >> 32

    def after(self, sample_rate: int | None, lengths: Tensor | None) -> tuple[int | None, Tensor | None]:
        return sample_rate, None if lengths is None else lengths.clamp(max=self.size(self._rate(sample_rate)))
