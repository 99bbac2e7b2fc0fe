"""Level, sign, noise and channels."""

from __future__ import annotations

from torch import Tensor

from fastaug.functional.shapes import Quantity, as_batch, like, own
from fastaug.ops import fused, noise, pointwise

__all__ = ["add_noise", "gain", "invert_polarity", "mix_down"]


def invert_polarity(x: Tensor, *, active: Tensor | None = None, inplace: bool = False) -> Tensor:
    """y = −x."""
    return like(pointwise.scale(as_batch(x), -1.0, active=active, inplace=own(x, inplace)), x)


def gain(
    x: Tensor, gain_db: Quantity, clip: bool = False, *, active: Tensor | None = None, inplace: bool = False
) -> Tensor:
    """y = x · 10^(gain_db / 20), clipped to [−1, 1] if ``clip``.

    Args:
        gain_db: decibels, 20·log10 of the amplitude ratio.
    """
    batch = as_batch(x)
    factor = fused.amplitude(gain_db, batch)
    return like(pointwise.scale(batch, factor, clip, active, inplace=own(x, inplace)), x)


def add_noise(
    x: Tensor,
    noise_key: Tensor,
    *,
    snr_db: Quantity | None = None,
    std_ratio: Quantity | None = None,
    sigma: Quantity | None = None,
    clip: bool = False,
    lengths: Tensor | None = None,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """White Gaussian noise, independent per channel, the same for the same key.

    Args:
        noise_key: int64 (B, 3): two key words and a stream, see ``Keys.noise_key``.
        snr_db: ratio of the row's RMS to the noise's, in decibels; or
        std_ratio: the noise's standard deviation as a multiple of the row's; or
        sigma: the noise's standard deviation itself.
        clip: clip the result to [−1, 1].
        lengths: int64 (B,): what follows is padding; it stays as it is and does not count in the row's level.

    Raises:
        ValueError: not exactly one of snr_db, std_ratio and sigma.
    """
    out = noise.add_noise(
        as_batch(x),
        noise_key,
        sigma=sigma,
        snr_db=snr_db,
        std_ratio=std_ratio,
        clip=clip,
        lengths=lengths,
        active=active,
        inplace=own(x, inplace),
    )
    return like(out, x)


def mix_down(x: Tensor) -> Tensor:
    """The mean of the channels.  Shapes: (B, C, T) -> (B, 1, T), (C, T) -> (1, T); (T,) stays."""
    batch = as_batch(x)
    total = batch[:, :1]
    for channel in range(1, batch.shape[1]):  # one by one: the order of the sum must not depend on the batch
        total = total + batch[:, channel : channel + 1]
    return like(total / max(1, batch.shape[1]), x)
