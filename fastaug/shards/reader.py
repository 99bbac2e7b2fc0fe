"""Tar shards: an index of records by reading headers only, then one positioned read per member.

ustar, GNU long names and pax headers (POSIX.1-2001) are understood. The members of a record are adjacent and share
their name up to the last dot; what follows it decides: a known audio suffix, ``json`` for fields, ``cls`` and
``txt`` for one field of that name. Nothing is unpickled or executed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fastaug.shards.record import AUDIO_SUFFIXES, BadRecord, Record, RecordError

__all__ = ["Member", "ShardIndex", "index_shard", "read_record"]

_BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")
_FIELD_SUFFIXES = ("json", "cls", "txt")
_MAX_META = 1 << 20  # a long name or pax header beyond 1 MiB is garbage


@dataclass(frozen=True)
class Member:
    """One file inside a tar: its name, and where its data lies."""

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def suffix(self) -> str:
        return self.name.rpartition(".")[2].lower()


@dataclass
class ShardIndex:
    """The records of a shard (each a list of its members, the audio first) and what was wrong with it."""

    path: str
    records: list[list[Member]] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)


class _TarError(ValueError):
    pass


def index_shard(path: str | Path) -> ShardIndex:
    """Index a tar file by its headers.

    Damage never raises: it is listed in ``bad`` with member and byte offset, and every intact record before it is
    kept.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = str(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such shard: {path}")
    index = ShardIndex(path)
    members: list[Member] = []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            _walk(file, size, members)
        except _TarError as error:
            index.bad.append(BadRecord(Path(path).name, "read", str(error), path))
    _group(members, index)
    return index


def _walk(file: BinaryIO, size: int, members: list[Member]) -> None:
    """Append every regular member; raise _TarError where the file stops being a tar."""
    position = 0
    long_name: str | None = None
    pax: dict[str, str] = {}
    if size == 0:
        raise _TarError("an empty file (0 bytes), not a tar")
    while position < size:
        file.seek(position)
        header = file.read(_BLOCK)
        if len(header) < _BLOCK:
            raise _TarError(f"truncated header at byte {position}: {len(header)} of {_BLOCK} bytes")
        if not header.strip(b"\0"):
            return
        _check(header, position)
        length = int(pax.get("size", _number(header[124:136], position)))
        kind = header[156:157]
        start = position + _BLOCK
        name = long_name or pax.get("path") or _name(header)
        if start + length > size:
            raise _TarError(
                f"truncated: member {name} at byte {start} needs {length} bytes, the file has {size - start}"
            )
        if kind in (b"L", b"x", b"g", b"K"):
            if length > _MAX_META:
                raise _TarError(f"header of {length} bytes at byte {position}: not plausible")
            data = file.read(length)
            if kind == b"L":
                long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif kind == b"x":
                pax = _parse_pax(data, position)
        else:
            if kind in _REGULAR and not name.endswith("/"):
                members.append(Member(name, start, length))
            long_name, pax = None, {}
        position = start + -(-length // _BLOCK) * _BLOCK
    # A tar that is cut between two members looks whole but for this.
    raise _TarError(f"ends at byte {size} without the two zero blocks that close a tar: it was probably cut")


def _check(header: bytes, position: int) -> None:
    """The header's checksum: the sum of its bytes with the checksum field read as spaces."""
    stored = _number(header[148:156], position)
    if stored != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        raise _TarError(f"no tar header at byte {position}: checksum does not match")


def _number(digits: bytes, position: int) -> int:
    if digits[0] & 0x80:  # base 256, for sizes of 8 GiB and more
        return int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:], "big")
    try:
        return int(digits.strip(b" \0") or b"0", 8)
    except ValueError:
        raise _TarError(f"no tar header at byte {position}: {digits!r} is not an octal number") from None


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _parse_pax(data: bytes, position: int) -> dict[str, str]:
    found: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            raise _TarError(f"damaged pax header at byte {position}")
        entry = data[len(length) + 1 : int(length)].rstrip(b"\n")
        name, _, value = entry.partition(b"=")
        found[name.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return found


def _group(members: list[Member], index: ShardIndex) -> None:
    """Adjacent members of one key become a record; anything else is named in ``index.bad``."""
    seen: set[str] = set()
    groups: list[list[Member]] = []
    for member in members:
        if member.suffix not in AUDIO_SUFFIXES and member.suffix not in _FIELD_SUFFIXES:
            continue
        if groups and groups[-1][0].key == member.key:
            groups[-1].append(member)
        else:
            groups.append([member])
    for group in groups:
        problem = _problem(group, seen)
        if problem:
            first, key = group[0], f"{Path(index.path).name}/{group[0].key}"
            index.bad.append(BadRecord(key, "read", problem, index.path, first.name, first.offset))
        else:
            index.records.append(sorted(group, key=lambda m: m.suffix not in AUDIO_SUFFIXES))
        seen.add(group[0].key)


def _problem(group: list[Member], seen: set[str]) -> str | None:
    audio = [m.suffix for m in group if m.suffix in AUDIO_SUFFIXES]
    if group[0].key in seen:
        return "its key stands earlier in this shard: members of a record must be adjacent and keys unique"
    if len(audio) != 1:
        return f"{len(audio)} audio members in the record, expected one"
    if len({m.suffix for m in group}) != len(group):
        return "a suffix stands twice in the record"
    return None


def read_record(path: str, members: list[Member]) -> Record:
    """Read the bytes of one indexed record.

    Raises:
        RecordError: its JSON is damaged, or the file has become shorter since it was indexed.
    """
    audio = members[0]
    key = f"{Path(path).name}/{audio.key}"
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = [_read(descriptor, path, member, key) for member in members]
    finally:
        os.close(descriptor)
    fields: dict[str, Any] = {}
    for member, content in zip(members[1:], data[1:], strict=True):
        try:
            fields.update(_fields(member, content))
        except ValueError as error:
            raise RecordError(_bad(key, path, member, str(error))) from None
    return Record(key, data[0], fields, path, audio.name, audio.offset)


def _bad(key: str, path: str, member: Member, reason: str) -> BadRecord:
    return BadRecord(key, "read", reason, path, member.name, member.offset)


def _read(descriptor: int, path: str, member: Member, key: str) -> bytes:
    data = os.pread(descriptor, member.size, member.offset)
    while len(data) < member.size:  # a read may return less than asked; nothing more means that the file ends
        more = os.pread(descriptor, member.size - len(data), member.offset + len(data))
        if not more:
            raise RecordError(_bad(key, path, member, f"ends after {len(data)} of {member.size} bytes"))
        data += more
    return data


def _fields(member: Member, content: bytes) -> dict[str, Any]:
    if member.suffix == "json":
        value = json.loads(content)
        if not isinstance(value, dict):
            raise ValueError(f"a JSON {type(value).__name__}, expected an object")
        return value
    text = content.decode("utf-8").strip()
    return {member.suffix: int(text) if member.suffix == "cls" else text}
