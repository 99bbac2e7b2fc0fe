"""FMA (Defferrard et al. 2017) with its official split: subsets small, medium, large (clips of 30 s) and full.

Subsets are cumulative: tracks.csv names the smallest one a track belongs to, so that medium is the tracks marked small
or medium. No artist lies in two splits.
"""

from __future__ import annotations

import ast
import csv
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastaug.datasets.collection import AudioCollection, warn_of_missing
from fastaug.shards.entries import SPLITS, Entry, Quarantined

__all__ = ["SUBSETS", "find_fma", "read_fma"]

#: Subset -> number of tracks.
SUBSETS = {"small": 8_000, "medium": 25_000, "large": 106_574, "full": 106_574}
_RANK = {name: rank for rank, name in enumerate(SUBSETS)}
_SPLIT_OF = {"training": "train", "validation": "valid", "test": "test"}
_METADATA = "https://os.unil.cloud.switch.ch/fma/fma_metadata.zip"

# https://github.com/mdeff/fma/issues/8 and 44; in small: three without sound and three short ones.
_NO_AUDIO = frozenset(
    {1486, 5574, 65753, 80391, 98558, 98559, 98560, 98571, 99134, 105247, 108925, 126981, 127336, 133297, 143992}
)
_SHORT = frozenset({98565, 98566, 98567, 98568, 98569, 108924})

_LONGEST_CELL = 2**24  # biographies; the csv module's own limit is 128 KiB


@dataclass(frozen=True)
class _Track:
    number: int
    split: str
    rank: int  # of the smallest subset it belongs to
    genre: str
    genres: list[int]
    artist: str

    @property
    def path(self) -> str:
        return f"{self.number // 1000:03d}/{self.number:06d}.mp3"


def find_fma(root: str | os.PathLike[str]) -> dict[str, Path]:
    """The folders fma_small, fma_medium, fma_large and fma_full in ``root``, or ``root`` itself if it is one."""
    root = Path(os.path.abspath(root))
    if root.name.removeprefix("fma_") in SUBSETS and root.name.startswith("fma_") and root.is_dir():
        return {root.name.removeprefix("fma_"): root}
    return {name: root / f"fma_{name}" for name in SUBSETS if (root / f"fma_{name}").is_dir()}


def read_fma(root: str | os.PathLike[str], subset: str | None = None) -> AudioCollection:
    """FMA: the fields ``genre`` (genre_top, where there is one), ``genres`` (several, with their parents), ``artist``.

    ``root`` holds fma_small (or medium, large, full) and fma_metadata, or is the former beside the latter. The default
    label is ``genre`` for small and medium (8 and 16 classes), ``genres`` for large and full (161). Tracks known to
    have no sound or only a few seconds are left out.

    Args:
        root: the folder.
        subset: which; default the only one there is. A smaller one may be taken from the folder of a larger (full
            does not stand in for clips of 30 s).

    Raises:
        FileNotFoundError: the audio folder, tracks.csv or genres.csv is missing; says where it comes from.
        ValueError: several subsets are there and none was chosen, or a malformed line, by its number.

    Warns:
        UserWarning: the subset does not have its published number of tracks, or files are missing.
    """
    subset, audio = _choose(root, subset)
    metadata = _metadata(Path(os.path.abspath(root)))
    titles = _titles(metadata / "genres.csv")
    tracks = [track for track in _tracks(metadata / "tracks.csv") if track.rank <= _RANK[subset]]
    if len(tracks) != SUBSETS[subset]:
        warnings.warn(
            f"{metadata / 'tracks.csv'} lists {len(tracks):,} tracks of {subset}, the published one "
            f"{SUBSETS[subset]:,}. Scores will not be comparable.",
            stacklevel=2,
        )
    entries, left_out = [], []
    for track in tracks:
        if track.number in _NO_AUDIO or track.number in _SHORT:
            what = "no sound" if track.number in _NO_AUDIO else "a few seconds instead of its 30 s"
            left_out.append(Quarantined(track.path, f"known to have {what} (mdeff/fma issue 8)"))
            continue
        fields = {"genres": [_title(titles, number, metadata) for number in track.genres], "artist": track.artist}
        if track.genre:
            fields["genre"] = track.genre
        entries.append(Entry(track.path, audio / track.path, fields, track.split))
    warn_of_missing(entries, f"tracks of FMA-{subset}", audio)
    counts = Counter(entry.split for entry in entries)
    genre = sorted({track.genre for track in tracks} - {""})
    genres = [_title(titles, number, metadata) for number in sorted({n for track in tracks for n in track.genres})]
    small = subset in ("small", "medium")
    return AudioCollection(
        name=f"FMA-{subset}",
        entries=entries,
        labels={"genre": genre, "genres": genres} if small else {"genres": genres, "genre": genre},
        protocol=f"official split of FMA-{subset}: {'/'.join(f'{counts[split]:,}' for split in SPLITS)}",
        group_field="artist",
        licence="Creative Commons, per track (fma_metadata/tracks.csv)",
        left_out=left_out,
    )


