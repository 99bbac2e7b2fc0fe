"""The loaders that people write from today's parts: webdataset or a torch Dataset, with effects in worker processes.

Nothing is crippled: only the crops are decoded, workers are kept from epoch to epoch, one on each core, batches reach
the trainer through shared memory, and of sox only the pitch shift is used, which it does faster than the others.
"""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import sox
import torch
from materials import RATE, SAMPLES
from test_loading import two_views

Augment = Callable[[np.ndarray], np.ndarray]


def pedalboard_and_sox() -> Augment:
    """The CLMR chain on one clip (1, T): pedalboard's filters, delay and reverb, sox's pitch, NumPy for the rest."""
    import pedalboard as pb

    def chain(row: np.ndarray) -> np.ndarray:
        coin = lambda p: random.random() < p  # noqa: E731
        if coin(0.8):
            row = -row
        if coin(0.01):
            row = row + row.std() * random.uniform(1e-4, 1e-2) * np.random.standard_normal(row.shape)
        if coin(0.3):
            row = row * 10 ** (random.uniform(-20, -1) / 20)
        row = row.astype(np.float32)
        if coin(0.8):
            low = pb.LowpassFilter(random.uniform(2200, 4000))
            row = (low if coin(0.5) else pb.HighpassFilter(random.uniform(200, 1200)))(row, RATE)
        if coin(0.3):
            row = pb.Delay(random.randrange(200, 500, 50) / 1000, 0.0, 1 / 3)(row, RATE)
        if coin(0.6):
            row = sox.one_clip(row[0], RATE, ["pitch", str(random.randint(-700, 700)), "rate", str(RATE)])[None]
        if coin(0.6):
            row = pb.Reverb(room_size=random.random(), damping=random.random())(np.ascontiguousarray(row), RATE)
        return to_length(row)

    return chain


def sox_alone() -> Augment:
    """Every effect by sox, in one process for each clip."""
    from test_chain import sox_chain

    return lambda row: to_length(np.atleast_2d(sox_chain(row)))


def to_length(row: np.ndarray) -> np.ndarray:
    """(1, SAMPLES): an effect may add an echo's tail, or lose a sample in rounding."""
    row = row[:, :SAMPLES].astype(np.float32, copy=False)
    return np.pad(row, ((0, 0), (0, SAMPLES - row.shape[1]))) if row.shape[1] < SAMPLES else row


def through_webdataset(shards: list[Path], workers: int, batch: int, augment: Callable[[], Augment]) -> Iterable[Any]:
    """Batches (B, 2, 1, T); the shards are split over the workers."""
    import webdataset as wds

    effects = augment()
    dataset = (
        wds.WebDataset([str(path) for path in shards], shardshuffle=False, empty_check=False)
        .shuffle(64)
        .map(lambda sample: two_views(sample["mp3"], False, effects))
        .batched(batch, collation_fn=np.stack)
    )
    return wds.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=True)


class Tracks(torch.utils.data.Dataset[np.ndarray]):
    """The members of tar shards by number, from an index of where each begins."""

    def __init__(self, shards: list[Path], augment: Augment) -> None:
        self.augment = augment
        self.places = []
        for path in shards:
            with tarfile.open(path) as tar:
                self.places += [
                    (path, member.offset_data, member.size) for member in tar if member.name.endswith("mp3")
                ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> np.ndarray:
        path, offset, size = self.places[index]
        with path.open("rb") as file:
            file.seek(offset)
            return two_views(file.read(size), False, self.augment)


def through_a_dataset(shards: list[Path], workers: int, batch: int, augment: Callable[[], Augment]) -> Iterable[Any]:
    """Batches (B, 2, 1, T), in a new random order every epoch."""
    tracks = Tracks(shards, augment())
    return torch.utils.data.DataLoader(
        tracks, batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=True, prefetch_factor=2,
        collate_fn=lambda rows: torch.from_numpy(np.stack(rows)),
    )  # fmt: skip
