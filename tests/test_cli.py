"""The ``fastaug`` command: each subcommand on tiny data, and what wrong usage gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpus import audio_folder, shards, write_tar
from fastaug import Pipeline
from fastaug.cli import main


def test_synth_then_inspect_then_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synth", str(tmp_path / "music"), "--tracks", "10", "--seconds", "2", "--codec", "flac"]) == 0
    assert "10 records" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "music"), "--decode"]) == 0
    shown = capsys.readouterr().out
    assert "10 records" in shown and "label genre: 10 classes" in shown and "0 problems" in shown
    pipe = Pipeline(tmp_path / "music", split="train", labels="genre", sample_rate=8_000, crop_seconds=1, device="cpu")
    described = json.loads((tmp_path / "music" / "dataset.json").read_text())["splits"]["train"]["records"]
    assert sum(len(batch) for batch in pipe) == described
    assert main(["synth", str(tmp_path / "music"), "--tracks", "10", "--seconds", "2"]) == 1
    assert "overwrite" in capsys.readouterr().err


def test_shard_a_folder_and_read_it_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = audio_folder(tmp_path / "music", count=12)
    (folder / "drone" / "empty.mp3").write_bytes(b"")
    assert main(["shard", str(folder), str(tmp_path / "out"), "--no-split"]) == 0
    shown = capsys.readouterr().out
    assert "12 records" in shown and "empty.mp3" in shown
    pipe = Pipeline(tmp_path / "out", split="train", labels="label", sample_rate=8_000, crop_seconds=0.5, device="cpu")
    paths = {path for batch in pipe for path in batch.fields["path"]}
    assert paths == {p.relative_to(folder).as_posix() for p in folder.rglob("clip*")}


def test_inspect_names_what_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.wav", b"nothing"), ("b.json", b"{}")])
    assert main(["inspect", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "2 problems" in shown and "member a.wav at byte 512" in shown and "0 audio members" in shown


def test_recipes_can_be_listed_and_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "ls"]) == 0
    assert {"clmr", "probe"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert main(["recipe", "cp", "clmr", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "clmr.py").is_file() and (tmp_path / "mine" / "configs" / "demo.json").is_file()
    assert main(["recipe", "run", "nothing"]) == 1
    assert "recipe run takes one of clmr, " in capsys.readouterr().err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "libsndfile" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["sing"], ["synth"], ["synth", "x", "--codec", "real"], ["shard", "only-one"]])
def test_wrong_usage_exits_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2


def test_missing_sources_are_one_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "gone")]) == 1
    assert main(["shard", str(tmp_path / "gone"), str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err
    assert errors.count("gone") >= 2 and "Traceback" not in errors


def test_inspect_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(shards(tmp_path / "s", count=8)), "--split", "train"]) == 0
    assert "8 records in 1 parts" in capsys.readouterr().out
