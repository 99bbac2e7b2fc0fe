"""MagnaTagATune in its published layout, with its three protocols and every known trap."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import fastaug
from fastaug import Pipeline
from fastaug.cli import main
from fastaug.datasets.collection import AudioCollection
from fastaug.datasets.mtat import TAGS, UNITS, find_mtat, read_mtat
from fastaug.datasets.shard import shard, shard_source
from fastaug.datasets.tracks import join_clips, join_tracks
from fastaug.shards.entries import Entry
from fastaug.ssl.data import discover
from test_datasets import card, fields_by_path, plant

Row = tuple[int, str, tuple[str, ...]]  # clip id, mp3_path, tags

BROKEN = {
    35644: "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    55753: "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    57881: "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-"
    "le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
}
FOLDERS = {
    "0": 1108, "1": 1543, "2": 1562, "3": 1238, "4": 2421, "5": 1604, "6": 1788, "7": 1163, "8": 1144, "9": 1773,
    "a": 1417, "b": 1948, "c": 1825, "d": 1677, "e": 1547, "f": 2105,
}  # fmt: skip

#: The 188 tags, in an order that is not that of the top 50, as in the published file.
COLUMNS = sorted(TAGS) + [f"rare {number}" for number in range(138)]

ROWS: list[Row] = [
    (2, "f/bach-album-01-prelude-0-29.mp3", ("classical", "violin", "rare 3")),
    (6, "f/bach-album-01-prelude-30-59.mp3", ("choral", "guitar")),
    (10, "d/ruth-cd-02-song-0-29.mp3", ("rock",)),
    (11, "0/bach-other-03-fugue_1-2-59-88.mp3", ("no vocals", "harpsichord")),
    (12, "b/zoe-cd-01-rain-0-29.mp3", ("rare 7",)),
    (13, "c/mia-cd-01-sun-0-29.mp3", ("pop",)),
    (14, "c/zoe-cd-02-snow-0-29.mp3", ()),
    (15, "e/mia-cd-02-moon-0-29.mp3", ("female vocal",)),
]
BROKEN_ROWS: list[Row] = [(clip, path, ("slow",)) for clip, path in BROKEN.items()]


def annotate(root: Path, rows: Iterable[Row], end: str = "\r\n", columns: list[str] = COLUMNS) -> Path:
    """Writes annotations_final.csv as it is published: every cell quoted, separated by tabs."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(f'"{name}"' for name in ("clip_id", *columns, "mp3_path"))]
    for clip, path, tags in rows:
        flags = ['"1"' if name in tags else '"0"' for name in columns]
        lines.append("\t".join([f'"{clip}"', *flags, f'"{path}"']))
    (root / "annotations_final.csv").write_bytes((end.join(lines) + end).encode())
    return root


def tree(root: Path, rows: list[Row] = ROWS + BROKEN_ROWS, folder: str = "") -> Path:
    """The list and a small real mp3 for every clip but the three that are empty in the archive."""
    annotate(root, rows)
    (root / "clip_info_final.csv").write_text('"clip_id"\t"track_number"\t"title"\n')
    plant(root / folder, *(path for clip, path, _ in rows if clip not in BROKEN))
    for path in BROKEN.values():
        (root / folder / path).parent.mkdir(parents=True, exist_ok=True)
        (root / folder / path).write_bytes(b"")
    return root


few = pytest.mark.filterwarnings("ignore:.* the published one 25,863")


@few
@pytest.mark.parametrize("folder", ["", "mp3", "audio"])
def test_shards_of_the_full_split(folder: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "mtat", folder=folder)
    with pytest.warns(UserWarning, match=r"3 files were left out.*norine_braun"):
        summary = shard(root, tmp_path / "out", progress=False)
    assert summary.records == {"train": 2, "valid": 2, "test": 4} and summary.leaks == 0
    described = card(tmp_path / "out")
    assert described["name"] == "MTAT" and described["licence"] == "CC BY-NC-SA 3.0"
    assert described["labels"] == {"tags": {"classes": list(TAGS), "multi": True}}
    assert described["split_protocol"].startswith("full 12:1:3 folder split 0-b/c/d-f")
    assert described["split_protocol"].endswith(": 2/2/4") and described["group_field"] == "track"
    fields = fields_by_path(tmp_path / "out")
    assert set(fields) == {path for _, path, _ in ROWS}
    # Other tags are not among the 50; those of one clip come in the published order, not the file's.
    assert fields["f/bach-album-01-prelude-0-29.mp3"]["tags"] == ["classical", "violin"]
    assert fields["f/bach-album-01-prelude-30-59.mp3"]["tags"] == ["guitar", "choral"]


