"""The recipes as a user runs them: own folders, presets, resuming bit for bit, several processes, the probe's table."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import fastaug.ssl
from fastaug import Pipeline, cli
from fastaug.ssl.checkpoint import load_encoder, read_card
from fastaug.ssl.config import load_preset, parse
from fastaug.ssl.convert import convert_clmr
from fastaug.ssl.data import Dataset, endless
from fastaug.ssl.encoders import STRIDES
from fastaug.ssl.training.distributed import World
from fastaug.ssl.training.run import guarded
from test_ssl_weights import published

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
RATE, CROP = 8_000, 4_096


def recipe(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/valid/test folders of two classes: low and high tones in noise."""
    root = tmp_path_factory.mktemp("music")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("valid", 4), ("test", 4)):
        for label, hertz in (("low", 200), ("high", 1500)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                t = np.arange(2 * CROP + 500) / RATE
                tone = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.2) * t) + 0.05 * rng.normal(size=len(t))
                soundfile.write(folder / f"{i}.wav", tone, RATE)
    return root


@pytest.fixture(scope="module")
def code() -> str:
    """A user's own file, with encoders and transforms."""
    return str(Path(__file__).with_name("tiny_parts.py"))


def config(clmr: ModuleType, music: Path, code: str, out: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "data": str(music), "out": str(out), "sample_rate": RATE, "crop_samples": CROP, "encoder": f"{code}:small",
        "transform": f"{code}:gain", "batch_size": 8, "steps": 4, "log_every": 2, "device": "cpu", "tensorboard": False,
        "knn_crops": 8, "projection_dim": 8,
    }  # fmt: skip
    return clmr.Config(**{**settings, **changes})


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(out / "last.pt", weights_only=True)["model"]
    return state


