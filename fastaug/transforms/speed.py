"""Speed, as of a tape: tempo and pitch together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys, Spec
from fastaug.transforms.base import Params, Transform, select
from fastaug.transforms.quantities import check_spec

__all__ = ["Speed"]


@dataclass(eq=False, repr=False)
class Speed(Transform):
    """Play faster and higher, or slower and lower, by resampling; the length is kept.

    A faster row ends early, in zeros; of a slower one the end is cut. With ``lengths`` the valid part stays as long as
    it was, and the padding as it is.

    Args:
        percent: speed, 100 is unchanged, 25 to 400. Rounded to whole percent, so that there are few ratios to filter
            for.

    Draws ``percent`` int64 (B,).  Shapes: (B, C, T) -> (B, C, T).  Source: Ko et al., "Audio Augmentation for Speech
    Recognition", Interspeech 2015 (``sox speed``).

    Raises:
        ValueError: a speed out of range.
    """

    percent: Spec = range(90, 111)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec("Speed: percent", self.percent, 25, 400)

    def draw_params(self, keys: Keys) -> Params:
        return {"percent": (keys.value("percent", self.percent) + 0.5).floor().to(torch.int64)}

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        percent: Tensor,
        **_: Any,
    ) -> Tensor:
        changed = active & (percent != 100)
        rates = torch.where(changed, percent, 100)
        played, _lengths = F.resample(samples, rates, 100, out_length=samples.shape[-1])
        if lengths is None:
            return select(changed, played, samples)
        valid = torch.arange(samples.shape[-1], device=samples.device) < lengths[:, None]
        return torch.where((changed[:, None] & valid)[:, None], played, samples)
