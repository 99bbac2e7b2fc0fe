"""Folders, manifests and GTZAN, in trees laid out as they are really found."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import warnings
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fastaug.cli import main
from fastaug.datasets.folder import read_folder
from fastaug.datasets.gtzan import GENRES, filtered_split, find_gtzan, read_gtzan
from fastaug.datasets.manifest import read_manifest
from fastaug.datasets.shard import shard, shard_source
from fastaug.datasets.splits import split_entries
from fastaug.shards import open_source
from fastaug.shards.entries import Entry


@cache
def sound(kind: str, samples: int = 800) -> bytes:
    buffer = io.BytesIO()
    subtype = {"MP3": "MPEG_LAYER_III", "OGG": "VORBIS"}.get(kind, "PCM_16")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, samples)
    soundfile.write(buffer, noise, 8_000, format=kind, subtype=subtype)
    return buffer.getvalue()


def plant(root: Path, *names: str) -> Path:
    """Writes a small real file of the right format under each name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix[1:].upper()
        path.write_bytes(sound({"AIF": "AIFF", "OPUS": "OGG"}.get(suffix, suffix)))
    return root


def card(out: Path) -> dict:
    return json.loads((out / "dataset.json").read_text())


def fields_by_path(out: Path) -> dict[str, dict]:
    source = open_source(out)
    assert not source.bad
    return {fields["path"]: fields for fields in (source.read(i).fields for i in range(len(source)))}


# ---- folders


def test_folder_labels_are_parent_folders(tmp_path: Path) -> None:
    plant(
        tmp_path, "rock/a.mp3", "rock/live/b.WAV", "jazz/Track 2.0 (Clean Version).mp3", "jazz/naïve.Flac", "loose.ogg",
        "jazz/.hidden.wav", "__MACOSX/jazz/x.wav", ".cache/y.wav",
    )  # fmt: skip
    (tmp_path / "jazz" / "cover.jpg").write_bytes(b"jpeg")
    (tmp_path / "jazz" / "mp3").write_bytes(b"no suffix")
    found = {entry.path: dict(entry.fields) for entry in read_folder(tmp_path).entries}
    assert found == {
        "rock/a.mp3": {"label": "rock"},
        "rock/live/b.WAV": {"label": "live"},
        "jazz/Track 2.0 (Clean Version).mp3": {"label": "jazz"},
        "jazz/naïve.Flac": {"label": "jazz"},
        "loose.ogg": {},
    }


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    plant(tmp_path / "in", *(f"{n}.wav" for n in range(20)))
    summary = shard(tmp_path / "in", tmp_path / "out", progress=False)
    assert summary.classes == {} and card(tmp_path / "out")["default_label"] is None
    assert sum(summary.records.values()) == 20 and summary.records["train"] == 16


def test_folders_named_for_splits_are_splits(tmp_path: Path) -> None:
    plant(tmp_path, "train/rock/a.wav", "train/jazz/b.wav", "validation/rock/c.wav", "test/jazz/d.wav")
    found = read_folder(tmp_path)
    assert {(e.path, e.split, e.fields["label"]) for e in found.entries} == {
        ("train/rock/a.wav", "train", "rock"),
        ("train/jazz/b.wav", "train", "jazz"),
        ("validation/rock/c.wav", "valid", "rock"),
        ("test/jazz/d.wav", "test", "jazz"),
    }
    assert found.protocol
    plant(tmp_path, "live/rock/e.wav")  # now they are not all splits
    assert {entry.split for entry in read_folder(tmp_path).entries} == {"train"}


