"""Tar files as they lie on disk: a mapping into memory, the walk over their headers."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np

from fastaug.ops import _library

__all__ = ["Contents", "Member", "Stamp", "Trouble", "fetch", "map_shard", "scan_tar", "stamp"]

Stamp = tuple[int, int, int]  # inode, size, time of change

_FIELDS = 8
_BLOCK = 512
_ROOM = 1 << 16  # entries at first, 4 MiB of memory that is not there before it is used; for more a tar is walked twice
# Kinds of csrc/cpu/tar.cpp
_MEMBER, _GARBAGE, _TRUNCATED, _SPARSE, _LINK, _SPOILED, _NO_END, _ZEROS = range(8)


class Member(NamedTuple):
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


class Trouble(NamedTuple):
    """What is wrong at a place: with a member, or, without a name, with the archive."""

    reason: str
    offset: int
    name: str | None = None


@dataclass
class Contents:
    """What a tar holds, in order: runs of members with trouble between them, so that nothing is joined across it."""

    runs: list[list[Member]] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


def stamp(path: str) -> Stamp:
    """What changes when a file does."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def map_shard(path: str, expected: Stamp) -> memoryview:
    """The bytes of a file, mapped into memory; kept for the next call.

    Raises:
        ValueError: it is not the file that ``expected`` was taken of. OSError: it cannot be opened.
    """
    if stamp(path) != expected:  # also keeps a shorter file from killing the process by a signal
        raise ValueError("the file has changed since it was indexed")
    return _mapping(path, expected)


def fetch(path: str, expected: Stamp, begin: int, end: int) -> None:
    """Have bytes [begin, end) of a file read into memory in the background. Raises as `map_shard`, if it notices."""
    mapped = _mapping(path, expected).obj
    if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
        first = begin // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, first, end - first)


@lru_cache(maxsize=128)  # each holds a file descriptor
def _mapping(path: str, expected: Stamp) -> memoryview:
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), expected[1], access=mmap.ACCESS_READ))


def scan_tar(path: str, taken: Stamp) -> Contents:
    """Walk the headers of a tar. Damage never raises: it is listed, and the walk goes on behind it."""
    if taken[1] == 0:
        return Contents([[]], [Trouble("an empty file (0 bytes), not a tar", 0)])
    file = map_shard(path, taken)
    address = int(np.frombuffer(file, np.uint8).__array_interface__["data"][0])
    table = np.empty((min(taken[1] // _BLOCK + 1, _ROOM), _FIELDS), np.int64)
    while (count := _library.native().fa_tar_scan(address, taken[1], table.ctypes.data, len(table))) > len(table):
        table = np.empty((count, _FIELDS), np.int64)
    contents, run = Contents(), list[Member]()
    # A mapping is sliced, and a tuple made, in half the time that their wrappers take.
    data, new = cast(mmap.mmap, file.obj), tuple.__new__
    for kind, header, name, name_size, prefix, prefix_size, offset, size in table[:count].tolist():
        text = data[name : name + name_size].decode("utf-8", "surrogateescape")
        if prefix_size:
            text = data[prefix : prefix + prefix_size].decode("utf-8", "surrogateescape") + "/" + text
        member = new(Member, (text, offset, size))
        if kind == _MEMBER:
            run.append(member)
        else:
            contents.troubles.append(_trouble(kind, header, member, taken[1]))
            contents.runs.append(run)
            run = []
    contents.runs.append(run)
    return contents


def _trouble(kind: int, header: int, member: Member, size: int) -> Trouble:
    start, stop = member.offset, member.offset + member.size
    if kind == _GARBAGE:
        what = f"no tar header at byte {start}" + (f": skipped to byte {stop}" if stop < size else ", nor behind it")
        return Trouble(what, start)
    if kind == _ZEROS:
        what = f"zeros from byte {start} to {stop} in the midst of members: overwritten, or several tars in one file"
        return Trouble(what, start)
    if kind == _NO_END:
        closing = "without the two zero blocks that close a tar: it was probably cut"
        return Trouble(f"ends at byte {size} {closing}", size)
    reason = {
        _TRUNCATED: f"truncated: needs {member.size} bytes, the file has {size - start}",
        _SPARSE: "a sparse file: pack it without tar's --sparse",
        _LINK: "a link, which has no data of its own: pack with tar's --hard-dereference --dereference",
        _SPOILED: f"damaged extended header before byte {header}",
    }
    return Trouble(reason[kind], start, member.name)
