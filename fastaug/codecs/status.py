"""What can become of a decode, as numbers and in words."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["DecodeError", "Status"]


class Status(IntEnum):
    """Why an example has no samples. The numbers are those of csrc/codecs/status.h."""

    OK = 0
    EMPTY = 1
    UNSUPPORTED = 2
    BAD_HEADER = 3
    NO_FORMAT = 4
    NO_DATA = 5
    TRUNCATED = 6
    CORRUPT = 7
    NOT_FINITE = 8
    CHANNELS = 9
    NO_MEMORY = 10
    GAP = 11
    CHANGED = 12
    MISLABELED = 13
    NOT_FOUND = 14  # from here on: not of the native decoders

    @property
    def meaning(self) -> str:
        """In words, without the place."""
        return _MEANINGS[self]


_MEANINGS = {
    Status.OK: "decoded",
    Status.EMPTY: "empty (0 bytes)",
    Status.UNSUPPORTED: "neither WAV, FLAC nor MP3, and not in a format that libsndfile decodes (AIFF, Ogg, …)",
    Status.BAD_HEADER: "the header contradicts itself or its specification",
    Status.NO_FORMAT: "expected a format chunk before the end of a WAVE file",
    Status.NO_DATA: "expected audio data before the end of the file",
    Status.TRUNCATED: "the data end before the samples asked for",
    Status.CORRUPT: "expected an intact frame",
    Status.NOT_FINITE: "NaN or infinite samples",
    Status.CHANNELS: "another number of channels than asked for; use channels=1 or None",
    Status.NO_MEMORY: "not enough memory",
    Status.GAP: "missing frames, or bytes that belong to none",
    Status.CHANGED: "rate, channels or depth change in mid-stream",
    Status.MISLABELED: "the header contradicts the frames",
    Status.NOT_FOUND: "no such audio file",
}


class DecodeError(ValueError):
    """Encoded audio that cannot be decoded; says which and why.

    Attributes:
        status: the same as a `Status`.
    """

    def __init__(self, message: str, status: Status = Status.CORRUPT) -> None:
        super().__init__(message)
        self.status = status
