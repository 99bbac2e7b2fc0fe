"""One echo, and many."""

from __future__ import annotations

import torch
from torch import Tensor

from fastaug.functional.shapes import Quantity, as_batch, like, own
from fastaug.ops import pointwise
from fastaug.ops import reverb as op
from fastaug.ops._library import row_values

__all__ = ["delay", "reverb"]


def delay(
    x: Tensor,
    sample_rate: int,
    delay_ms: Quantity,
    factor: Quantity = 0.5,
    halve: bool = True,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """One echo: y[n] = x[n] + factor · x[n − d] with d = ⌊delay_ms · sample_rate / 1000⌋, halved if ``halve``.

    Args:
        sample_rate: Hz.
        delay_ms: milliseconds, not negative.
        factor: amplitude of the echo.
    """
    batch = as_batch(x)
    offset = (row_values(delay_ms, batch, "delay_ms", torch.float64) * sample_rate / 1000).long()
    dry, wet = 1.0, row_values(factor, batch, "factor")
    if halve:  # a power of two may as well be taken out of the levels: the bits are the same
        dry, wet = 0.5, wet * 0.5
    return like(pointwise.echo(batch, offset, dry, wet, active, inplace=own(x, inplace)), x)


def reverb(
    x: Tensor,
    sample_rate: int,
    reverberance: Quantity = 50.0,
    hf_damping: Quantity = 50.0,
    room_scale: Quantity = 100.0,
    stereo_depth: Quantity = 100.0,
    pre_delay_ms: Quantity = 0.0,
    wet_gain_db: Quantity = 0.0,
    wet_only: bool = False,
    clip: bool = True,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Freeverb with the controls of ``sox reverb``; the tail beyond T is cut.

    One channel with stereo_depth > 0: the mean of the two clipped outputs, as sox's ``channels 1``; two channels: sox
    stereo; more: depth 0.

    Args:
        sample_rate: Hz.
        reverberance, hf_damping, room_scale, stereo_depth: percent.
        pre_delay_ms: milliseconds. wet_gain_db: decibels.
        wet_only: leave the dry signal out. clip: clip each side to [−1, 1].
        inplace: the result may be written into `x`.
    """
    out = op.reverb(
        as_batch(x),
        sample_rate,
        reverberance,
        hf_damping,
        room_scale,
        stereo_depth,
        pre_delay_ms,
        wet_gain_db,
        wet_only=wet_only,
        clip=clip,
        active=active,
        inplace=inplace,
    )
    return like(out, x)
