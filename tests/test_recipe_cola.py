"""The COLA recipe: learning, resuming bit for bit, each loss, presets, several processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import test_recipes
from fastaug import LogMel
from fastaug.ssl.checkpoint import load_encoder, read_card
from fastaug.ssl.config import load_preset
from fastaug.ssl.data import Dataset, discover
from fastaug.ssl.encoders import BandCNN, EfficientNetB0
from fastaug.ssl.frontend import logmel_settings
from fastaug.ssl.training.distributed import World
from test_recipes import CROP, RATE, RECIPES, StopAfter, command, environment, log, recipe, weights

# Fixtures.
music, one_thread, code = test_recipes.music, test_recipes.one_thread, test_recipes.code


@pytest.fixture(scope="module")
def cola() -> ModuleType:
    return recipe("cola")


def config(cola: ModuleType, music: Path, code: str, out: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "data": str(music), "out": str(out), "sample_rate": RATE, "crop_samples": CROP, "encoder": f"{code}:banded",
        "frontend": f"{code}:small_logmel", "batch_size": 8, "steps": 4, "log_every": 2, "device": "cpu",
        "tensorboard": False, "knn_crops": 8, "projection_dim": 8,
    }  # fmt: skip
    return cola.Config(**{**settings, **changes})


def test_ten_and_ten_steps_equal_twenty(cola: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    changes = {"steps": 20, "dropout": 0.3, "lr_decay": 0.5, "lr_decay_steps": 7, "augment": "fma_views"}
    cola.main(config(cola, music, code, tmp_path / "whole", **changes))
    cola.main(config(cola, music, code, tmp_path / "halves", **changes), stop=StopAfter(10))
    assert log(tmp_path / "halves")[-1]["step"] == 10
    cola.main(config(cola, music, code, tmp_path / "halves", **changes))
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert whole.keys() == halves.keys() and all(torch.equal(whole[k], halves[k]) for k in whole)
    assert [line["loss"] for line in log(tmp_path / "whole")] == [line["loss"] for line in log(tmp_path / "halves")]


@pytest.mark.parametrize("loss", ["bilinear", "cosine", "triplet"])
def test_the_loss_falls_and_more_anchors_find_their_crop(
    cola: ModuleType, music: Path, code: str, tmp_path: Path, loss: str
) -> None:
    out = cola.main(config(cola, music, code, tmp_path, steps=100, lr=1e-3, log_every=5, loss=loss, projection_dim=64))
    lines = log(out)
    assert np.mean([line["loss"] for line in lines[-3:]]) < np.mean([line["loss"] for line in lines[:3]])
    assert np.mean([line["found"] for line in lines[-4:]]) > 0.25  # one in eight by chance
    assert ("similarity.weight" in weights(out)) == (loss == "bilinear")
    encoder, card = load_encoder(out)
    assert card["logmel"] == {"n_fft": 256, "hop_length": 128, "n_mels": 16, "normalise": [-5.0, 3.0]}
    frontend = LogMel(**card["logmel"])
    assert frontend.normalise == (-5.0, 3.0)  # as a tuple again
    assert encoder(frontend(torch.zeros(2, 1, CROP), RATE)).shape == (2, card["out_dim"])


def test_the_rate_falls_in_steps(cola: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    cfg = config(cola, music, code, tmp_path, steps=8, lr=0.008, lr_decay=0.5, lr_decay_steps=3)
    cola.main(cfg)
    groups = torch.load(tmp_path / "last.pt", weights_only=True)["optimiser"]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([0.002] * len(groups))  # steps 0-2, 3-5, 6-7


def test_the_second_crop_alone_gets_noise(cola: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    def first(**changes: Any) -> Any:
        cfg = config(cola, music, code, tmp_path, **changes)
        return next(iter(cola.training_pipeline(cfg, discover(cfg.data), World(0, 1, torch.device("cpu")), 8)))

    noisy, plain = first(), first(augment="none")
    assert torch.equal(noisy.audio[0], plain.audio[0])
    noise = noisy.audio[1] - plain.audio[1]
    snr = 20 * torch.log10(plain.audio[1].norm() / noise.norm())
    assert snr.item() == pytest.approx(18.0, abs=0.2)
    masked = first(augment="fma_views")
    assert torch.equal(masked.audio, plain.audio) and not torch.equal(masked.spectrograms, plain.spectrograms)


PRESETS = {  # rate, shape of an input, settings
    "cola-demo": (8_000, (1, 32, 65), {"lr": 3e-4, "batch_size": 32, "encoder": "BandCNN"}),
    "cola-cpu-small": (8_000, (1, 32, 65), {"lr": 3e-4, "batch_size": 32, "encoder": "BandCNN"}),
    "cola-official": (16_000, (1, 64, 98), {"lr": 1e-3, "batch_size": 64, "pool": "max", "temperature": 0.2}),
    "cola-fma": (16_000, (1, 64, 100), {"lr": 1e-4, "batch_size": 128, "dropout": 0.1, "lr_decay": 0.99}),
}


@pytest.mark.parametrize("name", sorted(p.stem for p in (RECIPES / "configs").glob("cola-*.json")))
def test_presets_are_the_documented_ones(cola: ModuleType, name: str) -> None:
    cfg = load_preset(cola.Config, name, RECIPES / "configs")
    rate, shape, settings = PRESETS[name]
    assert cfg.sample_rate == rate and settings.items() <= vars(cfg).items()
    frontend = cola.inputs(cfg)["frontend"]
    assert frontend(torch.zeros(1, 1, cfg.crop_samples), rate).shape[1:] == shape
    model, card = cola.build_model(cfg, Dataset("", (), None, "", ""))
    if cfg.encoder == "BandCNN":
        assert isinstance(model.encoder, BandCNN) and card["out_dim"] == model.encoder.out_dim == 128
    else:
        assert isinstance(model.encoder, EfficientNetB0) and model.encoder.pool == cfg.pool and card["out_dim"] == 1280
    assert logmel_settings(LogMel(**card["logmel"])) == card["logmel"]
    document = (RECIPES.parent / "docs" / "recipes.md").read_text()
    row = next(line for line in document.splitlines() if line.startswith(f"| `{name}`"))
    assert all(f"{value:,}" in row for value in (rate, cfg.crop_samples, cfg.batch_size, cfg.steps))


def test_torchrun_trains_on_two_processes(music: Path, code: str, tmp_path: Path) -> None:
    flags = {
        "--data": str(music), "--out": str(tmp_path), "--sample-rate": "8000", "--crop-samples": "4096",
        "--frontend": f"{code}:small_logmel", "--encoder": f"{code}:banded", "--batch-size": "8", "--log-every": "2",
        "--device": "cpu", "--steps": "2", "--projection-dim": "8", "--mask-group": "label", "--accumulate": "2",
    }  # fmt: skip
    typed = [str(RECIPES / "cola.py"), *(word for pair in flags.items() for word in pair), "--no-tensorboard"]
    typed += ["--recompute"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(command(*launch, *typed), capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line["step"] for line in log(tmp_path)] == [2] and read_card(tmp_path)[1]["step"] == 2