@few
def test_the_three_broken_clips_are_listed_with_the_reason_even_where_they_can_be_read(tmp_path: Path) -> None:
    root = tree(tmp_path / "mtat")
    plant(root, *BROKEN.values())
    with pytest.warns(UserWarning, match="3 files were left out"):
        shard(root, tmp_path / "out", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert {line["path"] for line in lines} == set(BROKEN.values())
    assert all("known broken clip" in line["reason"] for line in lines)
    assert not set(BROKEN.values()) & set(fields_by_path(tmp_path / "out"))


@few
def test_other_empty_and_missing_files_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "mtat")
    (root / "c/mia-cd-01-sun-0-29.mp3").write_bytes(b"")
    (root / "d/ruth-cd-02-song-0-29.mp3").unlink()
    with pytest.warns(UserWarning) as caught:
        summary = shard(root, tmp_path / "out", progress=False)
    messages = "\n".join(str(warning.message) for warning in caught)
    assert "1 of the 8 clips of annotations_final.csv are missing" in messages and "d/ruth-cd-02" in messages
    reasons = {item.path: item.reason for item in summary.quarantined}
    assert len(reasons) == 5
    assert "empty (0 bytes)" in reasons["c/mia-cd-01-sun-0-29.mp3"]
    assert "No such file" in reasons["d/ruth-cd-02-song-0-29.mp3"]


@few
def test_untagged_clips_are_negatives_in_full_and_dropped_in_clean(tmp_path: Path) -> None:
    root = tree(tmp_path / "mtat")
    with pytest.warns(UserWarning, match="left out"):
        shard(root, tmp_path / "full", progress=False)
    pipe = Pipeline(tmp_path / "full", split="valid", labels="tags", sample_rate=8_000, crop_samples=800, batch_size=2,
                    shuffle=False)  # fmt: skip
    labels = next(iter(pipe)).labels
    assert pipe.classes == list(TAGS) and labels is not None and labels.shape == (2, 50)
    assert sorted(labels.sum(1).tolist()) == [0, 1] and not torch.isnan(labels).any()
    assert labels[:, TAGS.index("pop")].sum() == 1
    with pytest.warns(UserWarning, match="left out"):
        summary = shard(root, tmp_path / "clean", protocol="clean", progress=False)
    assert summary.records == {"train": 1, "valid": 1, "test": 4}
    assert summary.protocol.startswith("clean folder split") and summary.protocol.endswith(": 1/1/4")
    assert not {"b/zoe-cd-01-rain-0-29.mp3", "c/zoe-cd-02-snow-0-29.mp3"} & set(fields_by_path(tmp_path / "clean"))


@few
def test_the_artist_disjoint_part(tmp_path: Path) -> None:
    """Train whole; zoe is in train, so not in valid; bach is in train, mia in valid, so neither is in test."""
    found = read_mtat(tree(tmp_path), "artist-disjoint")
    assert {(entry.fields["artist"], entry.split) for entry in found.entries} == {
        ("bach", "train"), ("zoe", "train"), ("mia", "valid"), ("ruth", "test"),
    }  # fmt: skip
    assert found.group_field == "artist"
    assert found.protocol.startswith("artist-disjoint") and found.protocol.endswith(": 2/1/1")


@few
def test_clips_of_one_track_share_their_group(tmp_path: Path) -> None:
    groups = {entry.path: entry.fields["track"] for entry in read_mtat(tree(tmp_path)).entries}
    assert groups["f/bach-album-01-prelude-0-29.mp3"] == groups["f/bach-album-01-prelude-30-59.mp3"]
    assert groups["0/bach-other-03-fugue_1-2-59-88.mp3"] == "bach-other-03-fugue_1-2"


