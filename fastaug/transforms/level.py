"""Level, sign and channels of the waveform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fastaug import functional as F
from fastaug.ops import fused
from fastaug.ops.fused import Pointwise
from fastaug.random import Keys, Spec
from fastaug.transforms.base import Params, Transform
from fastaug.transforms.quantities import check_spec

__all__ = ["Gain", "MixDown", "PolarityInversion"]


@dataclass(eq=False, repr=False)
class PolarityInversion(Transform):
    """The waveform turned upside down: y = −x. Draws nothing but ``active``."""

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        return F.invert_polarity(samples, active=active, inplace=inplace)

    def pointwise(self, samples: Tensor, active: Tensor, *_: Any, **__: Any) -> Pointwise:
        return fused.flipping(samples, active)


@dataclass(eq=False, repr=False)
class Gain(Transform):
    """A change of level: y = x · 10^(gain_db / 20).

    Args:
        gain_db: in decibels, 20·log10 of the amplitude ratio.
        clip: clip the result to [−1, 1], as torchaudio's ``Vol`` does.

    Draws ``gain_db`` float32 (B,).
    """

    gain_db: Spec = (-6.0, 0.0)
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec("Gain: gain_db", self.gain_db, -200, 200)

    def draw_params(self, keys: Keys) -> Params:
        return {"gain_db": keys.value("gain_db", self.gain_db)}

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        gain_db: Tensor,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        return F.gain(samples, gain_db, clip=self.clip, active=active, inplace=inplace)

    def pointwise(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        gain_db: Tensor,
        **_: Any,
    ) -> Pointwise:
        return fused.scaling(samples, fused.amplitude(gain_db, samples), self.clip, active)


@dataclass(eq=False, repr=False)
class MixDown(Transform):
    """The mean of the channels, also in ``.eval()``: a step, not an augmentation.  Shapes: (B, C, T) -> (B, 1, T)."""

    keeps_shape: ClassVar[bool] = False
    augments: ClassVar[bool] = False

    def process(
        self, samples: Tensor, active: Tensor, sample_rate: int | None, lengths: Tensor | None, **_: Any
    ) -> Tensor:
        return F.mix_down(samples)
