"""write_shards: what is written can be read by others, is the same every time, and nothing is half written."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fastaug.shards import open_source
from fastaug.shards.packing import safe_key
from fastaug.shards.writer import Entry, write_shards


def wav(seed: int, samples: int = 400) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, samples)
    soundfile.write(buffer, noise, 8_000, format="WAV")
    return buffer.getvalue()


def entries(count: int, split: str = "train", **fields: object) -> list[Entry]:
    kinds = ("rock", "jazz", "folk")
    return [
        Entry(f"{kinds[i % 3]}/take {i}.wav", wav(i), {"label": kinds[i % 3], **fields}, split) for i in range(count)
    ]


def write(what: list[Entry], out: Path, **options: object):
    return write_shards(what, out, **{"name": "test", "labels": ["label"], "progress": False, **options})


def card(out: Path) -> dict:
    return json.loads((out / "dataset.json").read_text())


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_webdataset_reads_the_same_bytes_and_labels(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    names = [
        "rock/Track 2.0 (Clean Version).mp3", "jazz/01. So What.wav", "Björk/Jóga – live.FLAC", "a/b.c/d.e.ogg",
        "x/" + "long name " * 30 + ".wav", "x/" + "long name " * 30 + "2.wav", "日本/音楽.wav", "odd\nname\t.wav",
    ]  # fmt: skip
    what = [Entry(name, wav(i), {"label": name[0], "n": i}) for i, name in enumerate(names)]
    write(what, tmp_path, probe=False)
    samples = list(wds.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False))
    assert len(samples) == len(names)
    stored = {json.loads(sample["json"])["path"]: sample for sample in samples}
    for entry in what:
        sample = stored[entry.path]
        assert set(sample) - {"json"} >= {entry.path.rpartition(".")[2].lower()}
        assert sample[entry.path.rpartition(".")[2].lower()] == entry.audio
        assert json.loads(sample["json"]) == {**entry.fields, "path": entry.path}
        assert "." not in sample["__key__"] and " " not in sample["__key__"]


def test_our_reader_reads_the_same(tmp_path: Path) -> None:
    what = entries(7)
    write(what, tmp_path)
    source = open_source(tmp_path, split="train")
    records = [source.read(i) for i in range(len(source))]
    assert {r.fields["path"]: bytes(r.audio) for r in records} == {e.path: e.audio for e in what}
    assert not source.bad and source.label_info["label"]["classes"] == ["folk", "jazz", "rock"]


def test_same_entries_same_bytes_in_any_order(tmp_path: Path) -> None:
    what = entries(30)
    write(what, tmp_path / "a", workers=1)
    write(what[::-1], tmp_path / "b", workers=3)
    write(what, tmp_path / "c", seed=1)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["train-000000.tar"] != files(tmp_path / "c")["train-000000.tar"]


def test_the_order_is_a_shuffle_and_members_are_plain(tmp_path: Path) -> None:
    write(entries(60), tmp_path)
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert all((m.mtime, m.uid, m.gid, m.mode, m.isreg()) == (0, 0, 0, 0o644, True) for m in members)
    assert all(a.name.rpartition(".")[0] + ".json" == b.name for a, b in zip(members[::2], members[1::2], strict=True))
    labels = [m.name.split("__")[0] for m in members[::2]]
    runs = sum(a != b for a, b in itertools.pairwise(labels))
    assert runs > 25  # 40 expected of 60 in random order, 2 if sorted


def test_shards_roll_over_and_are_described(tmp_path: Path) -> None:
    write([*entries(25), Entry("t/1.wav", wav(99), {}, "test")], tmp_path, shard_records=10)
    described = card(tmp_path)
    assert [s["records"] for s in described["splits"]["train"]["shards"]] == [9, 9, 7]
    assert described["splits"]["train"]["records"] == 25 and described["splits"]["test"]["records"] == 1
    assert "valid" not in described["splits"]
    for split in described["splits"].values():
        for shard in split["shards"]:
            data = (tmp_path / shard["file"]).read_bytes()
            assert len(data) == shard["bytes"] and hashlib.sha256(data).hexdigest() == shard["sha256"]
    write(entries(25), tmp_path / "bytes", shard_bytes=10_000)
    shards = card(tmp_path / "bytes")["splits"]["train"]["shards"]
    assert len(shards) > 3 and sum(s["records"] for s in shards) == 25
    assert all(s["bytes"] <= 10_000 + 10_240 for s in shards)  # tar pads the end to a multiple of 10,240


def test_unreadable_files_go_to_quarantine(tmp_path: Path) -> None:
    (tmp_path / "empty.mp3").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not audio\n" * 50)
    (tmp_path / "silent.wav").write_bytes(wav(0, samples=0))
    (tmp_path / "short.wav").write_bytes(wav(1, samples=1))
    paths = ["empty.mp3", "text.wav", "silent.wav", "short.wav", "missing.flac"]
    out = tmp_path / "out"
    summary = write([Entry(path, tmp_path / path, {"label": "a"}) for path in paths], out)
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    reasons = {line["path"]: line["reason"] for line in lines}
    assert set(reasons) == {"empty.mp3", "text.wav", "silent.wav", "missing.flac"}
    assert "0 bytes" in reasons["empty.mp3"] and "libsndfile" in reasons["text.wav"]
    assert "no samples" in reasons["silent.wav"] and "No such file" in reasons["missing.flac"]
    assert card(out)["quarantine"] == "quarantine.jsonl" and summary.records == {"train": 1}
    assert "left out 4" in str(summary)


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the 1 files can be read.*No such file"):
        write([Entry("a.wav", tmp_path / "a.wav")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_half_way_leaves_the_old_dataset(tmp_path: Path) -> None:
    write(entries(5), tmp_path / "out")
    before = files(tmp_path / "out")

    def broken() -> bytes:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write([*entries(20), Entry("z.wav", broken)], tmp_path / "out", overwrite=True, shard_records=3)
    assert files(tmp_path / "out") == before


def test_overwriting(tmp_path: Path) -> None:
    write(entries(9), tmp_path, shard_records=3)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(entries(2), tmp_path)
    (tmp_path / ".partial").mkdir()  # what a killed run leaves
    (tmp_path / ".partial" / "train-000007.tar").write_bytes(b"half")
    write(entries(2), tmp_path, overwrite=True)
    assert set(files(tmp_path)) == {"dataset.json", "train-000000.tar"}
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.doc"):
        write(entries(2), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.doc").exists() and (tmp_path / "dataset.json").exists()


def test_groups_in_two_splits_warn_with_counts(tmp_path: Path) -> None:
    what = [
        Entry(f"{split}{n}.wav", wav(n), {"group": group}, split)
        for n, (split, group) in enumerate(
            [
                ("train", "abba"),
                ("test", "abba"),
                ("train", "cure"),
                ("train", "cure"),
                ("valid", "abba"),
                ("test", "x"),
            ]
        )
    ]
    with pytest.warns(UserWarning, match=r"1 of 3 groups .*3 records.*train/valid/test 1"):
        summary = write(what, tmp_path / "a", labels=[], group_field="group")
    assert summary.leaks == 1 and card(tmp_path / "a")["group_field"] == "group"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(entries(4, group="same"), tmp_path / "b", group_field="group")


def test_labels_are_checked(tmp_path: Path) -> None:
    tagged = [
        Entry("a.wav", wav(0), {"tags": ["y", "x"]}),
        Entry("b.wav", wav(1), {"tags": []}),
        Entry("c.wav", wav(2)),
    ]
    write(tagged, tmp_path / "multi", labels=["tags"])
    assert card(tmp_path / "multi")["labels"] == {"tags": {"classes": ["x", "y"], "multi": True}}
    write(entries(3), tmp_path / "official", labels={"label": ["rock", "jazz", "folk", "polka"]})
    assert card(tmp_path / "official")["labels"]["label"]["classes"] == ["rock", "jazz", "folk", "polka"]
    assert card(tmp_path / "official")["default_label"] == "label"
    with pytest.raises(ValueError, match="'folk' is not a class"):
        write(entries(3), tmp_path / "bad", labels={"label": ["rock", "jazz"]})
    with pytest.raises(ValueError, match=r"b\.wav: field 'tags' is 'x'"):
        write([tagged[0], Entry("b.wav", wav(1), {"tags": "x"})], tmp_path / "bad", labels=["tags"])
    with pytest.raises(ValueError, match="must hold class names, got 3"):
        write([Entry("a.wav", wav(0), {"tags": 3})], tmp_path / "bad", labels=["tags"])
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ([], "no entries"),
        ([Entry("a.wav", b""), Entry("a.wav", b"")], "more than once"),
        ([Entry("a.wav", b"", {}, "dev")], "split must be one of train, valid, test, got 'dev'"),
        ([Entry("a", b"")], "no suffix"),
    ],
)
def test_bad_entries(what: list[Entry], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write(what, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_keys_are_safe_and_distinct(tmp_path: Path) -> None:
    assert safe_key("rock/Track 2.0 (Clean Version).mp3") == "rock__Track_2_0__Clean_Version_"
    assert safe_key("Björk/Jo\u0301ga.flac") == "Björk__Jóga"
    assert safe_key("\udcff.wav") == "_"
    long = [safe_key("x" * 200 + tail + ".wav") for tail in "ab"]
    assert long[0] != long[1] and all(len(key.encode()) <= 80 for key in long)
    clash = ["a/b.wav", "a__b.wav", "a/b.flac", "a.b.wav", "a b.wav"]
    write([Entry(path, wav(i)) for i, path in enumerate(clash)], tmp_path)
    source = open_source(tmp_path)
    assert not source.bad and len({source.key(i) for i in range(len(source))}) == len(clash) == len(source)
