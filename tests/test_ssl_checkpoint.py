"""Checkpoints: what is saved comes back, and what does not fit is refused with the reason."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from fastaug.ssl import checkpoint
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.training.run import Run, report

KWARGS = {"sample_rate": 8000, "width": 0.125}


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    steps: int = 10


def trained() -> Contrastive:
    model = Contrastive(SampleCNN(8000, width=0.125), Projector(64, 8))
    model(torch.randn(4, 1, 20_736))  # moves the running statistics
    return model


def test_encoder_comes_back_with_its_card(tmp_path: Path) -> None:
    model = trained()
    file = checkpoint.save_model(
        tmp_path, model, {"encoder": "SampleCNN", "encoder_kwargs": KWARGS, "classes": ["a", "b"]}
    )
    x = torch.randn(2, 1, 20_736)
    expected = model.eval().encoder(x)
    (tmp_path / checkpoint.CARD).unlink()  # the weights file alone is enough
    for path in (tmp_path, file):
        encoder, card = checkpoint.load_encoder(path)
        assert torch.equal(encoder(x), expected)
        assert card["classes"] == ["a", "b"] and card["format"] == checkpoint.FORMAT


def test_the_readable_card_is_the_stored_one(tmp_path: Path) -> None:
    checkpoint.save_model(tmp_path, trained(), {"encoder": "SampleCNN", "encoder_kwargs": KWARGS})
    assert json.loads((tmp_path / checkpoint.CARD).read_text()) == checkpoint.read_card(tmp_path)[1]


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        checkpoint.read_card(tmp_path)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        checkpoint.read_card(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="format None"):
        checkpoint.read_card(tmp_path / "other.safetensors")


def test_state_round_trip_and_refusals(tmp_path: Path) -> None:
    run = Run(tmp_path, Config(), ignore=("steps",), tensorboard=False)
    assert run.resume() is None
    with pytest.raises(FileNotFoundError, match="--resume"):
        run.resume(required=True)
    run.save(step=7, weights=torch.arange(3))
    longer = Run(tmp_path, Config(steps=20), ignore=("steps",), tensorboard=False)
    state = longer.resume()
    assert state is not None and state["step"] == 7 and state["weights"].tolist() == [0, 1, 2]
    other = Run(tmp_path, Config(lr=0.2), ignore=("steps",), tensorboard=False)
    with pytest.raises(ValueError, match=r"another experiment \(lr: 0.1 there, 0.2 now\).*--fresh"):
        other.resume()
    assert other.resume(fresh=True) is None
    with pytest.raises(ValueError, match="exclude each other"):
        other.resume(required=True, fresh=True)


def test_code_in_a_state_file_is_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.mkdir, (tmp_path / "executed",))  # type: ignore[return-value]

    torch.save({"config_hash": Evil()}, tmp_path / checkpoint.STATE)
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.load_state(tmp_path, {})
    assert not (tmp_path / "executed").exists()


def test_log_is_cut_back_to_the_resumed_step(tmp_path: Path) -> None:
    run = Run(tmp_path, Config(), tensorboard=False)
    run.resume()
    for step in (10, 20, 30):
        run.log(step, loss=1.0, knn=None)
    run.save(step=20)
    with open(tmp_path / "metrics.jsonl", "a") as log:
        log.write('{"step": 40, "lo')  # a process was killed while writing
    Run(tmp_path, Config(), tensorboard=False).resume()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 1.0}]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", Config(), writes=False)
    run.resume()
    run.log(1, loss=1.0)
    run.save(step=1)
    assert not (tmp_path / "run").exists()


def test_config_json_describes_the_run(tmp_path: Path) -> None:
    Run(tmp_path, Config(), tensorboard=False).resume()
    about = json.loads((tmp_path / "config.json").read_text())
    assert about["config"] == dataclasses.asdict(Config()) and about["environment"]["torch"] == torch.__version__


def test_custom_encoder_by_file(tmp_path: Path) -> None:
    source = "import torch.nn as nn\ndef make(width=2): return nn.Sequential(nn.Flatten(), nn.Linear(6, int(width)))\n"
    (tmp_path / "mine.py").write_text(source)
    card = {"encoder": f"{tmp_path}/mine.py:make", "encoder_kwargs": {"width": 3}}
    encoder = checkpoint.build_encoder(card)
    checkpoint.save_model(tmp_path, Contrastive(encoder, nn.Identity()), card)
    loaded, _ = checkpoint.load_encoder(tmp_path)
    assert torch.equal(loaded(torch.ones(1, 1, 6)), encoder(torch.ones(1, 1, 6)))


# When writing fails.

FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from fastaug.ssl.training.run import Run, guarded
from test_ssl_checkpoint import Config
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing past the limit fails as it does on a full disk
run = Run(Path(sys.argv[1]), Config(), tensorboard=False)
run.save(step=1, weights=torch.arange(3))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
guarded(lambda: run.save(step=2, weights=torch.zeros(100_000)))
"""


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here)])
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"{tmp_path / checkpoint.STATE} cannot be written" in done.stderr
    assert "the one from before is intact" in done.stderr
    state = Run(tmp_path, Config(), tensorboard=False).resume()
    assert state is not None and state["step"] == 1 and state["weights"].tolist() == [0, 1, 2]
    assert not list(tmp_path.glob("*.partial"))


