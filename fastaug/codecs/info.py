"""What a file says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from fastaug.codecs.status import DecodeError, Status

__all__ = ["Info"]

# Beyond this ratio of rates a header is wrong, and its filter would fill the memory.
_LARGEST_RATIO = 1024


@dataclass(frozen=True)
class Info:
    """What a file says of itself.

    Attributes:
        sample_rate: Hz. frames: samples per channel, encoder delay and padding removed. channels: count.
        format: container and encoding in libsndfile's words, e.g. "MP3/MPEG_LAYER_III".
        silent: samples at the beginning that are zeros because their frames cannot be decoded: an MP3 cut out of a
            longer stream lacks the bit reservoir of its first frames. They count in ``frames``.
    """

    sample_rate: int
    frames: int
    channels: int
    format: str
    silent: int = 0

    @property
    def duration_seconds(self) -> float:
        return self.frames / self.sample_rate

    def check_conversion(self, sample_rate: int | None, channels: int | None, name: str) -> None:
        """Whether ``name`` can be had at another rate and with another number of channels; None keeps.

        Raises:
            DecodeError: it cannot.
        """
        if channels not in (None, 1, self.channels) and self.channels != 1:
            reason = f"{self.channels} channels cannot become {channels}; use channels=1 or None"
            raise DecodeError(f"{name}: {reason}", Status.CHANNELS)
        low, high = sorted((self.sample_rate, sample_rate or self.sample_rate))
        if high > _LARGEST_RATIO * low:
            reason = f"{self.sample_rate} Hz cannot become {sample_rate} Hz: expected a ratio up to {_LARGEST_RATIO}"
            raise DecodeError(f"{name}: {reason}", Status.BAD_HEADER)
