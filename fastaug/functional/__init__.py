"""One deterministic function per effect, in physical units. Transforms only draw their arguments and call these.

Samples are (B, C, T), (C, T) or (T,), of any float dtype, on any device; the output has the input's shape (but for
`crop`, `mix_down` and `resample`, which say so) and dtype; other dtypes than float32 are computed in float32. Every
quantity is a number or a (B,) tensor, one value an example. ``active``: bool (B,), rows that are False come back
unchanged. ``inplace``: the result may be written into ``x``, a permission, not a promise; without it the input is never
written. A NaN or an infinity passes through its own row and reaches no other.
"""

from __future__ import annotations

from fastaug.functional.echoes import delay, reverb
from fastaug.functional.filters import (
    band_pass,
    butterworth,
    high_pass,
    high_shelf,
    low_pass,
    low_shelf,
    notch,
    peaking_eq,
    sinc_filter,
    sos_filter,
)
from fastaug.functional.level import add_noise, gain, invert_polarity, mix_down
from fastaug.functional.spectrograms import mask_spectrogram, resized_crop, time_warp
from fastaug.functional.time import crop, pitch_shift, resample

__all__ = [
    "add_noise",
    "band_pass",
    "butterworth",
    "crop",
    "delay",
    "gain",
    "high_pass",
    "high_shelf",
    "invert_polarity",
    "low_pass",
    "low_shelf",
    "mask_spectrogram",
    "mix_down",
    "notch",
    "peaking_eq",
    "pitch_shift",
    "resample",
    "resized_crop",
    "reverb",
    "sinc_filter",
    "sos_filter",
    "time_warp",
]
