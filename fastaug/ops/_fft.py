"""What csrc/fft.h makes of a length: the passes of its transform, and the order that these leave the spectrum in."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fastaug.ops._library import native

__all__ = ["positions", "radices"]


@lru_cache(maxsize=8192)
def radices(size: int) -> tuple[int, ...]:
    """The radices of the passes of a transform of ``size`` points, empty where it has a prime factor above 7."""
    found = np.zeros(16, np.int32)
    return tuple(found[: native().fa_fft_order(size, found.ctypes.data, None)].tolist())


def positions(size: int) -> npt.NDArray[np.int32]:
    """Where the forward passes leave each bin: int32 (size,)."""
    found, where = np.zeros(16, np.int32), np.zeros(size, np.int32)
    native().fa_fft_order(size, found.ctypes.data, where.ctypes.data)
    return where