def test_the_published_sizes(tmp_path: Path) -> None:
    """The folders' real clip counts and the counted untagged test clips give the published sizes."""
    untagged = {"c": 1825 - 1529, "f": 997}
    broken = {path[0]: (clip, path, ("slow",)) for clip, path in BROKEN.items()}
    rows: list[Row] = []
    for letter, count in FOLDERS.items():
        rows += [broken[letter]] if letter in broken else []
        for number in range(count - (letter in broken)):
            tags = () if number < untagged.get(letter, 0) else ("guitar",)
            rows.append((100_000 + len(rows), f"{letter}/a{letter}-b-01-t{number}-0-29.mp3", tags))
    root = annotate(tmp_path, rows)
    (root / "0").mkdir()
    with pytest.warns(UserWarning, match=r"25,860 of the 25,860 clips .* are missing") as caught:
        full = read_mtat(root)
    assert len(caught) == 1, "the list is complete, that needs no warning"
    assert Counter(entry.split for entry in full.entries) == {"train": 18_706, "valid": 1_825, "test": 5_329}
    assert full.protocol.endswith("18,706/1,825/5,329")
    with pytest.warns(UserWarning, match="are missing"):
        clean = read_mtat(root, "clean")
    counts = Counter(entry.split for entry in clean.entries)
    assert (counts["valid"], counts["test"]) == (1_529, 4_332)


def test_a_shortened_list_is_noticed(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"lists 11 clips, the published one 25,863"):
        read_mtat(tree(tmp_path))


def test_the_tags_are_the_published_50() -> None:
    assert len(set(TAGS)) == len(TAGS) == 50
    assert TAGS[:4] == ("guitar", "classical", "slow", "techno")
    assert TAGS[-3:] == ("metal", "female voice", "choral")


@few
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_leave_no_trace_in_the_path(end: str, tmp_path: Path) -> None:
    root = annotate(tree(tmp_path), ROWS, end)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing")
        assert [entry.path for entry in read_mtat(root).entries] == [path for _, path, _ in ROWS]


def _edit(root: Path, old: str, new: str) -> None:
    path = root / "annotations_final.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"cello"', '"Cello"', r"line 1: expected 190 columns, got 190, without cello"),
        ('"rare 0"\t', "", r"line 1: expected 190 columns, got 189"),
        ('"f/bach-album-01-prelude-0-29.mp3"', '"x/y.mp3"', r"line 2: the mp3_path 'x/y.mp3' does not start with"),
        ('"f/bach-album-01-prelude-0-29.mp3"', '"1"\t"f/a.mp3"', r"line 2: 191 cells, but the header has 190"),
        ('"6"\t"0"', '"six"\t"0"', r"line 3: the clip_id is 'six', not a number"),
        ('"6"\t"0"', '"6"\t"2"', r"line 3: 'ambient' is '2', not 0 or 1"),
    ],
)
def test_malformed_lists_name_the_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    root = tree(tmp_path)
    _edit(root, old, new)
    with pytest.raises(ValueError, match=message):
        read_mtat(root)


def test_a_list_saved_with_commas(tmp_path: Path) -> None:
    path = tree(tmp_path) / "annotations_final.csv"
    path.write_text(path.read_text().replace("\t", ","))
    with pytest.raises(ValueError, match="separated by tabs"):
        read_mtat(tmp_path)


def test_what_must_be_downloaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotations_final\.csv does not exist.*mirg\.city\.ac\.uk"):
        shard_source(tmp_path, dataset="mtat")
    annotate(tmp_path, ROWS)
    with pytest.raises(FileNotFoundError, match=r"none of the audio folders 0 to f.*mp3\.zip\.001 to \.003 from"):
        shard_source(tmp_path)
    for part in ("001", "002", "003"):
        (tmp_path / f"mp3.zip.{part}").write_bytes(b"PK")
    with pytest.raises(FileNotFoundError, match=r"unpack mp3\.zip\.001, .*: cat mp3\.zip\.00\? > mp3\.zip"):
        shard_source(tmp_path)


def tone(file: Path, hertz: float, rate: int = 16_000) -> np.ndarray:
    """Writes 0.5 s at 16 kHz as mp3; returns what it decodes to."""
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate // 2) / rate), rate, format="MP3")
    return fastaug.load(file)[0][0].numpy()


