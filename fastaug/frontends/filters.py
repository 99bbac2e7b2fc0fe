"""Scales of pitch and banks of triangular filters, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["SCALES", "dct_matrix", "hz_to_mel", "mel_filters", "mel_to_hz"]

Floats = npt.NDArray[np.float64]

#: "vggish" is HTK's scale with triangles that are straight over mels, not over hertz, and no weight at 0 Hz.
SCALES = ("slaney", "htk", "vggish")


def hz_to_mel(hz: Floats | float, scale: str = "slaney") -> Floats:
    """Mels of frequencies. HTK: 2595·log10(1 + f/700). Slaney: 3f/200 up to 1 kHz, then 27 steps per factor 6.4."""
    hz = np.asarray(hz, dtype=np.float64)
    if scale != "slaney":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(6.4)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, above)


def mel_to_hz(mels: Floats | float, scale: str = "slaney") -> Floats:
    """Inverse of `hz_to_mel`."""
    mels = np.asarray(mels, dtype=np.float64)
    if scale != "slaney":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    above = 1000.0 * 6.4 ** ((np.maximum(mels, 15.0) - 15.0) / 27.0)
    return np.where(mels < 15.0, mels * 200.0 / 3.0, above)


def mel_filters(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    mel: str = "slaney",
    norm: str = "scale",
) -> Floats:
    """Triangular filters (n_mels, n_fft // 2 + 1), float64.

    Args:
        mel: "slaney", "htk" or "vggish" (TensorFlow's ``linear_to_mel_weight_matrix``: see `SCALES`).
        norm: "area" for triangles of area 1 in Hz, "height" for height 1, "scale" for what each scale's library does:
            area for Slaney's (librosa), height for the others (torchaudio, TensorFlow).

    Raises:
        ValueError: not 0 <= f_min < f_max <= sample_rate / 2, an unknown scale or norm.
    """
    top = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < top <= sample_rate / 2:
        raise ValueError(f"mel bands need 0 <= f_min < f_max <= {sample_rate / 2:g} Hz, got {f_min:g} to {top:g}")
    if mel not in SCALES:
        raise ValueError(f"mel must be one of {', '.join(SCALES)}, got {mel!r}")
    if norm not in ("scale", "area", "height"):
        raise ValueError(f'norm must be "scale", "area" or "height", got {norm!r}')
    mels = np.linspace(hz_to_mel(f_min, mel), hz_to_mel(top, mel), n_mels + 2)
    hz = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    ends = mel_to_hz(mels, mel)
    filters = _triangles(hz_to_mel(hz, mel), mels) if mel == "vggish" else _triangles(hz, ends)
    if mel == "vggish":
        filters[:, 0] = 0.0
    by_area = norm == "area" or (norm == "scale" and mel == "slaney")
    return filters * (2.0 / (ends[2:] - ends[:-2]))[:, None] if by_area else filters


def _triangles(bins: Floats, ends: Floats) -> Floats:
    rising = (bins - ends[:-2, None]) / (ends[1:-1] - ends[:-2])[:, None]
    falling = (ends[2:, None] - bins) / (ends[2:] - ends[1:-1])[:, None]
    return np.maximum(0.0, np.minimum(rising, falling))


def dct_matrix(count: int, size: int) -> Floats:
    """The first `count` rows of the orthonormal DCT-II of `size` values: (count, size), float64."""
    k, n = np.arange(count)[:, None], np.arange(size)[None]
    rows = np.sqrt(2.0 / size) * np.cos(np.pi * k * (2 * n + 1) / (2 * size))
    rows[0] /= np.sqrt(2.0)
    return rows
