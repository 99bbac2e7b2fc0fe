"""Memory of batches that is used again once nobody refers to it any more.

A batch of 256 pairs of CLMR crops is 121 MB. The system hands memory of that size out afresh each time, and each page
of it takes a fault when it is first written: an eighth of what decoding and augmenting the batch costs on two cores.
"""

from __future__ import annotations

import math
import mmap
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

__all__ = ["Blocks"]

_LEAST = 1 << 20  # bytes; for less, the heap does as well


class Blocks:
    """Float32 tensors on the CPU, in blocks of memory of one size that are used again.

    Whatever shares a tensor's memory (views, NumPy arrays) counts as a reference to it. At most as many blocks are kept
    as were in use at once.

    Args:
        most: blocks that are kept for use.
    """

    def __init__(self, most: int = 8) -> None:
        self._most, self._bytes = most, 0
        self._free: deque[mmap.mmap] = deque(maxlen=most)

    def __reduce__(self) -> tuple[type[Blocks], tuple[int]]:
        return Blocks, (self._most,)

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised tensor of that shape."""
        count = math.prod(shape)
        self._bytes = max(self._bytes, 4 * count)
        if 4 * count < max(_LEAST, self._bytes // 2):
            return torch.empty(shape)
        block = self._block(4 * count)
        array = np.frombuffer(block, np.float32, count)
        weakref.finalize(array, self._back, block).atexit = False
        return torch.from_numpy(array).view(shape)

    def _block(self, least: int) -> mmap.mmap:
        # No lock, which a fork could copy while it is held: a deque's pop and append are atomic.
        while self._free:
            try:
                block = self._free.pop()
            except IndexError:
                break
            if len(block) >= least:
                return block
        # Private: of shared memory, which is mmap's default, a forked process would have the very same.
        return mmap.mmap(-1, self._bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def _back(self, block: mmap.mmap) -> None:
        if len(block) == self._bytes:
            self._free.append(block)
