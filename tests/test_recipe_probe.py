"""recipes/probe.py as a user runs it: every mode and protocol, several labels, another dataset, wrong flags."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from fastaug.ssl.checkpoint import save_model
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.probe.protocols import PROTOCOLS
from fastaug.ssl.probe.results import read

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "probe.py"
RATE, CROP = 8000, 2048
CARD: dict[str, Any] = {
    "encoder": "SampleCNN", "encoder_kwargs": {"strides": [2, 2, 2, 2, 2, 2, 2, 2, 2], "width": 0.0625},
    "sample_rate": RATE, "crop_samples": CROP, "logmel": None, "out_dim": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and at most 25 epochs of every protocol."""
    for name, protocol in PROTOCOLS.items():
        head = dataclasses.replace(protocol.head, epochs=min(protocol.head.epochs, 25))
        network = dataclasses.replace(protocol.network, epochs=2, least_batches=1)
        monkeypatch.setitem(PROTOCOLS, name, dataclasses.replace(protocol, head=head, network=network))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def probe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe_probe", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write(root: Path, name: str, hertz: float, rng: np.random.Generator) -> None:
    t = np.arange(2 * CROP + 500) / RATE
    tone = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.2) * t) + 0.05 * rng.normal(size=len(t))
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(root / name, tone, RATE)


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One label: low and high tones, ten training clips of each."""
    root, rng = tmp_path_factory.mktemp("music"), np.random.default_rng(0)
    for split, count in (("train", 10), ("valid", 4), ("test", 4)):
        for label, hertz in (("low", 200), ("high", 1500)):
            for i in range(count):
                write(root, f"{split}/{label}/{i}.wav", hertz, rng)
    return root


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory, music: Path) -> Path:
    """Several labels: the same clips packed with the tags low or high, and even for every other one."""
    out = tmp_path_factory.mktemp("tagged")
    rows = ["path,labels,split"]
    for path in sorted(music.rglob("*.wav")):
        split, label, name = path.relative_to(music).parts
        rows.append(f"{path},{label}{';even' * (int(name[0]) % 2 == 0)},{split}")
    (out / "list.csv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, "-m", "fastaug.cli", "shard", str(out / "list.csv"), str(out / "shards")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "shards"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "run", Contrastive(SampleCNN(strides=(2,) * 9, width=0.0625), Projector(32, 8)), CARD)
    return tmp_path / "run"


def settings(run: Path, data: Path, **changes: Any) -> dict[str, Any]:
    return {"checkpoint": (str(run),), "data": str(data), "device": "cpu", "seeds": (0, 1), **changes}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_prints_itself_and_the_split(
    probe: ModuleType, music: Path, run: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"labels": "1"} if name != "internship" else {}
    table = probe.main(probe.Config(**settings(run, music, protocol=name, **changes)))
    printed = capsys.readouterr().out
    assert f"protocol {name}" in printed and "95 % t interval" in printed
    lines = printed.splitlines()
    rows = [
        i for i, line in enumerate(lines) if line.startswith(("random init", "pre-trained", "log-mel")) and "±" in line
    ]
    assert len(rows) == 3 and "split: by folder" in "".join(lines[: rows[0]])
    assert table.settings["name"] == name
    assert all(row.labels == ("10 % of labels" if name == "internship" else "") for row in table.rows)
    kind = "" if name == "default" else f"-{name}"
    written = json.loads((run / f"probe-linear{kind}.json").read_text())
    assert written == table.to_dict() and written["protocol"]["head"]["lr"] == PROTOCOLS[name].head.lr


def test_shares_shots_and_the_confusion_matrix(
    probe: ModuleType, music: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = probe.main(probe.Config(**settings(run, music, labels="0.1,0.5,1")))
    assert [row.labels for row in table.rows] == ["10 % of labels"] * 3 + ["50 % of labels"] * 3 + [""] * 3
    assert "pre-trained, 50 % of labels" in capsys.readouterr().out
    mel = table.row("log-mel statistics", "50 % of labels")
    assert mel.confusion is not None and mel.confusion.sum(1).tolist() == [8, 8]  # two seeds, four clips of each
    assert int(mel.confusion.trace()) / 16 == mel.mean("accuracy") > 0.7
    written = json.loads((run / "probe-linear.json").read_text())["rows"]
    assert written[5]["confusion"] == mel.confusion.tolist() and written[5]["labels"] == "50 % of labels"
    assert written[5]["interval95"]["accuracy"] == list(mel.interval("accuracy"))
    record = run / "results.csv"
    table = probe.main(probe.Config(**settings(run, music, shots="1,5", record=str(record))))
    recorded = read(record)
    assert len(recorded) == 6 * 3 and {r.labels for r in recorded} == {"1 shot", "5 shots"}
    assert all(r.recipe == "probe linear" and r.split == "by folder" and r.seeds == 2 for r in recorded)
    assert [row.labels for row in table.rows] == ["1 shot"] * 3 + ["5 shots"] * 3


@pytest.mark.parametrize("mode", ["linear", "mlp", "knn"])
def test_several_labels_through_the_same_interface(
    probe: ModuleType, tagged: Path, run: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = probe.main(probe.Config(**settings(run, tagged, mode=mode, protocol="thesis", neighbours=3)))
    assert table.multi and table.classes == ("even", "high", "low")
    assert set(table.metrics) == {"roc_auc", "pr_auc", "roc_auc_clip", "pr_auc_clip", "macro_f1"}
    row = table.row("log-mel statistics")
    assert row.per_class["roc_auc"][0][2] > 0.9 and row.confusion is not None and row.confusion.shape == (3, 2, 2)
    printed = capsys.readouterr().out
    assert "missed" in printed and ("3 nearest neighbours" in printed) == (mode == "knn")


@pytest.mark.parametrize("mode", ["finetune", "scratch"])
def test_networks(probe: ModuleType, music: Path, run: Path, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = settings(run, music, mode=mode, seeds=(0,), transform="clmr_thesis" if mode == "scratch" else "none")
    with pytest.raises(SystemExit, match="the same command goes on"):
        probe.main(probe.Config(**changes, minutes=0.0))
    table = probe.main(probe.Config(**changes))
    printed = capsys.readouterr().out
    assert printed.count("epoch    1") == 1 and printed.count("epoch    2") == 1  # it went on
    assert [row.name for row in table.rows] == ["fine-tuned" if mode == "finetune" else "supervised from scratch"]
    assert "at most 2 epochs" in printed and (run / f"probe-{mode}.json").is_file()


def test_representation_z_and_a_second_run_that_decodes_nothing(
    probe: ModuleType, music: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastaug.ssl.probe import representations

    h = probe.main(probe.Config(**settings(run, music)))
    z = probe.main(probe.Config(**settings(run, music, representation="z")))
    assert "head on z" in z.about and h.rows[0].values != z.rows[0].values
    assert h.row("log-mel statistics").values == z.row("log-mel statistics").values

    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(representations, "extract", never)
    again = probe.main(probe.Config(**settings(run, music)))
    assert again.to_dict() == h.to_dict()
    probe.main(probe.Config(**settings(run, music, mode="mlp", labels="0.5", protocol="thesis")))
    with pytest.raises(AssertionError, match="decoded again"):
        probe.main(probe.Config(**settings(run, music, cache="none")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": "0.01"}, "1 % of 20 labelled clips is 0, without any of class 'low' and 1 more.*least share.*0.1"),
        ({"labels": "ten"}, "--labels takes numbers with commas between"),
        ({"labels": "0"}, "must lie in"),
        ({"shots": "1,2.5"}, "--shots takes numbers"),
        ({"shots": "11"}, "11 shots: class 'high' has 10"),
        ({"shots": "1", "labels": "0.1"}, "exclude each other"),
        ({"protocol": "marble", "as_published": True}, "only thesis, clmr-v1, clmr-v2, cola have mistakes"),
        ({"label": "genre"}, "no label 'genre'; there is label"),
        ({"transform": "clmr"}, "--transform is of finetune and scratch"),
        ({"mode": "finetune", "representation": "z"}, "--representation z is of frozen features"),
        ({"checkpoint": ("nowhere",)}, "no checkpoint at nowhere"),
    ],
)
def test_what_does_not_fit_is_said(
    probe: ModuleType, music: Path, run: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        probe.main(probe.Config(**{**settings(run, music), **changes}))


def test_modes_without_their_checkpoint(
    probe: ModuleType, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for changes in ({"mode": "finetune"}, {"representation": "z"}):
        with pytest.raises(ValueError, match="needs a checkpoint"):
            probe.main(probe.Config(data=str(music), device="cpu", seeds=(0,), **changes))
