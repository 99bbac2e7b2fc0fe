"""Decoding on a CUDA device."""

from __future__ import annotations

from fastaug.codecs.staging import ALIGNMENT, PADDING, Staging

__all__ = ["ALIGNMENT", "PADDING", "Staging"]
