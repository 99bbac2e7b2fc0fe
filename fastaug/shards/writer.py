"""Writing datasets: entries -> tar shards in WebDataset's format, and dataset.json.

A record is two adjacent members of a ustar archive, ``<key>.<audio suffix>`` with the original bytes and
``<key>.json`` with the fields. Member times and owners are fixed, the order is a hash of (seed, path), so the same
entries give the same bytes. Keys carry no dot and no space: webdataset cuts a key at the first dot
(webdataset/webdataset#237).
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from fastaug.shards.entries import (
    SPLITS,
    DatasetSummary,
    Entry,
    Quarantined,
    check_entries,
    label_specs,
    seeded_order,
    warn_of_leaks,
)
from fastaug.shards.packing import ShardFile, safe_key, unreadable

__all__ = ["FORMAT", "SPLITS", "DatasetSummary", "Entry", "Quarantined", "usable_cores", "write_shards"]

FORMAT = "fastaug-dataset-1"
_PARTIAL = ".partial"
_Loaded = tuple[Entry, bytes | Quarantined]


def write_shards(
    entries: Iterable[Entry],
    out: str | os.PathLike[str],
    *,
    name: str,
    labels: Mapping[str, Sequence[str] | None] | Sequence[str] = (),
    split_protocol: str = "",
    licence: str | None = None,
    left_out: Sequence[Quarantined] = (),
    group_field: str | None = None,
    unit: str = "clip",
    seed: int = 0,
    shard_records: int = 1000,
    shard_bytes: int = 512 * 2**20,
    workers: int | None = None,
    probe: bool = True,
    overwrite: bool = False,
    progress: bool = True,
) -> DatasetSummary:
    """Writes OUT/{train,valid,test}-NNNNNN.tar and OUT/dataset.json.

    Files are first written to OUT/.partial and moved into place at the end, dataset.json last: a folder with a
    dataset.json is complete.

    Args:
        entries: what to store; paths must differ.
        out: the dataset folder; made if missing.
        name: dataset name.
        labels: the fields that hold labels, the default one first; a mapping may give the classes in their
            official order (``None``: the sorted names). Entries without the field are unlabelled.
        split_protocol: how the splits were made, in words.
        licence: licence of the recordings, if known.
        left_out: files that are not among the entries but belong on the quarantine list.
        group_field: field that names the track or artist. A group in two splits gives a warning.
        unit: what a record is; not of a "clip": the clips in its field ``clips`` are counted in dataset.json too.
        seed: of the record order.
        shard_records, shard_bytes: a new shard begins before one of these is exceeded.
        workers: threads that read, probe or call ``Entry.audio``; default the number of usable cores.
        probe: leave out files that no decoder can open or that have no samples. They are listed with the reason
            in OUT/quarantine.jsonl.
        overwrite: replace a dataset already in OUT. A folder with any other file in it is never touched.
        progress: show a progress bar if stderr is a terminal.

    Raises:
        FileExistsError: OUT is not empty (and ``overwrite`` is off, or it holds files of another kind).
        ValueError: no entries, repeated paths, unknown splits or classes, or nothing readable.
        OSError: OUT cannot be written; names it where the system names no file.
    """
    if shard_records < 1 or shard_bytes < 1:
        raise ValueError(f"shard_records and shard_bytes must be positive, got {shard_records} and {shard_bytes}")
    ordered = seeded_order(entries, seed)
    check_entries(ordered)
    specs = label_specs(ordered, labels)
    leaks = warn_of_leaks(ordered, group_field)
    out = Path(out)
    partial = _prepare(out, overwrite)
    quarantined = list(left_out)
    try:
        splits: dict[str, list[dict[str, Any]]] = {}
        with _bar(len(ordered), name, progress) as bar:
            for split in SPLITS:
                chosen = [entry for entry in ordered if entry.split == split]
                limits = _balanced(len(chosen), shard_records), shard_bytes
                with closing(_loaded(chosen, workers or usable_cores(), probe)) as loaded:
                    splits[split] = _write_split(loaded, partial, split, limits, quarantined, bar)
        if not any(splits.values()):
            reasons = "; ".join(f"{q.path}: {q.reason}" for q in quarantined[:3])
            raise ValueError(f"none of the {len(ordered)} files can be read, for example {reasons}")
        card = {
            "format": FORMAT,
            "name": name,
            "licence": licence,
            "split_protocol": split_protocol,
            "labels": specs,
            "default_label": next(iter(specs), None),
            "group_field": group_field,
            "unit": unit,
            "splits": {split: _split_card(shards) for split, shards in splits.items() if shards},
            "quarantine": "quarantine.jsonl" if quarantined else None,
            "seed": seed,
        }
        _count(card, ordered, {q.path for q in quarantined})
        _finish(partial, out, card, quarantined)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(out)) from error  # a full disk does not say which
        raise
    return _summary(out, card, quarantined, leaks)


def _split_card(shards: list[dict[str, Any]]) -> dict[str, Any]:
    return {"records": sum(shard["records"] for shard in shards), "shards": shards}


def _count(card: dict[str, Any], entries: Iterable[Entry], left_out: set[str]) -> None:
    """Adds to each split of the card how many groups it holds, and how many clips its records were made of."""
    groups: dict[str, set[Any]] = {split: set() for split in SPLITS}
    clips = dict.fromkeys(SPLITS, 0)
    for entry in entries:
        if entry.path not in left_out:
            groups[entry.split].add(entry.fields.get(card["group_field"]))
            clips[entry.split] += len(entry.fields.get("clips", ()))
    for split, content in card["splits"].items():
        if card["group_field"] is not None:
            content["groups"] = len(groups[split] - {None})
        if card["unit"] != "clip":
            content["clips"] = clips[split]


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_ours(path: Path) -> bool:
    """Whether a file of OUT is one that this module writes."""
    if path.name in ("dataset.json", "quarantine.jsonl", _PARTIAL):
        return True
    split, _, number = path.stem.partition("-")
    return path.suffix == ".tar" and split in SPLITS and len(number) == 6 and number.isdigit()


def _prepare(out: Path, overwrite: bool) -> Path:
    """Checks OUT and makes OUT/.partial, without what an interrupted run left there."""
    out.mkdir(parents=True, exist_ok=True)
    present = [path for path in out.iterdir() if path.name != _PARTIAL]
    foreign = sorted(path.name for path in present if not _is_ours(path))
    if foreign:
        raise FileExistsError(f"{out} holds other files, such as {foreign[0]!r}: choose an empty or new folder")
    if present and not overwrite:
        raise FileExistsError(f"{out} already holds a dataset: pass overwrite=True to replace it")
    partial = out / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return partial


def _finish(partial: Path, out: Path, card: dict[str, Any], quarantined: list[Quarantined]) -> None:
    """Moves everything into place, dataset.json last; removes what remains of an older dataset."""
    if quarantined:
        lines = "".join(json.dumps({"path": q.path, "reason": q.reason}) + "\n" for q in quarantined)
        (partial / "quarantine.jsonl").write_text(lines, encoding="utf-8")
    (partial / "dataset.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (out / "dataset.json").unlink(missing_ok=True)
    new = {path.name for path in partial.iterdir()}
    for old in out.iterdir():
        if old.name not in new and old.name != _PARTIAL:
            old.unlink()
    for path in sorted(partial.iterdir(), key=lambda path: path.name == "dataset.json"):
        os.replace(path, out / path.name)
    partial.rmdir()


def _summary(out: Path, card: dict[str, Any], quarantined: list[Quarantined], leaks: int) -> DatasetSummary:
    splits = card["splits"]
    return DatasetSummary(
        out=out,
        name=card["name"],
        records={split: content["records"] for split, content in splits.items()},
        shards={split: len(content["shards"]) for split, content in splits.items()},
        bytes=sum(shard["bytes"] for content in splits.values() for shard in content["shards"]),
        classes={name: spec["classes"] for name, spec in card["labels"].items()},
        quarantined=quarantined,
        leaks=leaks,
        protocol=card["split_protocol"],
    )


def _load(entry: Entry, probe: bool) -> bytes | Quarantined:
    """The bytes of an entry, or the reason why it cannot be used."""
    if callable(entry.audio):
        try:
            data = entry.audio()
        except OSError as error:
            return Quarantined(entry.path, str(error))
    elif isinstance(entry.audio, bytes):
        data = entry.audio
    else:
        try:
            data = Path(entry.audio).read_bytes()
        except OSError as error:
            return Quarantined(entry.path, error.strerror or str(error))
    reason = unreadable(data) if probe else None
    return Quarantined(entry.path, reason) if reason else data


def _loaded(entries: list[Entry], workers: int, probe: bool) -> Generator[_Loaded, None, None]:
    """Loads in threads, in order, at most 2 * workers files ahead."""
    pool = ThreadPoolExecutor(workers)
    pending: deque[tuple[Entry, Future[bytes | Quarantined]]] = deque()
    try:
        for entry in entries:
            pending.append((entry, pool.submit(_load, entry, probe)))
            if len(pending) > 2 * workers:
                first, future = pending.popleft()
                yield first, future.result()
        for entry, future in pending:
            yield entry, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _bar(total: int, name: str, progress: bool) -> Any:
    from tqdm import tqdm

    # disable=None is tqdm's "off unless stderr is a terminal".
    return tqdm(total=total, desc=name, unit="file", disable=None if progress else True)


def _balanced(records: int, limit: int) -> int:
    """Records per shard such that all shards are about equal: 1,001 at a limit of 1,000 makes 501 + 500."""
    shards = -(-records // limit)
    return -(-records // max(shards, 1))


def _write_split(
    items: Iterable[_Loaded],
    folder: Path,
    split: str,
    limits: tuple[int, int],
    quarantined: list[Quarantined],
    bar: Any,
) -> list[dict[str, Any]]:
    """Deals one split out to shards; returns their lines of dataset.json."""
    shards: list[dict[str, Any]] = []
    keys: set[str] = set()
    shard: ShardFile | None = None
    try:
        for entry, data in items:
            bar.update(1)
            if isinstance(data, Quarantined):
                quarantined.append(data)
                continue
            fields = json.dumps({**entry.fields, "path": entry.path}, separators=(",", ":"), allow_nan=False).encode()
            if shard is not None and (shard.records >= limits[0] or shard.size_with(data, fields) > limits[1]):
                shards.append(shard.close())
                shard = None
            if shard is None:
                shard = ShardFile(folder / f"{split}-{len(shards):06d}.tar")
            suffix = PurePosixPath(entry.path).suffix[1:].lower()
            shard.add(_unique_key(entry.path, keys), suffix, data, fields)
        if shard is not None:
            shards.append(shard.close())
    except BaseException:
        if shard is not None:
            shard.abandon()
        raise
    return shards


def _unique_key(path: str, taken: set[str]) -> str:
    """The safe key, numbered if another path of the split has it ("a/b.mp3" and "a__b.wav")."""
    base = key = safe_key(path)
    number = 2
    while key in taken:
        key, number = f"{base}_{number}", number + 1
    taken.add(key)
    return key
