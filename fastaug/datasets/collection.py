"""What every dataset reader returns: the entries of one collection of recordings and what is known about it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastaug.shards.entries import Entry

__all__ = ["AudioCollection", "audio_files"]


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
    """

    name: str
    entries: list[Entry]
    labels: dict[str, Sequence[str] | None] = field(default_factory=dict)
    protocol: str = ""
    group_field: str | None = None
    licence: str | None = None


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