def test_folder_to_shards_keeps_every_byte(tmp_path: Path) -> None:
    names = [f"{kind}/{n} – take.{suffix}" for kind in ("a", "b") for n in range(5) for suffix in ("mp3", "ogg", "wav")]
    plant(tmp_path / "in", *names)
    (tmp_path / "in/a/empty.mp3").write_bytes(b"")
    (tmp_path / "in/a/tiny.wav").write_bytes(sound("WAV", 3))
    with pytest.warns(UserWarning, match=r"1 files were left out.*a/empty\.mp3 \(empty \(0 bytes\)"):
        summary = shard(tmp_path / "in", tmp_path / "out", progress=False, licence="CC0-1.0")
    source = open_source(tmp_path / "out")
    records = {r.fields["path"]: r for r in (source.read(i) for i in range(len(source)))}
    assert set(records) == {*names, "a/tiny.wav"}
    for name, record in records.items():
        assert bytes(record.audio) == (tmp_path / "in" / name).read_bytes()
        assert record.fields["label"] == name[0]
    described = card(tmp_path / "out")
    assert described["licence"] == "CC0-1.0" and described["name"] == "in"
    assert "80/10/10 by file, stratified by label" in described["split_protocol"]
    assert "31 records" in str(summary)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no audio files"):
        shard(tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        shard(tmp_path / "nowhere", tmp_path / "out")


# ---- splits


def _entries(count: int) -> list[Entry]:
    return [Entry(f"{n}.wav", b"", {"label": "abcd"[n % 4], "group": f"artist {n // 3}"}) for n in range(count)]


def test_splits_keep_groups_and_proportions_whatever_the_order() -> None:
    what = _entries(300)
    chosen = split_entries(what, seed=1, stratify="label")
    splits = {entry.path: entry.split for entry in chosen}
    assert Counter(splits.values()) == {"train": 240, "valid": 30, "test": 30}
    by_group: dict[str, set[str]] = {}
    for entry in chosen:
        by_group.setdefault(entry.fields["group"], set()).add(entry.split)
    assert all(len(found) == 1 for found in by_group.values())
    assert splits == {e.path: e.split for e in split_entries(what[::-1], seed=1, stratify="label")}
    assert splits != {e.path: e.split for e in split_entries(what, seed=2, stratify="label")}


def test_splits_are_stratified_and_small_sets_go_to_train() -> None:
    chosen = split_entries(_entries(200), fractions=(0.6, 0.15, 0.25), stratify="label", group_field=None)
    for label in "abcd":
        counts = Counter(entry.split for entry in chosen if entry.fields["label"] == label)
        assert all(abs(counts[s] - n) <= 1 for s, n in {"train": 30, "valid": 7.5, "test": 12.5}.items()), counts
    assert {entry.split for entry in split_entries(_entries(2))} == {"train"}
    assert {entry.split for entry in split_entries(_entries(50), fractions=(1, 0, 0))} == {"train"}
    for wrong in ((0.5, 0.5), (0.5, 0.4, 0.2), (1.2, -0.1, -0.1)):
        with pytest.raises(ValueError, match="fractions"):
            split_entries(_entries(5), fractions=wrong)


# ---- manifests


def manifest(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


def test_csv_with_splits_groups_and_other_columns(tmp_path: Path) -> None:
    plant(tmp_path, "x/a.wav", "b, c.wav", "d.wav")
    lines = [
        "\ufeffPath,label,split,group,bpm",
        "x/a.wav,rock,train,g1,120",
        '"b, c.wav",jazz,val,g2,',
        "",
        "d.wav,,test,g1,90",
    ]
    path = manifest(tmp_path, "list.csv", "\r\n".join(lines) + "\r\n")
    with pytest.warns(UserWarning, match="1 of 2 groups"):
        shard(path, tmp_path / "out", progress=False)
    assert fields_by_path(tmp_path / "out") == {
        "x/a.wav": {"label": "rock", "group": "g1", "bpm": "120", "path": "x/a.wav"},
        "b, c.wav": {"label": "jazz", "group": "g2", "path": "b, c.wav"},
        "d.wav": {"group": "g1", "bpm": "90", "path": "d.wav"},
    }
    described = card(tmp_path / "out")
    assert {split: s["records"] for split, s in described["splits"].items()} == {"train": 1, "valid": 1, "test": 1}
    assert described["labels"] == {"label": {"classes": ["jazz", "rock"], "multi": False}}
    assert described["group_field"] == "group"


def test_crlf_tsv_with_several_labels(tmp_path: Path) -> None:
    """A carriage return must not become part of the last tag (it makes 99 classes of 50 in MTG-Jamendo)."""
    path = manifest(tmp_path, "tags.tsv", "path\tlabels\r\na.mp3\tpop;rock\r\nb.mp3\trock\r\nc.mp3\t\r\n")
    found = read_manifest(path)
    assert [dict(entry.fields) for entry in found.entries] == [{"labels": ["pop", "rock"]}, {"labels": ["rock"]}, {}]
    assert found.labels == {"labels": None} and found.protocol == ""


def test_a_semicolon_in_label_makes_all_lines_lists(tmp_path: Path) -> None:
    found = read_manifest(manifest(tmp_path, "m.csv", "path,label\na.wav,x; y\nb.wav,x\n"))
    assert [dict(entry.fields) for entry in found.entries] == [{"labels": ["x", "y"]}, {"labels": ["x"]}]


def test_jsonl(tmp_path: Path) -> None:
    plant(tmp_path / "audio", "a.wav", "b.wav")
    lines = [
        {"path": "a.wav", "labels": ["x", "y"], "split": "train", "tempo": 98.5},
        {"path": "b.wav", "labels": ["y"], "split": "test"},
    ]
    path = manifest(tmp_path, "m.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    shard(tmp_path / "audio", tmp_path / "out", manifest=path, progress=False)
    assert fields_by_path(tmp_path / "out")["a.wav"] == {"path": "a.wav", "labels": ["x", "y"], "tempo": 98.5}
    assert card(tmp_path / "out")["labels"]["labels"] == {"classes": ["x", "y"], "multi": True}


def test_files_a_manifest_names_in_vain(tmp_path: Path) -> None:
    plant(tmp_path, "a.wav")
    path = manifest(tmp_path, "m.csv", "path,label\na.wav,x\ngone.wav,x\n")
    with pytest.warns(UserWarning, match=r"gone\.wav \(No such file"):
        summary = shard(path, tmp_path / "out", progress=False)
    assert [item.path for item in summary.quarantined] == ["gone.wav"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "file,label\na.wav,x\n", r"m\.csv, line 1: expected a header with a column 'path', got \['file'"),
        ("m.csv", "path,label\na.wav,x\nb.wav\n", r"line 3: 1 cells, but the header has 2 columns"),
        ("m.csv", "path,label\n,x\n", "line 2: the path is empty"),
        ("m.csv", "path,label\na.wav,x\na.wav,y\n", "line 3: 'a.wav' already stands in line 2"),
        ("m.csv", "path,split\na.wav,train\nb.wav,holdout\n", "line 3: unknown split 'holdout'"),
        ("m.csv", "path,split\na.wav,train\nb.wav,\n", "line 3: the split is ''"),
        ("m.csv", "path,path\na,b\n", "line 1: a column occurs twice"),
        ("m.csv", "path,label,labels\na.wav,x,y\n", "line 2: give either label or labels"),
        ("m.csv", 'path,label\na.wav,"x\n', "line 2: "),
        ("m.csv", "path,label\n", "no recordings"),
        ("m.csv", "", "line 1: expected a header"),
        ("m.jsonl", '{"path": "a.wav"}\n{"path": \n', "line 2: not JSON"),
        ("m.jsonl", '{"label": "x"}\n', "line 1: expected an object with a string 'path'"),
        ("m.jsonl", '{"path": "a.wav", "label": 1.5}\n', "line 1: a label must be a name"),
        ("m.txt", "a.wav\n", "a manifest ends in one of"),
    ],
)
def test_malformed_manifests_name_the_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_manifest(manifest(tmp_path, name, text))


def test_a_manifest_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"path,label\ncaf\xe9.wav,x\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_manifest(tmp_path / "m.csv")


# ---- GTZAN


def test_the_filtered_split_is_the_published_one() -> None:
    split = filtered_split()
    assert Counter(split.values()) == {"train": 443, "valid": 197, "test": 290}
    assert len(split) == 930 and {name[:-6] for name in split} == set(GENRES)
    assert all(name[-6] == "." and 0 <= int(name[-5:]) < 100 for name in split)
    # First and last lines of the three published lists, and the known broken file.
    known = {
        "train": ("blues.00029", "rock.00099", "jazz.00054"),
        "valid": ("blues.00000", "rock.00085"),
        "test": ("blues.00012", "rock.00090"),
    }
    assert all(split[name] == where for where, names in known.items() for name in names)
    # Digests of the sorted lists, taken from torchaudio.datasets.gtzan (2.8).
    for where, digest in PUBLISHED.items():
        names = sorted(name for name, found in split.items() if found == where)
        assert hashlib.sha256("\n".join(names).encode()).hexdigest().startswith(digest)


PUBLISHED = {"train": "82df3d4426e1dc8a", "valid": "049e4ab67938aa22", "test": "54cd6cf4ad283da2"}


def gtzan_tree(root: Path, suffix: str) -> Path:
    for genre in GENRES:
        plant(root, *(f"{genre}/{genre}.{number:05d}.{suffix}" for number in range(100)))
    return root


@pytest.mark.parametrize(("folder", "suffix"), [("genres", "au"), ("Data/genres_original", "wav")])
def test_gtzan_in_both_layouts(folder: str, suffix: str, tmp_path: Path) -> None:
    tree = gtzan_tree(tmp_path / "gtzan" / folder, suffix)
    (tmp_path / "gtzan" / "features_30_sec.csv").write_text("filename,length\n")
    broken = tree / f"jazz/jazz.00054.{suffix}"
    broken.write_bytes(b"\xff" * 1000)
    assert find_gtzan(tmp_path / "gtzan") == tree and find_gtzan(tree) == tree
    with pytest.warns(UserWarning, match=r"1 files were left out.*jazz\.00054"):
        summary = shard(tmp_path / "gtzan", tmp_path / "out", progress=False)
    assert summary.records == {"train": 442, "valid": 197, "test": 290}
    assert summary.classes == {"genre": list(GENRES)} and "443/197/290" in summary.protocol
    fields = fields_by_path(tmp_path / "out")
    split = filtered_split()
    assert {path.partition("/")[2].rpartition(".")[0] for path in fields} == set(split) - {"jazz.00054"}
    assert all(f["genre"] == path.partition("/")[0] for path, f in fields.items())


def test_gtzan_counts_missing_tracks(tmp_path: Path) -> None:
    for genre in GENRES:
        plant(tmp_path, *(f"genres/{genre}/{genre}.{number:05d}.au" for number in range(30)))
    with pytest.warns(UserWarning, match=r"6\d\d of the 930 tracks .* are missing"):
        found = shard_source(tmp_path, dataset="gtzan")
    assert len(found.entries) + 600 < 930
    with pytest.raises(FileNotFoundError, match="does not look like GTZAN"):
        read_gtzan(tmp_path / "genres" / "rock")


def test_recognition(tmp_path: Path) -> None:
    plant(tmp_path / "music", "rock/a.wav")
    listed = manifest(tmp_path, "m.csv", "path\nmusic/rock/a.wav\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shard_source(tmp_path / "music").name == "music"
        assert shard_source(listed).name == "m"
    with pytest.raises(ValueError, match="dataset must be one of"):
        shard_source(tmp_path, dataset="mp3s")
    with pytest.raises(ValueError, match="expected a folder or a manifest"):
        shard_source(tmp_path / "music/rock/a.wav")
    with pytest.raises(ValueError, match="contradict"):
        shard_source(tmp_path / "music", dataset="gtzan", manifest=listed)


def test_a_full_disk_names_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path / "music", "a/1.wav", "b/2.wav")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fastaug.shards.writer._write_split", full)
    assert main(["shard", str(tmp_path / "music"), str(tmp_path / "out")]) == 1
    assert f"No space left on device: '{tmp_path / 'out'}'" in capsys.readouterr().err
