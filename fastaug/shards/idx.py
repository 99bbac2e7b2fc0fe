"""Index files beside shards, in the format of NVIDIA DALI's wds2idx: a shard opens without a walk over its headers.

The first line is "v1.2 <samples>", then one line a sample: "<suffix> <offset> <size> <name>" for each of its members,
the offset that of the data. A shard with damage gets no index, so one without damage is what an index describes.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastaug.shards.tar import Contents, Member, Stamp, map_shard, scan_tar, stamp

__all__ = ["index_path", "read_index", "write_index"]

_VERSION = "v1.2"
_BLOCK = 512
_PROBES = 16


def index_path(path: str | Path) -> Path:
    """Where the index of a shard stands: ``a.tar`` → ``a.idx``."""
    return Path(path).with_suffix(".idx")


def write_index(path: str | Path) -> Path:
    """Write the index of a shard beside it, for us and for DALI's ``readers.webdataset``.

    Returns:
        Its path.

    Raises:
        ValueError: the shard is damaged, or a name has a space in it, which the format cannot hold.
    """
    contents = scan_tar(str(path), stamp(str(path)))
    if contents.troubles:
        raise ValueError(f"{path}: {contents.troubles[0].reason}: no index of a damaged shard")
    samples: dict[str, list[str]] = {}
    for member in contents.runs[0]:
        folder, slash, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")  # wds2idx cuts at the first dot
        if not stem:
            continue
        if member.name.split() != [member.name] or not suffix:
            raise ValueError(f"{path}: {member.name!r} has a space in it or no suffix: no index can name it")
        samples.setdefault(folder + slash + stem, []).append(f"{suffix} {member.offset} {member.size} {member.name}")
    target = index_path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    part.write_text("".join([f"{_VERSION} {len(samples)}\n", *(" ".join(s) + "\n" for s in samples.values())]), "utf-8")
    os.replace(part, target)
    return target


def read_index(path: str, taken: Stamp) -> Contents | None:
    """The members of a shard by its index; None where there is none, or it does not describe this shard."""
    target = index_path(path)
    try:
        if os.stat(target).st_mtime_ns < taken[2]:
            return None
        lines = target.read_text("utf-8").splitlines()
        version, count = lines[0].split()
        if version != _VERSION or int(count) != len(lines) - 1:
            return None
        members = [member for line in lines[1:] for member in _members(line.split())]
    except (OSError, ValueError, IndexError):
        return None
    members.sort(key=lambda member: member.offset)
    return Contents([members]) if _describes(members, path, taken) else None


def _members(words: list[str]) -> list[Member]:
    if len(words) % 4:
        raise ValueError("not four words a member: a name with a space in it")
    return [Member(words[i + 3], int(words[i + 1]), int(words[i + 2])) for i in range(0, len(words), 4)]


def _describes(members: list[Member], path: str, taken: Stamp) -> bool:
    """Whether some members, the last among them, have their headers where the index says."""
    if not members or members[-1].offset + members[-1].size > taken[1]:
        return False
    file = map_shard(path, taken)
    for member in [*members[:: -(-len(members) // _PROBES)], members[-1]]:
        header = bytes(file[max(member.offset - _BLOCK, 0) : member.offset])
        name = header[:100].rstrip(b"\0").decode("utf-8", "surrogateescape")
        short = len(name) < 100 and not header[345:500].strip(b"\0")
        if header[257:262] != b"ustar" or (short and name != member.name):
            return False
        size = header[124:136].strip(b" \0")
        if size.isdigit() and int(size, 8) != member.size:
            return False
    return True
