"""Low-pass and high-pass filters: windowed sinc of julius' definition, or recursive (Butterworth)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys, Spec
from fastaug.transforms.base import Params, Transform
from fastaug.transforms.quantities import check_spec

__all__ = ["HighLowPass", "HighPass", "LowPass"]


@dataclass(eq=False, repr=False)
class LowPass(Transform):
    """Attenuate what lies above a cutoff drawn per example.

    A Hann-windowed sinc with ``zeros`` zero crossings a side, so it is steep: the transition takes about
    2 · cutoff / zeros. Delays nothing (linear phase, centred); edges repeat the first and last sample.
    Source: julius ``LowPassFilter``. With an ``order``: a recursive Butterworth filter instead, -3 dB at the cutoff.

    Args:
        cutoff_hz: in hertz; half a sample rate and above is the identity.
        zeros: zero crossings of the sinc that are kept on each side.
        order: of a Butterworth filter, 1 to 16, 6 dB an octave each; None for the sinc.

    Draws ``cutoff_hz`` float32 (B,).
    """

    cutoff_hz: Spec = (2200.0, 4000.0)
    zeros: int = 8
    order: int | None = None

    needs_sample_rate: ClassVar[bool] = True
    _high: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec(f"{type(self).__name__}: cutoff_hz", self.cutoff_hz, 1.0)
        _check_order(self)

    def draw_params(self, keys: Keys) -> Params:
        return {"cutoff_hz": keys.value("cutoff_hz", self.cutoff_hz)}

    @property
    def rowwise(self) -> bool:
        return self.order is None

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        cutoff_hz: Tensor,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        assert sample_rate is not None
        return _filter(self, samples, sample_rate, cutoff_hz, self._high, active, inplace)


@dataclass(eq=False, repr=False)
class HighPass(LowPass):
    """Attenuate what lies below a cutoff drawn per example: x minus its low-pass. See `LowPass`."""

    cutoff_hz: Spec = (200.0, 1200.0)

    _high: ClassVar[bool] = True


@dataclass(eq=False, repr=False)
class HighLowPass(Transform):
    """A coin per example: a high-pass or a low-pass. Both kinds run in one launch. See `LowPass`.

    Args:
        low_pass_hz: cutoff of the low-pass in hertz.
        high_pass_hz: cutoff of the high-pass in hertz.
        zeros: zero crossings of the sinc that are kept on each side.
        order: of a Butterworth filter, 1 to 16, 6 dB an octave each; None for the sinc.

    Draws ``highpass`` bool (B,), a fair coin, and ``cutoff_hz`` float32 (B,).
    """

    low_pass_hz: Spec = (2200.0, 4000.0)
    high_pass_hz: Spec = (200.0, 1200.0)
    zeros: int = 8
    order: int | None = None

    needs_sample_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec("HighLowPass: low_pass_hz", self.low_pass_hz, 1.0)
        check_spec("HighLowPass: high_pass_hz", self.high_pass_hz, 1.0)
        _check_order(self)

    def draw_params(self, keys: Keys) -> Params:
        high = keys.coin("highpass", 0.5)
        low_hz, high_hz = (keys.value("cutoff_hz", spec) for spec in (self.low_pass_hz, self.high_pass_hz))
        return {"highpass": high, "cutoff_hz": torch.where(high, high_hz, low_hz)}

    @property
    def rowwise(self) -> bool:
        return self.order is None

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        highpass: Tensor,
        cutoff_hz: Tensor,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        assert sample_rate is not None
        return _filter(self, samples, sample_rate, cutoff_hz, highpass, active, inplace)


def _check_order(transform: LowPass | HighLowPass) -> None:
    order = transform.order
    if order is not None and not (type(order) is int and 1 <= order <= 16):
        raise ValueError(
            f"{type(transform).__name__}: order must be None or a whole number from 1 to 16, got {order!r}"
        )


def _filter(
    transform: LowPass | HighLowPass,
    samples: Tensor,
    sample_rate: int,
    cutoff_hz: Tensor,
    highpass: bool | Tensor,
    active: Tensor,
    inplace: bool,
) -> Tensor:
    options: dict[str, Any] = {"active": active, "inplace": inplace}
    if transform.order is None:
        return F.sinc_filter(samples, sample_rate, cutoff_hz, highpass, zeros=transform.zeros, **options)
    return F.butterworth(samples, sample_rate, cutoff_hz, highpass, transform.order, **options)
