"""What a user can get wrong, in every recipe: one line that names the file or flag, and no traceback."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import test_recipes
from fastaug.ssl.checkpoint import save_model
from fastaug.ssl.config import parse
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.training.run import guarded
from test_recipes import CROP, RATE, recipe

# Fixtures.
music, one_thread, code = test_recipes.music, test_recipes.one_thread, test_recipes.code

TRAINING = ("clmr", "simclr_spec", "fusion", "cola")
OWN = {
    "clmr": ["--encoder", "CODE:heard", "--transform", "CODE:gain"],
    "simclr_spec": ["--encoder", "CODE:seen", "--n-fft", "256", "--hop-length", "128", "--n-mels", "16"],
    "fusion": ["--audio-encoder", "CODE:heard", "--spectrogram-encoder", "CODE:seen", "--transform", "CODE:gain",
               "--n-fft", "256", "--hop-length", "128", "--n-mels", "16", "--probe-seeds", "0", "--probe-steps", "2"],
    "cola": ["--encoder", "CODE:seen", "--frontend", "CODE:small_logmel", "--projection-dim", "8"],
}  # fmt: skip
CARD: dict[str, Any] = {
    "encoder": "SampleCNN", "encoder_kwargs": {"strides": [2] * 9, "width": 0.0625}, "sample_rate": RATE,
    "crop_samples": 2048, "logmel": None, "out_dim": 32,
}  # fmt: skip


@pytest.fixture
def run_recipe(
    music: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a recipe as `python recipes/NAME.py FLAGS` would; returns the line it ends with, "" where it succeeds."""
    monkeypatch.chdir(tmp_path)

    def go(name: str, *flags: str) -> str:
        module = recipe(name)
        settings = ["--data", str(music), "--device", "cpu"]
        if name != "probe":
            settings += ["--out", "run", "--sample-rate", str(RATE), "--crop-samples", str(CROP), "--batch-size", "8"]
            settings += [*(word.replace("CODE", code) for word in OWN[name]), "--steps", "2", "--no-tensorboard"]
            settings += ["--log-every", "1", "--knn-crops", "0"]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *settings, *flags])
        arguments = [module.Config, *([module.CONFIGS] if name != "probe" else [])]
        capsys.readouterr()
        try:
            guarded(lambda: (module.run if name == "fusion" else module.main)(parse(*arguments)))
        except SystemExit as ended:
            if ended.code == 2:  # tyro: a flag of the wrong kind
                return capsys.readouterr().err
            line = str(ended.code)
            assert line.startswith(f"{name}: ") and len(line) > len(name) + 10, line
            return line
        return ""

    return go


def spoilt(folder: Path, music: Path) -> None:
    """Everything that the flags below name."""
    (folder / "empty").mkdir()
    (folder / "badset").mkdir()
    (folder / "badset" / "dataset.json").write_text('{"format": "fastaug')
    (folder / "otherset").mkdir()
    (folder / "otherset" / "dataset.json").write_text('{"name": "no dataset of ours"}')
    (folder / "noise").mkdir()
    (folder / "noise" / "a.wav").write_text("no audio")
    for split, values in (("test", 3), ("valid", 2)):
        (folder / "tested" / split / "a").mkdir(parents=True)
        for i in range(values):
            sound = 0.1 * np.random.default_rng(i).normal(size=3 * CROP)
            soundfile.write(folder / "tested" / split / "a" / f"{i}.wav", sound, RATE)
    (folder / "broken.json").write_text('{"steps": 3')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "key.json").write_text('{"step": 3}')
    (folder / "type.json").write_text('{"steps": "many"}')
    (folder / "choice.json").write_text('{"precision": "float8"}')
    (folder / "torn.py").write_text("def heard(:\n")


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data nowhere", "nowhere"),
        ("--data empty", "empty"),
        ("--data badset", "dataset.json"),
        ("--data otherset", "dataset.json"),
        ("--data noise", "noise/a.wav: decode failed"),
        ("--data tested", "train"),
        ("--preset nosuch", "--preset nosuch: no file"),
        ("--preset broken.json", "broken.json: not JSON"),
        ("--preset list.json", "list.json: expected an object"),
        ("--preset key.json", "key.json: unknown key 'step'"),
        ("--preset type.json", "type.json: steps must be int, got 'many'"),
        ("--preset choice.json", "choice.json: precision must be one of auto, float32"),
        ("--epochs 3", "--epochs"),
        ("--steps many", "--steps"),
        ("--precision float8", "--precision"),
        ("--device gpu", "--device gpu"),
        ("--batch-size 0", "--batch-size must be above 0, got 0"),
        ("--steps 0", "--steps"),
        ("--accumulate 0", "accumulate"),
        ("--accumulate 9", "accumulate"),
        ("--log-every 0", "--log-every"),
        ("--lr -1", "learning rate"),
        ("--crop-samples 0", "--crop-samples"),
        ("--sample-rate 0", "--sample-rate"),
        ("--projection-dim 0", "--projection-dim"),
        ("--mask-group artist", "no field 'artist'"),
        ("--label genre", "no label 'genre'; there is label"),
        ("--resume --fresh", "exclude each other"),
        ("--resume", "--resume: no run"),
        ("--recompute --compile", "exclude each other"),
        ("--out broken.json", "broken.json"),
        ("{encoder} NoSuchNet", "no callable 'NoSuchNet'"),
        ("{encoder} nosuchmodule:heard", "nosuchmodule"),
        ("{encoder} nosuch.py:heard", "nosuch.py: no such Python file"),
        ("{encoder} torn.py:heard", "torn.py"),
    ],
)  # fmt: skip
def test_pre_training(
    name: str, flags: str, message: str, run_recipe: Callable[..., str], tmp_path: Path, music: Path
) -> None:
    spoilt(tmp_path, music)
    encoder = "--audio-encoder" if name == "fusion" else "--encoder"
    line = run_recipe(name, *flags.format(encoder=encoder).split())
    assert message in line and not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("name", TRAINING)
