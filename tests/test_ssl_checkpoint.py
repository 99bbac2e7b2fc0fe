"""Checkpoints: what is saved comes back, and what does not fit is refused with the reason."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from fastaug.ssl import checkpoint
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.run import Run

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
        checkpoint.load_state(tmp_path, "x", {})
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
