"""Log-mel pictures as PNG, without a plotting library."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.frontends import LogMel, hz_to_mel

__all__ = ["Picture", "log_mel_picture", "png"]

# Every 32nd colour of "magma" (Smith and van der Walt, matplotlib, CC0): lightness grows evenly, so that equal steps in
# decibels look equal, also in print and to colour-blind eyes.
_MAGMA = np.array(
    [
        0,
        0,
        4,
        28,
        16,
        68,
        79,
        18,
        123,
        129,
        37,
        129,
        181,
        54,
        122,
        229,
        80,
        100,
        251,
        135,
        97,
        254,
        194,
        135,
        252,
        253,
        191,
    ],
    dtype=np.float64,
).reshape(9, 3)
RANGE_DB = 70.0
_TICKS_HZ = (500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True)
class Picture:
    """One log-mel spectrogram.

    Attributes:
        png: the image, low frequencies at the bottom.
        seconds: what its width spans.
        kilohertz: (label, height from the bottom in 0…1) of the frequency axis.
    """

    png: bytes
    seconds: float
    kilohertz: list[tuple[str, float]]


def log_mel_picture(
    samples: Tensor, sample_rate: int, width: int = 320, bands: int = 96, top: float | None = None
) -> Picture:
    """Draw samples (C, T) as a log-mel spectrogram of about ``width`` columns.

    Args:
        top: the level, as the largest log-mel power, that gets the brightest colour; by default the picture's own.
            70 dB below it is black. One level for several pictures makes their brightness comparable.
    """
    levels = log_mel(samples, sample_rate, width, bands)
    top = float(levels.max()) if top is None else top
    bright = 1 + (levels - top) * (10 / np.log(10)) / RANGE_DB
    index = np.clip(np.rint(255 * np.nan_to_num(bright, nan=0.0)), 0, 255).astype(np.uint8)
    nyquist = sample_rate / 2
    highest = float(hz_to_mel(nyquist, "htk"))
    ticks = [(f"{hz / 1000:g}", float(hz_to_mel(hz, "htk")) / highest) for hz in _TICKS_HZ if hz <= 0.96 * nyquist]
    return Picture(png(index[::-1], palette()), samples.shape[-1] / sample_rate, ticks)


def log_mel(samples: Tensor, sample_rate: int, width: int, bands: int) -> npt.NDArray[np.float64]:
    """ln of mel power (F, N) of the mean of the channels, with N close to ``width``."""
    hop = max(1, samples.shape[-1] // width)
    n_fft = 1024 if sample_rate <= 24_000 else 2048
    frontend = LogMel(n_fft=n_fft, hop_length=hop, n_mels=bands, sample_rate=sample_rate, mel="htk", offset=1e-9)
    mixed = torch.nan_to_num(samples.float().cpu().mean(0, keepdim=True))
    return frontend(mixed)[0].double().numpy()


def palette() -> npt.NDArray[np.uint8]:
    """256 colours (256, 3)."""
    at = np.linspace(0, len(_MAGMA) - 1, 256)
    channels = [np.interp(at, np.arange(len(_MAGMA)), _MAGMA[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def png(pixels: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8]) -> bytes:
    """A palette PNG of colour indices (H, W) and colours (n, 3). Source: the PNG specification (ISO/IEC 15948)."""
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)  # filter type 0 before every row
    body = _chunk(b"IHDR", header) + _chunk(b"PLTE", colours.tobytes())
    body += _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
