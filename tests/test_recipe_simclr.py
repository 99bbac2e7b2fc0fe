"""The SimCLR recipe on spectrograms: learning, resuming bit for bit, what each --augment draws, presets, the probe."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastaug.transforms as T
import test_recipes
from fastaug.ssl.checkpoint import load_encoder, read_card
from fastaug.ssl.config import load_preset
from fastaug.ssl.data import Dataset, discover
from fastaug.ssl.encoders import BandCNN, EfficientNetB0, ResNet18, out_dim
from fastaug.ssl.training.distributed import World
from test_recipes import CROP, RATE, RECIPES, StopAfter, command, environment, log, recipe, weights

# Fixtures.
music, one_thread, code = test_recipes.music, test_recipes.one_thread, test_recipes.code


@pytest.fixture(scope="module")
def simclr() -> ModuleType:
    return recipe("simclr_spec")


def config(simclr: ModuleType, music: Path, code: str, out: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "data": str(music), "out": str(out), "sample_rate": RATE, "crop_samples": CROP, "encoder": f"{code}:banded",
        "n_fft": 256, "hop_length": 128, "n_mels": 16, "batch_size": 8, "steps": 4, "log_every": 2, "device": "cpu",
        "tensorboard": False, "knn_crops": 8, "projection_dim": 8,
    }  # fmt: skip
    return simclr.Config(**{**settings, **changes})


@pytest.mark.parametrize("augment", ["both", "none"])
def test_ten_and_ten_steps_equal_twenty(
    simclr: ModuleType, music: Path, code: str, tmp_path: Path, augment: str
) -> None:
    plan = {"optimiser": "lars", "cosine": True, "warmup_steps": 3} if augment == "none" else {}
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    simclr.main(config(simclr, music, code, whole, steps=20, augment=augment, **plan))
    cfg = config(simclr, music, code, halves, steps=20, augment=augment, **plan)
    simclr.main(cfg, stop=StopAfter(10))
    assert log(halves)[-1]["step"] == 10
    simclr.main(cfg)
    assert weights(whole).keys() == weights(halves).keys()
    assert all(torch.equal(value, weights(halves)[name]) for name, value in weights(whole).items())
    assert [line["loss"] for line in log(whole)] == [line["loss"] for line in log(halves)]


def test_the_loss_falls_and_the_card_rebuilds_the_encoder(
    simclr: ModuleType, music: Path, code: str, tmp_path: Path
) -> None:
    out = simclr.main(config(simclr, music, code, tmp_path, steps=60, lr=3e-3, log_every=5))
    losses = [line["loss"] for line in log(out)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    encoder, card = load_encoder(out)
    assert card["logmel"] == {
        "n_fft": 256, "hop_length": 128, "n_mels": 16, "sample_rate": RATE, "normalise": "clip",
    }  # fmt: skip
    assert card["encoder_kwargs"] == {"n_mels": 16} and out_dim(encoder, torch.zeros(2, 1, 16, 33)) == card["out_dim"]
    trained = weights(out)
    assert all(torch.equal(value, trained[f"encoder.{name}"]) for name, value in encoder.state_dict().items())


def test_the_probe_loads_the_checkpoint(simclr: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    probe = recipe("probe")
    out = simclr.main(config(simclr, music, code, tmp_path))
    table = probe.main(probe.Config(checkpoint=(str(out),), data=str(music), seeds=(0,), device="cpu"))
    assert table.row("pre-trained").mean("accuracy") >= 0.5
    assert json.loads((out / "probe-linear.json").read_text()) == table.to_dict()


def drawn(simclr: ModuleType, cfg: Any) -> tuple[Any, Any, Tensor, Tensor]:
    """Waveform and spectrogram params of the first batch, its samples, and its spectrograms."""
    world = World(0, 1, torch.device("cpu"))
    batch = next(iter(simclr.training_pipeline(cfg, discover(cfg.data), world, 8)))
    return batch.params, batch.spec_params, batch.audio, batch.spectrograms


def test_each_augment_draws_what_it_says(simclr: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    found = {
        augment: drawn(simclr, config(simclr, music, code, tmp_path, augment=augment))
        for augment in ("waveform", "spectrogram", "both", "none")
    }
    assert [(found[a][0] is None, found[a][1] is None) for a in found] == [
        (False, True), (True, False), (False, False), (True, True),
    ]  # fmt: skip
    plain, both = found["none"], found["both"]
    assert torch.equal(plain[2], found["spectrogram"][2]) and not torch.equal(plain[2], found["waveform"][2])
    assert torch.equal(found["waveform"][2], both[2]) and not torch.equal(found["waveform"][3], both[3])
    for view in range(2):
        assert [set(both[0][view][str(i)]) - {"active"} for i in range(4)] == [
            {"snr_db", "noise_key"}, {"gain_db"}, {"highpass", "cutoff_hz"}, {"semitones"},
        ]  # fmt: skip
        assert [set(both[1][view][str(i)]) - {"active"} for i in range(3)] == [
            {"freq_words"}, {"time_words"}, {"std_ratio", "noise_key"},
        ]  # fmt: skip
    assert not torch.equal(both[1][0]["1"]["time_words"], both[1][1]["1"]["time_words"])  # a view, a draw


def test_transforms_of_the_users_own(simclr: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    crop = {"augment": "waveform", "normalise": "none"}
    _, _, plain, _ = drawn(simclr, config(simclr, music, code, tmp_path, augment="none"))
    _, _, quiet, _ = drawn(simclr, config(simclr, music, code, tmp_path, transform=f"{code}:halves", **crop))
    torch.testing.assert_close(quiet, plain * 10 ** (-6 / 20))
    named = drawn(simclr, config(simclr, music, code, tmp_path, transform="fastaug:clmr", **crop))
    assert len(named[0][0]) == 8  # seven effects and "active"
    with pytest.raises(ValueError, match="no callable 'nothing'"):
        drawn(simclr, config(simclr, music, code, tmp_path, spec_transform="nothing"))


def test_chains_are_what_their_sources_say(simclr: ModuleType) -> None:
    assert [type(step) for step in simclr.internship_waveform().transforms] == [T.PitchShift, T.Speed]
    noise, gain, filters, pitch = simclr.branch_waveform().transforms
    assert isinstance(noise, T.Noise) and isinstance(filters, T.HighLowPass)
    assert gain.gain_db == (-6.0, 0.0) and pitch.semitones == (-5.0, 5.0)
    freq, time, mixed = simclr.branch_spectrogram().transforms
    assert (freq.width, time.width) == (0.05, 0.1) and isinstance(mixed, T.SpecNoise)


PRESETS = {
    "simclr-cpu-small": ("BandCNN", 256, 8_000, 33),
    "simclr-demo": ("ResNet18", 512, 8_000, 33),
    "simclr-internship": ("EfficientNetB0", 1280, 22_050, 345),
    "simclr-seed001": ("ResNet18", 512, 22_050, 216),
}


@pytest.mark.parametrize("name", sorted(p.stem for p in (RECIPES / "configs").glob("simclr-*.json")))
def test_presets_are_the_documented_ones(simclr: ModuleType, name: str) -> None:
    cfg = load_preset(simclr.Config, name, RECIPES / "configs")
    encoder, dim, rate, frames = PRESETS[name]
    model, card = simclr.build_model(cfg, Dataset("", (), None, "", ""))
    assert (cfg.encoder, card["out_dim"], cfg.sample_rate, 1 + cfg.crop_samples // cfg.hop_length) == (
        encoder, dim, rate, frames,
    )  # fmt: skip
    kinds = {"BandCNN": BandCNN, "ResNet18": ResNet18, "EfficientNetB0": EfficientNetB0}
    assert isinstance(model.encoder, kinds[encoder])
    row = next(
        line for line in (RECIPES.parent / "docs" / "recipes.md").read_text().splitlines() if f"`{name}`" in line
    )
    assert all(f"{value:,}" in row for value in (cfg.sample_rate, cfg.crop_samples, cfg.steps, cfg.batch_size))
    name = {"ResNet18": "ResNet-18", "EfficientNetB0": "EfficientNet-B0"}.get(encoder, encoder)
    assert name in row and cfg.augment in row


def test_weights_from_a_file_are_where_training_starts(
    simclr: ModuleType, music: Path, code: str, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    pretrained = ResNet18(channels=3).state_dict()
    torch.save(pretrained, tmp_path / "imagenet.pt")
    file = str(tmp_path / "imagenet.pt")
    cfg = config(simclr, music, code, tmp_path, encoder="ResNet18", encoder_weights=file)
    model, card = simclr.build_model(cfg, Dataset("", (), None, "", ""))
    assert torch.equal(model.encoder.state_dict()["layer4.1.conv2.weight"], pretrained["layer4.1.conv2.weight"])
    assert torch.equal(model.encoder.state_dict()["conv1.weight"], pretrained["conv1.weight"].sum(1, keepdim=True))
    assert "encoder_weights" not in card["encoder_kwargs"]  # the checkpoint has its own
    with pytest.raises(FileNotFoundError, match="no weights at"):
        simclr.build_model(
            config(simclr, music, code, tmp_path, encoder="ResNet18", encoder_weights="none.pt"),
            Dataset("", (), None, "", ""),
        )


def test_torchrun_trains_on_two_processes(music: Path, code: str, tmp_path: Path) -> None:
    flags = {
        "--data": str(music), "--out": str(tmp_path), "--sample-rate": "8000", "--crop-samples": "4096",
        "--n-fft": "256", "--hop-length": "128", "--n-mels": "16", "--encoder": f"{code}:banded", "--batch-size": "8",
        "--log-every": "2", "--device": "cpu", "--mask-group": "label",
    }  # fmt: skip
    typed = [str(RECIPES / "simclr_spec.py"), *(word for pair in flags.items() for word in pair), "--no-tensorboard"]
    typed += ["--recompute"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for steps in ("2", "4"):  # the second resumes
        done = subprocess.run(
            command(*launch, *typed, "--steps", steps), capture_output=True, text=True, env=environment(), timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert [line["step"] for line in log(tmp_path)] == [2, 4] and "at step 2" in done.stdout
    assert read_card(tmp_path)[1]["step"] == 4
