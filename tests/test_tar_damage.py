"""Tars that are damaged, odd or hostile: what is delivered, what is named, and that no record is put together wrongly.
Also index files, by which a shard opens without a walk over its headers."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from corpus import write_tar
from fastaug.shards import open_source, tar, write_index
from fastaug.shards.idx import index_path, read_index
from fastaug.shards.reader import ShardIndex, index_shard, read_record
from fastaug.shards.record import RecordError
from fastaug.shards.tar import stamp

BLOCK = 512
#: Four records of two members each; header of member m at byte 1024 m, its data behind it.
FOUR = [(f"{key}.{suffix}", f"{key}-{suffix}".encode()) for key in "abcd" for suffix in ("wav", "txt")]


def keys(index: ShardIndex) -> list[str]:
    return [members[0].key for members in index.records]


def reasons(index: ShardIndex) -> str:
    return " | ".join(f"{bad.key}: {bad.reason}" for bad in index.bad)


def whole(index: ShardIndex) -> bool:
    """Whether every delivered record has its own audio and its own text."""
    records = [read_record(index, members) for members in index.records]
    return all(
        bytes(record.audio) == f"{record.key[-1]}-wav".encode() and record.fields == {"txt": f"{record.key[-1]}-txt"}
        for record in records
    )


def damaged(tmp_path: Path, at: int, size: int, value: int) -> ShardIndex:
    path = write_tar(tmp_path / "s.tar", FOUR)
    data = bytearray(path.read_bytes())
    data[at : at + size] = bytes([value]) * size
    path.write_bytes(data)
    return index_shard(path)


@pytest.mark.parametrize("member", range(8))
@pytest.mark.parametrize("value", [0x99, 0], ids=["garbage", "zeros"])
def test_a_lost_header_loses_its_record_and_no_other(tmp_path: Path, member: int, value: int) -> None:
    index = damaged(tmp_path, 1024 * member, BLOCK, value)
    key = "abcd"[member // 2]
    assert keys(index) == [k for k in "abcd" if k != key] and whole(index)
    told = [bad for bad in index.bad if bad.offset == 1024 * member]
    assert len(told) == 1 and told[0].url == str(tmp_path / "s.tar")
    zeros = value == 0 and member < 7  # before the last member's data zeros are garbage like any other
    assert ("zeros from byte" if zeros else "no tar header at byte") in told[0].reason
    assert any(bad.key == f"s.tar/{key}" for bad in index.bad), "the record that lost a member is named"


@pytest.mark.parametrize("cut", range(BLOCK, 8 * 1024 + 1, BLOCK))
def test_a_tar_cut_anywhere_delivers_only_whole_records(tmp_path: Path, cut: int) -> None:
    path = write_tar(tmp_path / "s.tar", FOUR)
    path.write_bytes(path.read_bytes()[:cut])
    index = index_shard(path)
    complete = cut // 2048
    # of the first record alone nobody can tell whether it should have had more members
    expected = ["abcd"[:complete], "a"] if complete == 0 else ["abcd"[:complete]]
    assert "".join(keys(index)) in expected and len(index.bad) >= 1
    if complete:
        assert whole(index)


def test_several_tars_in_one_file(tmp_path: Path) -> None:
    first = write_tar(tmp_path / "1.tar", FOUR[:4]).read_bytes()
    second = write_tar(tmp_path / "2.tar", FOUR[4:]).read_bytes()
    (tmp_path / "s.tar").write_bytes(first + second)
    index = index_shard(tmp_path / "s.tar")
    assert keys(index) == list("abcd") and "several tars in one file" in reasons(index)


def test_bytes_behind_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", FOUR)
    path.write_bytes(path.read_bytes() + b"x" * 2000)
    index = index_shard(path)
    assert keys(index) == list("abcd") and f"no tar header at byte {path.stat().st_size - 2000}" in reasons(index)


def test_members_that_are_not_adjacent_are_refused_whole(tmp_path: Path) -> None:
    """Half of them would be delivered without its label."""
    order = [FOUR[i] for i in (0, 2, 3, 1, 4, 5)]  # a.wav, b, a.txt, c
    index = index_shard(write_tar(tmp_path / "s.tar", order))
    assert keys(index) == ["b", "c"] and whole(index)
    assert reasons(index) == "s.tar/a: its members are not adjacent: a.wav, a.txt"


def test_the_first_of_two_records_of_one_key_counts(tmp_path: Path) -> None:
    index = index_shard(write_tar(tmp_path / "s.tar", [*FOUR, ("a.wav", b"other"), ("a.txt", b"other")]))
    assert keys(index) == list("abcd") and whole(index)
    assert "s.tar/a: its key stands earlier" in reasons(index)


@pytest.mark.parametrize("fmt", ["gnu", "posix"])
def test_sparse_members_are_refused(tmp_path: Path, fmt: str) -> None:
    """Their stored bytes are not those of the file."""
    if shutil.which("tar") is None:
        pytest.skip("no tar program")
    for name, content in FOUR:
        (tmp_path / name).write_bytes(content)
    with open(tmp_path / "b.wav", "wb") as file:
        for i in range(40):  # enough holes for GNU's extended sparse headers
            file.seek(i << 20)
            file.write(b"x" * 100)
    names = [name for name, _ in FOUR]
    done = subprocess.run(["tar", f"--format={fmt}", "--sparse", "-cf", "s.tar", *names], cwd=tmp_path)
    if done.returncode:
        pytest.skip("this tar writes no sparse members")
    index = index_shard(tmp_path / "s.tar")
    if keys(index) == list("abcd"):
        pytest.skip("this file system keeps no holes")
    assert keys(index) == list("acd") and whole(index)
    assert "a sparse file" in reasons(index) and {bad.key[:7] for bad in index.bad} <= {"s.tar/b", "s.tar/G", "s.tar/."}


def test_links_have_no_data(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for kind, key in ((tarfile.LNKTYPE, "b"), (tarfile.SYMTYPE, "c"), (None, "a")):
            info = tarfile.TarInfo(f"{key}.wav")
            if kind is not None:
                info.type, info.linkname, info.size = kind, "a.wav", 0
                tar.addfile(info)
            else:
                info.size = 5
                tar.addfile(info, io.BytesIO(b"a-wav"))
    index = index_shard(tmp_path / "s.tar")
    assert keys(index) == ["a"] and [bad.key for bad in index.bad] == ["s.tar/b", "s.tar/c"]
    assert "a link" in index.bad[0].reason and index.bad[0].member == "b.wav"


def test_a_damaged_extended_header_spoils_its_member_only(tmp_path: Path) -> None:
    long = "b" * 120
    members = [*FOUR[:2], (f"{long}.wav", b"1"), (f"{long}.txt", b"1"), *FOUR[4:]]
    path = write_tar(tmp_path / "s.tar", members, tarfile.PAX_FORMAT)
    data = bytearray(path.read_bytes())
    place = data.index(b" path=" + long.encode())
    data[place - 3 : place] = b"999"
    path.write_bytes(data)
    index = index_shard(path)
    assert keys(index) == list("acd") and whole(index) and "damaged extended header" in reasons(index)


def test_numbers_in_base_256_and_signed_checksums(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", FOUR)
    data = bytearray(path.read_bytes())
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    data[265:268] = b"\xe9\xe8\xfc"  # owner's name in Latin-1: above 127, so signed sums differ
    data[148:156] = b" " * 8
    total = sum(b if b < 128 else b - 256 for b in data[:512])
    data[148:156] = b"%06o\0 " % total
    path.write_bytes(data)
    index = index_shard(path)
    assert index.bad == [] and keys(index) == list("abcd") and whole(index)


def test_macos_attributes_are_no_recordings(tmp_path: Path) -> None:
    index = index_shard(write_tar(tmp_path / "s.tar", [("x/._a.wav", b"Mac OS X"), ("x/a.wav", b"1")]))
    assert keys(index) == ["x/a"] and index.bad == []


def test_no_bytes_whatever_make_the_walk_fail(tmp_path: Path) -> None:
    """Random damage to headers, names, pax records and lengths: never an exception, never a foreign label."""
    original = write_tar(tmp_path / "o.tar", [*FOUR, ("n" * 150 + ".wav", b"1")], tarfile.PAX_FORMAT).read_bytes()
    rng, path, intact = np.random.default_rng(0), tmp_path / "s.tar", 0
    for i in range(400):
        data = bytearray(original)
        for _ in range(int(rng.integers(1, 8))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(data[: int(rng.integers(1, len(data) + 1))] if i % 3 == 0 else data)
        index = index_shard(path)
        intact += len(index.records)
        for members in index.records:
            assert len({member.key for member in members}) == 1
            assert all(0 <= member.offset <= member.offset + member.size <= stamp(str(path))[1] for member in members)
    assert intact > 800


# Index files.


def test_an_index_opens_a_shard_without_its_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "s.tar", FOUR)
    scanned = index_shard(path)
    assert write_index(path) == tmp_path / "s.idx"
    assert (tmp_path / "s.idx").read_text().splitlines()[:2] == ["v1.2 4", "wav 512 5 a.wav txt 1536 5 a.txt"]
    monkeypatch.setattr("fastaug.shards.reader.scan_tar", None)
    assert index_shard(path) == scanned and whole(scanned)


def test_an_index_that_wds2idx_made(tmp_path: Path) -> None:
    """Its lines, written as NVIDIA's tool does: names cut at the first dot, offsets those of the data."""
    path = write_tar(tmp_path / "s.tar", [("x/1.left.wav", b"l"), ("x/1.left.txt", b"t"), ("x/2.wav", b"22")])
    (tmp_path / "s.idx").write_text(
        "v1.2 2\nleft.wav 512 1 x/1.left.wav left.txt 1536 1 x/1.left.txt\nwav 2560 2 x/2.wav\n"
    )
    assert read_index(str(path), stamp(str(path))) is not None
    index = index_shard(path)
    assert keys(index) == ["x/1.left", "x/2"] and index.bad == []
    written = (tmp_path / "s.idx").read_text()
    assert write_index(path).read_text() == written


