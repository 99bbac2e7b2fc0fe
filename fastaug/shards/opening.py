"""Where records come from: a folder of shards, a shard pattern or list, an audio folder, or records in memory."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from fastaug.shards.foreign import huggingface_source, is_huggingface, is_webdataset, webdataset_shards
from fastaug.shards.idx import write_index
from fastaug.shards.mix import Mix, mix_sources
from fastaug.shards.reader import Member, ShardIndex, announce_record, index_shard, read_record
from fastaug.shards.record import AUDIO_SUFFIXES, Record
from fastaug.shards.source import Source, digest_of

__all__ = ["expand_braces", "open_source"]

_SCANS = 8  # shards opened at a time
_SPLIT_FOLDERS = {"train": ("train", "training"), "valid": ("valid", "validation", "val", "dev"), "test": ("test",)}


def open_source(source: Any, split: str | None = None, cache: str | Path | None = None) -> Source:
    """Open what a user passes to Pipeline.

    Args:
        source: a folder with dataset.json or ``*.tar``; a tar file, a pattern with ``*`` or ``{000..123}``, or a
            list of them; a folder of audio files (label = parent folder); a list of audio paths or of Records;
            a ``webdataset.WebDataset`` of plain samples; a ``datasets.Dataset`` with an audio column; a `Mix`; a
            `Source`, which is returned as it is.
        split: "train", "valid" or "test"; with dataset.json the split it lists, otherwise shards named
            ``<split>-*.tar`` or a sub-folder of that name. None takes everything.
        cache: folder that shards are copied to at first use and read from afterwards.

    Raises:
        FileNotFoundError, ValueError: nothing is there, or the split is unknown; names the path.
        TypeError: a kind of source that is not among these.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, Mix):
        return mix_sources(source, [open_source(one, split, cache) for one in source.sources.values()])
    if is_huggingface(source):
        return huggingface_source(source, split)
    if is_webdataset(source):
        source = webdataset_shards(source)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            return _open_folder(path, split, cache)
        if path.suffix.lower().lstrip(".") in AUDIO_SUFFIXES and path.is_file():
            return _files([path], path.parent)
        return _shards(_only_split(_match(str(source)), split), cache)
    items = list(source)
    if not items:
        raise ValueError("the source is an empty list")
    if all(isinstance(item, Record) for item in items):
        return _records(items)
    if not all(isinstance(item, str | Path) for item in items):
        kinds = sorted({type(item).__name__ for item in items})
        raise TypeError(f"a source list holds paths or Records, got {', '.join(kinds)}")
    if all(Path(item).suffix.lower().lstrip(".") in AUDIO_SUFFIXES for item in items):
        return _files([Path(item) for item in items], None)
    found = list(itertools.chain.from_iterable(_match(str(item)) for item in items))
    return _shards(_only_split(found, split), cache)


def expand_braces(pattern: str) -> list[str]:
    """``"a-{000..002}.tar"`` → three names; ``"{a,b}"`` → two; padding is kept, several groups multiply."""
    group = re.search(r"\{([^{}]*)\}", pattern)
    if group is None:
        return [pattern]
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", group[1])
    if bounds:
        low, high = bounds[1], bounds[2]
        choices = [f"{i:0{len(low)}d}" for i in range(int(low), int(high) + 1)]
    else:
        choices = group[1].split(",")
    head, tail = pattern[: group.start()], pattern[group.end() :]
    return [name for choice in choices for name in expand_braces(head + choice + tail)]


def _match(pattern: str) -> list[str]:
    found: list[str] = []
    for name in expand_braces(pattern):
        matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
        if not matches:
            raise FileNotFoundError(f"no shard matches {name!r}")
        found += matches
    return found


def _only_split(shards: list[str], split: str | None) -> list[str]:
    if split is None:
        return shards
    chosen = [shard for shard in shards if Path(shard).name.startswith(f"{split}-")]
    if not chosen:
        raise ValueError(f"no shard of split {split!r}: none of {len(shards)} names starts with '{split}-'")
    return chosen


