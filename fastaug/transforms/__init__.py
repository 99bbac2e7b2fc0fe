"""Transforms: what is drawn, per example. Each file is one idea; `functional` does the work."""

from __future__ import annotations

from fastaug.transforms.base import Params, Transform
from fastaug.transforms.compose import Compose, OneOf, SomeOf
from fastaug.transforms.crop import RandomCrop
from fastaug.transforms.delay import Delay
from fastaug.transforms.filters import HighLowPass, HighPass, LowPass
from fastaug.transforms.level import Gain, MixDown, PolarityInversion
from fastaug.transforms.noise import Noise
from fastaug.transforms.pitch import PitchShift
from fastaug.transforms.presets import clmr, clmr_book, clmr_thesis, clmr_v1, clmr_v2
from fastaug.transforms.resample import Resample
from fastaug.transforms.reverb import Reverb
from fastaug.transforms.spec import FrequencyMask, SpecAugment, TimeMask, TimeWarp
from fastaug.transforms.spec_level import RandomLinearFader, SpecMixup, SpecNoise
from fastaug.transforms.spec_shape import RandomResizeCrop
from fastaug.transforms.speed import Speed

__all__ = [
    "Compose",
    "Delay",
    "FrequencyMask",
    "Gain",
    "HighLowPass",
    "HighPass",
    "LowPass",
    "MixDown",
    "Noise",
    "OneOf",
    "Params",
    "PitchShift",
    "PolarityInversion",
    "RandomCrop",
    "RandomLinearFader",
    "RandomResizeCrop",
    "Resample",
    "Reverb",
    "SomeOf",
    "SpecAugment",
    "SpecMixup",
    "SpecNoise",
    "Speed",
    "TimeMask",
    "TimeWarp",
    "Transform",
    "clmr",
    "clmr_book",
    "clmr_thesis",
    "clmr_v1",
    "clmr_v2",
]
