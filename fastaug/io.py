"""`fastaug.load` and `fastaug.info`: one file, or a range of it, as a tensor."""

from __future__ import annotations

from torch import Tensor

from fastaug.checks import check_rate
from fastaug.codecs.info import Info
from fastaug.codecs.native import Encoded
from fastaug.codecs.open import open_audio

__all__ = ["info", "load"]


def load(
    source: Encoded, start: int = 0, length: int | None = None, sample_rate: int | None = None
) -> tuple[Tensor, int]:
    """Decode a file or a range of it.

    Args:
        source: path, or the bytes of a file (bytes, memoryview, uint8 array or tensor); its format is seen in them.
        start: first sample, at the output rate; zeros stand before the file (negative start) and after it.
        length: samples at the output rate; None reads to the end.
        sample_rate: resample to this rate in Hz; None keeps the file's.

    Returns:
        samples (C, T) float32 in [-1, 1] for integer formats, and their sample rate in Hz.

    Raises:
        FileNotFoundError; DecodeError (a ValueError) naming the file and the reason; ValueError for bad arguments.
    """
    if sample_rate is not None:
        check_rate(sample_rate, "load")
    if length is not None and length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    with open_audio(source) as audio:
        count = max(audio.frames(sample_rate) - start, 0) if length is None else length
        return audio.read(start, count, sample_rate), sample_rate or audio.info.sample_rate


def info(source: Encoded) -> Info:
    """Sample rate, exact length, channels and format, without decoding the audio.

    Raises:
        FileNotFoundError; DecodeError naming the file and the reason.
    """
    with open_audio(source) as audio:
        return audio.info