TRACK_ROWS: list[Row] = [  # clips of the first track neither in the order of time nor of the alphabet
    (2, "0/bach-album-01-prelude-117-146.mp3", ("choral", "slow")),
    (6, "0/bach-album-01-prelude-0-29.mp3", ("classical",)),
    (7, "0/bach-album-01-prelude-30-59.mp3", ("classical", "violin")),
    (9, "0/bach-album-02-prelude-0-29.mp3", ()),
    (10, "b/zoe-cd-01-rain-0-29.mp3", ("rock",)),
    (13, "c/mia-cd-01-sun-0-29.mp3", ("pop",)),
    (14, "d/mia-cd-02-moon-0-29.mp3", ("pop",)),
]


@few
def test_tracks_are_their_clips_one_after_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = annotate(tmp_path / "mtat", TRACK_ROWS)
    heard = {path: tone(root / path, 200.0 + 50 * i) for i, (_, path, _) in enumerate(TRACK_ROWS)}
    assert main(["shard", str(root), str(tmp_path / "out"), "--unit", "track"]) == 0
    assert "full 12:1:3 folder split" in capsys.readouterr().out
    described = card(tmp_path / "out")
    assert described["unit"] == "track" and described["split_protocol"].endswith(": 5/1/1 clips, joined to 5 tracks")
    counts = {split: (c["records"], c["groups"], c["clips"]) for split, c in described["splits"].items()}
    assert counts == {"train": (3, 3, 5), "valid": (1, 1, 1), "test": (1, 1, 1)}
    assert discover(str(tmp_path / "out")).counts == {"tracks": 3, "clips": 5}
    fields = fields_by_path(tmp_path / "out")["0/bach-album-01-prelude.flac"]
    order = [f"0/bach-album-01-prelude-{span}.mp3" for span in ("0-29", "30-59", "117-146")]
    assert fields["clips"] == order and fields["track"] == "bach-album-01-prelude"
    assert fields["tags"] == ["classical", "slow", "violin", "choral"] and fields["artist"] == "bach"
    pipe = Pipeline(tmp_path / "out", split="train", crop="whole", batch_size=3, shuffle=False, sample_rate=16_000,
                    device="cpu")  # fmt: skip
    batch = next(iter(pipe))
    row = next(i for i, key in enumerate(batch.keys) if "prelude" in key and "01" in key)
    joined = np.concatenate([heard[path] for path in order])
    assert int(batch.lengths[row]) == len(joined)
    np.testing.assert_allclose(batch.audio[row, 0, : len(joined)].numpy(), joined, atol=0.5001 / 32768)


@few
def test_crops_of_a_track_come_from_all_of_its_clips(tmp_path: Path) -> None:
    """The two views of a pair: mostly of different clips, sometimes across a joint; of the clip unit never."""
    root = annotate(tmp_path / "mtat", TRACK_ROWS[:3])
    for i, (_, path, _) in enumerate(TRACK_ROWS[:3]):
        tone(root / path, 500.0 * 2**i)
    clips: dict[str, Counter[tuple[bool, ...]]] = {}
    for unit in UNITS:
        shard(root, tmp_path / unit, unit=unit, progress=False)
        pipe = Pipeline(tmp_path / unit, split="train", crop="random", views=2, batch_size=64, epoch_size=64, seed=1,
                        sample_rate=16_000, crop_samples=1_600, device="cpu")  # fmt: skip
        spectra = torch.fft.rfft(next(iter(pipe)).audio[:, :, 0]).abs()
        has = [spectra[..., round(500 * 2**i / 10)] > 30 for i in range(3)]  # bins of 10 Hz
        pairs = torch.stack(has, dim=-1)
        clips[unit] = Counter(
            ("apart" if not (i & j).any() else "same", "across" if i.sum() > 1 or j.sum() > 1 else "within")
            for i, j in zip(pairs[0], pairs[1], strict=True)
        )
    assert set(clips["clip"]) == {("same", "within")}
    apart = sum(n for (pair, _), n in clips["track"].items() if pair == "apart")
    assert apart > 20 and any(where == "across" for _, where in clips["track"])


