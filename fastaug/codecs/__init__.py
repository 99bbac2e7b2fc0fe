"""Encoded bytes and crops → samples: only the frames that the crops need, each member opened once."""

from __future__ import annotations

from fastaug.codecs.decode import decode, describe
from fastaug.codecs.info import Info
from fastaug.codecs.open import OpenAudio, open_audio
from fastaug.codecs.status import DecodeError, Status

__all__ = ["DecodeError", "Info", "OpenAudio", "Status", "decode", "describe", "open_audio"]
