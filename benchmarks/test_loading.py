"""From tar shards of mp3 tracks (30 s, 44.1 kHz, stereo) to batches of two mono views of 2.68 s at 22,050 Hz."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import QUICK, Peer, compare
from materials import RATE, SAMPLES, tracks, write_shards
from test_chain import single_clip_chain

from fastaug import Pipeline, clmr

SOURCE_RATE, SECONDS = 44_100, 30.0
TRACKS, PER_SHARD, BATCH = (16, 4, 8) if QUICK else (96, 16, 32)
DRAWS = "random crops"
Augment = Callable[[np.ndarray], np.ndarray] | None


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_shards(
        tmp_path_factory.mktemp("shards"), tracks(TRACKS, SECONDS, "mp3", SOURCE_RATE), "mp3", PER_SHARD
    )


def two_views(data: bytes, whole: bool, augment: Augment) -> np.ndarray:
    """(2, 1, T) from one encoded track: the whole file as webdataset users decode it, or only what two crops need."""
    import soundfile
    import soxr

    need, total = 2 * SAMPLES, int(SECONDS * SOURCE_RATE)
    begin = [random.randrange(total - need) for _ in range(2)]
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        if whole:
            track = file.read(dtype="float32", always_2d=True)
            crops = [track[b : b + need] for b in begin]
        else:
            crops = []
            for b in begin:
                file.seek(b)
                crops.append(file.read(need, dtype="float32", always_2d=True))
    views = [soxr.resample(crop.mean(axis=1), SOURCE_RATE, RATE)[None, :SAMPLES] for crop in crops]
    return np.stack([augment(view)[:, :SAMPLES] if augment else view for view in views])


def webdataset(shards: list[Path], threads: int, whole: bool, augmented: bool) -> Callable[[], Callable[[], int]]:
    """One pass through webdataset and a DataLoader: in this process for one thread, else one worker per thread."""

    def build() -> Callable[[], int]:
        import webdataset as wds

        augment = single_clip_chain() if augmented else None
        dataset = wds.WebDataset([str(path) for path in shards], shardshuffle=False, empty_check=False)
        dataset = (
            dataset.shuffle(64)
            .map(lambda sample: two_views(sample["mp3"], whole, augment))
            .batched(BATCH, collation_fn=np.stack)
        )
        workers = threads if threads > 1 else 0
        loader = wds.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)

        def one_pass() -> int:
            return count(loader)

        return one_pass

    return build


def count(batches: Iterator[Any]) -> int:
    """How many tracks came; every batch is touched."""
    tracks_seen = sum(len(torch.as_tensor(batch)) for batch in batches)
    assert tracks_seen == TRACKS, f"{tracks_seen} of {TRACKS} tracks"
    return tracks_seen


@pytest.mark.parametrize("augmented", [False, True], ids=["crops", "clmr"])
def test_two_views(benchmark: Any, threads: int, shards: list[Path], augmented: bool) -> None:
    pipe = Pipeline(
        [str(path) for path in shards],
        sample_rate=RATE,
        crop_samples=SAMPLES,
        views=2,
        batch_size=BATCH,
        transform=clmr() if augmented else None,
        seed=0,
        shuffle=64,
        device="cpu",
        num_threads=threads if threads > 1 else 0,
    )

    def ours() -> int:
        return count(batch.audio.transpose(0, 1) for batch in pipe)

    compare(
        benchmark,
        ours,
        [
            Peer(
                "webdataset + soundfile + soxr, whole file",
                "webdataset",
                webdataset(shards, threads, True, augmented),
                differs=DRAWS,
            ),
            Peer(
                "webdataset + soundfile + soxr, only the crops",
                "webdataset",
                webdataset(shards, threads, False, augmented),
                differs=DRAWS,
            ),
        ],
        items=TRACKS,
        unit="track",
        threads=threads,
    )