@few
def test_a_track_with_an_unreadable_clip_is_listed_and_units_are_checked(tmp_path: Path) -> None:
    root = annotate(tmp_path / "mtat", TRACK_ROWS)
    for i, (_, path, _) in enumerate(TRACK_ROWS):
        tone(root / path, 300.0 + 10 * i, rate=22_050 if i == 2 else 16_000)
    (root / TRACK_ROWS[3][1]).write_bytes(b"no audio")
    (root / TRACK_ROWS[4][1]).unlink()
    with pytest.warns(UserWarning, match="3 files were left out"):
        summary = shard(root, tmp_path / "out", unit="track", shard_records=1, progress=False)
    reasons = {item.path: item.reason for item in summary.quarantined}
    assert "16000" in reasons["0/bach-album-01-prelude.flac"] and "22050 Hz" in reasons["0/bach-album-01-prelude.flac"]
    assert "a clip of it cannot be decoded" in reasons["0/bach-album-02-prelude.flac"]
    assert "zoe-cd-01-rain-0-29.mp3" in reasons["b/zoe-cd-01-rain.flac"]
    assert "train" not in card(tmp_path / "out")["splits"]
    with pytest.raises(ValueError, match="the unit of MTAT must be one of clip, track, got 'song'"):
        shard_source(root, unit="song")
    with pytest.raises(ValueError, match="a unit is chosen for mtat only"):
        shard_source(root, dataset="folder", unit="track")


def test_joined_clips_keep_their_channels_and_are_clipped(tmp_path: Path) -> None:
    """Lossy clips may decode to more than full scale."""
    rng = np.random.default_rng(0)
    clips = [1.4 * rng.uniform(-1, 1, (400 + 100 * i, 2)).astype(np.float32) for i in range(2)]
    for i, clip in enumerate(clips):
        soundfile.write(tmp_path / f"{i}.wav", clip, 16_000, subtype="FLOAT")
    files = [str(tmp_path / f"{i}.wav") for i in range(2)]
    samples, rate = fastaug.load(join_clips(files))
    assert rate == 16_000 and samples.shape == (2, 900)
    expected = np.concatenate(clips).T.clip(-1, 32767 / 32768)
    np.testing.assert_allclose(samples.numpy(), expected, atol=0.5001 / 32768)
    soundfile.write(tmp_path / "mono.wav", clips[0][:, 0], 16_000)
    with pytest.raises(OSError, match=r"mono.wav has 1 channels at 16000 Hz, .*0.wav 2 at 16000"):
        join_clips([files[0], str(tmp_path / "mono.wav")])


def test_labels_without_an_official_order_are_joined_in_that_of_the_alphabet(tmp_path: Path) -> None:
    plant(tmp_path, "a.wav", "b.wav")
    names = (["loud", "fast"], ["slow", "fast"])
    entries = [
        Entry(path, tmp_path / path, {"track": "t", "artist": "x", "tags": tags}, "train")
        for path, tags in zip(("a.wav", "b.wav"), names, strict=True)
    ]
    found = AudioCollection("x", entries, {"tags": None}, "whole", "track", "none")
    assert [entry.fields["tags"] for entry in join_tracks(found).entries] == [["fast", "loud", "slow"]]


@few
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "mtat")
    assert find_mtat(root) is not None and find_mtat(root / "f") is None
    with pytest.warns(UserWarning, match="left out"):
        assert main(["shard", str(root), str(tmp_path / "out"), "--protocol", "clean"]) == 0
    assert "clean folder split 0-b/c/d-f" in capsys.readouterr().out
    assert main(["shard", str(root), str(tmp_path / "no"), "--subset", "small"]) == 1
    assert "a subset is chosen for fma only" in capsys.readouterr().err
    assert shard_source(root, dataset="folder").labels == {"label": None}
    with pytest.raises(ValueError, match="protocol of MTAT must be one of full, clean, artist-disjoint, got 'pons'"):
        shard_source(root, protocol="pons")
    (tmp_path / "m.csv").write_text("path\nf/a.mp3\n")
    with pytest.raises(ValueError, match="a protocol is chosen for mtat only"):
        shard_source(root, manifest=tmp_path / "m.csv", protocol="clean")