def _open_folder(folder: Path, split: str | None, cache: str | Path | None) -> Source:
    description = folder / "dataset.json"
    if description.is_file():
        return _described(folder, description, split, cache)
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    if shards:
        return _shards(_only_split(shards, split), cache)
    root = folder
    if split is not None:
        names = _SPLIT_FOLDERS.get(split, (split,))
        root = next((folder / name for name in names if (folder / name).is_dir()), folder)
        if root == folder:
            raise ValueError(
                f"{folder} has neither dataset.json nor a sub-folder {' or '.join(names)} for split={split!r}: "
                "leave split out, or write splits with `fastaug shard`"
            )
    files = sorted(p for p in root.rglob("*") if p.suffix.lower().lstrip(".") in AUDIO_SUFFIXES and p.is_file())
    if not files:
        raise FileNotFoundError(f"{root} holds no dataset.json, no *.tar and no audio files")
    return _files(files, folder)


def _described(folder: Path, description: Path, split: str | None, cache: str | Path | None) -> Source:
    try:
        info = json.loads(description.read_text("utf-8"))
        splits = info["splits"]
        listed = {name: [s["file"] for s in part["shards"]] for name, part in splits.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{description} is not a fastaug dataset description: {error!r}") from None
    if split is not None and split not in listed:
        raise ValueError(f"{description} has no split {split!r}, only {', '.join(sorted(listed))}")
    names = listed[split] if split is not None else list(itertools.chain.from_iterable(listed.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} shards listed in {description} are missing, the first: {missing[0]}"
        )
    found = _shards([str(folder / name) for name in names], cache)
    found.label_info = dict(info.get("labels", {}))
    return found


def _shards(paths: list[str], cache: str | Path | None) -> Source:
    local = paths if cache is None else [_cached(path, Path(cache)) for path in paths]
    if len(local) > 1:  # cold storage answers many scans faster than one after another
        with ThreadPoolExecutor(_SCANS) as pool:
            indexes = list(pool.map(index_shard, local))
    else:
        indexes = [index_shard(path) for path in local]
    records = [(index, members) for index in indexes for members in index.records]
    keys = [f"{index.name}/{members[0][0].rpartition('.')[0]}" for index, members in records]
    return Source(
        sizes=[len(index.records) for index in indexes],
        read=partial(_read_member, records),
        key=keys.__getitem__,
        digest=digest_of(keys),
        bad=[bad for index in indexes for bad in index.bad],
        announce=partial(_announce_member, records),
    )


def _announce_member(records: list[tuple[ShardIndex, list[Member]]], i: int) -> None:
    announce_record(*records[i])


def _read_member(records: list[tuple[ShardIndex, list[Member]]], i: int) -> Record:
    return read_record(*records[i])


def _cached(path: str, cache: Path) -> str:
    """The copy of a shard in ``cache``, made now if it is missing or differs in size or time of change.

    The folder's name holds a hash of the full path: shards of one name from two places never meet.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such shard: {path}")
    folder = cache / hashlib.blake2b(os.path.abspath(path).encode(), digest_size=8).hexdigest()
    copy = folder / Path(path).name
    there, here = os.stat(path), os.stat(copy) if copy.exists() else None
    if here is None or (here.st_size, here.st_mtime_ns) != (there.st_size, there.st_mtime_ns):
        folder.mkdir(parents=True, exist_ok=True)
        partial_copy = folder / f"{copy.name}.{os.getpid()}.part"
        shutil.copy2(path, partial_copy)
        os.replace(partial_copy, copy)
        with contextlib.suppress(ValueError):  # damaged, or with a name that no index can hold: it is scanned each time
            write_index(copy)
    return str(copy)


def _files(files: Sequence[Path], root: Path | None) -> Source:
    keys = [path.relative_to(root).as_posix() if root else path.as_posix() for path in files]
    labels = [path.parent.name if root is None or path.parent != root else None for path in files]
    classes = sorted({label for label in labels if label})

    records = [
        Record(key, path, {"path": key, **({"label": label} if label else {})})
        for key, path, label in zip(keys, files, labels, strict=True)
    ]
    info = {"label": {"classes": classes, "multi": False}} if classes else {}
    announce = partial(_announce_file, files) if hasattr(os, "posix_fadvise") else None
    return Source(
        [len(files)], records.__getitem__, keys.__getitem__, digest_of(keys), label_info=info, announce=announce
    )


def _announce_file(files: Sequence[Path], i: int) -> None:
    with contextlib.suppress(OSError), open(files[i], "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _records(records: list[Record]) -> Source:
    keys = [record.key for record in records]
    return Source([len(records)], records.__getitem__, keys.__getitem__, digest_of(keys))
