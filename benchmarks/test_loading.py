"""From tar shards of mp3 tracks (30 s, 44.1 kHz, stereo) to batches of two mono views of 2.68 s at 22,050 Hz."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import QUICK, Peer, compare
from materials import RATE, SAMPLES, tracks, write_shards
from test_chain import single_clip_chain
from turns import same_draws

from fastaug import Pipeline, clmr
from fastaug.codecs import decode
from fastaug.shards import open_source

SOURCE_RATE, SECONDS = 44_100, 30.0
PER_SHARD = 4 if QUICK else 16
# Batch: tracks for us, and for peers, who are slow and take no less time for a track in a larger batch.
SIZES = {256: (256, 8)} if QUICK else {32: (96, 32), 256: (768, 32)}
DRAWS = "random crops"
Augment = Callable[[np.ndarray], np.ndarray] | None


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    most = max(ours for ours, _ in SIZES.values())
    return write_shards(tmp_path_factory.mktemp("shards"), tracks(most, SECONDS, "mp3", SOURCE_RATE), "mp3", PER_SHARD)


def holding(shards: list[Path], count: int) -> list[str]:
    """The first shards, with so many tracks in all."""
    return [str(path) for path in shards[: count // PER_SHARD]]


def pipeline(paths: list[str], batch: int, augmented: bool = True) -> Pipeline:
    return Pipeline(
        paths, sample_rate=RATE, crop_samples=SAMPLES, views=2, batch_size=batch,
        transform=clmr() if augmented else None, seed=0, shuffle=64, device="cpu",
    )  # fmt: skip


def first_epoch(pipe: Pipeline) -> Pipeline:
    """In every pass the same crops and effects."""
    pipe.set_epoch(0)
    return pipe


def two_views(data: bytes, whole: bool, augment: Augment) -> np.ndarray:
    """(2, 1, T) from one encoded track: the whole file as webdataset users decode it, or only what two crops need."""
    import soundfile
    import soxr

    same_draws(zlib.crc32(data[-4096:]))  # in every pass the same crops and effects, in whichever process
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


def webdataset(
    paths: list[str], batch: int, threads: int, whole: bool, augmented: bool
) -> Callable[[], Callable[[], int]]:
    """One pass through webdataset and a DataLoader: in this process for one thread, else one worker per thread."""

    def build() -> Callable[[], int]:
        import webdataset as wds

        augment = single_clip_chain() if augmented else None
        dataset = wds.WebDataset(paths, shardshuffle=False, empty_check=False)
        dataset = (
            dataset.shuffle(64)
            .map(lambda sample: two_views(sample["mp3"], whole, augment))
            .batched(batch, collation_fn=np.stack)
        )
        workers = threads if threads > 1 else 0
        loader = wds.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)

        def one_pass() -> int:
            return count(loader, len(paths) * PER_SHARD)

        return one_pass

    return build


def count(batches: Iterator[Any], expected: int) -> int:
    """How many tracks came; every batch is touched."""
    tracks_seen = sum(len(torch.as_tensor(batch)) for batch in batches)
    assert tracks_seen == expected, f"{tracks_seen} of {expected} tracks"
    return tracks_seen


@pytest.mark.parametrize("batch", SIZES)
@pytest.mark.parametrize("augmented", [False, True], ids=["crops", "clmr"])
def test_two_views(benchmark: Any, threads: int, shards: list[Path], augmented: bool, batch: int) -> None:
    """Ours by its defaults. With augmentation, ten times the faster peer is the aim."""
    ours, theirs = SIZES[batch]
    pipe = pipeline(holding(shards, ours), batch, augmented)
    peers = [
        Peer(
            f"webdataset + soundfile + soxr, {'whole file' if whole else 'only the crops'}",
            "webdataset",
            webdataset(holding(shards, theirs), batch, threads, whole, augmented),
            differs=DRAWS,
            items=theirs,
        )
        for whole in (True, False)
    ]
    compare(
        benchmark,
        lambda: count((batch.audio.transpose(0, 1) for batch in first_epoch(pipe)), ours),
        peers,
        items=ours,
        unit="track",
        threads=threads,
        minimum_ratio={peer.name: 10 for peer in peers} if augmented else None,
    )


SMALL = 200 if QUICK else 5_000  # records of 2 KB, so that headers and fields are all the work


@pytest.fixture(scope="module")
def small_shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("small")
    return write_shards(folder, [rng.bytes(2_000) for _ in range(SMALL)], "wav", SMALL)[0]


def webdataset_records(shard: Path) -> Callable[[], Callable[[], int]]:
    """Every record of a shard as bytes, fields decoded, by webdataset."""

    def build() -> Callable[[], int]:
        import json

        import webdataset as wds

        dataset = wds.WebDataset(str(shard), shardshuffle=False, empty_check=False)

        def one_pass() -> int:
            return sum(len(sample["wav"]) for sample in dataset if json.loads(sample["json"]))

        return one_pass

    return build


def test_tar_scan(benchmark: Any, threads: int, small_shard: Path) -> None:
    """A shard opened anew and every record read, fields decoded: what an epoch's first pass costs beside decoding."""

    def ours() -> int:
        source = open_source(small_shard)
        return sum(len(source.read(i).audio) for i in range(len(source)))

    peer = Peer("webdataset", "webdataset", webdataset_records(small_shard), check=equal_counts)
    compare(
        benchmark, ours, [peer], items=SMALL, unit="record", threads=threads,
        minimum_ratio=None if QUICK else {"webdataset": 4},
    )  # fmt: skip


def equal_counts(ours: int, theirs: int) -> str:
    assert ours == theirs == SMALL * 2_000
    return "the same bytes"


@pytest.mark.parametrize("batch", SIZES)
def test_pipeline_beside_its_parts(benchmark: Any, threads: int, shards: list[Path], batch: int) -> None:
    """A Pipeline against one decode and one chain a batch, of bytes already in memory: what the line itself costs. The
    aim is at most a tenth."""
    total = SIZES[batch][0]
    paths = holding(shards, total)
    pipe = pipeline(paths, batch)

    def parts() -> Callable[[], int]:
        source, chain = open_source(paths), clmr(sample_rate=RATE)
        encoded = [bytes(source.read(i).audio) for i in range(total)]
        starts = np.random.default_rng(0).integers(0, int(SECONDS * RATE) - SAMPLES, (2, total))

        def one_pass() -> int:
            chain.reset(0)
            for i in range(0, total, batch):
                these = slice(i, i + batch)
                crops, _ = decode(encoded[these], starts[:, these], SAMPLES, RATE, num_threads=threads)
                chain(crops.flatten(0, 1))
            return total

        return one_pass

    compare(
        benchmark,
        lambda: count((batch.audio.transpose(0, 1) for batch in first_epoch(pipe)), total),
        [Peer("decode + augment alone", None, parts, differs=DRAWS)],
        items=total,
        unit="track",
        threads=threads,
        minimum_ratio=None if QUICK else {"decode + augment alone": 0.9},
    )
