"""MagnaTagATune (Law et al. 2009) with its 50 most frequent tags and the folder split, in its three protocols.

Train is folders 0 to b, valid is c, test is d to f. The "full" protocol keeps clips that have none of the 50 tags
(Pons et al.; CLMR), the "clean" one drops them (Lee et al.; Won et al. 2020); scores of the two are about ten points of
PR-AUC apart. No track lies in two splits, but 62 % of the test clips are of artists that also occur in train:
"artist-disjoint" leaves those clips out.
"""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fastaug.datasets.collection import AudioCollection, warn_of_missing
from fastaug.datasets.tracks import join_tracks
from fastaug.shards.entries import SPLITS, Entry, Quarantined

__all__ = ["PROTOCOLS", "TAGS", "UNITS", "find_mtat", "read_mtat"]

PROTOCOLS = ("full", "clean", "artist-disjoint")
UNITS = ("clip", "track")

#: The order of musicnn-training's output_labels_mtt.txt. Other lists swap "metal" and "female voice".
TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano",
    "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing",
    "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop",
    "soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice",
    "female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "metal", "female voice", "choral",
)  # fmt: skip

#: Clips without sound in the published archive (0 bytes); every published split drops them.
_BROKEN = {
    35644: "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    55753: "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    57881: "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117"
    ".mp3",
}
_BROKEN_REASON = "known broken clip of the published archive (0 bytes), dropped by every published split"

_CLIPS = 25_863
_COLUMNS = 190  # clip_id, 188 tags, mp3_path
_SPLIT_OF = {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}
_NAMES = {
    "full": "full 12:1:3 folder split 0-b/c/d-f, clips without a top-50 tag included",
    "clean": "clean folder split 0-b/c/d-f, clips without a top-50 tag dropped",
    "artist-disjoint": "artist-disjoint part of the full folder split 0-b/c/d-f, "
    "valid without train's artists, test without either's",
}
_ANNOTATIONS = "annotations_final.csv"
_SITE = "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset"
_FOLDERS = ("", "mp3", "audio")


def find_mtat(root: str | os.PathLike[str]) -> Path | None:
    """The annotations_final.csv in ``root``, None if this is not MagnaTagATune."""
    path = Path(root) / _ANNOTATIONS
    return path if path.is_file() else None


