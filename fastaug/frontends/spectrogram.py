"""Frames, windows and their power: the part that all front ends share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastaug.ops.spectral import Bank, Frames, Level, spectral
from fastaug.transforms.base import check_rate

__all__ = ["Framed", "Spectrogram"]


@dataclass(eq=False)
class Framed(nn.Module):
    """Frames and window of a front end; see `Spectrogram` for the arguments. An nn.Module that is also a dataclass."""

    n_fft: int = 1024
    hop_length: int = 512
    win_length: int | None = field(default=None, kw_only=True)
    center: bool = field(default=True, kw_only=True)
    pad: str = field(default="constant", kw_only=True)
    power: float = field(default=2.0, kw_only=True)
    dtype: torch.dtype | None = field(default=None, kw_only=True)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.n_fft < 2 or self.hop_length < 1:
            raise ValueError(f"{name}: n_fft >= 2 and hop_length >= 1, got {self.n_fft}, {self.hop_length}")
        if self.win_length is not None and not 1 <= self.win_length <= self.n_fft:
            raise ValueError(f"{name}: win_length must be 1 to n_fft = {self.n_fft}, got {self.win_length}")
        if self.pad not in ("constant", "reflect"):
            raise ValueError(f'{name}: pad must be "constant" or "reflect", got {self.pad!r}')
        if self.power not in (1.0, 2.0):
            raise ValueError(f"{name}: power must be 1 (magnitude) or 2, got {self.power}")
        if self.dtype not in (None, torch.float32, torch.bfloat16):
            raise ValueError(f"{name}: dtype must be None, torch.float32 or torch.bfloat16, got {self.dtype}")
        self._windows: dict[torch.device, Tensor] = {}

    def frames(self, samples: int) -> int:
        """Number of frames N of a clip of so many samples."""
        if self.center:
            return 1 + max(samples - self.n_fft % 2, 0) // self.hop_length
        width = self.win_length or self.n_fft
        return 1 + (samples - width) // self.hop_length if samples >= width else 0

    def _window(self, device: torch.device) -> Tensor:
        if device not in self._windows:
            width = self.win_length or self.n_fft
            self._windows[device] = torch.hann_window(width, dtype=torch.float64).to(device)
        return self._windows[device]

    def _compute(self, samples: Tensor, bank: Bank | None, level: Level) -> Tensor:
        """(..., C, T) -> (..., C, F, N)."""
        if not isinstance(samples, Tensor) or not samples.is_floating_point() or samples.dim() < 1:
            raise TypeError(f"{type(self).__name__}: samples must be a float tensor (..., C, T)")
        rows = samples.reshape(math.prod(samples.shape[:-1]), samples.shape[-1])
        rows = rows if rows.dtype == torch.float64 else rows.float()
        window = self._window(samples.device)
        lead = self.n_fft // 2 - (self.n_fft - window.numel()) // 2 if self.center else 0
        place = Frames(self.n_fft, self.hop_length, lead, self.frames(samples.shape[-1]), self.pad == "reflect")
        wanted = self.dtype or samples.dtype
        out = torch.bfloat16 if wanted == torch.bfloat16 else torch.float32
        result = spectral(rows, window, place, bank, level, out).to(wanted)
        return result.reshape(*samples.shape[:-1], *result.shape[1:])


@dataclass(eq=False)
class Spectrogram(Framed):
    """Power |X|² (or magnitude) of short-time spectra, unscaled.

    Args:
        n_fft: transform length in samples. Even ones from 32 to 16384 (4096 on CUDA) without prime factors above 7
            have kernels of their own, others go through torch.
        hop_length: samples between frames.
        win_length: length of the periodic Hann window, in the middle of n_fft samples; None is n_fft.
        center: frame i is around sample i · hop_length, so that N = 1 + T // hop_length (for an even n_fft). Else it
            starts there and all its win_length samples lie in the clip: N = 1 + (T − win_length) // hop_length.
        pad: what lies outside the clip: "constant" (zeros) or "reflect" (as often as it takes: any T works).
        power: 2.0, or 1.0 for magnitudes.
        dtype: of the output, torch.float32 or torch.bfloat16; None is the input's.

    ``frontend(samples, sample_rate=None)``: (..., C, T) -> (..., C, n_fft // 2 + 1, N). Computed in float32, float64
    input in float64. Differentiable.

    Raises:
        ValueError: a length or a choice that is not as above.
    """

    def forward(self, samples: Tensor, sample_rate: int | None = None) -> Tensor:
        return self._compute(samples, None, Level(magnitude=self.power == 1.0))


@dataclass(eq=False)
class Rated(Framed):
    """A front end whose bands are in hertz, so that it needs the sample rate, in the constructor, from a Pipeline or in
    the call, which wins."""

    sample_rate: int | None = field(default=None, kw_only=True)
    _bound_rate: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_rate is not None:
            check_rate(self.sample_rate, type(self).__name__)

    def bind(self, sample_rate: int) -> None:
        """Set the rate that a Pipeline works at.

        Raises:
            ValueError: the constructor gave another rate.
        """
        name = type(self).__name__
        check_rate(sample_rate, f"{name}.bind")
        if self.sample_rate not in (None, sample_rate):
            raise ValueError(f"{name} was built for sample_rate={self.sample_rate}, bound to {sample_rate}")
        self._bound_rate = sample_rate

    def _rate(self, given: int | None) -> int:
        rate = next((r for r in (given, self.sample_rate, self._bound_rate) if r is not None), None)
        if rate is None:
            name = type(self).__name__
            raise ValueError(
                f"{name} needs a sample rate: {name}(sample_rate=22050), a Pipeline, or frontend(x, 22050)"
            )
        return rate
