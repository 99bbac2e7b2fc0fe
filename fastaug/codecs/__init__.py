"""Encoded bytes and crops → samples: only the frames that the crops need, each member opened once."""

from __future__ import annotations

from fastaug.codecs.decode import decode
from fastaug.codecs.sndfile import DecodeError, Info, open_audio

__all__ = ["DecodeError", "Info", "decode", "open_audio"]
