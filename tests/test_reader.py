"""Tar shards: formats, grouping, damage; our reader beside Python's tarfile."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from corpus import write_tar
from fastaug.shards import open_source
from fastaug.shards.opening import expand_braces
from fastaug.shards.reader import index_shard, read_record

PAIR = [("a.wav", b"A" * 700), ("a.json", b'{"x": 1}'), ("b.MP3", b"B" * 3), ("b.cls", b"4"), ("b.txt", b"words")]


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_and_fields_of_every_tar_format(tmp_path: Path, fmt: int) -> None:
    index = index_shard(write_tar(tmp_path / "s.tar", PAIR, fmt))
    assert index.bad == []
    records = [read_record(index, members) for members in index.records]
    assert [(r.key, r.audio, r.fields) for r in records] == [
        ("s.tar/a", b"A" * 700, {"x": 1}),
        ("s.tar/b", b"BBB", {"cls": 4, "txt": "words"}),
    ]
    with tarfile.open(tmp_path / "s.tar") as tar:
        assert [r.offset for r in records] == [tar.getmember("a.wav").offset_data, tar.getmember("b.MP3").offset_data]


@pytest.mark.parametrize("fmt", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_unicode_names(tmp_path: Path, fmt: int) -> None:
    long = "x" * 180 + "/Trâck 2.0 (Clean Version)"
    index = index_shard(write_tar(tmp_path / "s.tar", [(f"{long}.flac", b"1"), (f"{long}.json", b"{}")], fmt))
    assert [members[0].key for members in index.records] == [long]
    assert index.records[0][0].suffix == "flac"


def test_ustar_prefix(tmp_path: Path) -> None:
    name = "d" * 90 + "/" + "e" * 60 + ".wav"
    index = index_shard(write_tar(tmp_path / "s.tar", [(name, b"1")], tarfile.USTAR_FORMAT))
    assert index.records[0][0].name == name


def test_damage_keeps_what_stands_before_it(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", PAIR).read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[:2400])
    index = index_shard(cut)
    assert [members[0].key for members in index.records] == ["a"]
    assert "probably cut" in str(index.bad[0]) and "cut.tar" in str(index.bad[0])
    cut.write_bytes(whole[:1000])
    assert index_shard(cut).records == []
    assert "member a.wav at byte 512: read failed: truncated: needs 700 bytes" in str(index_shard(cut).bad[0])
    garbage = tmp_path / "garbage.tar"
    garbage.write_bytes(whole[:2560] + b"\x99" * 512 + whole[3072:])
    index = index_shard(garbage)
    assert "byte 2560" in str(index.bad[0])
    empty = tmp_path / "empty.tar"
    empty.write_bytes(b"")
    assert "0 bytes" in index_shard(empty).bad[0].reason
    text = tmp_path / "text.tar"
    text.write_bytes(b"this is not a tar file at all, " * 40)
    assert "byte 0" in index_shard(text).bad[0].reason
    assert index_shard(write_tar(tmp_path / "none.tar", [])).records == []


def test_size_that_lies_is_named_and_nothing_is_allocated(tmp_path: Path) -> None:
    data = bytearray(write_tar(tmp_path / "s.tar", [("a.wav", b"1")]).read_bytes())
    data[124:136] = b"77777777777\0"  # 8 GiB in a file of 10 KiB
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "s.tar").write_bytes(data)
    assert "needs 8589934591 bytes" in index_shard(tmp_path / "s.tar").bad[0].reason


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.wav", b"1"), ("b.wav", b"2"), ("a.json", b"{}")], "adjacent"),
        ([("a.json", b"{}")], "0 audio members"),
        ([("a.wav", b"1"), ("a.flac", b"2")], "2 audio members"),
        ([("a.wav", b"1"), ("a.json", b"{}"), ("a.json", b"{}")], "twice"),
    ],
)
def test_broken_grouping_is_named(tmp_path: Path, members: list, reason: str) -> None:
    bad = index_shard(write_tar(tmp_path / "s.tar", members)).bad
    assert len(bad) == 1 and reason in bad[0].reason and "s.tar" in bad[0].place


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_damaged_json_names_the_member(tmp_path: Path, content: bytes) -> None:
    index = index_shard(write_tar(tmp_path / "s.tar", [("a.wav", b"1"), ("a.json", content)]))
    with pytest.raises(ValueError, match=r"s\.tar: member a\.json at byte 1536"):
        read_record(index, index.records[0])


def test_json_in_other_encodings(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        path = write_tar(tmp_path / "s.tar", [("a.wav", b"1"), ("a.json", '{"x": "ü"}'.encode(encoding))])
        index = index_shard(path)
        assert read_record(index, index.records[0]).fields == {"x": "ü"}


def test_a_shard_that_shrinks_after_indexing(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", PAIR)
    index = index_shard(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match="changed since it was indexed"):
        read_record(index, index.records[0])


def test_braces_and_patterns(tmp_path: Path) -> None:
    assert expand_braces("a-{008..010}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert expand_braces("{x,y}{1..2}") == ["x1", "x2", "y1", "y2"]
    for i in range(3):
        write_tar(tmp_path / f"train-{i}.tar", [(f"k{i}.wav", b"1")])
    write_tar(tmp_path / "test-0.tar", [("t.wav", b"1")])
    assert len(open_source(str(tmp_path / "train-*.tar"))) == 3
    assert len(open_source(str(tmp_path / "train-{0..1}.tar"))) == 2
    assert len(open_source(tmp_path, "test")) == 1
    assert len(open_source([tmp_path / "train-0.tar", str(tmp_path / "train-2.tar")])) == 2


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing-\*\.tar"):
        open_source(str(tmp_path / "nothing-*.tar"))
    with pytest.raises(FileNotFoundError, match=r"no such shard: .*gone\.tar"):
        open_source([str(tmp_path / "gone.tar")])
    with pytest.raises(FileNotFoundError, match="no dataset.json"):
        open_source(tmp_path)
    write_tar(tmp_path / "train-0.tar", [("k.wav", b"1")])
    with pytest.raises(ValueError, match="no shard of split 'valid'"):
        open_source(tmp_path, "valid")
    (tmp_path / "dataset.json").write_text('{"splits": {"train": {"shards": [{"file": "train-7.tar"}]}}}')
    with pytest.raises(FileNotFoundError, match=r"1 of 1 shards .*train-7\.tar"):
        open_source(tmp_path, "train")
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(ValueError, match="not a fastaug dataset description"):
        open_source(tmp_path, "train")


def test_cache_copies_once_and_never_mixes_equal_names(tmp_path: Path) -> None:
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        write_tar(tmp_path / place / "train-0.tar", [("k.wav", place.encode())])
    paths = [tmp_path / place / "train-0.tar" for place in ("x", "y")]
    for _ in range(2):
        source = open_source(paths, cache=tmp_path / "cache")
        assert [source.read(i).audio for i in range(2)] == [b"x", b"y"]
    copies = list((tmp_path / "cache").rglob("*.tar"))
    assert len(copies) == 2
    write_tar(paths[0], [("k.wav", b"new")])
    assert open_source(paths, cache=tmp_path / "cache").read(0).audio == b"new"


def test_shards_that_webdataset_writes(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    with wds.TarWriter(str(tmp_path / "w.tar")) as writer:
        for i in range(3):
            writer.write({"__key__": f"sample{i:04d}", "flac": bytes([i]) * 600, "json": {"genre": "blues"}, "cls": i})
    index = index_shard(tmp_path / "w.tar")
    records = [read_record(index, members) for members in index.records]
    assert index.bad == [] and [record.key for record in records] == [f"w.tar/sample{i:04d}" for i in range(3)]
    assert [record.audio for record in records] == [bytes([i]) * 600 for i in range(3)]
    assert [record.fields for record in records] == [{"genre": "blues", "cls": i} for i in range(3)]
