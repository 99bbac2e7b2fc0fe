"""The augmentations of CLMR (Spijkervet & Burgoyne, ISMIR 2021), in the versions that people mean by that name.

Every number is in docs/presets.md with its source; tests/test_presets.py reads that table.
"""

from __future__ import annotations

from fastaug.transforms.base import Transform
from fastaug.transforms.compose import Compose
from fastaug.transforms.crop import RandomCrop
from fastaug.transforms.delay import Delay
from fastaug.transforms.filters import HighLowPass
from fastaug.transforms.level import Gain, PolarityInversion
from fastaug.transforms.noise import Noise
from fastaug.transforms.pitch import PitchShift
from fastaug.transforms.reverb import Reverb

__all__ = ["clmr", "clmr_book", "clmr_thesis", "clmr_v1", "clmr_v2"]

# numpy.arange(200, 500, 50) of the code: 500 is never drawn. The thesis says 200-500 ms.
_CODE_MS = [200, 250, 300, 350, 400, 450]
_THESIS_MS = [200, 250, 300, 350, 400, 450, 500]


def clmr_v2(sample_rate: int | None = None, crop_samples: int | None = None) -> Compose:
    """The released configuration: CLMR ``master`` over torchaudio-augmentations 0.2.4.

    Args:
        sample_rate: in Hz; may be left to the Pipeline or the call.
        crop_samples: begin with a random crop of so many samples (CLMR: 59049 at 22050 Hz); a Pipeline crops itself.
    """
    return _chain(
        sample_rate,
        crop_samples,
        PolarityInversion(p=0.8),
        Noise(std_ratio=(1e-4, 1e-2), p=0.01),
        Gain(gain_db=(-20.0, -1.0), clip=True, p=0.3),
        HighLowPass(low_pass_hz=(2200.0, 4000.0), high_pass_hz=(200.0, 1200.0), p=0.8),
        Delay(delay_ms=list(_CODE_MS), factor=0.5, halve=True, p=0.3),
        PitchShift(semitones=(-7.0, 7.0), whole_cents=True, p=0.6),
        Reverb(reverberance=range(100), hf_damping=range(100), room_scale=range(100), p=0.6),
    )


clmr = clmr_v2


def clmr_thesis(sample_rate: int | None = None, crop_samples: int | None = None) -> Compose:
    """The chain as Spijkervet's thesis (2021) describes it. Arguments as `clmr_v2`."""
    return _chain(
        sample_rate,
        crop_samples,
        PolarityInversion(p=0.8),
        Noise(snr_db=80.0, p=0.01),
        Gain(gain_db=(-6.0, 0.0), p=0.3),
        HighLowPass(low_pass_hz=(2200.0, 4000.0), high_pass_hz=(200.0, 1200.0), p=0.8),
        Delay(delay_ms=list(_THESIS_MS), factor=0.5, halve=False, p=0.3),
        PitchShift(semitones=(-7.0, 7.0), p=0.6),
        Reverb(reverberance=(0.0, 100.0), hf_damping=(0.0, 100.0), room_scale=(0.0, 100.0), p=0.6),
    )


def clmr_v1(sample_rate: int | None = None, crop_samples: int | None = None) -> Compose:
    """The code behind the thesis: CLMR branch ``v1``, with its first-order filters. Arguments as `clmr_v2`."""
    return _chain(
        sample_rate,
        crop_samples,
        PolarityInversion(p=0.8),
        Noise(snr_db=40.0, clip=True, p=0.0),
        Gain(gain_db=range(-20, 0), clip=True, p=0.3),
        HighLowPass(low_pass_hz=range(2200, 4001), high_pass_hz=range(200, 1201), order=1, p=0.8),
        Delay(delay_ms=list(_CODE_MS), factor=0.2, halve=True, p=0.3),
        PitchShift(semitones=(-7.0, 7.0), whole_cents=True, p=0.6),
        Reverb(reverberance=range(1, 101), hf_damping=range(1, 101), room_scale=range(1, 101), p=0.6),
    )


def clmr_book(sample_rate: int | None = None, crop_samples: int | None = None) -> Compose:
    """The notebook of "Music Classification: Beyond Supervised Learning" (ISMIR 2021). Arguments as `clmr_v2`."""
    return _chain(
        sample_rate,
        crop_samples,
        PolarityInversion(p=0.8),
        Noise(std_ratio=(1e-3, 1.0), p=0.1),
        Gain(gain_db=(-20.0, -1.0), clip=True, p=0.3),
        HighLowPass(low_pass_hz=(2200.0, 4000.0), high_pass_hz=(200.0, 1200.0), p=0.6),
        Delay(delay_ms=list(_CODE_MS), factor=0.5, halve=True, p=0.4),
        PitchShift(semitones=(-7.0, 7.0), whole_cents=True, p=0.4),
        Reverb(reverberance=range(100), hf_damping=range(100), room_scale=range(100), p=0.4),
    )


def _chain(sample_rate: int | None, crop_samples: int | None, *steps: Transform) -> Compose:
    crop: list[Transform] = [] if crop_samples is None else [RandomCrop(samples=crop_samples)]
    return Compose([*crop, *steps], sample_rate=sample_rate)
