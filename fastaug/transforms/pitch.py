"""Pitch without tempo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys, Spec
from fastaug.transforms.base import Params, Transform
from fastaug.transforms.quantities import check_spec

__all__ = ["PitchShift"]


@dataclass(eq=False, repr=False)
class PitchShift(Transform):
    """Shift the pitch and keep the length, as ``sox pitch`` does: WSOLA, then resampling.

    Args:
        semitones: how far, up to two octaves; positive is up.
        whole_cents: draw from a (low, high) range of semitones only whole cents, both ends included, as
            torchaudio-augmentations does.

    Draws ``semitones`` float32 (B,); an example's channels share the search, so they stay aligned.

    Raises:
        ValueError: whole_cents without a range.
    """

    semitones: Spec = (-7.0, 7.0)
    whole_cents: bool = False

    needs_sample_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec("PitchShift: semitones", self.semitones, -24, 24)
        if self.whole_cents and not isinstance(self.semitones, tuple):
            raise ValueError(f"PitchShift: whole_cents draws from a (low, high) range, got {self.semitones!r}")

    def draw_params(self, keys: Keys) -> Params:
        if not self.whole_cents:
            return {"semitones": keys.value("semitones", self.semitones)}
        assert isinstance(self.semitones, tuple)
        low, high = (round(100 * end) for end in self.semitones)
        return {"semitones": keys.fractions("semitones", low, high + 1, 100)}

    @property
    def rowwise(self) -> bool:
        return True

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        semitones: Tensor,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        assert sample_rate is not None
        return F.pitch_shift(samples, sample_rate, semitones, self._furthest(), active=active, inplace=inplace)

    def _furthest(self) -> float:
        spec = self.semitones
        return max(abs(float(value)) for value in ([spec] if isinstance(spec, int | float) else spec))
