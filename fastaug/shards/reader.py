"""Tar shards: an index of records by reading headers only, then views of their bytes without a copy.

ustar, GNU long names and pax headers (POSIX.1-2001) are understood. The members of a record are adjacent and share
their name up to the last dot; what follows it decides: a known audio suffix, ``json`` for fields, ``cls`` and
``txt`` for one field of that name. Nothing is unpickled or executed. A record is of one shard, and whole: members are
joined neither across shards nor across damage.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastaug.shards.idx import read_index
from fastaug.shards.record import AUDIO_SUFFIXES, BadRecord, Record, RecordError
from fastaug.shards.tar import Contents, Member, Stamp, fetch, map_shard, scan_tar, stamp

__all__ = ["Member", "ShardIndex", "announce_record", "index_shard", "read_record"]

_KNOWN = AUDIO_SUFFIXES | {"json", "cls", "txt"}
_raw_json = json.JSONDecoder().raw_decode


@dataclass
class ShardIndex:
    """The records of a shard (each a list of its members, the audio first) and what was wrong with it."""

    path: str
    name: str
    stamp: Stamp
    records: list[list[Member]] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)


@dataclass(slots=True)
class _Group:
    """Adjacent members of one key; ``torn``: damage lies before or behind them."""

    key: str
    members: list[Member]
    suffixes: tuple[str, ...]
    torn: bool = False


def index_shard(path: str | Path) -> ShardIndex:
    """Index a tar file by its headers, or by the index file beside it (`fastaug.shards.write_index`, wds2idx).

    Damage never raises: it is listed in ``bad`` with member and byte offset, and every intact record is kept.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = str(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such shard: {path}")
    index = ShardIndex(path, os.path.basename(path), stamp(path))
    contents = read_index(path, index.stamp) or scan_tar(path, index.stamp)
    shard = index.name
    for trouble in contents.troubles:
        key = shard if trouble.name is None else f"{shard}/{trouble.name.rpartition('.')[0]}"
        index.bad.append(BadRecord(key, "read", trouble.reason, path, trouble.name, trouble.offset))
    groups = _groups(contents)
    problems = _problems(groups)
    for i, group in enumerate(groups):
        if i not in problems:
            if group.suffixes[0] not in AUDIO_SUFFIXES:
                group.members.sort(key=lambda member: member.suffix not in AUDIO_SUFFIXES)
            index.records.append(group.members)
        elif problems[i]:
            first = group.members[0]
            index.bad.append(BadRecord(f"{shard}/{group.key}", "read", problems[i], path, first.name, first.offset))
    return index


def _groups(contents: Contents) -> list[_Group]:
    groups: list[_Group] = []
    last = len(contents.runs) - 1
    for r, run in enumerate(contents.runs):
        begin = len(groups)
        group: _Group | None = None
        for member in run:
            key, _, suffix = member[0].rpartition(".")
            if suffix not in _KNOWN and (suffix := suffix.lower()) not in _KNOWN:
                continue
            if "._" in key and key.rpartition("/")[2].startswith("._"):  # macOS' attributes of "name": "._name"
                continue
            if group is not None and group.key == key:
                group.members.append(member)
                group.suffixes += (suffix,)
            else:
                group = _Group(key, [member], (suffix,))
                groups.append(group)
        if len(groups) > begin:
            groups[begin].torn |= r > 0
            groups[-1].torn |= r < last
    return groups


def _problems(groups: list[_Group]) -> dict[int, str]:
    """Why groups are no records; an empty text where another group's tells it."""
    kinds = {suffixes: _unfit(suffixes) for suffixes in {group.suffixes for group in groups}}
    found = {i: kinds[group.suffixes] for i, group in enumerate(groups) if kinds[group.suffixes]}
    whole = {group.suffixes for group in groups if not group.torn and not kinds[group.suffixes]}
    usual = set.intersection(*map(set, whole)) - AUDIO_SUFFIXES if whole else set()
    if not any(group.torn for group in groups) and len({group.key for group in groups}) == len(groups):
        return found
    places: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        places.setdefault(group.key, []).append(i)
        lost = usual.difference(group.suffixes) if group.torn else ()
        if lost and i not in found:
            found[i] = f"stands beside damage and lacks {', '.join(sorted(lost))}, which the other records have"
    for same in places.values():
        if len(same) > 1:
            found |= _repeated([groups[i] for i in same], same)
    return found


def _unfit(suffixes: tuple[str, ...]) -> str:
    """Why members of these suffixes are no record; empty if they are."""
    audio = sum(suffix in AUDIO_SUFFIXES for suffix in suffixes)
    if audio != 1:
        return f"{audio} audio members in the record, expected one"
    return "a suffix stands twice in the record" if len(set(suffixes)) != len(suffixes) else ""


def _repeated(groups: list[_Group], places: list[int]) -> dict[int, str]:
    """A key that stands in several places: one record in pieces, all of it refused, or a second one of that name."""
    whole = set(groups[0].suffixes)
    if any(whole.isdisjoint(group.suffixes) for group in groups[1:]):
        reason = "its members are not adjacent: " + ", ".join(m.name for group in groups for m in group.members)
        return {places[0]: reason, **dict.fromkeys(places[1:], "")}
    return dict.fromkeys(places[1:], "its key stands earlier in this shard: keys must be unique")


def read_record(index: ShardIndex, members: list[Member]) -> Record:
    """One indexed record; its audio is a view of the mapped file.

    Raises:
        RecordError: its JSON is damaged, or the file has changed since it was indexed. OSError: it cannot be opened.
    """
    audio, path = members[0], index.path
    key = f"{index.name}/{audio[0].rpartition('.')[0]}"
    try:
        file = map_shard(path, index.stamp)
    except ValueError as error:
        raise RecordError(BadRecord(key, "read", str(error), path, audio.name, audio.offset)) from None
    fields: dict[str, Any] = {}
    for member in members[1:]:
        name, begin, size = member
        try:
            fields.update(_fields(name.rpartition(".")[2].lower(), file[begin : begin + size]))
        except ValueError as error:
            raise RecordError(BadRecord(key, "read", str(error), path, name, begin)) from None
    name, begin, size = audio
    return Record(key, file[begin : begin + size], fields, path, name, begin)


def announce_record(index: ShardIndex, members: list[Member]) -> None:
    """Have the system fetch a record's audio from storage, without waiting. What is wrong with it, reading it tells."""
    _, offset, size = members[0]
    with contextlib.suppress(OSError, ValueError):
        fetch(index.path, index.stamp, offset, offset + size)


def _parse(content: memoryview) -> Any:
    """JSON in any encoding that `json.loads` knows. Raises ValueError."""
    try:
        text = str(content, "utf-8")
        value, end = _raw_json(text)  # what json.loads does between looking for spaces: a third of its time
        if end == len(text):
            return value
    except ValueError:  # with spaces in front, a byte-order mark, UTF-16; or damaged
        pass
    return json.loads(bytes(content))


def _fields(suffix: str, content: memoryview) -> dict[str, Any]:
    if suffix == "json":
        value = _parse(content)
        if not isinstance(value, dict):
            raise ValueError(f"a JSON {type(value).__name__}, expected an object")
        return value
    text = str(content, "utf-8").strip()
    return {suffix: int(text) if suffix == "cls" else text}
