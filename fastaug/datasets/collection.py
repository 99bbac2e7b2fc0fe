"""What every dataset reader returns: the entries of one collection of recordings and what is known about it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastaug.shards.entries import Entry, Quarantined

__all__ = ["AudioCollection", "audio_files", "warn_of_missing"]


@dataclass
class AudioCollection:
    """Recordings found on disk, not yet read.

    Attributes:
        name: dataset name.
        entries: one per recording.
        labels: label field -> its classes in official order, None for the sorted names.
        protocol: how the splits were made, "" if the entries have no split of their own yet.
        group_field: field that names the track or artist.
        licence: licence of the recordings, if known.
        left_out: recordings of the dataset that are known to be broken, for the quarantine list.
        unit: what an entry is: a "clip", or a "track" whose field ``clips`` lists what it was joined from.
    """

    name: str
    entries: list[Entry]
    labels: dict[str, Sequence[str] | None] = field(default_factory=dict)
    protocol: str = ""
    group_field: str | None = None
    licence: str | None = None
    left_out: list[Quarantined] = field(default_factory=list)
    unit: str = "clip"


def audio_files(root: Path) -> list[Path]:
    """All files below ``root`` with an audio suffix (any case), sorted; hidden files and folders are skipped."""
    from fastaug.shards.record import AUDIO_SUFFIXES

    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        for name in sorted(names):
            if not name.startswith(".") and name.rpartition(".")[2].lower() in AUDIO_SUFFIXES and "." in name:
                found.append(Path(folder) / name)
    return found


def warn_of_missing(entries: Sequence[Entry], what: str, folder: Path) -> None:
    """Warns of entries whose file does not exist. They stay: the writer lists each of them in quarantine."""
    missing = [entry.path for entry in entries if not (folder / entry.path).is_file()]
    if missing:
        warnings.warn(
            f"{len(missing):,} of the {len(entries):,} {what} are missing in {folder}: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Scores will not be comparable.",
            stacklevel=3,
        )
