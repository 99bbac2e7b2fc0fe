"""Builders for the libraries that appear in several cases; each imports its library only when it is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from clips import clip_by_clip
from materials import RATE

TA, AM = "torch-audiomentations", "audiomentations"


def ta(name: str, x: torch.Tensor, **settings: Any) -> Callable[[], Callable[[], torch.Tensor]]:
    """Build a torch-audiomentations transform that always applies, drawn per example."""

    def build() -> Callable[[], torch.Tensor]:
        import torch_audiomentations

        transform = getattr(torch_audiomentations, name)(p=1.0, sample_rate=RATE, output_type="dict", **settings)
        transform.train()
        return lambda: transform(x, sample_rate=RATE).samples

    return build


def am(name: str, rows: list[np.ndarray], threads: int, **settings: Any) -> Callable[[], Callable[[], np.ndarray]]:
    """Build an audiomentations transform that always applies, one clip at a time."""

    def build() -> Callable[[], np.ndarray]:
        import audiomentations

        transform = getattr(audiomentations, name)(p=1.0, **settings)
        run = clip_by_clip(lambda row: transform(row, sample_rate=RATE), rows, threads=threads)
        return lambda: np.stack(run())

    return build


def board(
    make: Callable[[Any, int], Any], rows: list[np.ndarray], threads: int
) -> Callable[[], Callable[[], np.ndarray]]:
    """Build a pedalboard plugin for each clip: ``make(pedalboard, index)``."""

    def build() -> Callable[[], np.ndarray]:
        import pedalboard

        plugins = [make(pedalboard, i) for i in range(len(rows))]
        run = clip_by_clip(lambda i: plugins[i](rows[i], RATE, reset=True), range(len(rows)), threads=threads)
        return lambda: np.stack(run())

    return build
