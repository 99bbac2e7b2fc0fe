"""Bad records: limits, the log, what is told of each, and that nothing good is lost or mixed up beside them."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from corpus import RATE, encoded, tone, write_tar
from fastaug import Pipeline, Record
from fastaug.codecs import DecodeError
from fastaug.shards import BadRecord, Source
from fastaug.stats import Stats, TooManyBadError

COMMON: dict[str, Any] = {"sample_rate": RATE, "crop_samples": 400, "device": "cpu", "seed": 3}
GOOD = encoded(tone(0.1, 0), "wav")


def records(pattern: str) -> list[Record]:
    """One record a letter: "." good, "x" bad."""
    return [Record(f"{i:03d}{kind}", GOOD if kind == "." else b"nothing") for i, kind in enumerate(pattern)]


def delivered(pipe: Pipeline) -> list[str]:
    return [key for batch in pipe for key in batch.keys]


@pytest.mark.parametrize("threads", [0, 2])
def test_too_many_in_a_row(threads: int) -> None:
    common = COMMON | {"on_error": "skip", "batch_size": 4, "num_threads": threads}
    pattern = ".." + "x" * 5 + "." + "x" * 5 + "."
    assert len(delivered(Pipeline(records(pattern), max_bad_in_row=5, **common))) == 4
    pipe = Pipeline(records(pattern), max_bad_in_row=4, **common)
    with pytest.raises(TooManyBadError, match="5 bad records in a row, max_bad_in_row is 4; the last: record '006x'"):
        delivered(pipe)
    assert len(delivered(Pipeline(records("." + "x" * 150 + "."), max_bad_in_row=None, **common))) == 2
    with pytest.raises(TooManyBadError, match="in a row, max_bad_in_row is 100"):
        delivered(Pipeline(records("." + "x" * 150 + "."), **common))


def test_replacements_count_as_tried() -> None:
    pipe = Pipeline(records("..x.x...."), on_error="replace", batch_size=9, **COMMON)
    (batch,) = pipe
    tries = pipe.stats.tried
    assert len(batch) == 9 and tries == 9 + pipe.stats.bad_count and batch.outcomes.count(True) == 9
    assert pipe.stats.bad_count >= 2 and {bad.key for bad in pipe.stats.bad} == {"002x", "004x"}


def test_too_large_a_fraction() -> None:
    common = COMMON | {"on_error": "skip", "batch_size": 8}
    assert len(delivered(Pipeline(records("...x" * 8), max_bad_fraction=0.25, **common))) == 24
    pipe = Pipeline(records("...x" * 8), max_bad_fraction=0.24, **common)
    with pytest.raises(TooManyBadError, match="8 of 32 records are bad, max_bad_fraction is 0.24"):
        delivered(pipe)
    stats = Stats(max_bad_fraction=0.5)
    stats.note(0, [], [False] * 999)  # too few to tell, in mid-epoch
    with pytest.raises(TooManyBadError):
        stats.note(0, [], [False])


@pytest.mark.parametrize("limits", [{"max_bad_in_row": -1}, {"max_bad_fraction": 1.5}])
def test_limits_out_of_range(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_bad"):
        Pipeline(records("."), **limits, **COMMON)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_log_holds_each_bad_record_once(tmp_path: Path, workers: int) -> None:
    members = [("a.wav", b"x"), ("b.wav", GOOD), ("c.wav", GOOD), ("c.json", b"{"), ("d.wav", GOOD)]
    path = write_tar(tmp_path / "s.tar", members)
    log = tmp_path / "bad.jsonl"
    pipe = Pipeline(path, on_error="skip", error_log=log, batch_size=2, **COMMON)
    for _ in range(3):
        for batch in torch.utils.data.DataLoader(pipe, batch_size=None, num_workers=workers) if workers else pipe:
            pipe.finish(batch)
    lines = sorted((json.loads(line) for line in log.read_text().splitlines()), key=lambda line: line["key"])
    assert lines == sorted((bad.to_dict() for bad in pipe.stats.bad), key=lambda line: line["key"])
    expected = [("s.tar/a", "a.wav", "decode", str(path)), ("s.tar/c", "c.json", "read", str(path))]
    assert [(line["key"], line["member"], line["stage"], line["url"]) for line in lines] == expected
    with tarfile.open(path) as tar:
        assert [line["offset"] for line in lines] == [tar.getmember(n).offset_data for n in ("a.wav", "c.json")]
    assert all(line["reason"] for line in lines)
    assert pipe.stats.bad_count == 6 and len(pipe.stats.bad) == 2


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_what_a_worker_loses_behind_its_last_batch_is_told(tmp_path: Path, workers: int) -> None:
    """Batches of two; the last of all, or the whole share of a worker, or all of them, hold nothing good."""
    log = tmp_path / "bad.jsonl"
    for pattern, epochs in (("......xx", 3), ("..xx", 2), (".x..xxxxxx", 3), ("xxxx", 2)):
        log.unlink(missing_ok=True)
        pipe = Pipeline(records(pattern), on_error="skip", error_log=log, batch_size=2, **COMMON)
        keys = []
        for epoch in range(epochs):
            assert pipe.epoch == epoch
            loader = torch.utils.data.DataLoader(pipe, batch_size=None, num_workers=workers)
            keys += [(epoch, key) for batch in loader for key in pipe.finish(batch).keys]
        assert pipe.epoch == epochs and pipe.state_dict()["batch"] == 0
        good = [f"{i:03d}." for i, kind in enumerate(pattern) if kind == "."]
        assert keys == [(epoch, key) for epoch in range(epochs) for key in good]
        bad = {f"{i:03d}x" for i, kind in enumerate(pattern) if kind == "x"}
        assert {record.key for record in pipe.stats.bad} == bad and len(pipe.stats.bad) == len(bad)
        assert pipe.stats.bad_count == epochs * len(bad) and pipe.stats.tried == epochs * len(pattern)
        assert sorted(json.loads(line)["key"] for line in log.read_text().splitlines()) == sorted(bad)
        word = Path(pipe._lost.path)
        assert word.exists() and word.stat().st_mode & 0o777 == 0o600
        del pipe, loader
        gc.collect()
        assert not word.exists()


@pytest.mark.parametrize("persistent", [False, True])
def test_lost_batches_of_workers_neither_end_an_epoch_nor_keep_it(persistent: bool) -> None:
    """A worker that loses a batch delivers its next in that one's turn: all come, and nothing is taken for delivered
    before it is."""
    pipe = Pipeline(records("...x.."), on_error="skip", batch_size=1, shuffle=6, **COMMON)
    loader = torch.utils.data.DataLoader(pipe, batch_size=None, num_workers=2, persistent_workers=persistent)
    alone = Pipeline(records("...x.."), on_error="skip", batch_size=1, shuffle=6, **COMMON)
    turns = set()
    for epoch in range(8):
        assert pipe.epoch == alone.epoch == epoch
        expected, found = [(batch.place.index, batch.keys[0]) for batch in alone], []
        for raw in loader:
            batch = pipe.finish(raw)
            found.append((batch.place.index, batch.keys[0]))
            state = pipe.state_dict()
            missing = [index for index, key in expected if (index, key) not in found]
            assert state["epoch"] > epoch or state["batch"] <= min(missing, default=6), "what is to come is told so"
        assert sorted(found) == expected
        turns.add(found == sorted(found))
    assert turns == {False, True}, "both have come up"
    assert pipe.stats.bad_count == alone.stats.bad_count == 8


def test_a_loader_that_is_left_early_begins_the_epoch_again() -> None:
    pipe = Pipeline(records("....."), on_error="skip", batch_size=1, shuffle=6, **COMMON)
    loader = torch.utils.data.DataLoader(pipe, batch_size=None, num_workers=2)
    for _, raw in zip(range(3), loader, strict=False):
        pipe.finish(raw)
    assert pipe.state_dict()["batch"] == 3
    places = []
    for raw in loader:
        places.append((pipe.finish(raw).place.index, pipe.state_dict()["batch"]))
    assert places == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)] and pipe.epoch == 1


def test_programming_errors_are_never_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(index: int) -> Record:
        raise KeyError("a slip in somebody's code")

    def misused(index: int) -> Record:
        raise ValueError("likewise")

    def exhausted(index: int) -> Record:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    for read, error in ((broken, KeyError), (misused, ValueError), (exhausted, OSError)):
        pipe = Pipeline(records("...."), on_error="skip", **COMMON)
        pipe._loader.source = Source([4], read, "{}".format, "digest")
        with pytest.raises(error):
            delivered(pipe)
    pipe = Pipeline(
        [Record("a", GOOD, {"mood": "drone"})], labels="mood", on_error="skip", **COMMON
    )  # names, but no classes
    with pytest.raises(ValueError, match="give classes="):
        delivered(pipe)


def test_a_missing_file_is_a_bad_record(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(GOOD)
    (tmp_path / "b.wav").write_bytes(GOOD)
    pipe = Pipeline(tmp_path, on_error="skip", **COMMON)
    (tmp_path / "a.wav").unlink()
    assert delivered(pipe) == ["b.wav"]
    assert pipe.stats.bad[0].url == str(tmp_path / "a.wav") and "no such audio file" in pipe.stats.bad[0].reason


def test_a_bad_record_prints_pickles_and_hashes() -> None:
    bad = BadRecord("s.tar/a", "decode", "nothing there", "/x/s.tar", "a.wav", 512)
    assert str(bad) == "/x/s.tar: member a.wav at byte 512: decode failed: nothing there"
    assert str(BadRecord("a", "decode", "nothing there")) == "record 'a': decode failed: nothing there"
    assert {bad, BadRecord(**bad.to_dict())} == {bad}  # type: ignore[arg-type]


# One per cent corrupt members of six kinds: everything else comes, each with its own label.


def clip(i: int) -> bytes:
    """An own constant level for each i: the samples say which record they are of."""
    return wav(np.full(160, (i % 20_011 + 1) / 32_768, np.float32))


def wav(samples: np.ndarray, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype=subtype)
    return buffer.getvalue()


MP3, FLAC = encoded(tone(0.5, 1), "mp3"), encoded(tone(1.5, 1), "flac")
KINDS: dict[str, tuple[str, bytes, bytes, str, str]] = {  # suffix, audio, JSON, stage, part of the reason
    "empty": ("wav", b"", b"", "decode", "empty (0 bytes)"),
    "text": ("wav", b"not audio " * 20, b"", "decode", "neither WAV"),
    "cut": ("flac", FLAC[: len(FLAC) // 2], b"", "decode", "ends at sample"),
    "flipped": ("flac", FLAC[:2000] + bytes(200) + FLAC[2200:], b"", "decode", ""),
    "nan": ("wav", wav(np.full(160, np.nan, np.float32), "FLOAT"), b"", "decode", "NaN"),
    "json": ("wav", clip(0), b'{"id": ', "read", "Expecting value"),
}


def corrupted(folder: Path, count: int, per_shard: int) -> dict[str, str]:
    """Writes shards; returns key → kind of the bad ones."""
    names, bad = list(KINDS), {}
    for s in range(0, count, per_shard):
        members: list[tuple[str, bytes]] = []
        for i in range(s, min(s + per_shard, count)):
            suffix, audio, fields = "wav", clip(i), b'{"id": %d}' % i
            if i % 100 == 37:
                kind = names[(i // 100) % 6]
                suffix, audio = KINDS[kind][:2]
                fields = KINDS[kind][2] or fields
                bad[f"train-{s // per_shard:03d}.tar/{i:06d}"] = kind
            members += [(f"{i:06d}.{suffix}", audio), (f"{i:06d}.json", fields)]
        write_tar(folder / f"train-{s // per_shard:03d}.tar", members)
    return bad


def test_one_per_cent_corrupt(tmp_path: Path) -> None:
    count = 20_000
    bad = corrupted(tmp_path, count, count // 10)
    pipe = Pipeline(
        tmp_path, sample_rate=RATE, crop="whole", batch_size=64, on_error="skip", shuffle=500, num_threads=2,
        device="cpu", error_log=tmp_path / "bad.jsonl",
    )  # fmt: skip
    found: dict[str, int] = {}
    for batch in pipe:
        levels = (batch.audio[:, 0, 0] * 32_768).round().long() - 1
        assert (batch.audio == batch.audio[:, :, :1]).all() and (batch.lengths == 160).all()
        for key, number, level in zip(batch.keys, batch.fields["id"], levels.tolist(), strict=True):
            assert key not in found and key.endswith(f"{number:06d}") and level == number % 20_011
            found[key] = number
    assert sorted(found.values()) == [i for i in range(count) if i % 100 != 37]
    told = {record.key: record for record in pipe.stats.bad}
    assert told.keys() == bad.keys() and len(pipe.stats.bad) == len(bad) == pipe.stats.bad_count
    for key, kind in bad.items():
        _, _, _, stage, reason = KINDS[kind]
        assert told[key].stage == stage and reason in told[key].reason, (kind, told[key])
        member = f"{key[-6:]}.{'json' if kind == 'json' else KINDS[kind][0]}"
        assert told[key].member == member and (told[key].url or "").endswith(key.partition("/")[0])
    assert pipe.stats.tried == count and len((tmp_path / "bad.jsonl").read_text().splitlines()) == len(bad)


def test_the_same_with_raise(tmp_path: Path) -> None:
    corrupted(tmp_path, 200, 50)
    with pytest.raises(DecodeError, match=r"train-000\.tar: member 000037\.wav at byte \d+: decode failed: .*empty"):
        list(Pipeline(tmp_path, sample_rate=RATE, crop="whole", batch_size=16, device="cpu"))