@pytest.mark.parametrize(
    "text",
    ["", "v1.1 4\n", "v1.2 9\nwav 512 5 a.wav\n", "v1.2 1\nwav 512 5 my song.wav\n", "v1.2 1\nwav 512 5 z.wav\n",
     "v1.2 1\nwav 513 5 a.wav\n", "v1.2 1\nwav 512 6 a.wav\n", "v1.2 1\nwav 512 99999 a.wav\n", "v1.2 1\nwav x 5 a\n"],
)  # fmt: skip
def test_an_index_that_does_not_fit_is_not_used(tmp_path: Path, text: str) -> None:
    path = write_tar(tmp_path / "s.tar", FOUR)
    index_path(path).write_text(text)
    assert read_index(str(path), stamp(str(path))) is None
    assert keys(index_shard(path)) == list("abcd")


def test_an_index_older_than_its_shard_is_not_used(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", FOUR[:4])
    os.utime(write_index(path), ns=(0, stamp(str(path))[2] - 1))
    assert read_index(str(path), stamp(str(path))) is None


def test_no_index_of_damage_or_of_names_with_spaces(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("my song.wav", b"1")])
    with pytest.raises(ValueError, match="'my song.wav' has a space"):
        write_index(path)
    path.write_bytes(write_tar(path, FOUR).read_bytes()[:3000])
    with pytest.raises(ValueError, match="no index of a damaged shard"):
        write_index(path)
    assert not index_path(path).exists()


