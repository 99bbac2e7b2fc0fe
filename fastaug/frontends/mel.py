"""Mel spectrograms, their logarithm and its cosine transform."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fastaug.frontends.filters import dct_matrix, mel_filters
from fastaug.frontends.spectrogram import Rated
from fastaug.ops.spectral import Bank, Level

__all__ = ["MFCC", "LogMel", "MelSpectrogram"]


@dataclass(eq=False)
class MelSpectrogram(Rated):
    """Power (or magnitude) in mel bands.

    Args:
        n_mels: number of bands F.
        sample_rate: in Hz; may instead be bound by a Pipeline or given in the call, which wins.
        f_min, f_max: range of the bands in Hz; f_max None is half the sample rate.
        mel: "slaney" (librosa's default), "htk" (torchaudio's) or "vggish" (TensorFlow's): `filters.mel_filters`.
        norm: "area", "height", or "scale": what the scale's library does.
        n_fft, hop_length, win_length, center, pad, power, dtype: as in `Spectrogram`.

    ``frontend(samples, sample_rate=None)``: (..., C, T) -> (..., C, F, N). Differentiable in the samples.

    Raises:
        ValueError: a length or a choice that is not as above, an empty range, or no sample rate.
    """

    n_mels: int = 128
    f_min: float = 0.0
    f_max: float | None = None
    mel: str = "slaney"
    norm: str = field(default="scale", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_mels < 1:
            raise ValueError(f"{type(self).__name__}: n_mels must be positive, got {self.n_mels}")
        try:
            mel_filters(2, 2, 1, mel=self.mel, norm=self.norm)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None
        self._banks: dict[tuple[int, torch.device], Bank] = {}

    def forward(self, samples: Tensor, sample_rate: int | None = None) -> Tensor:
        return self._banded(samples, sample_rate, Level(magnitude=self.power == 1.0))

    def _banded(self, samples: Tensor, sample_rate: int | None, level: Level) -> Tensor:
        rate = self._rate(sample_rate)
        if not isinstance(samples, Tensor):
            raise TypeError(f"{type(self).__name__}: samples must be a float tensor (..., C, T)")
        return self._compute(samples, self._bank(rate, samples.device), level)

    def _bank(self, rate: int, device: torch.device) -> Bank:
        """The filters on a device, made once."""
        if (rate, device) not in self._banks:
            filters = mel_filters(rate, self.n_fft, self.n_mels, self.f_min, self.f_max, self.mel, self.norm)
            empty = int((filters.max(1) == 0).sum())
            if empty:
                warnings.warn(
                    f"{type(self).__name__}: {empty} of {self.n_mels} bands hold no bin of n_fft={self.n_fft} at "
                    f"{rate} Hz; take fewer bands or a longer n_fft",
                    stacklevel=5,
                )
            self._banks[rate, device] = Bank(filters, device)
        return self._banks[rate, device]


@dataclass(eq=False)
class LogMel(MelSpectrogram):
    """Log-mel spectrogram: by default ln(mel power + offset).

    Args:
        offset: added to the band before the logarithm "ln"; with samples in [−1, 1] about −60 dB below a soft tone.
        log: "ln": ln(max(x + offset, floor)). "db": 10·log10(max(x, floor)), 20·log10 for magnitudes.
            "log1p": ln(1 + gain · x).
        floor: as above; None is 1e-10 for "db" (librosa's and torchaudio's of powers), none for the others.
        gain: as above.
        top_db: raise values to the clip's largest minus this many dB; only with "db".
        normalise: None; "clip": each clip to mean 0 and standard deviation 1 (channels together); or a data set's
            (mean, standard deviation) of the values.
        n_mels, f_min, …: as in `MelSpectrogram`; n_fft, hop_length, …: as in `Spectrogram`.

    ``frontend(samples, sample_rate=None)``: (..., C, T) -> (..., C, F, N). Differentiable in the samples. A clip is an
    example with all its channels.

    Raises:
        ValueError: a length or a choice that is not as above, an empty range, or no sample rate.
    """

    offset: float = 1e-6
    log: str = field(default="ln", kw_only=True)
    floor: float | None = field(default=None, kw_only=True)
    gain: float = field(default=1.0, kw_only=True)
    top_db: float | None = field(default=None, kw_only=True)
    normalise: str | tuple[float, float] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log not in ("ln", "db", "log1p"):
            raise ValueError(f'LogMel: log must be "ln", "db" or "log1p", got {self.log!r}')
        if self.log == "ln" and self.offset < 1e-30 and (self.floor or 0.0) < 1e-30:
            raise ValueError('LogMel: "ln" needs an offset or a floor of at least 1e-30')
        if self.floor is not None and self.floor < 1e-30:
            raise ValueError(f"LogMel: floor must be at least 1e-30, got {self.floor}")
        if self.gain <= 0:
            raise ValueError(f"LogMel: gain must be positive, got {self.gain}")
        if self.top_db is not None and (self.top_db < 0 or self.log != "db"):
            raise ValueError(f'LogMel: top_db is a positive number and goes with log="db", got {self.top_db}')
        if isinstance(self.normalise, list):  # as it comes from JSON
            self.normalise = (self.normalise[0], self.normalise[1])
        if isinstance(self.normalise, str) and self.normalise != "clip":
            raise ValueError(f'LogMel: normalise is None, "clip" or (mean, deviation), got {self.normalise!r}')
        if isinstance(self.normalise, tuple) and not self.normalise[1] > 0:
            raise ValueError(f"LogMel: the deviation in normalise must be positive, got {self.normalise}")

    def forward(self, samples: Tensor, sample_rate: int | None = None) -> Tensor:
        channels = samples.shape[-2] if isinstance(samples, Tensor) and samples.dim() > 1 else 1
        return self._banded(samples, sample_rate, self._level(channels))

    def _level(self, channels: int) -> Level:
        """A data set's mean and deviation are part of the curve: they cost nothing, and are in before any rounding."""
        level = self._logarithm(channels)
        if not isinstance(self.normalise, tuple):
            return level
        mean, deviation = self.normalise
        top_db = None if level.top_db is None else level.top_db / deviation
        return replace(level, scale=level.scale / deviation, shift=-mean / deviation, top_db=top_db)

    def _logarithm(self, channels: int) -> Level:
        magnitude, own = self.power == 1.0, self.normalise == "clip"
        if self.log == "db":
            scale, floor = (20.0 if magnitude else 10.0) / math.log(10.0), self.floor or 1e-10
            return Level(True, 1.0, 0.0, floor, scale, 0.0, magnitude, channels, self.top_db, own)
        if self.log == "log1p":
            return Level(True, self.gain, 1.0, self.floor or 1.0, 1.0, 0.0, magnitude, channels, None, own)
        return Level(True, 1.0, self.offset, self.floor or 1e-30, 1.0, 0.0, magnitude, channels, None, own)


@dataclass(eq=False)
class MFCC(LogMel):
    """Mel-frequency cepstral coefficients: the orthonormal DCT-II over the bands of a log-mel spectrogram in dB.

    Args:
        n_mfcc: number of coefficients F, at most n_mels.
        log, top_db: "db" and 80 as in librosa's and torchaudio's.
        offset, floor, gain, normalise, …: as in `LogMel`, before the DCT.

    ``frontend(samples, sample_rate=None)``: (..., C, T) -> (..., C, n_mfcc, N).
    Source: Davis & Mermelstein, IEEE Trans. ASSP 28 (1980); librosa.feature.mfcc, torchaudio.transforms.MFCC.

    Raises:
        ValueError: as LogMel; more coefficients than bands.
    """

    n_mfcc: int = field(default=20, kw_only=True)
    log: str = field(default="db", kw_only=True)
    top_db: float | None = field(default=80.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_mfcc <= self.n_mels:
            raise ValueError(f"MFCC: n_mfcc must be 1 to n_mels = {self.n_mels}, got {self.n_mfcc}")
        self._dct = torch.from_numpy(dct_matrix(self.n_mfcc, self.n_mels))

    def forward(self, samples: Tensor, sample_rate: int | None = None) -> Tensor:
        bands = super().forward(samples, sample_rate)
        exact = bands if bands.dtype == torch.float64 else bands.float()
        flat = exact.reshape(-1, *exact.shape[-2:])
        dct = self._dct.to(flat).expand(flat.shape[0], -1, -1)
        return torch.bmm(dct, flat).reshape(*bands.shape[:-2], self.n_mfcc, bands.shape[-1]).to(bands.dtype)
