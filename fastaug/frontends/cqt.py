"""The constant-Q transform: bins at equal steps of pitch, with windows as long as each pitch needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastaug.frontends.spectrogram import Rated

__all__ = ["CQT"]


@dataclass(eq=False)
class CQT(Rated):
    """Magnitudes of a constant-Q transform, by its definition: no resampling, no pruned kernels.

    Bin k at f_k = f_min · 2^(k / bins_per_octave) sees L_k = ceil(Q · rate / f_k) samples around each frame's centre,
    Q = 1 / (2^(1 / bins_per_octave) − 1): |Σ w[n] x[n] e^(−2πi f_k n / rate)| / Σ w · √L_k, w a periodic Hann window of
    L_k samples. That is nnAudio's CQT1992v2 with its default norm; √L_k is librosa's scale. Each octave is one
    convolution of torch with kernels of that octave's length, in the dtype of the samples (float32 at least).

    Args:
        hop_length: samples between frames; frame i is around sample i · hop_length, N = 1 + T // hop_length.
        sample_rate: in Hz, as in `MelSpectrogram`.
        f_min: frequency of the lowest bin in Hz; the default is C1.
        bins: number of bins F.
        bins_per_octave: steps of pitch in an octave.
        pad: "constant" or "reflect", as in `Spectrogram`. n_fft, win_length, center and power have no meaning here.

    ``frontend(samples, sample_rate=None)``: (..., C, T) -> (..., C, F, N). Differentiable.
    Source: Brown, J. Acoust. Soc. Am. 89 (1991), equation 5; Schörkhuber & Klapuri (2010) for librosa's faster way.

    Raises:
        ValueError: a bin above half the sample rate, or numbers that are not positive.
    """

    f_min: float = 32.70319566257483
    bins: int = 84
    bins_per_octave: int = 12
    _kernels: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins < 1 or self.bins_per_octave < 1 or not self.f_min > 0:
            raise ValueError("CQT: f_min, bins and bins_per_octave must be positive")

    def frequencies(self) -> Tensor:
        """Centres of the bins in Hz, float64 (F,)."""
        return self.f_min * 2.0 ** (torch.arange(self.bins, dtype=torch.float64) / self.bins_per_octave)

    def forward(self, samples: Tensor, sample_rate: int | None = None) -> Tensor:
        rate = self._rate(sample_rate)
        rows = samples.reshape(math.prod(samples.shape[:-1]), 1, samples.shape[-1])
        rows = rows if rows.dtype == torch.float64 else rows.float()
        bands = []
        for kernels in self._octaves(rate, rows.device, rows.dtype):
            reach, bins = kernels.shape[-1] // 2, kernels.shape[0] // 2
            value = nn.functional.conv1d(self._padded(rows, reach), kernels, stride=self.hop_length)
            bands.append((value[:, :bins].square() + value[:, bins:].square()).sqrt())
        result = torch.cat(bands, 1)
        return result.reshape(*samples.shape[:-1], *result.shape[1:]).to(self.dtype or samples.dtype)

    def _padded(self, rows: Tensor, reach: int) -> Tensor:
        """Room for frames 0 to T // hop; mirrored as often as it takes."""
        length = rows.shape[-1]
        if self.pad == "constant" or length < 2:
            return nn.functional.pad(rows, (reach, reach))
        at = torch.arange(-reach, length + reach, device=rows.device).abs() % (2 * (length - 1))
        return rows.index_select(2, torch.minimum(at, 2 * (length - 1) - at))

    def _octaves(self, rate: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Kernels (2 · bins, 1, even length): real parts, imaginary parts, time 0 in the middle, of each octave."""
        key = (rate, device, dtype)
        if key not in self._kernels:
            frequencies = self.frequencies()
            if float(frequencies[-1]) > rate / 2:
                raise ValueError(
                    f"CQT: bin {self.bins - 1} at {float(frequencies[-1]):.0f} Hz is above {rate / 2:g} Hz"
                )
            groups = frequencies.split(self.bins_per_octave)
            self._kernels[key] = [self._octave(group, rate).to(device, dtype) for group in groups]
        return self._kernels[key]

    def _octave(self, frequencies: Tensor, rate: int) -> Tensor:
        quality = 1.0 / (2.0 ** (1.0 / self.bins_per_octave) - 1.0)
        lengths = torch.ceil(quality * rate / frequencies)
        reach = int(lengths.max()) // 2 + 1
        n = torch.arange(-reach, reach, dtype=torch.float64)
        start, length = -torch.floor(lengths / 2)[:, None], lengths[:, None]
        inside = (n >= start) & (n < start + length)
        window = torch.where(inside, 0.5 - 0.5 * torch.cos(2 * math.pi * (n - start) / length), 0.0)
        window = window / window.sum(1, keepdim=True) * length.sqrt()
        phase = 2 * math.pi * frequencies[:, None] / rate * n
        return torch.cat([window * torch.cos(phase), -window * torch.sin(phase)])[:, None]