def test_cached_shards_get_an_index(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", FOUR)
    source = open_source(path, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("s.idx"))) == 1 and not (tmp_path / "s.idx").exists()
    again = open_source(path, cache=tmp_path / "cache")
    assert again.digest == source.digest and bytes(again.read(2).audio) == b"c-wav"


def test_views_of_a_shard_copy_nothing_and_outlive_the_source(tmp_path: Path) -> None:
    source = open_source(write_tar(tmp_path / "s.tar", FOUR))
    audio = source.read(1).audio
    assert isinstance(audio, memoryview) and audio.readonly
    del source
    (tmp_path / "s.tar").unlink()
    assert bytes(audio) == b"b-wav"


def test_more_members_than_there_is_room_for_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "s.tar", FOUR)
    expected = index_shard(path)
    monkeypatch.setattr(tar, "_ROOM", 3)
    assert index_shard(path) == expected
    assert keys(expected) == list("abcd")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_in_any_encoding_and_with_spaces_around(tmp_path: Path, encoding: str) -> None:
    text = ' {"title": "Übung", "year": 1} \n'
    index = index_shard(write_tar(tmp_path / "s.tar", [("a.wav", b"1"), ("a.json", text.encode(encoding))]))
    assert read_record(index, index.records[0]).fields == {"title": "Übung", "year": 1}


@pytest.mark.parametrize("text", [b'{"a": 1} x', b"{", b"", b"[1]", b'{"a": 1}{}'])
def test_json_that_is_no_object_or_followed_by_more(tmp_path: Path, text: bytes) -> None:
    index = index_shard(write_tar(tmp_path / "s.tar", [("a.wav", b"1"), ("a.json", text)]))
    with pytest.raises(RecordError, match="member a.json at byte"):
        read_record(index, index.records[0])
