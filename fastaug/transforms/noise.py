"""White noise, made inside the kernel from the example's key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastaug import functional as F
from fastaug.ops import fused
from fastaug.ops.fused import Pointwise
from fastaug.random import Keys, Spec
from fastaug.transforms.base import Params, Transform
from fastaug.transforms.quantities import check_spec

__all__ = ["Noise"]


@dataclass(eq=False, repr=False)
class Noise(Transform):
    """White Gaussian noise, independent per channel.

    Args:
        snr_db: ratio of the example's RMS to the noise's, in decibels; (3, 30) when neither level is given.
        std_ratio: instead, the noise's standard deviation as a multiple of the example's (the "SNR" of
            torchaudio-augmentations).
        clip: clip the result to [−1, 1].

    Draws ``snr_db`` or ``std_ratio`` float32 (B,) and ``noise_key`` int64 (B, 3). With ``lengths`` the level is that of
    the valid part and the padding stays as it is.

    Raises:
        ValueError: both levels are given.
    """

    snr_db: Spec | None = None
    std_ratio: Spec | None = None
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.snr_db is not None and self.std_ratio is not None:
            raise ValueError("Noise: give either snr_db= or std_ratio=")
        if self.std_ratio is not None:
            check_spec("Noise: std_ratio", self.std_ratio, 0.0)
        else:
            self.snr_db = (3.0, 30.0) if self.snr_db is None else self.snr_db
            check_spec("Noise: snr_db", self.snr_db, -200, 200)

    def draw_params(self, keys: Keys) -> Params:
        key = {"noise_key": keys.noise_key("noise")}
        if self.std_ratio is not None:
            return {"std_ratio": keys.value("std_ratio", self.std_ratio), **key}
        assert self.snr_db is not None
        return {"snr_db": keys.value("snr_db", self.snr_db), **key}

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        noise_key: Tensor,
        snr_db: Tensor | None = None,
        std_ratio: Tensor | None = None,
        inplace: bool = False,
        **_: Any,
    ) -> Tensor:
        return F.add_noise(
            samples,
            noise_key,
            snr_db=snr_db,
            std_ratio=std_ratio,
            clip=self.clip,
            lengths=lengths,
            active=active,
            inplace=inplace,
        )

    def pointwise(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        noise_key: Tensor,
        snr_db: Tensor | None = None,
        std_ratio: Tensor | None = None,
        **_: Any,
    ) -> Pointwise:
        return fused.hissing(
            samples, noise_key, snr_db=snr_db, std_ratio=std_ratio, clip=self.clip, lengths=lengths, active=active
        )
