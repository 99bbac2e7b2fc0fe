"""GTZAN (Tzanetakis and Cook 2002) in the layouts it is found in, with the fault-filtered split.

The split removes repetitions, mislabellings and distortions and keeps artists apart: 443 train, 197 valid, 290 test
(Kereliuk, Sturm and Larsen, "Deep Learning and Music Adversaries", 2015, after Sturm, "The GTZAN dataset: Its contents,
its faults", 2013). It is the split of torchaudio.datasets.GTZAN and of the published self-supervised results.
"""

from __future__ import annotations

import json
import os
import warnings
from functools import lru_cache
from importlib import resources
from pathlib import Path

from fastaug.datasets.collection import AudioCollection, audio_files
from fastaug.shards.entries import Entry

__all__ = ["GENRES", "filtered_split", "find_gtzan", "read_gtzan"]

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
_FOLDERS = ("", "genres", "genres_original", "Data/genres_original", "Data/genres")


@lru_cache(maxsize=1)
def filtered_split() -> dict[str, str]:
    """Track name ("blues.00029") -> split, 930 of the 1,000 tracks."""
    text = resources.files("fastaug.datasets").joinpath("gtzan_split.json").read_text(encoding="utf-8")
    content = json.loads(text)
    tracks: dict[str, str] = {}
    for split, genres in content["splits"].items():
        for genre, ranges in genres.items():
            for item in ranges.split(","):
                first, _, last = item.partition("-")
                for number in range(int(first), int(last or first) + 1):
                    name = f"{genre}.{number:05d}"
                    if tracks.setdefault(name, split) != split:
                        raise ValueError(f"gtzan_split.json puts {name} into both {tracks[name]} and {split}")
    return tracks


def find_gtzan(root: str | os.PathLike[str]) -> Path | None:
    """The folder below ``root`` that holds the genre folders, None if this is not GTZAN.

    Known are ``root/blues/blues.00000.au``, and the same below ``genres`` (the original archive),
    ``genres_original`` or ``Data/genres_original`` (Kaggle).
    """
    for name in _FOLDERS:
        folder = Path(root) / name
        if all((folder / genre).is_dir() for genre in GENRES) and any(_tracks(folder / "blues")):
            return folder
    return None


def _tracks(folder: Path) -> dict[str, Path]:
    """Track name -> file, for the files named like ``blues.00000.wav`` in a genre's folder."""
    return {path.stem: path for path in audio_files(folder) if path.name.startswith(f"{folder.name}.")}


def read_gtzan(root: str | os.PathLike[str]) -> AudioCollection:
    """GTZAN with the fault-filtered split; the other 70 tracks are left out.

    jazz.00054 (in train) cannot be decoded in the Kaggle copy; the writer quarantines it if so, which is foreseen:
    442 train tracks remain.

    Raises:
        FileNotFoundError: the layout is not recognised.

    Warns:
        UserWarning: tracks of the split are missing; says how many.
    """
    folder = find_gtzan(root)
    if folder is None:
        raise FileNotFoundError(
            f"{root} does not look like GTZAN: expected ten genre folders with files such as blues/blues.00000.wav, "
            f"in it or in {', '.join(_FOLDERS[1:])}"
        )
    files = {name: path for genre in GENRES for name, path in _tracks(folder / genre).items()}
    split = filtered_split()
    missing = sorted(set(split) - set(files))
    if missing:
        warnings.warn(
            f"{len(missing)} of the {len(split)} tracks of the fault-filtered split are missing in {folder}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. Scores will not be comparable.",
            stacklevel=2,
        )
    entries = [
        Entry(files[name].relative_to(folder).as_posix(), files[name], {"genre": name.partition(".")[0]}, where)
        for name, where in split.items()
        if name in files
    ]
    return AudioCollection(
        name="GTZAN",
        entries=entries,
        labels={"genre": GENRES},
        protocol="fault-filtered 443/197/290 (Kereliuk, Sturm and Larsen 2015)",
    )
