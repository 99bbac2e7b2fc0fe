"""From samples to time-frequency pictures: what sits between the augmentations and the model.

One set of defaults everywhere: n_fft 1024, hop 512, periodic Hann window of n_fft samples, centred frames with zeros
outside the clip, power |X|² unscaled, 128 bands on Slaney's scale from 0 Hz to half the sample rate.
"""

from fastaug.frontends import presets
from fastaug.frontends.cqt import CQT
from fastaug.frontends.filters import hz_to_mel, mel_filters, mel_to_hz
from fastaug.frontends.harmonic import HarmonicStack
from fastaug.frontends.mel import MFCC, LogMel, MelSpectrogram
from fastaug.frontends.pcen import PCEN, pcen
from fastaug.frontends.spectrogram import Spectrogram

__all__ = [
    "CQT",
    "MFCC",
    "PCEN",
    "HarmonicStack",
    "LogMel",
    "MelSpectrogram",
    "Spectrogram",
    "hz_to_mel",
    "mel_filters",
    "mel_to_hz",
    "pcen",
    "presets",
]
