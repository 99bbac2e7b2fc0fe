"""CPU ops of a chain that wait, so that every row goes through all of them while it lies in its core's cache.

One op after another over a whole batch sends each row to memory and back for each op. Inside `chain`, ops called within
`collecting` only note what they were asked to do; then each row takes all steps before the next row begins. The bits
are the same: a row's result depends on that row alone.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastaug.ops._library import direct, native, threads

__all__ = ["call", "chain", "collecting", "flush", "possible", "repeated"]


#: Samples of a batch that the second cache of a core (1 MiB here) holds.
LEAST = 1 << 18


class _Waiting(threading.local):
    """What waits in this thread: native steps, and the tensors whose addresses they hold."""

    def __init__(self) -> None:
        self.depth, self.rows, self.collects = 0, 0, False
        self.steps: list[Any] = []
        self.kept: list[Sequence[Tensor | None]] = []

    def clear(self) -> None:
        self.steps, self.kept = [], []


_waiting = _Waiting()


def call(name: str, *arguments: Any, keep: Sequence[Tensor | None]) -> None:
    """``native().<name>(*arguments)``, now or when rows go through. ``keep``: all tensors with an address in it."""
    if not _waiting.collects:
        getattr(native(), name)(*arguments)
    else:
        _waiting.steps.append(getattr(native(), name + "_later")(*arguments))
        _waiting.kept.append(keep)


def possible(x: Tensor, rows: int) -> bool:
    """Whether a chain over ``rows`` rows made of x (B, C, T) may let its ops wait: on the CPU, with rows for all
    threads, and where it pays: a batch that lies in the cache as a whole has nothing to gain."""
    return direct(x) and rows * math.prod(x.shape[1:]) > LEAST and rows >= torch.get_num_threads()


def flush() -> None:
    """Take the rows through everything that waits."""
    steps, kept = _waiting.steps, _waiting.kept
    _waiting.clear()
    if steps:
        native().run_rows(_waiting.rows, threads(), *steps)
    del kept


class chain:
    """``with chain(rows)``: ops on that many rows may wait in it; they are done at its end. Chains nest as one."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __enter__(self) -> None:
        if _waiting.depth == 0:
            _waiting.rows = self.rows
        _waiting.depth += 1

    def __exit__(self, kind: object, *_: object) -> None:
        _waiting.depth -= 1
        if kind is not None:
            _waiting.clear()
        elif _waiting.depth == 0:
            flush()


class collecting:
    """``with collecting()``, in a chain: the ops called here wait, if ``wanted``. Nothing here may look at samples."""

    def __init__(self, wanted: bool = True) -> None:
        self.wanted = wanted

    def __enter__(self) -> None:
        _waiting.collects = self.wanted

    def __exit__(self, *_: object) -> None:
        _waiting.collects = False


def repeated(x: Tensor, n: int) -> Tensor:
    """``x.repeat(n, 1, 1)`` as a step that waits: in a chain of n times the rows of x (B, C, T) float32."""
    x = x.contiguous()
    y = x.new_empty(n * len(x), *x.shape[1:])
    with collecting():
        call("fa_repeat", x.data_ptr(), y.data_ptr(), len(y), len(x), x[:1].numel(), threads(), keep=(x, y))
    return y
