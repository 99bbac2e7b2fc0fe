"""The line on real recordings: every file is delivered, or named with its reason.

The recordings lie outside the repository (FASTAUG_TEST_DATA, by default ../shared/data beside the checkout).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from fastaug import Pipeline
from fastaug.datasets.shard import shard

DATA = Path(os.environ.get("FASTAUG_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recordings at {DATA} (FASTAUG_TEST_DATA)")

FOLDERS = {"esc10": 40, "fsdd": 40, "berklee_mp3": 40, "sonic_pi_flac": 40}


def files(folder: str) -> list[Path]:
    return sorted(path for path in (DATA / folder).rglob("*") if path.suffix in (".ogg", ".wav", ".mp3", ".flac"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Shards of a sample of every folder: Vorbis, WAV, MP3 and FLAC, 8 to 48 kHz, mono and stereo."""
    root = tmp_path_factory.mktemp("real")
    count = 0
    for folder, n in FOLDERS.items():
        chosen = random.Random(0).sample(files(folder), n)
        (root / "music" / folder).mkdir(parents=True)
        for path in chosen:
            (root / "music" / folder / f"{path.parent.name}-{path.name}").symlink_to(path)
        count += len(chosen)
    shard(root / "music", root / "shards", fractions=(1, 0, 0), progress=False)
    return root / "shards", count


def test_every_recording_is_delivered_or_named(packed: tuple[Path, int]) -> None:
    folder, count = packed
    pipe = Pipeline(
        folder,
        split="train",
        labels="label",
        sample_rate=22_050,
        crop_seconds=2.68,
        views=2,
        batch_size=16,
        on_error="skip",
        device="cpu",
    )
    keys = [key for batch in pipe for key in batch.keys]
    assert len(set(keys)) == len(keys)
    assert len(keys) + len(pipe.stats.bad) == count and len(pipe.stats.bad) <= count // 50
    for bad in pipe.stats.bad:
        assert "member" in bad.place and bad.reason
    assert pipe.classes == sorted(FOLDERS)


def test_real_batches_are_finite_audible_and_reproducible(packed: tuple[Path, int]) -> None:
    def run(batch_size: int, threads: int) -> dict[str, torch.Tensor]:
        pipe = Pipeline(
            packed[0],
            split="train",
            sample_rate=16_000,
            crop_seconds=1.0,
            batch_size=batch_size,
            on_error="skip",
            num_threads=threads,
            device="cpu",
        )
        return {key: audio for batch in pipe for key, audio in zip(batch.keys, batch.audio, strict=True)}

    small, large = run(4, 1), run(32, 4)
    assert small.keys() == large.keys() and all(torch.equal(small[key], large[key]) for key in small)
    assert all(bool(torch.isfinite(audio).all()) for audio in small.values())
    silent = sum(bool(audio.abs().max() < 1e-4) for audio in small.values())
    assert silent < len(small) // 5


def test_odd_and_broken_files_decode_or_say_why() -> None:
    odd = sorted(path for path in (DATA / "edge").rglob("*") if path.is_file() and path.suffix not in (".txt", ""))
    suffixes = (".wav", ".mp3", ".mp2", ".mp1", ".flac", ".ogg", ".oga", ".opus", ".aiff", ".m4a")
    audio = [path for path in odd if path.suffix in suffixes]
    pipe = Pipeline(audio, sample_rate=16_000, crop_seconds=0.5, batch_size=8, on_error="skip", device="cpu")
    delivered = {key for batch in pipe for key in batch.keys}
    named = {bad.key for bad in pipe.stats.bad}
    assert delivered | named == {path.as_posix() for path in audio} and not delivered & named
    assert len(delivered) > 100
    for bad in pipe.stats.bad:
        assert bad.place.endswith(bad.key) or bad.key in bad.place
        assert len(bad.reason) > 10
