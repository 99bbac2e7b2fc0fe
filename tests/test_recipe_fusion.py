"""The fusion recipe: every kind learns and resumes bit for bit, the tables, and a set that takes both formats."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import test_recipes
from fastaug import LogMel, Pipeline
from fastaug.ssl.checkpoint import load_encoder, read_card
from fastaug.ssl.config import load_preset, parse
from fastaug.ssl.data import Dataset, discover, endless
from fastaug.ssl.fusion.encoders import BranchCNN
from fastaug.ssl.fusion.model import contrast, model_inputs, two_views
from fastaug.ssl.spectrogram_encoders import ResNet18
from fastaug.ssl.training.distributed import World
from test_recipes import CROP, RATE, RECIPES, StopAfter, command, environment, log, recipe, weights

# Fixtures.
music, one_thread, code = test_recipes.music, test_recipes.one_thread, test_recipes.code
KINDS = ("separate", "joint", "early", "model")


@pytest.fixture(scope="module")
def fusion() -> ModuleType:
    return recipe("fusion")


def config(module: ModuleType, music: Path, code: str, out: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "data": str(music), "out": str(out), "sample_rate": RATE, "crop_samples": CROP,
        "audio_encoder": f"{code}:heard",
        "spectrogram_encoder": f"{code}:averaged", "n_fft": 256, "hop_length": 128, "n_mels": 16, "width": 0.0625,
        "transform": f"{code}:gain", "batch_size": 8, "steps": 4, "log_every": 2, "device": "cpu", "tensorboard": False,
        "knn_crops": 8, "projection_dim": 8, "probe_steps": 20, "probe_seeds": (0,),
    }  # fmt: skip
    return module.Config(**{**settings, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_ten_and_ten_steps_equal_twenty(fusion: ModuleType, music: Path, code: str, tmp_path: Path, kind: str) -> None:
    changes: dict[str, Any] = {"fusion": kind, "steps": 20}
    changes |= {"transform": "branch_waveform"} if kind == "separate" else {}
    changes |= {"accumulate": 3} if kind == "joint" else {}
    fusion.main(config(fusion, music, code, tmp_path / "whole", **changes))
    halves = config(fusion, music, code, tmp_path / "halves", **changes)
    fusion.main(halves, stop=StopAfter(10))
    assert log(tmp_path / "halves")[-1]["step"] == 10
    fusion.main(halves)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
    losses = [[(x["step"], x["loss"]) for x in log(tmp_path / name)] for name in ("whole", "halves")]
    assert losses[0] == losses[1] and len(losses[0]) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_within_twenty_steps_on_one_batch(
    fusion: ModuleType, music: Path, code: str, tmp_path: Path, kind: str
) -> None:
    torch.manual_seed(0)
    cfg = config(fusion, music, code, tmp_path, fusion=kind)
    data = discover(str(music))
    model, _ = fusion.build_model(cfg, data)
    pipe = fusion.training_pipeline(cfg, data, World(0, 1, torch.device("cpu")), 8)
    samples, spectra = model_inputs(kind, next(iter(pipe)))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(20):
        loss = torch.stack(list(contrast(model(samples, spectra), kind == "joint", 0.2).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def held_out_rank(model: Any, cfg: Any, batches: list[Any]) -> float:
    """How often a held-out positive is more similar than a negative, 0.5 by chance."""
    won = []
    model.eval()
    with torch.no_grad():
        for batch in batches:
            z_i, z_j = two_views(model(*model_inputs(cfg.fusion, batch)))
            similarity = torch.nn.functional.normalize(z_i, dim=1) @ torch.nn.functional.normalize(z_j, dim=1).T
            wins = (similarity.diag()[:, None] > similarity).float()
            won.append(wins[~torch.eye(len(wins), dtype=torch.bool)])
    return float(torch.cat(won).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_positives_rank_above_negatives(fusion: ModuleType, code: str, tmp_path: Path, kind: str) -> None:
    tones = tmp_path / "tones"
    rng = np.random.default_rng(1)
    for split, count in (("train", 24), ("test", 16)):
        (tones / split).mkdir(parents=True)
        for i in range(count):
            t = np.arange(3 * CROP) / RATE
            tone = 0.07 * np.sin(2 * np.pi * 200 * 1.15 ** rng.uniform(0, 16) * t)
            soundfile.write(tones / split / f"{i}.wav", tone + 0.2 * rng.normal(size=len(t)), RATE)
    cfg = config(fusion, tones, code, tmp_path / "run", fusion=kind, steps=40, lr=3e-3, batch_size=12, temperature=0.2)
    data = discover(str(tones))
    torch.manual_seed(0)
    model, _ = fusion.build_model(cfg, data)
    views = 4 if kind == "separate" else 2
    pipe = Pipeline(
        str(tones), split="test", crop="random", views=views, batch_size=16, sample_rate=RATE, crop_samples=CROP,
        frontend=LogMel(**fusion.logmel_kwargs(cfg)), device="cpu", seed=5,
    )  # fmt: skip
    batches = list(islice(endless(pipe), 4))
    before = held_out_rank(model, cfg, batches)
    fusion.main(cfg)
    model.load_state_dict(weights(tmp_path / "run"))
    after = held_out_rank(model, cfg, batches)
    assert after > before + 0.05


def test_the_checkpoint_is_probed_by_row_and_by_the_general_probe(
    fusion: ModuleType, music: Path, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = config(fusion, music, code, tmp_path / "run", fusion="decision", probe_steps=60)
    out = fusion.main(cfg)
    rows = fusion.probe(cfg, out)
    assert list(rows) == ["audio", "spectrogram", "audio + spectrogram", "random init", "decision level"]
    assert rows["audio + spectrogram"]["accuracy"][0] >= 0.75 and rows["decision level"]["accuracy"][0] >= 0.75
    assert 0 <= rows["decision level"]["weight"][0] <= 1
    assert all({"valid_map", "accuracy", "segment_accuracy"} <= set(metrics) for metrics in rows.values())
    assert json.loads((out / "fusion.json").read_text())["rows"] == rows
    printed = capsys.readouterr().out
    assert "decision level" in printed and "audio + spectrogram" not in printed.split("fusion decision, ")[-1]
    encoder, card = load_encoder(out)
    assert card["out_dim"] == 64 and encoder(torch.zeros(2, 1, CROP)).shape == (2, 64) and card["logmel"] is None
    probe = recipe("probe")
    table = probe.main(probe.Config(checkpoint=(str(out),), data=str(music), seeds=(0,), device="cpu"))
    assert table.row("pre-trained").mean("accuracy") >= 0.5
    z = probe.Config(checkpoint=(str(out),), data=str(music), seeds=(0,), device="cpu", representation="z")
    assert probe.main(z).row("pre-trained").mean("accuracy") >= 0.5 and "on z" in capsys.readouterr().out


def views(fusion: ModuleType, cfg: Any) -> tuple[list[bool], list[bool]]:
    """Which views have augmented samples, and which augmented spectrograms."""
    pipe = fusion.training_pipeline(cfg, discover(cfg.data), World(0, 1, torch.device("cpu")), 8)
    batch = next(iter(pipe))
    shown = batch.spec_params or [None] * len(batch.audio)
    return [p is not None for p in batch.params or [None] * len(batch.audio)], [p is not None for p in shown]


def test_each_kind_augments_what_it_should(fusion: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    found = {
        k: views(fusion, config(fusion, music, code, tmp_path, fusion=k)) for k in (*KINDS, "audio", "spectrogram")
    }
    assert found == {
        "separate": ([True, True, False, False], [False, False, True, True]), "joint": ([True, False], [False, True]),
        "early": ([True, True], [True, True]), "model": ([True, True], [True, True]),
        "audio": ([True, True], [False, False]), "spectrogram": ([False, False], [True, True]),
    }  # fmt: skip
    plain = config(fusion, music, code, tmp_path, transform="none", spec_transform="time_mask", fusion="early")
    assert views(fusion, plain) == ([False, False], [True, True])


def test_one_command_fills_both_tables(fusion: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    cfg = config(fusion, music, code, tmp_path, steps=2, knn_crops=0, probe_steps=5, table_seeds=(0, 1), tables=True)
    text = fusion.tables(cfg)
    lines = text.splitlines()
    missing = [line for line in lines if "not measured" in line]
    assert len(missing) == 1 and missing[0].startswith("audio, MTAT pre-training")
    assert sum(" ± " in line for line in lines) == 13 and (tmp_path / "tables.txt").read_text() == text + "\n"
    cards = {p.parent.name: read_card(p.parent)[1]["config"] for p in tmp_path.glob("*/model.safetensors")}
    assert {name.split("-")[0] for name in cards} == {"all", "crop", "noise", "joint", "early", "model"}
    seeds = [json.loads((tmp_path / f"all-{seed}/fusion.json").read_text())["seeds"] for seed in (0, 1)]
    assert seeds == [[0], [1]]  # untrained encoders and heads of their own, else a spread over the runs means nothing
    assert len(cards) == 12 and cards["joint-1"]["fusion"] == "joint" and cards["joint-1"]["seed"] == 1
    crop, noise = cards["crop-0"], cards["noise-0"]
    assert (crop["transform"], crop["spec_transform"], crop["fusion"]) == ("none", "time_mask", "separate")
    assert (noise["transform"], noise["fusion"]) == ("white_noise", "audio")
    steps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/metrics.jsonl")}
    assert fusion.tables(dataclasses.replace(cfg, table_seeds=(0,))).count("±") == 1
    assert all(len(p.read_text().splitlines()) == 1 for p in steps)  # nothing was trained again


def both_needed(root: Path, rule: str) -> Path:
    """Clips whose label takes both formats.

    Pulses point up or down, which no magnitude spectrogram shows; their loudness swings 3 or 9 times a second, which
    no encoder can see whose output is an average over windows of 8 ms: a crop of one second holds whole periods of
    both. rule "pair": all four combinations are classes; "xor": the label is whether both are the same.
    """
    rng = np.random.default_rng(7)
    for split, count in (("train", 24), ("valid", 12), ("test", 24)):
        for up in (0, 1):
            for fast in (0, 1):
                folder = root / split / (f"{up}{fast}" if rule == "pair" else ("same", "differ")[up ^ fast])
                folder.mkdir(parents=True, exist_ok=True)
                for i in range(count):
                    t = np.arange(2 * RATE) / RATE
                    train = np.zeros(len(t))
                    train[np.cumsum(rng.integers(80, 160, 200))[:100]] = 1.0
                    pulses = np.convolve(train, np.exp(-np.arange(40) / 6.0))[: len(t)]
                    swing = 1 + 0.9 * np.sin(2 * np.pi * ((3, 9)[fast] * t + rng.uniform()))
                    x = (1 if up else -1) * 0.4 * pulses * swing * rng.uniform(0.8, 1.2)
                    soundfile.write(folder / f"{up}{fast}{i}.wav", x + 0.01 * rng.normal(size=len(t)), RATE)
    return root


def test_where_the_label_takes_both_formats_fusion_beats_each(
    fusion: ModuleType, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {
        "crop_samples": RATE, "transform": "none", "spec_transform": "none", "n_mels": 8, "steps": 40, "lr": 3e-3,
        "batch_size": 16, "knn_crops": 0, "temperature": 0.2,
    }  # fmt: skip
    cfg = config(fusion, both_needed(tmp_path / "pair", "pair"), code, tmp_path / "run", probe_steps=200, **settings)
    out = fusion.main(cfg)
    pair = {name: metrics["accuracy"][0] for name, metrics in fusion.probe(cfg, out).items()}
    cfg = dataclasses.replace(cfg, probe_data=str(both_needed(tmp_path / "xor", "xor")), head="mlp")
    xor = {name: metrics["accuracy"][0] for name, metrics in fusion.probe(cfg, out).items()}
    with capsys.disabled():
        print(f"\npair: {pair}\nxor: {xor}", end="")
    single = max(pair["audio"], pair["spectrogram"])
    assert single <= 0.65  # one half is chance for what a format cannot know
    assert pair["audio + spectrogram"] >= single + 0.25 and pair["decision level"] >= single + 0.25
    assert max(xor["audio"], xor["spectrogram"], xor["decision level"]) <= 0.65  # averages do not make an exclusive or
    assert xor["audio + spectrogram"] >= 0.85


@pytest.mark.parametrize("kind", ["joint", "separate", "model"])
def test_torchrun_trains_on_two_processes(music: Path, code: str, tmp_path: Path, kind: str) -> None:
    flags = {
        "--data": str(music), "--out": str(tmp_path), "--sample-rate": "8000", "--crop-samples": "4096",
        "--n-fft": "256", "--hop-length": "128", "--n-mels": "16", "--audio-encoder": f"{code}:heard",
        "--spectrogram-encoder": f"{code}:averaged", "--transform": f"{code}:gain", "--batch-size": "8",
        "--log-every": "2", "--device": "cpu", "--fusion": kind, "--width": "0.0625", "--mask-group": "label",
        "--probe-steps": "5", "--probe-seeds": "0", "--warmup-steps": "0",
    }  # fmt: skip
    typed = [str(RECIPES / "fusion.py"), *(word for pair in flags.items() for word in pair), "--no-tensorboard"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for steps in ("2", "4") if kind == "joint" else ("2",):  # the second resumes
        done = subprocess.run(
            command(*launch, *typed, "--steps", steps), capture_output=True, text=True, env=environment(), timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert [line["step"] for line in log(tmp_path)] == ([2, 4] if kind == "joint" else [2])
    assert ("at step 2" in done.stdout) == (kind == "joint")
    assert done.stdout.count("random init") == 1 and read_card(tmp_path)[1]["step"] == int(steps)


def test_help_and_errors(fusion: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    shown = subprocess.run(
        command(str(RECIPES / "fusion.py"), "--help"), capture_output=True, text=True, env=environment(), timeout=60
    )
    flags = ("--data", "--pretrain-data", "--probe-data", "--fusion", "--head", "--tables", "--device")
    assert shown.returncode == 0 and all(flag in shown.stdout for flag in flags)
    wrong = subprocess.run(
        command(str(RECIPES / "fusion.py"), "--fusion", "late"), capture_output=True, text=True, env=environment()
    )
    assert wrong.returncode == 2 and "late" in wrong.stderr
    with pytest.raises(ValueError, match="both checkpoints"):
        fusion.main(config(fusion, music, code, tmp_path, audio_checkpoint="runs/a"))
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        fusion.main(config(fusion, music, code, tmp_path, audio_checkpoint="a", spectrogram_checkpoint="b"))
    with pytest.raises(ValueError, match="another experiment .fusion: 'separate' there, 'joint' now"):
        fusion.main(config(fusion, music, code, tmp_path / "run", steps=2))
        fusion.main(config(fusion, music, code, tmp_path / "run", steps=2, fusion="joint"))


def test_pre_training_and_probing_on_different_data(fusion: ModuleType, music: Path, code: str, tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    for i in range(6):
        soundfile.write(songs / f"{i}.wav", 0.1 * np.random.default_rng(i).normal(size=9_000), RATE)
    cfg = config(fusion, Path(""), code, tmp_path / "run", pretrain_data=str(songs), probe_data=str(music), data="",
                 label="label")  # fmt: skip
    rows = fusion.probe(cfg, fusion.main(cfg))
    assert read_card(tmp_path / "run")[1]["data"] == "songs" and rows["audio"]["accuracy"][0] >= 0.5
    with pytest.raises(ValueError, match="has none that tell clips apart"):
        fusion.probe(config(fusion, songs, code, tmp_path), tmp_path / "run")


PRESETS: dict[str, tuple[type[Any], int, int]] = {"fusion-seed001": (ResNet18, 1024, 216)}


@pytest.mark.parametrize("name", sorted(p.stem for p in (RECIPES / "configs").glob("fusion-*.json")))
def test_presets_are_the_documented_ones(fusion: ModuleType, name: str) -> None:
    cfg = load_preset(fusion.Config, name, RECIPES / "configs")
    model, card = fusion.build_model(cfg, Dataset("", (), None, "", ""))
    assert isinstance(model.encoder.audio, BranchCNN)
    kind, dim, frames = PRESETS.get(name, (torch.nn.Module, 256, 82))
    assert isinstance(model.encoder.spectrogram, kind)
    assert (card["out_dim"], 1 + cfg.crop_samples // cfg.hop_length) == (dim, frames)
    text = (RECIPES.parent / "docs" / "recipes.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
    assert all(f"{value:,}" in row for value in (cfg.sample_rate, cfg.crop_samples, cfg.steps, cfg.batch_size, frames))


@pytest.mark.filterwarnings("error")
def test_help_shows_a_preset_with_lists(fusion: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(fusion.Config, fusion.CONFIGS, ["--preset", "fusion-cpu-small", "--help"])
    assert left.value.code == 0 and "(default: 0 1 2)" in capsys.readouterr().out


@pytest.mark.parametrize("value", [0, "0", [0, "1"]])
def test_a_list_of_something_else_is_refused(fusion: ModuleType, tmp_path: Path, value: Any) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"table_seeds": value}))
    with pytest.raises(ValueError, match=r"own.json: table_seeds must be a list of int, got"):
        load_preset(fusion.Config, str(tmp_path / "own.json"), fusion.CONFIGS)


def test_the_source_preset_is_what_the_source_states(fusion: ModuleType) -> None:
    cfg = load_preset(fusion.Config, "fusion-seed001", RECIPES / "configs")
    assert cfg.crop_samples == 5 * cfg.sample_rate == 5 * 22_050
    assert (cfg.temperature, cfg.optimiser, cfg.weight_decay) == (0.5, "adam", 1e-6)
    assert (cfg.transform, cfg.spec_transform, cfg.fusion) == ("branch_waveform", "branch_spectrogram", "separate")
    model, _ = fusion.build_model(cfg, Dataset("", (), None, "", ""))
    samples = torch.zeros(1, 1, cfg.crop_samples)
    shapes: list[Tensor] = list(model.encoder.eval().formats(samples).values())
    assert [h.shape[1] for h in shapes] == [512, 512]  # and a linear head on their 1,024
