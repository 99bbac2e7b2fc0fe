"""Algorithmic reverberation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys, Spec
from fastaug.transforms.base import Params, Transform
from fastaug.transforms.quantities import check_spec

__all__ = ["Reverb"]


@dataclass(eq=False, repr=False)
class Reverb(Transform):
    """Freeverb with the controls of ``sox reverb``: eight combs and four all-passes a side; the tail is cut.

    Args:
        reverberance: length of the tail, in percent.
        hf_damping: damping of high frequencies, in percent.
        room_scale: size of the room, in percent.
        stereo_depth: difference between the two sides, in percent.
        pre_delay_ms: delay of the wet signal in milliseconds.
        wet_gain_db: level of the wet signal in decibels.
        wet_only: leave the dry signal out.
        clip: clip each side to [−1, 1], as sox does.

    Draws ``reverberance``, ``hf_damping``, ``room_scale``, ``stereo_depth``, ``pre_delay_ms``, ``wet_gain_db``, each
    float32 (B,).
    """

    reverberance: Spec = (0.0, 100.0)
    hf_damping: Spec = (0.0, 100.0)
    room_scale: Spec = (0.0, 100.0)
    stereo_depth: Spec = 100.0
    pre_delay_ms: Spec = 0.0
    wet_gain_db: Spec = 0.0
    wet_only: bool = False
    clip: bool = True

    needs_sample_rate: ClassVar[bool] = True
    _drawn: ClassVar[tuple[tuple[str, float, float], ...]] = (
        ("reverberance", 0, 100),
        ("hf_damping", 0, 100),
        ("room_scale", 0, 100),
        ("stereo_depth", 0, 100),
        ("pre_delay_ms", 0, 500),
        ("wet_gain_db", -100, 20),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in self._drawn:
            check_spec(f"Reverb: {name}", getattr(self, name), low, high)

    def draw_params(self, keys: Keys) -> Params:
        return {name: keys.value(name, getattr(self, name)) for name, _, _ in self._drawn}

    @property
    def rowwise(self) -> bool:
        return True

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        reverberance: Tensor,
        hf_damping: Tensor,
        room_scale: Tensor,
        stereo_depth: Tensor,
        pre_delay_ms: Tensor,
        wet_gain_db: Tensor,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        assert sample_rate is not None
        return F.reverb(
            samples,
            sample_rate,
            reverberance,
            hf_damping,
            room_scale,
            stereo_depth,
            pre_delay_ms,
            wet_gain_db,
            wet_only=self.wet_only,
            clip=self.clip,
            active=active,
            inplace=inplace,
        )