def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, card = trained(), {"encoder": "SampleCNN", "encoder_kwargs": KWARGS}
    checkpoint.save_model(tmp_path, model, {**card, "step": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="model.safetensors cannot be written: .*No space left.*intact"):
        checkpoint.save_model(tmp_path, model, {**card, "step": 2})
    assert checkpoint.read_card(tmp_path)[1]["step"] == 1 and not list(tmp_path.glob("*.partial"))
    with pytest.raises(OSError, match=r"last.pt cannot be written: \[Errno 28\] No space left on device$"):
        checkpoint.save_state(tmp_path, {"step": 1})


def test_torchs_words_for_a_full_disk_are_put_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [0]

    def stuck(*_: object) -> None:
        raise RuntimeError("unexpected pos 276288 vs 276176")

    monkeypatch.setattr(torch, "save", stuck)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=left[0]))
    with pytest.raises(OSError, match="last.pt cannot be written: No space left on device$"):
        checkpoint.save_state(tmp_path, {"step": 1})
    left[0] = 1 << 30
    with pytest.raises(OSError, match="last.pt cannot be written: unexpected pos"):
        checkpoint.save_state(tmp_path, {"step": 1})


def test_data_is_on_the_disk_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append("sync"), sync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append("rename"), replace(a, b))[1])
    checkpoint.save_state(tmp_path, {"step": 1})
    assert seen == ["sync", "rename", "sync"]  # the file, then its name, then the folder that holds the name


@pytest.mark.parametrize("damage", ["cut", "text", "another file of torch.save"])
def test_a_damaged_state_is_named(tmp_path: Path, damage: str) -> None:
    run = Run(tmp_path, Config(), tensorboard=False)
    run.save(step=1, weights=torch.arange(1000))
    file = tmp_path / checkpoint.STATE
    if damage == "another file of torch.save":
        torch.save({"weights": torch.zeros(1)}, file)
    else:
        file.write_bytes(file.read_bytes()[:-500] if damage == "cut" else b"hello")
    with pytest.raises(ValueError, match=f"{file}: (cannot be read|not the state of a run).*--fresh starts over"):
        run.resume()
    assert run.resume(fresh=True) is None


def test_numbers_reach_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Run(tmp_path, Config())
    run.resume()
    for step in (10, 20):
        run.log(step, loss=step / 10, warning="words are for the other log")
    run.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert board.Tags()["scalars"] == ["loss"]
    assert [(e.step, e.value) for e in board.Scalars("loss")] == [(10, 1.0), (20, 2.0)]


class Bar:
    def __init__(self) -> None:
        self.postfix: dict[str, str] = {}
        self.lines: list[str] = []

    def set_postfix(self, values: dict[str, str]) -> None:
        self.postfix = dict(values)

    def write(self, line: str) -> None:
        self.lines.append(line)


def test_the_bar_shows_speed_and_waiting() -> None:
    bar, shown = Bar(), {}
    report(bar, shown, {"loss": 1.23456, "examples_per_second": 812.4, "time_loading": 0.034, "time_compute": 0.9})
    assert bar.postfix == {"loss": "1.235", "examples/s": "812", "loading": "3%"}
    report(bar, shown, {"loss": 1.0, "knn": 0.5, "warning": "collapse"})
    assert bar.postfix["knn"] == "0.500" and bar.postfix["examples/s"] == "812" and bar.lines == ["collapse"]
