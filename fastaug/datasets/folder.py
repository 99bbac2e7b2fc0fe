"""A folder of audio files: the label of a file is the name of the folder it lies in."""

from __future__ import annotations

import os
from pathlib import Path

from fastaug.datasets.collection import AudioCollection, audio_files
from fastaug.shards.entries import Entry

__all__ = ["read_folder"]

#: Names of top-level folders that are taken for splits.
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip


def read_folder(root: str | os.PathLike[str]) -> AudioCollection:
    """Finds every audio file below ``root``.

    ``root/rock/live/a.mp3`` has the label "live"; files directly in ``root`` have none. If all top-level folders are
    named for splits (train, valid or validation, test), they are the splits.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: no file in it has an audio suffix.
    """
    root = Path(root)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    files = [path.relative_to(root) for path in audio_files(root)]
    if not files:
        raise ValueError(f"no audio files below {root}")
    tops = {path.parts[0] for path in files if len(path.parts) > 1}
    flat = any(len(path.parts) == 1 for path in files)
    has_splits = bool(tops) and not flat and "train" in {SPLIT_NAMES.get(top.lower()) for top in tops}
    has_splits = has_splits and all(top.lower() in SPLIT_NAMES for top in tops)
    entries = [_entry(root, path, has_splits) for path in files]
    labelled = any("label" in entry.fields for entry in entries)
    return AudioCollection(
        name=root.resolve().name,
        entries=entries,
        labels={"label": None} if labelled else {},
        protocol="the folders train, valid, test" if has_splits else "",
    )


def _entry(root: Path, path: Path, has_splits: bool) -> Entry:
    folders = path.parts[1:-1] if has_splits else path.parts[:-1]
    fields = {"label": folders[-1]} if folders else {}
    split = SPLIT_NAMES[path.parts[0].lower()] if has_splits else "train"
    return Entry(path.as_posix(), root / path, fields, split)
