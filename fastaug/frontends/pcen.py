"""Per-channel energy normalisation: an automatic gain control in every band."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastaug.frontends.mel import MelSpectrogram

__all__ = ["PCEN", "pcen"]


def pcen(
    energy: Tensor,
    smoothing: float,
    gain: float = 0.98,
    bias: float = 2.0,
    root: float = 0.5,
    eps: float = 1e-6,
    start: float | None = None,
) -> Tensor:
    """(E / (eps + M)^gain + bias)^root − bias^root with M[t] = (1 − s) M[t − 1] + s E[t].

    Args:
        energy: (..., F, N), at least 0.
        smoothing: s, in (0, 1].
        start: M before the first frame; None takes the first frame's energy, so that M[0] = E[0].

    Returns:
        (..., F, N), the dtype of `energy`. Differentiable. Source: Wang et al., ICASSP 2017, equations 1 and 2.

    Raises:
        ValueError: smoothing outside (0, 1].
    """
    if not 0.0 < smoothing <= 1.0:
        raise ValueError(f"pcen: smoothing must be in (0, 1], got {smoothing}")
    first = energy[..., :1] if start is None else torch.full_like(energy[..., :1], start)
    smooth = torch.cat([first, smoothing * energy], -1)
    factor, step = 1.0 - smoothing, 1
    while step < smooth.shape[-1]:  # Hillis & Steele 1986: sums over 2, 4, 8, .. frames
        smooth = torch.cat([smooth[..., :step], smooth[..., step:] + factor * smooth[..., :-step]], -1)
        factor, step = factor * factor, step * 2
    smooth = smooth[..., 1:]
    return (energy * (eps + smooth) ** -gain + bias) ** root - bias**root


@dataclass(eq=False)
class PCEN(MelSpectrogram):
    """Mel spectrogram through `pcen`; librosa's defaults, on magnitudes.

    Args:
        time_constant: of the smoothing, in seconds.
        agc, bias, root, eps: gain, bias, power and eps of `pcen`.
        start: the smoothed energy before the first frame (librosa: 1); None is the first frame's.
        full_scale: factor on the samples: librosa asks for those of 32-bit integers, 2^31.
        n_mels, …: as in `MelSpectrogram`.

    ``frontend(samples, sample_rate=None)``: (..., C, T) -> (..., C, F, N).
    """

    power: float = field(default=1.0, kw_only=True)
    time_constant: float = field(default=0.4, kw_only=True)
    agc: float = field(default=0.98, kw_only=True)
    bias: float = field(default=2.0, kw_only=True)
    root: float = field(default=0.5, kw_only=True)
    eps: float = field(default=1e-6, kw_only=True)
    start: float | None = field(default=None, kw_only=True)
    full_scale: float = field(default=2.0**31, kw_only=True)

    def forward(self, samples: Tensor, sample_rate: int | None = None) -> Tensor:
        rate = self._rate(sample_rate)
        frames = self.time_constant * rate / self.hop_length
        smoothing = (math.sqrt(1.0 + 4.0 * frames * frames) - 1.0) / (2.0 * frames * frames)
        bands = super().forward(samples, rate)
        wide = bands if bands.dtype == torch.float64 else bands.float()
        energy = wide * self.full_scale**self.power
        return pcen(energy, smoothing, self.agc, self.bias, self.root, self.eps, self.start).to(bands.dtype)
