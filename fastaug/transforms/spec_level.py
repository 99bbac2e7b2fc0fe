"""Levels of logarithmic spectrograms: slopes, mixtures, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys, Spec
from fastaug.transforms.base import Params, Transform, select
from fastaug.transforms.quantities import check_spec

__all__ = ["RandomLinearFader", "SpecMixup", "SpecNoise"]


@dataclass(eq=False, repr=False)
class RandomLinearFader(Transform):
    """A straight line over time added to a logarithmic spectrogram: a sound that fades or swells.

    Source: Niizumi et al., BYOL for Audio: Exploring Pre-trained General-purpose Audio Representations, TASLP 2023.

    Args:
        gain: the ends of the line lie in [-gain, gain], in the spectrogram's unit.

    Draws ``head`` and ``tail`` float32 (B,).  Shapes: (B, C, F, N) -> (B, C, F, N).

    Raises:
        ValueError: a negative gain.
    """

    gain: float = 1.0

    batch_dim: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec("RandomLinearFader: gain", self.gain, 0.0)

    def draw_params(self, keys: Keys) -> Params:
        return {end: keys.uniform(end, -self.gain, self.gain) for end in ("head", "tail")}

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        head: Tensor,
        tail: Tensor,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        frames = samples.shape[-1]
        steps = torch.arange(frames, device=samples.device) / max(frames - 1, 1)
        line = head[:, None] + (tail - head)[:, None] * steps
        line = torch.where(active[:, None], line, -0.0)  # x + -0 is x, whatever its sign
        return samples.add_(line[:, None, None]) if inplace else samples + line[:, None, None]


@dataclass(eq=False, repr=False)
class SpecNoise(Transform):
    """White Gaussian noise on every cell of a spectrogram.

    Args:
        std_ratio: the noise's standard deviation as a multiple of the example's.

    Draws ``std_ratio`` float32 (B,) and ``noise_key`` int64 (B, 3).  Shapes: (B, C, F, N) -> (B, C, F, N).

    Raises:
        ValueError: a negative ratio.
    """

    std_ratio: Spec = (0.0, 0.2)

    batch_dim: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec("SpecNoise: std_ratio", self.std_ratio, 0.0)

    def draw_params(self, keys: Keys) -> Params:
        return {"std_ratio": keys.value("std_ratio", self.std_ratio), "noise_key": keys.noise_key("noise")}

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        std_ratio: Tensor,
        noise_key: Tensor,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        cells = samples.flatten(2)
        return F.add_noise(cells, noise_key, std_ratio=std_ratio, active=active, inplace=inplace).view(samples.shape)


@dataclass(eq=False, repr=False)
class SpecMixup(Transform):
    """Background sounds: a spectrogram from a bank of earlier ones mixed in, in the linear domain.

    y = log((1 − α) exp(x) + α exp(z)), α uniform in [0, ratio). Labels are left alone. Source: Niizumi et al., BYOL for
    Audio, IJCNN 2021, section III-A ("log-mixup-exp").

    The bank holds the last ``size`` spectrograms given to `remember`, of one channel or as many as what they are mixed
    into; while it is empty nothing is mixed. What is drawn
    are indices into it, so the same params on the same bank give the same output. It is part of ``state_dict()``.

    Args:
        ratio: largest share α of the other spectrogram.
        size: spectrograms in the bank.

    Draws ``ratio`` float32 (B,) and ``partner`` int64 (B,), a 32-bit word.  Shapes: (B, C, F, N) -> (B, C, F, N), of
    natural logarithms of power (`LogMel` as it is); after a normalisation α is no longer a share of power.

    Raises:
        ValueError: the ratio is not in [0, 1], or the size not positive.
    """

    ratio: float = 0.4
    size: int = 2048

    batch_dim: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec("SpecMixup: ratio", self.ratio, 0.0, 1.0)
        check_spec("SpecMixup: size", self.size, 1)
        self._bank: Tensor | None = None
        self._written = 0

    def remember(self, samples: Tensor) -> None:
        """Put spectrograms (B, C, F, N) into the bank, in place of the oldest; NaN and infinity become numbers.

        Raises:
            ValueError: their shape is not that of the bank.
        """
        new = torch.nan_to_num(samples.detach().float())
        if self._bank is None:
            self._bank = new.new_zeros(self.size, *new.shape[1:])
        if new.shape[1:] != self._bank.shape[1:]:
            raise ValueError(f"the bank holds {tuple(self._bank.shape[1:])}, got {tuple(new.shape[1:])}")
        new = new[-self.size :]
        places = (self._written + torch.arange(len(new), device=self._bank.device)) % self.size
        self._bank.index_copy_(0, places, new.to(self._bank.device))
        self._written += len(new)

    def get_extra_state(self) -> Any:
        """The bank, for ``state_dict()``."""
        return {"bank": self._bank, "written": self._written}

    def set_extra_state(self, state: Any) -> None:
        """The bank, from ``load_state_dict()``."""
        self._bank, self._written = state["bank"], int(state["written"])

    def draw_params(self, keys: Keys) -> Params:
        return {"ratio": keys.uniform("ratio", 0.0, self.ratio), "partner": keys.word("partner")}

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        ratio: Tensor,
        partner: Tensor,
        **_: Any,
    ) -> Tensor:
        if self._bank is None or not self._written:
            return samples.clone()
        filled = min(self._written, self.size)
        other = self._bank.to(samples.device)[(partner * filled) >> 32]
        if other.shape[2:] != samples.shape[2:] or other.shape[1] not in (1, samples.shape[1]):
            raise ValueError(f"the bank holds {tuple(other.shape[1:])}, got spectrograms {tuple(samples.shape[1:])}")
        share = ratio[:, None, None, None]
        return select(active, torch.logaddexp(samples + torch.log1p(-share), other + torch.log(share)), samples)