def test_ten_and_ten_steps_equal_twenty(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    clmr.main(config(clmr, music, code, tmp_path / "whole", steps=20))
    for steps in (10, 20):
        clmr.main(config(clmr, music, code, tmp_path / "halves", steps=steps))
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert whole.keys() == halves.keys() and all(torch.equal(whole[k], halves[k]) for k in whole)
    assert [(line["step"], line["loss"]) for line in log(tmp_path / "whole")] == [
        (line["step"], line["loss"]) for line in log(tmp_path / "halves")
    ]


class StopAfter:
    """Leaves the loop after so many steps, as Ctrl-C would."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __enter__(self) -> StopAfter:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def test_lars_on_its_cosine_resumes_bit_for_bit_and_keeps_its_end(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    plan = {"optimiser": "lars", "cosine": True, "warmup_steps": 3, "steps": 12, "weight_decay": 1e-4}
    clmr.main(config(clmr, music, code, tmp_path / "whole", **plan))
    clmr.main(config(clmr, music, code, tmp_path / "halves", **plan), stop=StopAfter(5))
    assert log(tmp_path / "halves")[-1]["step"] < 6
    clmr.main(config(clmr, music, code, tmp_path / "halves", **plan))
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[k], halves[k]) for k in whole)
    with pytest.raises(ValueError, match="another experiment .steps: 12 there, 24 now"):
        clmr.main(config(clmr, music, code, tmp_path / "halves", **(plan | {"steps": 24})))


def test_the_clmr_chain_resumes_bit_for_bit_too(music: Path, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    settings = {"encoder": "SampleCNN", "width": 0.0625, "crop_samples": 20_736, "transform": "clmr", "log_every": 1}
    clmr.main(config(clmr, music, "", tmp_path / "whole", steps=4, **settings))
    for steps in (2, 4):
        clmr.main(config(clmr, music, "", tmp_path / "halves", steps=steps, **settings))
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[k], halves[k]) for k in whole)


def test_learns_and_writes_what_it_promises(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    seen: list[dict[str, Any]] = []
    out = clmr.main(config(clmr, music, code, tmp_path / "run", steps=60, lr=3e-3, log_every=5), seen.append)
    lines = log(out)
    assert lines == seen and [line["step"] for line in lines] == list(range(5, 61, 5))
    assert np.mean([line["loss"] for line in lines[-3:]]) < np.mean([line["loss"] for line in lines[:3]]) - 0.1
    assert {"alignment", "uniformity", "std", "top1"} <= set(lines[0])
    shares = {k: v for k, v in lines[-1].items() if k.startswith("time_")}
    assert set(shares) == {"time_loading", "time_compute", "time_eval"} and 0.8 < sum(shares.values()) <= 1.01
    encoder, card = load_encoder(out)
    assert encoder(torch.zeros(2, 1, CROP)).shape == (2, 16) and card["out_dim"] == 16
    assert card["classes"] == ["high", "low"] and card["step"] == 60 and card["split"] == "train"


def test_another_experiment_in_the_folder_is_refused(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    clmr.main(config(clmr, music, code, tmp_path))
    with pytest.raises(ValueError, match=r"another experiment \(lr: None there, 0.1 now\)"):
        clmr.main(config(clmr, music, code, tmp_path, lr=0.1))
    clmr.main(config(clmr, music, code, tmp_path, lr=0.1, fresh=True, steps=2))
    assert [line["step"] for line in log(tmp_path)] == [2]


def test_settings_that_came_later_count_as_their_defaults(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    clmr.main(config(clmr, music, code, tmp_path, steps=2))
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    del state["config"]["mask_group"], state["config"]["temperature"]  # as an earlier version would have written it
    torch.save(state, tmp_path / "last.pt")
    clmr.main(config(clmr, music, code, tmp_path, steps=4, resume=True))
    state["config"]["forgotten"] = 1
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"another experiment \(forgotten: 1 there, None now\)"):
        clmr.main(config(clmr, music, code, tmp_path, steps=4))
    del state["config"]["forgotten"]
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"another experiment \(temperature: 0.5 there, 0.2 now\)"):
        clmr.main(config(clmr, music, code, tmp_path, steps=4, temperature=0.2))


def test_own_folder_without_labels(tmp_path: Path, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "songs"
    folder.mkdir()
    for i in range(5):
        soundfile.write(folder / f"{i}.flac", 0.1 * np.random.default_rng(i).normal(size=(6000, 2)), 11_025)
    (folder / "broken.wav").write_text("not audio")
    clmr, probe = recipe("clmr"), recipe("probe")
    out = clmr.main(config(clmr, folder, code, tmp_path / "run"))
    assert "label none" in capsys.readouterr().out
    assert not any("knn" in line for line in log(out))
    with pytest.raises(ValueError, match="a probe needs labels.*one folder per class"):
        probe.main(probe.Config(checkpoint=(str(out),), data=str(folder), device="cpu"))


def test_spectrogram_encoder_end_to_end(music: Path, code: str, tmp_path: Path) -> None:
    clmr, probe = recipe("clmr"), recipe("probe")
    settings = {
        "encoder": f"{code}:spectral",
        "frontend": "logmel",
        "n_fft": 256,
        "hop_length": 128,
        "n_mels": 16,
    }
    out = clmr.main(config(clmr, music, code, tmp_path, **settings))
    assert read_card(out)[1]["logmel"] == {"n_fft": 256, "hop_length": 128, "n_mels": 16, "sample_rate": RATE}
    table = probe.main(probe.Config(checkpoint=(str(out),), data=str(music), seeds=(0,), device="cpu"))
    assert table.row("pre-trained").mean("accuracy") >= 0.5


def test_probe_table_of_a_checkpoint(
    music: Path, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clmr, probe = recipe("clmr"), recipe("probe")
    out = clmr.main(config(clmr, music, code, tmp_path))
    table = probe.main(probe.Config(checkpoint=(str(out),), data=str(music), mode="mlp", seeds=(0, 1), device="cpu"))
    assert [row.name for row in table.rows] == ["random init (BN calibrated)", "pre-trained", "log-mel statistics"]
    assert table.clips == {"train": 16, "valid": 8, "test": 8}
    assert table.row("log-mel statistics").mean("accuracy") == 1.0  # low and high tones
    assert all(len(row.values["accuracy"]) == 2 for row in table.rows)
    assert json.loads((out / "probe-mlp.json").read_text()) == table.to_dict()
    assert "pre-trained" in capsys.readouterr().out


def command(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(RECIPES.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def flags(music: Path, code: str, out: Path, *more: str) -> list[str]:
    settings = {
        "--data": str(music), "--out": str(out), "--sample-rate": "8000", "--crop-samples": "4096", "--device": "cpu",
        "--encoder": f"{code}:small", "--transform": f"{code}:gain", "--batch-size": "8", "--log-every": "2",
    }  # fmt: skip
    return [str(RECIPES / "clmr.py"), *(word for pair in settings.items() for word in pair), "--no-tensorboard", *more]


def test_ctrl_c_saves_and_prints_the_line_that_resumes(music: Path, code: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    typed = flags(music, code, out, "--steps", "100000")
    process = subprocess.Popen(
        command(*typed), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    deadline = time.monotonic() + 90
    while not (out / "metrics.jsonl").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    step = read_card(out)[1]["step"]
    assert step > 0 and f"step {step} of 100000" in printed
    assert f"go on:          python {' '.join(typed)}" in printed
    stopped = subprocess.run(
        command(*typed, "--minutes", "0"), capture_output=True, text=True, env=environment(), timeout=90
    )
    assert f"resuming {out} at step {step}" in stopped.stdout and read_card(out)[1]["step"] == step + 1


def test_two_processes_resume_bit_for_bit(music: Path, code: str, tmp_path: Path) -> None:
    """Across the end of an epoch (32 steps), with dropout, batch norm and a file that is replaced: rank 0's state is
    that of all ranks."""
    shutil.copytree(music, tmp_path / "music")
    for i in range(3):
        (tmp_path / "music" / "train" / "low" / f"broken{i}.wav").write_text("no audio")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for out, steps in (("whole", "36"), ("parts", "18"), ("parts", "36")):
        typed = flags(tmp_path / "music", code, tmp_path / out, "--steps", steps)
        typed[typed.index("--encoder") + 1] = f"{code}:forgetful"
        done = subprocess.run(
            command(*launch, *typed, "--steps", steps), capture_output=True, text=True, env=environment(), timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert "at step 18" in done.stdout
    whole, parts = (torch.load(tmp_path / out / "last.pt", weights_only=True) for out in ("whole", "parts"))
    assert whole["pipeline"] == parts["pipeline"] and whole["pipeline"]["epoch"] == 1
    assert whole["model"].keys() == parts["model"].keys()
    assert all(torch.equal(value, parts["model"][name]) for name, value in whole["model"].items())
    losses = [[line["loss"] for line in log(tmp_path / out)] for out in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 18


def test_several_processes_do_not_leave_out_records_of_their_own(music: Path) -> None:
    common = {"sample_rate": RATE, "crop_samples": CROP, "on_error": "skip", "device": "cpu"}
    with pytest.raises(ValueError, match='batches of one size: use on_error="replace"'):
        next(endless(Pipeline(str(music), rank=0, world_size=2, **common)))
    assert next(endless(Pipeline(str(music), **common))).audio.shape[-1] == CROP


@pytest.mark.parametrize("name", ["clmr", "cola", "probe", "simclr_spec"])
def test_help_is_strict_and_complete(name: str) -> None:
    script = str(RECIPES / f"{name}.py")
    shown = subprocess.run(command(script, "--help"), capture_output=True, text=True, env=environment(), timeout=60)
    assert shown.returncode == 0 and "--data" in shown.stdout and "--device" in shown.stdout
    wrong = subprocess.run(
        command(script, "--epochs", "3"), capture_output=True, text=True, env=environment(), timeout=60
    )
    assert wrong.returncode == 2 and "--epochs" in wrong.stderr


@pytest.mark.parametrize(
    "preset", ["demo", "gtzan", *sorted(p.stem for p in (RECIPES / "configs").glob("clmr-*.json"))]
)
def test_every_preset_loads_and_names_what_exists(preset: str) -> None:
    clmr = recipe("clmr")
    cfg = load_preset(clmr.Config, preset, RECIPES / "configs")
    assert cfg.preset == preset
    _, card = clmr.build_model(cfg, Dataset("", (), None, "", ""))
    assert card["out_dim"] == round(512 * cfg.width) and clmr.transform(cfg) is not None


def test_parts_of_a_batch_train_like_the_whole_and_resume(music: Path, code: str, tmp_path: Path) -> None:
    """The encoder without batch norm, whose statistics would be those of a part."""
    clmr = recipe("clmr")
    plan = {"encoder": f"{code}:normless", "steps": 6, "log_every": 1, "optimiser": "sgd"}
    for name, accumulate in (("whole", 1), ("parts", 3)):
        clmr.main(config(clmr, music, code, tmp_path / name, accumulate=accumulate, **plan))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.allclose(whole[k], parts[k], atol=1e-6) for k in whole)
    for steps in (3, 6):
        clmr.main(config(clmr, music, code, tmp_path / "halves", accumulate=3, **{**plan, "steps": steps}))
    halves = weights(tmp_path / "halves")
    assert all(torch.equal(parts[k], halves[k]) for k in parts)
    with pytest.raises(ValueError, match=r"accumulate must lie in \[1, 8\]"):
        clmr.main(config(clmr, music, code, tmp_path / "none", accumulate=9))


def test_float16_resumes_with_its_scale(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    for name, ends in (("whole", (8,)), ("halves", (4, 8))):
        for steps in ends:
            clmr.main(config(clmr, music, code, tmp_path / name, steps=steps, precision="float16"))
    whole, halves = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "halves"))
    assert whole["precision"] == halves["precision"] and whole["precision"]["scale"] > 0
    assert all(torch.equal(whole["model"][k], halves["model"][k]) for k in whole["model"])


def test_recomputed_activations_train_the_same_weights(music: Path, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    settings = {"encoder": "SampleCNN", "width": 0.0625, "crop_samples": 20_736, "transform": "none", "steps": 2}
    for again in (False, True):
        clmr.main(config(clmr, music, "", tmp_path / str(again), recompute=again, **settings))
    kept, again = weights(tmp_path / "False"), weights(tmp_path / "True")
    assert all(torch.equal(kept[k], again[k]) for k in kept)


def test_masked_groups_leave_only_other_groups_as_negatives(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    out = clmr.main(config(clmr, music, code, tmp_path / "masked", mask_group="label", steps=1, log_every=1))
    plain = clmr.main(config(clmr, music, code, tmp_path / "plain", steps=1, log_every=1))
    assert log(out)[0]["loss"] < log(plain)[0]["loss"] - 0.3  # two labels: half of the negatives are gone
    with pytest.raises(ValueError, match="no field 'artist' in the data; fields are"):
        clmr.main(config(clmr, music, code, tmp_path / "wrong", mask_group="artist"))


def test_ablate_crops_one_view_and_augments_the_other(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    cfg = config(clmr, music, "", tmp_path, transform="clmr", ablate=True, only="Gain")
    world = World(0, 1, torch.device("cpu"))
    batch = next(iter(clmr.training_pipeline(cfg, clmr.discover(cfg.data), world, 8)))
    plain, augmented = batch.params
    assert plain is None and bool(augmented["2"]["active"].all())
    assert not any(bool(augmented[str(i)]["active"].any()) for i in (0, 1, 3, 4, 5, 6))


def test_an_encoder_of_the_users_own_goes_all_the_way(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """module:callable of an importable module: train, resume, probe, embed, load."""
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def mean(sample_rate, dim=12):\n"
        "    assert sample_rate == 8000\n"
        "    return nn.Sequential(nn.Conv1d(1, dim, 64, 32), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())\n"
    )
    monkeypatch.chdir(tmp_path)
    clmr, probe = recipe("clmr"), recipe("probe")
    for steps in (2, 4):
        out = clmr.main(config(clmr, music, "", tmp_path / "run", encoder="my_networks:mean", steps=steps,
                               transform="none"))  # fmt: skip
    assert "at step 2" in capsys.readouterr().out
    table = probe.main(probe.Config(checkpoint=(str(out),), data=str(music), seeds=(0,), device="cpu"))
    assert len(table.rows) >= 2
    assert cli.main(["embed", str(out), str(music), str(tmp_path / "h.npz"), "--split", "test", "--device", "cpu"]) == 0
    with np.load(tmp_path / "h.npz") as found:
        assert found["h"].shape == (len(found["key"]), 12) and set(found["label"]) == {"low", "high"}
    x = torch.randn(2, 1, CROP)
    assert torch.equal(fastaug.ssl.load(out)(x), load_encoder(out)[0](x))


def test_sigterm_saves_and_ends_cleanly(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    sent = []

    def on_log(values: dict[str, Any]) -> None:
        if values["step"] == 3:
            sent.append(values["step"])
            os.kill(os.getpid(), signal.SIGTERM)

    out = clmr.main(config(clmr, music, code, tmp_path / "run", steps=100_000, log_every=1), on_log)
    assert sent and read_card(out)[1]["step"] == 3
    assert torch.load(out / "last.pt", weights_only=True)["step"] == 3


def test_checkpoints_come_by_the_clock(music: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clmr, saved = recipe("clmr"), []
    inner = clmr.save_model
    monkeypatch.setattr(
        clmr, "save_model", lambda out, model, card: (saved.append(card["step"]), inner(out, model, card))
    )
    clmr.main(config(clmr, music, code, tmp_path / "often", save_minutes=0.0, steps=3))
    assert saved == [1, 2, 3, 3]
    saved.clear()
    clmr.main(config(clmr, music, code, tmp_path / "end", steps=3))
    assert saved == [3]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (("--device", "cuda"), "sees no CUDA device"),
        (("--device", "gpu"), "--device gpu:"),
        (("--data", "nowhere"), "nowhere"),
        (("--encoder", "NoSuchNet"), "no callable 'NoSuchNet'"),
        (("--only", "Wah"), "no step 'Wah'"),
        (("--recompute", "--compile"), "exclude each other"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    music: Path, code: str, tmp_path: Path, flag: tuple[str, ...], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if flag[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    clmr = recipe("clmr")
    monkeypatch.setattr(sys, "argv", [*flags(music, code, tmp_path, "--transform", "clmr"), *flag])
    with pytest.raises(SystemExit) as ended:
        guarded(lambda: clmr.main(parse(clmr.Config, clmr.CONFIGS)))
    assert message in str(ended.value.code) and str(ended.value.code).startswith("clmr: ")


def test_published_weights_go_through_the_probe(music: Path, tmp_path: Path) -> None:
    net = published(STRIDES[RATE])
    head = {"projector.0.weight": torch.randn(32, 32), "projector.2.weight": torch.randn(6, 32)}
    torch.save({**{f"encoder.sequential.{k}": v for k, v in net.state_dict().items()}, **head}, tmp_path / "clmr.pt")
    out = convert_clmr(tmp_path / "clmr.pt", tmp_path / "clmr").parent
    probe = recipe("probe")
    settings = {"checkpoint": (str(out),), "data": str(music), "seeds": (0,), "device": "cpu", "representation": "z"}
    assert len(probe.main(probe.Config(**settings)).rows) >= 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_dropout_resumes_bit_for_bit(music: Path, code: str, tmp_path: Path, accumulate: int) -> None:
    clmr = recipe("clmr")
    plan = {"encoder": f"{code}:dropping", "accumulate": accumulate, "log_every": 1}
    for name, ends in (("whole", (4,)), ("halves", (2, 4))):
        for steps in ends:
            clmr.main(config(clmr, music, code, tmp_path / name, steps=steps, **plan))
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[k], halves[k]) for k in whole)


def test_the_loss_of_one_batch_falls_within_twenty_steps(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    cfg = config(clmr, music, code, tmp_path, lr=3e-3)
    torch.manual_seed(0)
    data = clmr.discover(cfg.data)
    x = next(iter(clmr.training_pipeline(cfg, data, World(0, 1, torch.device("cpu")), 8))).audio
    model, _ = clmr.build_model(cfg, data)
    optimiser = torch.optim.Adam(model.parameters(), lr=cfg.lr)
    precision, losses = clmr.Precision("float32", torch.device("cpu")), []
    for _ in range(20):
        optimiser.zero_grad()
        loss, _ = clmr.backward(
            model, lambda x: model(x.flatten(0, 1))[1].unflatten(0, (2, -1)), [x], lambda z: clmr.nt_xent(*z), precision
        )
        precision.step(optimiser)
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.3, losses


def ranked_above(encoder: torch.nn.Module, x: torch.Tensor) -> float:
    """How often a crop (2, B, ...) is nearer to the other crop of its clip than to one of another clip."""
    with torch.no_grad():
        h_i, h_j = (torch.nn.functional.normalize(encoder(view), dim=1) for view in x)
    similar = h_i @ h_j.T
    others = ~torch.eye(len(similar), dtype=torch.bool)
    return float((similar.diag()[:, None] > similar)[others].float().mean())


def test_held_out_positives_rank_higher_than_before_training(music: Path, code: str, tmp_path: Path) -> None:
    clmr = recipe("clmr")
    cfg = config(clmr, music, code, tmp_path, steps=80, lr=3e-3, log_every=20,
                 transform=f"{code}:noise")  # fmt: skip
    held_out = Pipeline(str(music), split="test", crop="random", views=2, batch_size=8, device="cpu",
                        transform=clmr.transform(cfg), **clmr.inputs(cfg))  # fmt: skip
    batches = [batch.audio for _ in range(8) for batch in held_out]  # other crops and noise each time
    torch.manual_seed(cfg.seed)
    before, _ = clmr.build_model(cfg, clmr.discover(cfg.data))
    after, _ = load_encoder(clmr.main(cfg))
    ranks = [np.mean([ranked_above(e.train(), x) for x in batches]) for e in (before.encoder, after)]
    assert ranks[1] > ranks[0] + 0.1, ranks
