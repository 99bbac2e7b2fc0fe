"""The harmonic stack: one channel for each overtone, so that a convolution sees them at the same place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fastaug.frontends.filters import Floats
from fastaug.frontends.spectrogram import Rated
from fastaug.ops.spectral import Bank, Level

__all__ = ["HarmonicStack", "harmonic_centres"]

_LOWEST = 24  # MIDI number of C1


def harmonic_centres(sample_rate: int, harmonics: int = 6, per_semitone: int = 2) -> Floats:
    """Centre frequencies in Hz (harmonics, F): from C1 up to the semitone nearest to the highest fundamental whose last
    harmonic is half the sample rate, that one excluded; row h is h + 1 times the first."""
    highest = round(69 + 12 * math.log2(sample_rate / (2 * harmonics) / 440.0))
    levels = (highest - _LOWEST) * per_semitone
    if levels < 1:
        raise ValueError(f"no fundamental above C1 has {harmonics} harmonics below {sample_rate / 2:g} Hz")
    midi = _LOWEST + np.arange(levels) / per_semitone
    return np.arange(1, harmonics + 1)[:, None] * 440.0 * 2.0 ** ((midi - 69) / 12)


@dataclass(eq=False)
class HarmonicStack(Rated):
    """Triangular bands at harmonics of half semitones, in dB, as in Harmonic CNN.

    Band n of harmonic h has its centre at f = h · f_n and the width (0.1079 f + 24.7) / bw_q in Hz. Values are
    10·log10(max(power, 1e-10)). The authors' own code has n_fft 513, hop 256 and reflection at 16 kHz.

    Args:
        harmonics: number of harmonics H.
        per_semitone: bands in a semitone.
        bw_q: Q of the bands; with ``learn_q`` the initial value of the parameter ``q`` (then through torch).
        floor: power that dB start from.
        n_fft, hop_length, …, sample_rate: as in `Spectrogram` and `MelSpectrogram`.

    ``frontend(samples, sample_rate=None)``: (..., C, T) -> (..., C · H, F, N), F that of `harmonic_centres`.
    Source: Won, Chun, Nieto, Serra, ICASSP 2020, section 2; minzwon/sota-music-tagging-models, HarmonicSTFT.

    Raises:
        ValueError: as Spectrogram; no fundamental fits; bw_q is not positive.
    """

    harmonics: int = 6
    per_semitone: int = 2
    bw_q: float = 1.0
    learn_q: bool = False
    floor: float = field(default=1e-10, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.harmonics < 1 or self.per_semitone < 1 or not self.bw_q > 0 or self.floor < 1e-30:
            raise ValueError("HarmonicStack: harmonics, per_semitone, bw_q and floor must be positive")
        self._banks: dict[tuple[int, torch.device], Bank] = {}
        if self.learn_q:
            self.q = nn.Parameter(torch.tensor(float(self.bw_q)))

    def filters(self, sample_rate: int) -> Tensor:
        """(H · F, n_fft // 2 + 1) float64; differentiable in ``q``."""
        centres = torch.from_numpy(harmonic_centres(sample_rate, self.harmonics, self.per_semitone)).reshape(-1, 1)
        bins = torch.linspace(0, sample_rate // 2, self.n_fft // 2 + 1, dtype=torch.float64)  # theirs, odd n_fft too
        q: Tensor | float = self.bw_q
        if self.learn_q:
            centres, bins, q = centres.to(self.q.device), bins.to(self.q.device), self.q.double()
        distance = (bins - centres).abs() * 2 * q / (0.1079 * centres + 24.7)
        return (1 - distance).clamp(min=0)

    def forward(self, samples: Tensor, sample_rate: int | None = None) -> Tensor:
        rate, magnitude = self._rate(sample_rate), self.power == 1.0
        scale = (20.0 if magnitude else 10.0) / math.log(10.0)
        if self.learn_q:
            power = self._compute(samples, None, Level(magnitude=magnitude))
            bands = torch.matmul(self.filters(rate).to(power.dtype), power).clamp(min=self.floor).log() * scale
        else:
            level = Level(True, floor=self.floor, scale=scale, magnitude=magnitude)
            bands = self._compute(samples, self._bank(rate, samples.device), level)
        levels = bands.shape[-2] // self.harmonics
        if samples.dim() == 1:
            return bands.reshape(self.harmonics, levels, bands.shape[-1])
        return bands.reshape(*samples.shape[:-2], -1, levels, bands.shape[-1])

    def _bank(self, rate: int, device: torch.device) -> Bank:
        if (rate, device) not in self._banks:
            self._banks[rate, device] = Bank(self.filters(rate).numpy(), device)
        return self._banks[rate, device]