def _choose(root: str | os.PathLike[str], subset: str | None) -> tuple[str, Path]:
    """The subset and the folder with its audio."""
    if subset is not None and subset not in SUBSETS:
        raise ValueError(f"the subset of FMA must be one of {', '.join(SUBSETS)}, got {subset!r}")
    found = find_fma(root)
    if subset is None:
        if len(found) > 1:
            raise ValueError(f"{root} holds {', '.join(found)} of FMA: choose a subset")
        subset = next(iter(found), None)
    folder = found.get(subset or "")
    if folder is None and subset in ("small", "medium"):
        larger = [name for name in ("medium", "large") if name in found and _RANK[name] > _RANK[subset]]
        folder = found[larger[0]] if larger else None
    if subset is None or folder is None:
        what = f"fma_{subset}" if subset else "fma_small, fma_medium, fma_large or fma_full"
        raise FileNotFoundError(f"{root} has no folder {what}; see https://github.com/mdeff/fma for the archives")
    return subset, folder


def _metadata(root: Path) -> Path:
    for folder in (root / "fma_metadata", root.parent / "fma_metadata", root):
        if (folder / "tracks.csv").is_file():
            return folder
    raise FileNotFoundError(f"{root / 'fma_metadata' / 'tracks.csv'} does not exist; it comes from {_METADATA}")


def _tracks(path: Path) -> Iterator[_Track]:
    """The lines below tracks.csv's two header lines and the one that names the index."""
    rows = _csv_rows(path)
    top, second = next(rows, (1, []))[1], next(rows, (2, []))[1]
    header = list(zip(top, second, strict=False))
    wanted = [("set", "split"), ("set", "subset"), ("track", "genre_top"), ("track", "genres_all"), ("artist", "id")]
    absent = [f"{a}/{b}" for a, b in wanted if (a, b) not in header]
    if absent:
        raise ValueError(f"{path}, line 1: expected two header lines that name {', '.join(absent)}")
    columns = [header.index(name) for name in wanted]
    for line, cells in rows:
        if cells[0] == "track_id":
            continue
        if len(cells) != len(header) or not cells[0].isdecimal():
            raise ValueError(f"{path}, line {line}: expected {len(header)} cells and a track id, got {cells[:2]}")
        split, subset, genre, genres, artist = (cells[column] for column in columns)
        try:
            numbers = [int(number) for number in ast.literal_eval(genres)]
            rank = _RANK[subset]
            yield _Track(int(cells[0]), _SPLIT_OF[split], rank, genre, numbers, artist)
        except (KeyError, ValueError, SyntaxError, TypeError):
            found = f"set/split {split!r}, set/subset {subset!r}, track/genres_all {genres!r}"
            raise ValueError(f"{path}, line {line}: cannot be read: {found}") from None


def _titles(path: Path) -> dict[int, str]:
    """Genre id -> title; with the id behind it where two genres are called the same."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it comes from {_METADATA}")
    rows = _csv_rows(path)
    header = next(rows, (1, []))[1]
    if not {"genre_id", "title"} <= set(header):
        raise ValueError(f"{path}, line 1: expected the columns genre_id and title, got {header}")
    number, title = header.index("genre_id"), header.index("title")
    titles = {int(cells[number]): cells[title] for _, cells in rows}
    counts = Counter(titles.values())
    return {number: title if counts[title] == 1 else f"{title} ({number})" for number, title in titles.items()}


def _title(titles: dict[int, str], number: int, metadata: Path) -> str:
    if number not in titles:
        raise ValueError(f"tracks.csv has the genre {number}, which is not in {metadata / 'genres.csv'}")
    return titles[number]


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells; cells may be quoted and hold line ends."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            yield from ((reader.line_num, cells) for cells in reader if cells)
    finally:
        csv.field_size_limit(limit)
