"""From samples to spectrograms: what sits between the augmentations and the model."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fastaug.transforms.base import check_rate

__all__ = ["LogMel", "hz_to_mel", "mel_filters", "mel_to_hz"]

Floats = npt.NDArray[np.float64]


@dataclass(eq=False)
class LogMel(nn.Module):
    """Log-mel spectrogram: ln(mel power + offset).

    Frames are centred: frame i is around sample i · hop_length, with zeros outside the clip, so N = 1 + T // hop_length
    for every T. Power |X|² of a periodic Hann window of n_fft samples, unscaled. ``mel="slaney"`` is librosa's
    ``feature.melspectrogram`` (Slaney's scale, triangles of area 1), ``mel="htk"`` torchaudio's ``MelSpectrogram``
    (HTK's scale, triangles of height 1; it pads by reflection where this pads zeros).

    Args:
        n_fft: window and transform length in samples, even.
        hop_length: samples between frames.
        n_mels: number of bands F.
        sample_rate: in Hz; may instead be bound by a Pipeline or given in the call, which wins.
        f_min, f_max: range of the bands in Hz; f_max None is half the sample rate.
        mel: "slaney" or "htk".
        offset: added to the power before the logarithm; with samples in [−1, 1] about −60 dB below a soft tone.

    ``frontend(samples, sample_rate=None)``: (..., C, T) -> (..., C, F, N), same float dtype; computed in float32.

    Raises:
        ValueError: an odd n_fft, an unknown scale, an empty range, or no sample rate.
    """

    n_fft: int = 1024
    hop_length: int = 512
    n_mels: int = 128
    sample_rate: int | None = None
    f_min: float = 0.0
    f_max: float | None = None
    mel: str = "slaney"
    offset: float = 1e-6
    _bound_rate: int | None = field(default=None, init=False, repr=False)

    def __new__(cls, *args: Any, **kwargs: Any) -> LogMel:
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self) -> None:
        if self.n_fft < 2 or self.n_fft % 2:
            raise ValueError(f"LogMel: n_fft must be even, got {self.n_fft}")
        if self.hop_length < 1 or self.n_mels < 1:
            raise ValueError(f"LogMel: hop_length and n_mels must be positive, got {self.hop_length}, {self.n_mels}")
        if self.mel not in ("slaney", "htk"):
            raise ValueError(f'LogMel: mel must be "slaney" or "htk", got {self.mel!r}')
        if self.sample_rate is not None:
            check_rate(self.sample_rate, "LogMel")
        self._tables: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def bind(self, sample_rate: int) -> None:
        """Set the rate that a Pipeline works at.

        Raises:
            ValueError: the constructor gave another rate.
        """
        check_rate(sample_rate, "LogMel.bind")
        if self.sample_rate not in (None, sample_rate):
            raise ValueError(f"LogMel was built for sample_rate={self.sample_rate}, bound to {sample_rate}")
        self._bound_rate = sample_rate

    def frames(self, samples: int) -> int:
        """Number of frames N of a clip of so many samples."""
        return 1 + samples // self.hop_length

    def forward(self, samples: Tensor, sample_rate: int | None = None) -> Tensor:
        rate = next((r for r in (sample_rate, self.sample_rate, self._bound_rate) if r is not None), None)
        if rate is None:
            raise ValueError("LogMel needs a sample rate: LogMel(sample_rate=22050), a Pipeline, or frontend(x, 22050)")
        if not isinstance(samples, Tensor) or not samples.is_floating_point() or samples.dim() < 1:
            raise TypeError("LogMel: samples must be a float tensor (..., C, T)")
        window, filters = self._on(rate, samples.device)
        rows = samples.float().reshape(math.prod(samples.shape[:-1]), samples.shape[-1])
        rows = nn.functional.pad(rows, (self.n_fft // 2, self.n_fft // 2))
        spectra = torch.stft(rows, self.n_fft, self.hop_length, window=window, center=False, return_complex=True)
        power = spectra.real.square() + spectra.imag.square()
        out = torch.log(torch.matmul(filters, power) + self.offset)
        return out.reshape(*samples.shape[:-1], *out.shape[1:]).to(samples.dtype)

    def _on(self, rate: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Window and filters on a device, made once."""
        if (rate, device) not in self._tables:
            filters = mel_filters(rate, self.n_fft, self.n_mels, self.f_min, self.f_max, self.mel)
            empty = int((filters.max(1) == 0).sum())
            if empty:
                warnings.warn(
                    f"LogMel: {empty} of {self.n_mels} bands hold no bin of n_fft={self.n_fft} at {rate} Hz; "
                    "take fewer bands or a longer n_fft",
                    stacklevel=4,
                )
            window = torch.hann_window(self.n_fft, dtype=torch.float64).float()
            self._tables[rate, device] = (window.to(device), torch.from_numpy(filters).float().to(device))
        return self._tables[rate, device]


def hz_to_mel(hz: Floats | float, scale: str = "slaney") -> Floats:
    """Mels of frequencies. HTK: 2595·log10(1 + f/700). Slaney: 3f/200 up to 1 kHz, then 27 steps per factor 6.4."""
    hz = np.asarray(hz, dtype=np.float64)
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(6.4)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, above)


def mel_to_hz(mels: Floats | float, scale: str = "slaney") -> Floats:
    """Inverse of `hz_to_mel`."""
    mels = np.asarray(mels, dtype=np.float64)
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    above = 1000.0 * 6.4 ** ((np.maximum(mels, 15.0) - 15.0) / 27.0)
    return np.where(mels < 15.0, mels * 200.0 / 3.0, above)


def mel_filters(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None, mel: str = "slaney"
) -> Floats:
    """Triangular filters (n_mels, n_fft // 2 + 1), float64: Slaney's have area 1 in Hz, HTK's height 1.

    Raises:
        ValueError: not 0 <= f_min < f_max <= sample_rate / 2.
    """
    top = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < top <= sample_rate / 2:
        raise ValueError(f"mel bands need 0 <= f_min < f_max <= {sample_rate / 2:g} Hz, got {f_min:g} to {top:g}")
    ends = mel_to_hz(np.linspace(hz_to_mel(f_min, mel), hz_to_mel(top, mel), n_mels + 2), mel)
    bins = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    rising = (bins - ends[:-2, None]) / (ends[1:-1] - ends[:-2])[:, None]
    falling = (ends[2:, None] - bins) / (ends[2:] - ends[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return filters * (2.0 / (ends[2:] - ends[:-2]))[:, None] if mel == "slaney" else filters
