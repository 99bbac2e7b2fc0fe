"""fastaug: batched audio augmentation and loading for self-supervised learning.

    from fastaug import Pipeline, clmr

The public names below are imported at first use, so that ``import fastaug`` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_HOME = {
    "Pipeline": "fastaug.pipeline",
    "Batch": "fastaug.batch",
    "Keys": "fastaug.random",
    "Record": "fastaug.shards.record",
    "Mix": "fastaug.shards.mix",
    "load": "fastaug.io",
    "info": "fastaug.io",
    "Transform": "fastaug.transforms.base",
    **dict.fromkeys(
        (
            "Compose",
            "OneOf",
            "SomeOf",
            "RandomCrop",
            "PolarityInversion",
            "Noise",
            "Gain",
            "HighLowPass",
            "HighPass",
            "LowPass",
            "Delay",
            "PitchShift",
            "Reverb",
            "Speed",
            "Resample",
            "MixDown",
            "SpecAugment",
            "FrequencyMask",
            "TimeMask",
            "TimeWarp",
            "RandomResizeCrop",
            "RandomLinearFader",
            "SpecMixup",
            "SpecNoise",
            "clmr",
            "clmr_thesis",
            "clmr_v1",
            "clmr_v2",
            "clmr_book",
        ),
        "fastaug.transforms",
    ),
    **dict.fromkeys(
        ("CQT", "MFCC", "PCEN", "HarmonicStack", "LogMel", "MelSpectrogram", "Spectrogram"), "fastaug.frontends"
    ),
}
_MODULES = ("functional", "codecs", "random", "shards", "ssl", "transforms", "datasets", "ops")

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"fastaug.{name}")
    else:
        raise AttributeError(f"module 'fastaug' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