def test_the_folder_of_a_run(
    name: str, run_recipe: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another configuration, damaged states, a full disk; what was there stays."""
    assert run_recipe(name) == ""
    state = (tmp_path / "run" / "last.pt").read_bytes()
    line = run_recipe(name, "--lr", "0.5")
    assert "run/last.pt belongs to another experiment (lr: " in line and "--fresh" in line
    for content in (state[: len(state) // 2], b"", b"no state"):
        (tmp_path / "run" / "last.pt").write_bytes(content)
        assert "run/last.pt: cannot be read" in run_recipe(name, "--steps", "3")
    (tmp_path / "run" / "last.pt").write_bytes(state)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        line = run_recipe(name, "--steps", "3")
    assert "cannot be written" in line and "No space left on device" in line and "intact" in line
    assert (tmp_path / "run" / "last.pt").read_bytes() == state and not list(tmp_path.rglob("*.partial"))


def test_a_full_disk_while_logging_names_the_log(
    run_recipe: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")
    line = run_recipe("clmr")
    assert "run/metrics.jsonl cannot be written: " in line and "No space left on device" in line


def test_a_full_disk_under_tensorboard_is_named(
    run_recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    board = pytest.importorskip("torch.utils.tensorboard")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(board.SummaryWriter, "add_scalar", full)
    line = run_recipe("clmr", "--tensorboard")
    assert "run/tensorboard cannot be written: " in line and "No space left" in line and "--no-tensorboard" in line


def checkpoint(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    model = Contrastive(SampleCNN(strides=(2,) * 9, width=0.0625), Projector(32, 8))
    return save_model(folder, model, {k: v for k, v in {**CARD, **changes}.items() if v != "absent"})


def checkpoints(folder: Path) -> None:
    whole = checkpoint(folder / "good").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "short.safetensors").write_bytes(whole[:5])
    (folder / "text.safetensors").write_text("no checkpoint")
    card = whole.replace(b"fastaug-encoder-1", b"fastaug-encoder-9")
    (folder / "format.safetensors").write_bytes(card)
    (folder / "card.safetensors").write_bytes(whole.replace(b'{\\"format\\"', b'{?"format\\"'))
    for key in ("encoder", "encoder_kwargs", "sample_rate", "crop_samples", "out_dim"):
        checkpoint(folder / f"no-{key}", **{key: "absent"})
    checkpoint(folder / "unknown", encoder="NoSuchNet")
    checkpoint(folder / "arguments", encoder_kwargs={"strides": [2] * 9, "widht": 0.0625})
    checkpoint(folder / "shape", encoder_kwargs={"strides": [2] * 9, "width": 0.125})
    checkpoint(folder / "rate", sample_rate=16_000)
    (folder / "emptyfolder").mkdir()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--checkpoint nowhere", "no checkpoint at nowhere"),
        ("--checkpoint emptyfolder", "no checkpoint at emptyfolder/model.safetensors"),
        ("--checkpoint cut.safetensors", "cut.safetensors: not a readable safetensors file"),
        ("--checkpoint short.safetensors", "short.safetensors: not a readable safetensors file"),
        ("--checkpoint text.safetensors", "text.safetensors: not a readable safetensors file"),
        ("--checkpoint card.safetensors", "card.safetensors"),
        ("--checkpoint format.safetensors", "its card has format 'fastaug-encoder-9', expected 'fastaug-encoder-1'"),
        ("--checkpoint no-encoder", "its card has no 'encoder'"),
        ("--checkpoint no-encoder_kwargs", "its card has no 'encoder_kwargs'"),
        ("--checkpoint no-sample_rate", "its card has no 'sample_rate'"),
        ("--checkpoint no-crop_samples", "its card has no 'crop_samples'"),
        ("--checkpoint no-out_dim --representation z", "its card has no 'out_dim'"),
        ("--checkpoint unknown", "no callable 'NoSuchNet'"),
        ("--checkpoint arguments", "widht"),
        ("--checkpoint shape", "its weights do not fit its card's SampleCNN"),
        ("--checkpoint good rate", "must agree in sample_rate, got 16000, 8000"),
        ("--checkpoint good --data nowhere", "nowhere"),
        ("--checkpoint good --data badset", "badset/dataset.json"),
        ("--checkpoint good --data empty", "empty"),
        ("--checkpoint good --data tested", "needs labels"),
        ("--checkpoint good --label genre", "no label 'genre'; there is label"),
        ("--checkpoint good --protocol thesus", "--protocol"),
        ("--checkpoint good --mode svm", "--mode"),
        ("--checkpoint good --labels 2", "a share of labels must lie in (0, 1]"),
        ("--checkpoint good --shots 0", "shots must be at least 1"),
        ("--checkpoint good --seeds", "--seeds"),
        ("--checkpoint good --mode knn --neighbours 0", "neighbours"),
        ("--checkpoint good --batch-size 0", "--batch-size"),
        ("--checkpoint good --cache broken.json", "broken.json"),
        ("--checkpoint good --seeds 0 --record empty", "empty"),
        ("--checkpoint good --mode scratch --transform nosuch", "no callable 'nosuch'"),
        ("--mode finetune", "finetune needs a checkpoint"),
        ("--representation z", "needs a checkpoint"),
        ("--device gpu --checkpoint good", "--device gpu"),
    ],
)  # fmt: skip
def test_probing(flags: str, message: str, run_recipe: Callable[..., str], tmp_path: Path, music: Path) -> None:
    spoilt(tmp_path, music)
    checkpoints(tmp_path)
    assert message in run_recipe("probe", *flags.split())


def test_a_probe_on_a_full_disk(
    run_recipe: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path / "good")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for mode in ("linear", "finetune"):
        line = run_recipe("probe", "--checkpoint", "good", "--mode", mode, "--seeds", "0", "--cache", "none")
        assert "cannot be written: " in line and "No space left on device" in line
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("probe-*.json"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--audio-checkpoint good", "give both checkpoints"),
        ("--audio-checkpoint cut.safetensors --spectrogram-checkpoint good", "cut.safetensors: not a readable"),
        ("--audio-checkpoint good --spectrogram-checkpoint good", "encoder of waveforms"),
        ("--audio-checkpoint no-crop_samples --spectrogram-checkpoint good", "its card has no 'crop_samples'"),
        ("--probe-data nowhere --audio-checkpoint unknown --spectrogram-checkpoint good", "no callable 'NoSuchNet'"),
        ("--pretrain-data nowhere", "nowhere"),
        ("--probe-data nowhere", "nowhere"),
        ("--transform nosuch", "no callable 'nosuch'"),
        ("--fusion late", "--fusion"),
        ("--head deep", "--head"),
        ("--record results.csv", "--record needs --tables"),
    ],
)  # fmt: skip
def test_fusing(flags: str, message: str, run_recipe: Callable[..., str], tmp_path: Path, music: Path) -> None:
    spoilt(tmp_path, music)
    checkpoints(tmp_path)
    assert message in run_recipe("fusion", *flags.split())


def test_a_dataset_without_the_split_is_named(run_recipe: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    content = {"format": "fastaug-dataset-1", "splits": {"test": {"records": 3, "shards": []}}}
    (tmp_path / "shards" / "dataset.json").write_text(json.dumps(content))
    assert "no split 'train'" in run_recipe("clmr", "--data", "shards")
