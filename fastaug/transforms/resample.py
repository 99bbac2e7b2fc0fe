"""Another sample rate, as a step of a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fastaug import functional as F
from fastaug.transforms.base import Transform, check_rate

__all__ = ["Resample"]


@dataclass(eq=False, repr=False)
class Resample(Transform):
    """Band-limited resampling to ``to_rate``, also in ``.eval()``: a step, not an augmentation.

    Inside a `Compose`, what follows works at the new rate.  Shapes: (B, C, T) -> (B, C, ceil(T · to_rate / rate)).

    Args:
        to_rate: output rate in Hz.
    """

    to_rate: int = 22_050

    needs_sample_rate: ClassVar[bool] = True
    keeps_shape: ClassVar[bool] = False
    augments: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.to_rate, "Resample: to_rate")

    def process(
        self, samples: Tensor, active: Tensor, sample_rate: int | None, lengths: Tensor | None, **_: Any
    ) -> Tensor:
        assert sample_rate is not None
        return F.resample(samples, sample_rate, self.to_rate)

    def after(self, sample_rate: int | None, lengths: Tensor | None) -> tuple[int | None, Tensor | None]:
        rate = self._rate(sample_rate)
        assert rate is not None
        return self.to_rate, None if lengths is None else -((-lengths * self.to_rate) // rate)
