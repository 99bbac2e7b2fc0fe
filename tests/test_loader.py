"""Chunks of records, decoded by one call: that each row holds what its key says, whatever stands beside it."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import fastaug
from corpus import RATE, encoded, examples, tone, write_tar
from fastaug import Batch, Pipeline, Record
from fastaug.loader import Loader
from fastaug.shards import open_source, reader, tar
from fastaug.tasks import Task
from fastaug.transforms.base import params_to

COMMON: dict[str, Any] = {"sample_rate": RATE, "device": "cpu", "seed": 4}
CODECS = ("wav", "flac", "ogg", "wav")
CLIP = encoded(tone(0.1, 0), "wav")


def level(i: int) -> float:
    return (i + 1) / 64


def leveled(pattern: str) -> list[Record]:
    """Record i holds the level of i throughout, and its label. "." good, "x" no audio, "l" a label of no class."""
    found = []
    for i, kind in enumerate(pattern):
        audio = encoded(np.full((1_000 + i, 1), level(i), np.float32), CODECS[i % 4])
        found.append(Record(f"r{i:02d}", b"" if kind == "x" else audio, {"n": "?" if kind == "l" else f"{i:02d}"}))
    return found


def assert_own_audio(batches: list[Batch]) -> None:
    for batch in batches:
        audio = batch.audio if batch.audio.dim() == 4 else batch.audio[None]
        for b, key in enumerate(batch.keys):
            i = int(key[1:])
            assert batch.labels is not None and int(batch.labels[b]) == i and batch.fields["n"][b] == key[1:]
            inside = audio[:, b, :, 100:400]
            assert (inside - level(i)).abs().max() < (0.01 if CODECS[i % 4] == "ogg" else 1e-6), key


@pytest.mark.parametrize("crop", [{"crop_samples": 500}, {"crop": "whole"}, {"crop_samples": 500, "channels": None}])
@pytest.mark.parametrize("on_error", ["skip", "replace"])
@pytest.mark.parametrize("threads", [0, 2])
def test_rows_keep_their_own_audio_and_label_beside_bad_ones(crop: dict, on_error: str, threads: int) -> None:
    pattern = "x..l.xl...xx.....l...x"
    pipe = Pipeline(
        leveled(pattern), labels="n", classes=[f"{i:02d}" for i in range(len(pattern))], views=2, batch_size=9,
        on_error=on_error, num_threads=threads, **crop, **COMMON,
    )  # fmt: skip
    batches = list(pipe)
    assert_own_audio(batches)
    bad = {f"r{i:02d}" for i, kind in enumerate(pattern) if kind != "."}
    assert {error.key for error in pipe.stats.bad} == bad
    assert {error.stage for error in pipe.stats.bad} == {"decode", "label"}
    delivered = [key for batch in batches for key in batch.keys]
    good = [f"r{i:02d}" for i, kind in enumerate(pattern) if kind == "."]
    if on_error == "skip":
        assert delivered == good
    else:
        assert len(delivered) == len(pattern) and set(delivered) == set(good)
        assert [key for key, kind in zip(delivered, pattern, strict=True) if kind == "."] == good, "each in its place"


def test_repeats_in_one_chunk_draw_as_they_do_alone() -> None:
    """First and second deliveries mixed in one call: the draws of each are its own."""
    records = [Record(stem, data) for stem, data, _ in examples(6)]

    def run(batch_size: int) -> list[tuple[str, list[int], torch.Tensor]]:
        pipe = Pipeline(
            records,
            crop_samples=3_000,
            views=2,
            batch_size=batch_size,
            epoch_size=17,
            shuffle=6,
            num_threads=0,
            **COMMON,
        )
        return [(k, b.starts[:, i].tolist(), b.audio[:, i]) for b in pipe for i, k in enumerate(b.keys)]

    together, alone = run(17), run(1)
    assert len({(key, *starts) for key, starts, _ in alone}) == 17
    for (key, starts, audio), (own_key, own_starts, own_audio) in zip(together, alone, strict=True):
        assert key == own_key and starts == own_starts and torch.equal(audio, own_audio)


def test_a_row_is_what_load_gives(tmp_path: Path) -> None:
    """Every codec and rate of the corpus in one chunk, against one member at a time."""
    clips = examples(12)
    pipe = Pipeline([Record(stem, data) for stem, data, _ in clips], crop_samples=5_000, batch_size=12, **COMMON)
    (batch,) = pipe
    for (_, data, _), start, audio in zip(clips, batch.starts.tolist(), batch.audio, strict=True):
        expected, _ = fastaug.load(data, start, 5_000, sample_rate=RATE)
        mono = expected.mean(0, keepdim=True)
        assert (audio - mono).abs().max() < 1e-6


def test_channels_kept_must_agree() -> None:
    records = [Record(str(i), encoded(tone(0.1, i, channels=1 + i % 2), "wav")) for i in range(4)]
    for crop in ({"crop_samples": 100}, {"crop": "whole"}):
        with pytest.raises(ValueError, match=r"examples of \[1, 2\] channels in one batch"):
            list(Pipeline(records, channels=None, batch_size=4, **crop, **COMMON))
        with pytest.raises(ValueError, match=r"examples of \[1, 2\] channels in one batch"):  # in two chunks
            list(Pipeline(records[:2] * 8, channels=None, batch_size=16, num_threads=2, **crop, **COMMON))
        (batch,) = Pipeline(records, channels=2, batch_size=4, **crop, **COMMON)
        assert batch.audio.shape[:2] == (4, 2) and torch.equal(batch.audio[0, 0], batch.audio[0, 1])


def test_the_batch_is_decoded_in_place() -> None:
    """No copy between decoder and batch where nothing is missing from it."""
    loader = Pipeline(leveled("...."), crop_samples=500, views=2, **COMMON)._loader
    room = loader.room(4)
    assert room is not None and room.shape == (2, 4, 1, 500)
    part = loader.load([Task(i, 0, i) for i in range(4)], 0, room)
    place = fastaug.batch.Place(0, 0, 1)
    assert loader.collate(part, room, place).audio.data_ptr() == room.data_ptr()
    assert Pipeline(leveled("."), crop="whole", **COMMON)._loader.room(4) is None


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What lies in a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.usefixtures("uncollected")
def test_bad_records_keep_no_batch_alive(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """An error's traceback holds all that its callers held; batches so lost are found only by the garbage collector."""
    rooms: list[weakref.ref[torch.Tensor]] = []

    def room(self: Loader, *args: Any) -> torch.Tensor | None:
        audio = made(self, *args)
        assert audio is not None
        rooms.append(weakref.ref(audio))
        return audio

    made = Loader.room
    monkeypatch.setattr(Loader, "room", room)
    whole = {kind: encoded(tone(1.0, 1), kind) for kind in ("wav", "flac", "mp3", "ogg")}
    nan = io.BytesIO()
    soundfile.write(nan, np.full(RATE, np.nan, np.float32), RATE, format="WAV", subtype="FLOAT")
    damaged = [b"", b"bad", nan.getvalue(), *(data[: len(data) // 2] for data in whole.values()), b"x" * 5_000]
    records = [Record(f"bad{i}", data, {"n": "a"}) for i, data in enumerate(damaged)]
    records += [Record("label", whole["wav"], {"n": "?"})] + [Record(k, data, {"n": "a"}) for k, data in whole.items()]
    pipe = Pipeline(
        records, labels="n", classes=["a"], crop_samples=RATE, batch_size=4, on_error="skip",
        transform=fastaug.clmr(), num_threads=threads, **COMMON,
    )  # fmt: skip
    for _ in range(2):
        for _ in pipe:
            pass
    assert {error.stage for error in pipe.stats.bad} >= {"decode", "label"}
    assert len(pipe.stats.bad) >= 6 and len(rooms) >= 6
    assert not any(ref() is not None for ref in rooms)


@pytest.mark.usefixtures("uncollected")
def test_params_that_moved_go_with_their_last_user() -> None:
    moved = params_to({"a": {"b": torch.ones(2)}, "c": torch.ones(1)}, torch.device("meta"))
    assert moved["a"]["b"].is_meta and moved["c"].is_meta
    ref = weakref.ref(moved["a"]["b"])
    del moved
    assert ref() is None


def test_the_caller_has_the_next_batches_fetched_before_it_decodes_one() -> None:
    events: list[str] = []
    pipe = Pipeline(leveled("......"), crop_samples=100, batch_size=1, num_threads=0, prefetch=2, **COMMON)
    source = pipe._loader.source
    read = source.read
    source.announce = lambda i: events.append(f"fetch {i}")
    source.read = lambda i: (events.append(f"read {i}"), read(i))[1]
    for _ in zip(range(2), pipe, strict=False):
        pass
    assert events[:4] == ["fetch 0", "fetch 1", "fetch 2", "read 0"]
    assert events[4:6] == ["fetch 3", "read 1"]


def test_fetching_is_a_wish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of shards, files and mixtures; what is gone or has changed is told when it is read."""
    asked: list[tuple[int, int]] = []
    found = tar.fetch
    monkeypatch.setattr(reader, "fetch", lambda *a: (asked.append(a[2:]), found(*a))[1])
    members = [(f"{i}.{suffix}", data) for i in range(3) for suffix, data in (("wav", CLIP), ("json", b"{}"))]
    path = write_tar(tmp_path / "s.tar", members)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").write_bytes(CLIP)
    mix = open_source(fastaug.Mix({"s": path, "a": tmp_path / "a"}))
    assert mix.announce is not None
    for record in range(4):
        mix.announce(record)
    records = [mix.read(i) for i in range(3)]
    assert asked == [(record.offset, record.offset + len(CLIP)) for record in records]
    fresh = open_source(path)
    path.unlink()
    (tmp_path / "a" / "x.wav").unlink()
    tar._mapping.cache_clear()
    assert fresh.announce is not None
    fresh.announce(0), mix.announce(3)
    with pytest.raises(FileNotFoundError):
        fresh.read(0)


def test_threads_of_our_own_only_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all the work is on the CPU, they would only compete with torch's."""
    make = lambda **given: Pipeline(leveled("."), crop_samples=9, **COMMON, **given).num_threads  # noqa: E731
    torch.set_num_threads(2)
    assert (make(), make(num_threads=1)) == (0, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (make(), make(num_threads=0)) == (2, 0)
    with pytest.raises(ValueError, match="num_threads must be at least 0"):
        make(num_threads=-1)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_caller_decodes_with_as_many_threads_as_torch(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    torch.set_num_threads(threads)
    found: list[int] = []
    made = Loader._open
    monkeypatch.setattr(
        Loader, "_open", lambda self, records, way: (found.append(way.threads), made(self, records, way))[1]
    )
    list(Pipeline(leveled("..."), crop_samples=9, batch_size=2, num_threads=0, **COMMON))
    assert found == [threads, threads]
