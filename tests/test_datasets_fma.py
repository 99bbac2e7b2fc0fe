"""FMA in its published layout: two header lines, cumulative subsets, known bad clips."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from fastaug.cli import main
from fastaug.datasets.fma import find_fma, read_fma
from fastaug.datasets.shard import shard, shard_source
from test_datasets import card, fields_by_path, plant

HEADER = [
    ("", ""), ("album", "information"), ("album", "tags"), ("artist", "bio"), ("artist", "id"),
    ("set", "split"), ("set", "subset"), ("track", "genre_top"), ("track", "genres"), ("track", "genres_all"),
    ("track", "title"),
]  # fmt: skip

#: id, split, subset, genre_top, genres_all, artist; the columns that matter.
TRACKS: list[tuple[int, str, str, str, list[int], str]] = [
    (2, "training", "small", "Hip-Hop", [21], "1"),
    (5, "training", "small", "Rock", [12, 25], "2"),
    (140, "validation", "small", "Rock", [12], "3"),
    (1482, "test", "small", "Hip-Hop", [21], "4"),
    (10666, "training", "medium", "Old-Time / Historic", [8], "5"),
    (20000, "test", "medium", "Rock", [12, 25], "6"),
    (155320, "training", "large", "", [21, 38], "7"),
    (155321, "validation", "large", "Rock", [12], "3"),
    (99134, "training", "small", "Rock", [12], "8"),
    (98567, "training", "medium", "Rock", [12], "8"),
    (143992, "test", "large", "", [], "9"),
]
GENRES = "genre_id,#tracks,parent,title,top_level\n{}\n".format(
    "\n".join(["8,868,0,Old-Time / Historic,8", "12,32923,0,Rock,12", "21,8389,0,Hip-Hop,21", "25,9261,12,Punk,12",
               "38,38154,0,Experimental,38", "1235,1,0,Instrumental,1235"])
)  # fmt: skip
AWKWARD = '<p>He said "no", then\r\nleft\n,\ttwice</p>'


def metadata(root: Path, tracks: list[Any] = TRACKS, end: str = "\n", header: list[Any] = HEADER) -> Path:
    """fma_metadata as pandas wrote it: two header lines, one that names the index, quotes only where needed."""
    folder = root / "fma_metadata"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "tracks.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator=end)
        writer.writerow([top for top, _ in header])
        writer.writerow([second for _, second in header])
        writer.writerow(["track_id", *[""] * (len(header) - 1)])
        for number, split, subset, genre, genres, artist in tracks:
            about = AWKWARD if number == 2 else ""
            bio = "x" * 200_000 if number == 5 else ""  # beyond the csv module's own limit
            row = [number, about, "['a', 'b']", bio, artist, split, subset, genre, genres[:1], genres, "Food, é"]
            writer.writerow(row)
    (folder / "genres.csv").write_text(GENRES, encoding="utf-8")
    return root


def tree(root: Path, subset: str = "large", tracks: list[Any] = TRACKS, end: str = "\n") -> Path:
    metadata(root, tracks, end)
    ranks = ["small", "medium", "large"]
    largest = ranks.index(subset) if subset in ranks else 2
    names = [f"{t[0] // 1000:03d}/{t[0]:06d}.mp3" for t in tracks if ranks.index(t[2]) <= largest]
    plant(root / f"fma_{subset}", *names)
    (root / f"fma_{subset}/099/099134.mp3").write_bytes(b"")
    (root / f"fma_{subset}/checksums").write_text("")
    (root / f"fma_{subset}/README.txt").write_text("")
    return root


few = pytest.mark.filterwarnings("ignore:.* the published one ")


@few
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_shards_of_small(end: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "fma", "small", end=end)
    with pytest.warns(UserWarning, match=r"1 files were left out.*099/099134\.mp3 \(known to have no sound"):
        summary = shard(root, tmp_path / "out", progress=False)
    assert summary.records == {"train": 2, "valid": 1, "test": 1} and summary.leaks == 0
    described = card(tmp_path / "out")
    assert described["name"] == "FMA-small" and described["split_protocol"] == "official split of FMA-small: 2/1/1"
    assert described["default_label"] == "genre" and described["group_field"] == "artist"
    assert described["labels"] == {
        "genre": {"classes": ["Hip-Hop", "Rock"], "multi": False},
        "genres": {"classes": ["Rock", "Hip-Hop", "Punk"], "multi": True},  # by id
    }
    assert fields_by_path(tmp_path / "out") == {
        "000/000002.mp3": {"genres": ["Hip-Hop"], "artist": "1", "genre": "Hip-Hop", "path": "000/000002.mp3"},
        "000/000005.mp3": {"genres": ["Rock", "Punk"], "artist": "2", "genre": "Rock", "path": "000/000005.mp3"},
        "000/000140.mp3": {"genres": ["Rock"], "artist": "3", "genre": "Rock", "path": "000/000140.mp3"},
        "001/001482.mp3": {"genres": ["Hip-Hop"], "artist": "4", "genre": "Hip-Hop", "path": "001/001482.mp3"},
    }


@few
def test_subsets_are_cumulative_and_bad_clips_carry_their_reason(tmp_path: Path) -> None:
    root = tree(tmp_path, "medium")
    found = read_fma(root)
    paths = {entry.path: entry.split for entry in found.entries}
    assert paths == {
        "000/000002.mp3": "train", "000/000005.mp3": "train", "000/000140.mp3": "valid", "001/001482.mp3": "test",
        "010/010666.mp3": "train", "020/020000.mp3": "test",
    }  # fmt: skip
    reasons = {item.path: item.reason for item in found.left_out}
    assert set(reasons) == {"099/099134.mp3", "098/098567.mp3"}
    assert "no sound" in reasons["099/099134.mp3"] and "a few seconds" in reasons["098/098567.mp3"]
    assert found.labels["genre"] == ["Hip-Hop", "Old-Time / Historic", "Rock"]
    assert next(iter(found.labels)) == "genre"


@few
@pytest.mark.parametrize("subset", ["large", "full"])
def test_large_and_full_have_tracks_of_no_top_genre(subset: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "fma", subset)
    with pytest.warns(UserWarning, match="3 files were left out"):
        summary = shard(root, tmp_path / "out", progress=False)
    assert summary.name == f"FMA-{subset}" and summary.protocol == f"official split of FMA-{subset}: 4/2/2"
    assert card(tmp_path / "out")["default_label"] == "genres"
    fields = fields_by_path(tmp_path / "out")["155/155320.mp3"]
    assert "genre" not in fields and fields["genres"] == ["Hip-Hop", "Experimental"]
    # Genres of the list that no track has ("Instrumental") are not classes: 161 of 163.
    assert summary.classes["genres"] == ["Old-Time / Historic", "Rock", "Hip-Hop", "Punk", "Experimental"]


@few
def test_the_folder_decides_the_subset(tmp_path: Path) -> None:
    root = tree(tmp_path, "small")
    assert find_fma(root) == find_fma(root / "fma_small") == {"small": root / "fma_small"}
    assert shard_source(root).name == shard_source(root / "fma_small").name == "FMA-small"
    plant(root / "fma_full", "000/000002.mp3")
    with pytest.raises(ValueError, match="holds small, full of FMA: choose a subset"):
        shard_source(root)
    assert shard_source(root, subset="small").entries[0].audio == root / "fma_small/000/000002.mp3"
    with pytest.raises(FileNotFoundError, match="no folder fma_medium"):
        shard_source(root, subset="medium")  # neither small nor the whole tracks of full will do
    with pytest.raises(ValueError, match="one of small, medium, large, full, got 'tiny'"):
        shard_source(root, subset="tiny")


@few
def test_small_from_the_folder_of_medium(tmp_path: Path) -> None:
    found = shard_source(tree(tmp_path, "medium"), subset="small")
    assert found.name == "FMA-small" and len(found.entries) == 4
    assert found.entries[0].audio == tmp_path / "fma_medium/000/000002.mp3"


@few
def test_empty_and_missing_files_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "fma", "small")
    (root / "fma_small/000/000005.mp3").write_bytes(b"")
    (root / "fma_small/000/000140.mp3").unlink()
    with pytest.warns(UserWarning) as caught:
        summary = shard(root, tmp_path / "out", progress=False)
    messages = "\n".join(str(warning.message) for warning in caught)
    assert "1 of the 4 tracks of FMA-small are missing" in messages and "000/000140.mp3" in messages
    lines = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    reasons = {line["path"]: line["reason"] for line in lines}
    assert set(reasons) == {"099/099134.mp3", "000/000005.mp3", "000/000140.mp3"}
    assert "empty" in reasons["000/000005.mp3"] and "No such file" in reasons["000/000140.mp3"]
    assert sum(summary.records.values()) == 2


def test_the_published_size_is_compared(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"lists 5 tracks of small, the published one 8,000"):
        read_fma(tree(tmp_path, "small"))


@few
def test_artists_in_two_splits_are_reported(tmp_path: Path) -> None:
    leaking = [(t[0], t[1], t[2], t[3], t[4], "1") for t in TRACKS]
    with pytest.warns(UserWarning, match=r"1 of 1 groups \(field 'artist'"):
        assert shard(tree(tmp_path / "fma", "small", leaking), tmp_path / "out", progress=False).leaks == 1


@few
def test_genres_of_one_name_are_told_apart(tmp_path: Path) -> None:
    root = tree(tmp_path, "small")
    path = root / "fma_metadata/genres.csv"
    path.write_text(path.read_text().replace("Punk", "Rock"))
    assert read_fma(root).labels["genres"] == ["Rock (12)", "Hip-Hop", "Rock (25)"]


def test_what_must_be_downloaded_is_named(tmp_path: Path) -> None:
    plant(tmp_path / "fma_small", "000/000002.mp3")
    for root in (tmp_path, tmp_path / "fma_small"):  # not taken for a folder of music with the labels 000, 001, ...
        with pytest.raises(
            FileNotFoundError, match=r"tracks\.csv' does not exist|tracks\.csv does not exist.*fma_meta"
        ):
            shard_source(root)
    assert shard_source(tmp_path, dataset="folder").labels == {"label": None}
    metadata(tmp_path)
    (tmp_path / "fma_metadata/genres.csv").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"genres\.csv does not exist; it comes from https://.*fma_metadata\.zip"
    ):
        shard_source(tmp_path)
    metadata(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="no folder fma_small, fma_medium, fma_large or fma_full"):
        shard_source(tmp_path / "other", dataset="fma")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",training,small,Rock", ",train,small,Rock", r"cannot be read: set/split 'train', set/subset 'small'"),
        (",training,small,Rock", ",training,tiny,Rock", r"set/subset 'tiny'"),
        ("[12, 25]", "[12; 25]", r"track/genres_all '\[12; 25\]'"),
        ("[12, 25]", "[12, 99]", r"has the genre 99, which is not in"),
        ("\n140,", "\nNaN,", r"line \d+: expected 11 cells and a track id, got \['NaN'"),
        ("\n140,", "\n140,,", r"expected 11 cells and a track id, got \['140'"),
        (",split,", ",Split,", r"line 1: expected two header lines that name set/split"),
    ],
)
def test_malformed_lists_name_the_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    root = tree(tmp_path, "small")
    path = root / "fma_metadata/tracks.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_fma(root)


@few
def test_the_csv_module_keeps_its_limit(tmp_path: Path) -> None:
    before = csv.field_size_limit(131_072)
    try:
        read_fma(tree(tmp_path, "small"))
        assert csv.field_size_limit() == 131_072
    finally:
        csv.field_size_limit(before)


@few
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "fma", "medium")
    with pytest.warns(UserWarning, match="left out"):
        assert main(["shard", str(root), str(tmp_path / "out"), "--subset", "small"]) == 0
    assert "official split of FMA-small: 2/1/1" in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["shard", str(root), str(tmp_path / "no"), "--protocol", "clean"]) == 1
    assert "a protocol is chosen for mtat only" in capsys.readouterr().err
