"""``fastaug shard``: from recordings on disk to a dataset of shards."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastaug.datasets.collection import AudioCollection
from fastaug.datasets.fma import find_fma, read_fma
from fastaug.datasets.folder import read_folder
from fastaug.datasets.gtzan import find_gtzan, read_gtzan
from fastaug.datasets.manifest import MANIFEST_SUFFIXES, read_manifest
from fastaug.datasets.mtat import find_mtat, read_mtat
from fastaug.datasets.splits import split_entries
from fastaug.shards.writer import DatasetSummary, write_shards

__all__ = ["DATASETS", "shard", "shard_source"]

#: What ``--dataset`` may say.
DATASETS = ("folder", "manifest", "gtzan", "mtat", "fma")


def shard(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    manifest: str | os.PathLike[str] | None = None,
    protocol: str | None = None,
    subset: str | None = None,
    unit: str | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    name: str | None = None,
    licence: str | None = None,
    shard_records: int = 1000,
    shard_bytes: int = 512 * 2**20,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> DatasetSummary:
    """Packs recordings, their bytes untouched, into OUT/{train,valid,test}-NNNNNN.tar with OUT/dataset.json.

    Args:
        source: a folder of audio, of GTZAN, MTAT or FMA, or a manifest file.
        out: the dataset folder, new or empty.
        dataset: ``"folder"``, ``"manifest"``, ``"gtzan"``, ``"mtat"`` or ``"fma"``; default: recognised.
        manifest: CSV, TSV or JSONL whose paths start from ``source``.
        protocol: of MTAT: ``"full"`` (default), ``"clean"`` or ``"artist-disjoint"``.
        unit: of MTAT: ``"clip"`` (default) or ``"track"``: the clips of each track joined, re-encoded as FLAC.
        subset: of FMA: ``"small"``, ``"medium"``, ``"large"`` or ``"full"``; default: the only one there is.
        fractions: shares of train, valid and test where the source names no splits; ``(1, 0, 0)``: all in train.
            Groups stay together, labels in proportion.
        seed: of the split and of the record order.
        name, licence: for dataset.json; the name defaults to that of the source.
        shard_records, shard_bytes: a new shard begins before one of these is exceeded.
        workers: threads that read and check files; default the number of usable cores.
        overwrite: replace a dataset already in OUT.
        progress: show a progress bar if stderr is a terminal.

    Raises:
        FileNotFoundError, NotADirectoryError, FileExistsError, ValueError: naming what was expected.
    """
    found = shard_source(source, dataset=dataset, manifest=manifest, protocol=protocol, subset=subset, unit=unit)
    entries, how = found.entries, found.protocol
    if not how:
        label = next(iter(found.labels), None)
        entries = split_entries(entries, seed=seed, fractions=fractions, stratify=label, group_field=found.group_field)
        shares = "/".join(f"{100 * share:g}" for share in fractions)
        by = f"by {found.group_field}" if found.group_field else "by file"
        stratified = f", stratified by {label}" if label else ""
        how = "all in train" if fractions[0] == 1 else f"seeded {shares} {by}{stratified}, seed {seed}"
    summary = write_shards(
        entries,
        out,
        name=name or found.name,
        labels=found.labels,
        split_protocol=how,
        licence=licence or found.licence,
        left_out=found.left_out,
        group_field=found.group_field,
        unit=found.unit,
        seed=seed,
        shard_records=shard_records,
        shard_bytes=shard_bytes,
        workers=workers,
        overwrite=overwrite,
        progress=progress,
    )
    return _warn_of_quarantine(summary)


def shard_source(
    source: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    manifest: str | os.PathLike[str] | None = None,
    protocol: str | None = None,
    subset: str | None = None,
    unit: str | None = None,
) -> AudioCollection:
    """Recognises what a path holds and lists its recordings, without opening them.

    A file is a manifest. A folder with GTZAN's ten genres and file names is GTZAN, one with annotations_final.csv is
    MTAT, one with (or called) fma_small, fma_medium, fma_large or fma_full is FMA; any other is a folder of audio.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: unknown ``dataset``, ``protocol``, ``unit`` or ``subset``, or they contradict the path or another.
    """
    path = Path(source)
    if dataset is not None and dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if manifest is not None:
        if dataset not in (None, "manifest"):
            raise ValueError(f"dataset={dataset!r} and a manifest contradict each other")
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder: with a manifest, the source is the folder its paths start from")
    kind = "manifest" if manifest is not None else dataset or _recognise(path)
    if protocol is not None and kind != "mtat":
        raise ValueError(f"a protocol is chosen for mtat only, and {path} is {kind}")
    if unit is not None and kind != "mtat":
        raise ValueError(f"a unit is chosen for mtat only, and {path} is {kind}")
    if subset is not None and kind != "fma":
        raise ValueError(f"a subset is chosen for fma only, and {path} is {kind}")
    if manifest is not None:
        return replace(read_manifest(manifest, root=path), name=path.resolve().name)
    if path.is_file() or kind == "manifest":
        if dataset not in (None, "manifest") or path.suffix.lower() not in MANIFEST_SUFFIXES:
            raise ValueError(f"{path}: expected a folder or a manifest ({', '.join(MANIFEST_SUFFIXES)})")
        return read_manifest(path)
    if kind == "gtzan":
        return read_gtzan(path)
    if kind == "mtat":
        return read_mtat(path, protocol or "full", unit or "clip")
    return read_fma(path, subset) if kind == "fma" else read_folder(path)


def _recognise(path: Path) -> str:
    if path.is_file():
        return "manifest"
    if find_gtzan(path) is not None:
        return "gtzan"
    if find_mtat(path) is not None:
        return "mtat"
    return "fma" if find_fma(path) else "folder"


def _warn_of_quarantine(summary: DatasetSummary) -> DatasetSummary:
    if summary.quarantined:
        first = "; ".join(f"{item.path} ({item.reason})" for item in summary.quarantined[:3])
        warnings.warn(
            f"{len(summary.quarantined)} files were left out, see {summary.out / 'quarantine.jsonl'}: {first}",
            stacklevel=3,
        )
    return summary