def read_mtat(root: str | os.PathLike[str], protocol: str = "full", unit: str = "clip") -> AudioCollection:
    """MagnaTagATune: the field ``tags`` (names, [] for none of the 50), ``track`` and ``artist`` from the file name.

    ``root`` holds annotations_final.csv and the folders 0 to 9 and a to f, these directly or in ``mp3`` or ``audio``.
    clip_info_final.csv is not needed. The three broken clips are left out, whatever lies in their place.

    Args:
        root: the folder.
        protocol: "full" (18,706/1,825/5,329 clips), "clean" (published as 15,244 to 15,247/1,529/4,332), or
            "artist-disjoint": full without the valid clips of artists in train and the test clips of artists in either.
        unit: "clip", or "track": the clips of a track joined, as in CLMR's first code; for pre-training (scores are of
            clips everywhere).

    Raises:
        FileNotFoundError: annotations_final.csv or all of the audio is missing; says where it comes from.
        ValueError: unknown protocol or unit, or a malformed line, by its number.

    Warns:
        UserWarning: the list does not have 25,863 clips, or files are missing.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"the protocol of MTAT must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if unit not in UNITS:
        raise ValueError(f"the unit of MTAT must be one of {', '.join(UNITS)}, got {unit!r}")
    path = find_mtat(root)
    if path is None:
        raise FileNotFoundError(f"{Path(root) / _ANNOTATIONS} does not exist; it comes with the audio from {_SITE}")
    audio = _audio_folder(Path(root))
    rows = list(_rows(path))
    if len(rows) != _CLIPS:
        warnings.warn(
            f"{path} lists {len(rows):,} clips, the published one {_CLIPS:,}. Scores will not be comparable.",
            stacklevel=2,
        )
    entries = [_entry(audio, name, tags) for clip, name, tags in rows if clip not in _BROKEN]
    if protocol == "clean":
        entries = [entry for entry in entries if entry.fields["tags"]]
    elif protocol == "artist-disjoint":
        entries = _artist_disjoint(entries)
    warn_of_missing(entries, f"clips of {path.name}", audio)
    counts = Counter(entry.split for entry in entries)
    found = AudioCollection(
        name="MTAT",
        entries=entries,
        labels={"tags": TAGS},
        protocol=f"{_NAMES[protocol]}: {'/'.join(f'{counts[split]:,}' for split in SPLITS)}",
        group_field="artist" if protocol == "artist-disjoint" else "track",
        licence="CC BY-NC-SA 3.0",
        left_out=[Quarantined(name, _BROKEN_REASON) for clip, name, _ in rows if clip in _BROKEN],
    )
    if unit == "clip":
        return found
    return join_tracks(replace(found, entries=sorted(entries, key=_place)))


def _place(entry: Entry) -> tuple[str, int]:
    """Where a clip belongs among those of its track: by the second at which it starts, which its name gives."""
    start = re.search(r"-(\d+)-\d+\.[^.]*$", entry.path)
    return entry.fields["track"], int(start[1]) if start else 0


def _audio_folder(root: Path) -> Path:
    """The folder that holds 0 to f."""
    for name in _FOLDERS:
        if any((root / name / letter).is_dir() for letter in _SPLIT_OF):
            return root / name
    parts = sorted(path.name for path in root.glob("mp3.zip*"))
    packed = f"; unpack {', '.join(parts)}: cat mp3.zip.00? > mp3.zip && unzip mp3.zip" if parts else ""
    raise FileNotFoundError(
        f"{root} has {_ANNOTATIONS} but none of the audio folders 0 to f, neither in it nor in mp3 or audio"
        f"{packed or f'; they are in mp3.zip.001 to .003 from {_SITE}'}"
    )


def _rows(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Clip id, relative path and the names of its top-50 tags."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t")
        header = next(reader, [])
        if len(header) == 1 and "," in header[0]:
            raise ValueError(f"{path}, line 1: expected columns separated by tabs, as published, not by commas")
        absent = [name for name in ("clip_id", *TAGS, "mp3_path") if name not in header]
        if absent or len(header) != _COLUMNS:
            more = f", without {', '.join(absent[:5])}" if absent else ""
            raise ValueError(f"{path}, line 1: expected {_COLUMNS} columns, got {len(header)}{more}")
        clip, where = header.index("clip_id"), header.index("mp3_path")
        tags = [(name, header.index(name)) for name in TAGS]
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != _COLUMNS:
                raise ValueError(f"{place}: {len(cells)} cells, but the header has {_COLUMNS} columns")
            if not cells[clip].isdecimal():
                raise ValueError(f"{place}: the clip_id is {cells[clip]!r}, not a number")
            wrong = next((f"{name!r} is {cells[i]!r}" for name, i in tags if cells[i] not in ("0", "1")), None)
            if wrong:
                raise ValueError(f"{place}: {wrong}, not 0 or 1")
            if cells[where][:1] not in _SPLIT_OF or cells[where][1:2] != "/":
                raise ValueError(f"{place}: the mp3_path {cells[where]!r} does not start with a folder 0 to f")
            yield int(cells[clip]), cells[where], [name for name, i in tags if cells[i] == "1"]


def _entry(audio: Path, name: str, tags: list[str]) -> Entry:
    """The file is named <artist>-<album>-<nn>-<title>-<start>-<end>.mp3; all but the last two is the track."""
    track = re.sub(r"-\d+-\d+$", "", name[2:].rpartition(".")[0])
    fields = {"tags": tags, "track": track, "artist": track.partition("-")[0]}
    return Entry(name, audio / name, fields, _SPLIT_OF[name[0]])


def _artist_disjoint(entries: list[Entry]) -> list[Entry]:
    """Train stays whole, so that models of the full split can be evaluated on the rest."""
    kept: list[Entry] = []
    known: set[str] = set()
    for split in SPLITS:
        new = [entry for entry in entries if entry.split == split and entry.fields["artist"] not in known]
        known |= {entry.fields["artist"] for entry in new}
        kept += new
    return kept
