"""Encoded bytes on their way to a device: one pinned buffer, one copy."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["ALIGNMENT", "PADDING", "Staging"]

ALIGNMENT = 16  #: bytes; every reservation starts at a multiple
PADDING = 8  #: zero bytes behind every reservation: kernels read bits in whole words
_SMALLEST = 1 << 20
_WAITING = 4  # buffers of a device whose copies are under way, before a new one waits for the oldest


@dataclass
class _Buffer:
    memory: Tensor  # uint8
    copied: torch.cuda.Event | None = None  # recorded behind the copy that reads it

    def free(self) -> bool:
        return self.copied is None or self.copied.query()


class Staging:
    """A buffer of encoded bytes and tables, filled on the host and copied to a device at once.

    Buffers for CUDA are pinned and reused: `upload` gives the buffer back with an event behind its copy, and the next
    `Staging` takes one whose event has passed (above four of them it waits for the oldest). For the CPU, where tests
    run kernels in emulation, the memory is plain. One object serves one batch, in one thread.

    Args:
        device: where `upload` will put the bytes.
    """

    _pools: ClassVar[defaultdict[torch.device, list[_Buffer]]] = defaultdict(list)
    _lock = threading.Lock()

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.size = 0
        self._buffer: _Buffer | None = self._take()

    def reserve(self, nbytes: int) -> int:
        """The byte offset of ``nbytes`` more, a multiple of 16, with at least 8 zero bytes behind them.

        Views from before may be of a buffer that was too small: ask for `view` again.

        Raises:
            RuntimeError: the bytes have been uploaded.
        """
        offset = self.size
        padded = -(-(nbytes + PADDING) // ALIGNMENT) * ALIGNMENT
        self._grow(offset + padded)
        self.size = offset + padded
        self.view(offset + nbytes, padded - nbytes)[:] = 0
        return offset

    def view(self, offset: int = 0, nbytes: int | None = None) -> npt.NDArray[np.uint8]:
        """The bytes [offset, offset + nbytes) as an array to write to; all that is reserved from there by default."""
        if self._buffer is None:
            raise RuntimeError("these bytes have been uploaded")
        stop = self.size if nbytes is None else offset + nbytes
        return self._buffer.memory.numpy()[offset:stop]

    def upload(self, stream: torch.cuda.Stream | None = None) -> Tensor:
        """All reserved bytes as a uint8 tensor on the device, by one asynchronous copy.

        Args:
            stream: on which to copy; torch's current stream of the device by default. The tensor belongs to it.
        """
        if self._buffer is None:
            raise RuntimeError("these bytes have been uploaded")
        buffer, self._buffer = self._buffer, None
        if self.device.type != "cuda":
            return buffer.memory[: self.size]
        with torch.cuda.device(self.device):
            stream = stream or torch.cuda.current_stream(self.device)
            with torch.cuda.stream(stream):
                bytes_there = torch.empty(self.size, dtype=torch.uint8, device=self.device)
                bytes_there.copy_(buffer.memory[: self.size], non_blocking=True)
                buffer.copied = torch.cuda.Event()
                buffer.copied.record(stream)
        with self._lock:
            self._pools[self.device].append(buffer)
        return bytes_there

    def _take(self) -> _Buffer:
        if self.device.type != "cuda":
            return _Buffer(torch.empty(0, dtype=torch.uint8))
        with self._lock:
            pool = self._pools[self.device]
            free = [buffer for buffer in pool if buffer.free()]
            if free:
                best = max(free, key=lambda buffer: buffer.memory.numel())
            elif len(pool) >= _WAITING:
                best = pool[0]
            else:
                return _Buffer(torch.empty(0, dtype=torch.uint8))
            pool.remove(best)
        if best.copied is not None:
            best.copied.synchronize()
        return best

    def _grow(self, size: int) -> None:
        if self._buffer is None:
            raise RuntimeError("these bytes have been uploaded")
        old = self._buffer.memory
        if size <= old.numel():
            return
        larger = torch.empty(
            max(size, 2 * old.numel(), _SMALLEST), dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        larger[: self.size] = old[: self.size]
        self._buffer = _Buffer(larger)
