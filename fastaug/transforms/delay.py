"""One echo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys, Spec
from fastaug.transforms.base import Params, Transform
from fastaug.transforms.quantities import check_spec

__all__ = ["Delay"]


@dataclass(eq=False, repr=False)
class Delay(Transform):
    """The signal plus one delayed copy of itself: y[n] = x[n] + factor · x[n − d], d = int(delay_ms · rate / 1000).

    Args:
        delay_ms: in milliseconds.
        factor: amplitude of the copy.
        halve: halve the sum, as the code of CLMR does: the dry signal then drops by 6 dB.

    Draws ``delay_ms`` and ``factor`` float32 (B,).
    """

    delay_ms: Spec = field(default_factory=lambda: [200.0, 250.0, 300.0, 350.0, 400.0, 450.0, 500.0])
    factor: Spec = 0.5
    halve: bool = True

    needs_sample_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec("Delay: delay_ms", self.delay_ms, 0.0)
        check_spec("Delay: factor", self.factor)

    def draw_params(self, keys: Keys) -> Params:
        return {"delay_ms": keys.value("delay_ms", self.delay_ms), "factor": keys.value("factor", self.factor)}

    @property
    def rowwise(self) -> bool:
        return True

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        delay_ms: Tensor,
        factor: Tensor,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        assert sample_rate is not None
        return F.delay(samples, sample_rate, delay_ms, factor, halve=self.halve, active=active, inplace=inplace)
