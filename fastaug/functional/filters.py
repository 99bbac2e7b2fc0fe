"""Low-pass, high-pass and equaliser filters."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaug.functional.shapes import Quantity, as_batch, like
from fastaug.ops import fir, iir
from fastaug.ops._library import row_values

__all__ = [
    "band_pass",
    "butterworth",
    "high_pass",
    "high_shelf",
    "low_pass",
    "low_shelf",
    "notch",
    "peaking_eq",
    "sinc_filter",
    "sos_filter",
]


def low_pass(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    zeros: int = 8,
    order: int | None = None,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """What lies below the cutoff, by a `sinc_filter`; with an ``order``, by a `butterworth` filter."""
    if order is None:
        return sinc_filter(x, sample_rate, cutoff_hz, False, zeros, active=active, inplace=inplace)
    return butterworth(x, sample_rate, cutoff_hz, False, order, active=active, inplace=inplace)


def high_pass(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    zeros: int = 8,
    order: int | None = None,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """What lies above the cutoff: x minus its low `sinc_filter`; with an ``order``, by a `butterworth` filter."""
    if order is None:
        return sinc_filter(x, sample_rate, cutoff_hz, True, zeros, active=active, inplace=inplace)
    return butterworth(x, sample_rate, cutoff_hz, True, order, active=active, inplace=inplace)


def sinc_filter(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    highpass: bool | Tensor,
    zeros: int = 8,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Low-pass or high-pass by a Hann-windowed sinc of julius' definition; edges repeat the first and last sample.

    Args:
        sample_rate: Hz.
        cutoff_hz: Hz; half a sample rate and above keeps everything below it.
        highpass: a bool, or bool (B,).
        zeros: zero crossings of the sinc kept on each side.
        inplace: the result may be written into `x`, which is then returned.
    """
    batch = as_batch(x)
    cutoff = (row_values(cutoff_hz, batch, "cutoff_hz", torch.float64) / sample_rate).clamp(max=0.5)
    high = row_values(highpass, batch, "highpass", torch.bool)
    return like(fir.windowed_sinc(batch, cutoff, high, zeros=zeros, active=active, inplace=inplace), x)


def butterworth(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    highpass: bool | Tensor,
    order: int = 2,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Low-pass or high-pass by a recursive filter, flat in its pass band, causal, from rest.

    Args:
        sample_rate: Hz.
        cutoff_hz: Hz, the -3 dB point; half a sample rate and above keeps everything below it.
        highpass: a bool, or bool (B,).
        order: 1 to 16: 6 dB an octave each.
    """
    batch = as_batch(x)
    cutoff = (row_values(cutoff_hz, batch, "cutoff_hz", torch.float64) / sample_rate).clamp(max=0.5)
    sos = iir.butterworth(cutoff, row_values(highpass, batch, "highpass", torch.bool), order)
    return like(iir.sos_filter(batch, sos, active, inplace), x)


def band_pass(
    x: Tensor,
    sample_rate: int,
    centre_hz: Quantity,
    q: Quantity = 2**-0.5,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """0 dB at the centre, 6 dB an octave on either side; centre / q between the -3 dB points (analogue)."""
    return _biquad("band_pass", x, sample_rate, centre_hz, q, 0.0, active, inplace)


def notch(
    x: Tensor,
    sample_rate: int,
    centre_hz: Quantity,
    q: Quantity = 10.0,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Nothing at the centre; centre / q between the -3 dB points (analogue)."""
    return _biquad("notch", x, sample_rate, centre_hz, q, 0.0, active, inplace)


def peaking_eq(
    x: Tensor,
    sample_rate: int,
    centre_hz: Quantity,
    gain_db: Quantity,
    q: Quantity = 1.0,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """``gain_db`` at the centre, 0 dB far from it; centre / q between the points of half the decibels (analogue)."""
    return _biquad("peaking", x, sample_rate, centre_hz, q, gain_db, active, inplace)


def low_shelf(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    gain_db: Quantity,
    q: Quantity = 2**-0.5,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """``gain_db`` well below the cutoff, half of it there, 0 dB well above."""
    return _biquad("low_shelf", x, sample_rate, cutoff_hz, q, gain_db, active, inplace)


def high_shelf(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    gain_db: Quantity,
    q: Quantity = 2**-0.5,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """``gain_db`` well above the cutoff, half of it there, 0 dB well below."""
    return _biquad("high_shelf", x, sample_rate, cutoff_hz, q, gain_db, active, inplace)


def sos_filter(x: Tensor, sos: Tensor, *, active: Tensor | None = None, inplace: bool = False) -> Tensor:
    """``scipy.signal.sosfilt(sos, x)`` from rest, coefficients and state in float64. See `fastaug.ops.iir.sos_filter`.

    Args:
        sos: float64 (S, 6) or (B, S, 6): sections of b0, b1, b2, a0, a1, a2; stable, else ValueError (on the CPU).
    """
    return like(iir.sos_filter(as_batch(x), sos, active, inplace), x)


def _biquad(
    kind: str,
    x: Tensor,
    sample_rate: int,
    hz: Quantity,
    q: Quantity,
    gain_db: Quantity,
    active: Tensor | None,
    inplace: bool,
) -> Tensor:
    """One section of the Audio EQ Cookbook (Bristow-Johnson): see `fastaug.ops.iir.biquad`."""
    batch = as_batch(x)
    frequency = (row_values(hz, batch, "frequency", torch.float64) / sample_rate).clamp(max=0.5)
    q, gain_db = row_values(q, batch, "q", torch.float64), row_values(gain_db, batch, "gain_db", torch.float64)
    return like(iir.sos_filter(batch, iir.biquad(kind, frequency, q, gain_db), active, inplace), x)
