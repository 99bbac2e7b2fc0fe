"""The time budget, the clean stop, the collapse warning, the kNN monitor and configuration."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from fastaug.ssl.config import call_with, config_hash, load_preset, parse, resolve
from fastaug.ssl.training.monitor import Budget, CollapseWatch, KnnMonitor, Monitor
from fastaug.ssl.training.run import Stop

CPU = torch.device("cpu")


def test_budget_keeps_its_share_with_work_of_any_cost() -> None:
    now = [0.0]
    budget = Budget(0.02, clock=lambda: now[0])

    def work() -> bool:
        now[0] += 0.7  # of a second
        return True

    ran = 0
    for _ in range(2000):
        now[0] += 0.1  # training
        ran += budget.run(work, estimate=0.7) is not None
        assert budget.spent <= 0.02 * now[0]
    assert ran == 5  # 5 * 0.7 s of 200 s + 3.5 s: a sixth would exceed 2 %


def test_an_estimate_keeps_the_first_run_out_of_a_short_training() -> None:
    now = [0.0]
    budget = Budget(0.02, clock=lambda: now[0])
    now[0] = 10.0
    assert budget.run(lambda: 1, estimate=0.3) is None
    assert budget.run(lambda: 1, estimate=0.1) == 1


def test_collapse_is_warned_of_once_and_not_while_warming_up() -> None:
    watch = CollapseWatch(after=100)
    assert [watch.update(step, 0.01) for step in range(10, 110, 10)] == [None] * 10
    assert watch.update(110, 0.01) is None and watch.update(120, 0.01) is None
    warning = watch.update(130, 0.01)
    assert warning is not None and "collapsing" in warning
    assert watch.update(140, 0.01) is None


@pytest.mark.parametrize("stds", [[0.9] * 20, [0.01, 0.01, 0.9] * 6])
def test_no_warning_while_embeddings_spread(stds: list[float]) -> None:
    watch = CollapseWatch(after=0)
    assert all(watch.update(i + 1, std) is None for i, std in enumerate(stds))


def test_monitor_warns_of_collapsed_projections_and_stops_at_nan() -> None:
    monitor = Monitor(nn.Identity(), None, share=1e9)
    z = torch.ones(8, 4) + 1e-6 * torch.randn(8, 4)
    logged = [monitor.look(step, 8, torch.tensor(1.0), z, z) for step in (200, 210, 220)]
    assert [("warning" in values) for values in logged] == [False, False, True]
    assert {"loss", "alignment", "uniformity", "std", "top1", "examples_per_second"} <= set(logged[1])
    with pytest.raises(FloatingPointError, match="step 230"):
        monitor.look(230, 8, torch.tensor(float("nan")), z, z)


def blobs(n: int, prefix: str) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    labels = torch.arange(n) % 3
    return torch.eye(3)[labels] + 0.1 * torch.randn(n, 3), labels, [f"{prefix}{i}" for i in range(n)]


def test_knn_monitor_separates_blobs_and_ignores_unlabelled() -> None:
    bank, (inputs, labels, keys) = blobs(60, "a"), blobs(12, "b")
    labels[0] = -1
    knn = KnnMonitor(bank, (inputs, labels, keys), 3, CPU, k=5)
    assert len(knn) == 71 and knn.name == "knn"
    encoder = nn.Linear(3, 3).train()
    assert knn.measure(nn.Identity()) == 1.0
    assert knn.estimate(encoder) > 0 and encoder.training


def test_knn_monitor_never_uses_the_query_itself() -> None:
    inputs, keys = torch.randn(30, 8), [str(i) for i in range(30)]
    labels = torch.arange(30)  # every example its own class: only itself could answer
    assert KnnMonitor((inputs, labels, keys), (inputs, labels, keys), 30, CPU, k=1).measure(nn.Identity()) == 0.0
    fresh = [f"other {k}" for k in keys]
    assert KnnMonitor((inputs, labels, keys), (inputs, labels, fresh), 30, CPU, k=1).measure(nn.Identity()) == 1.0


def test_knn_monitor_of_tags_is_an_roc_auc() -> None:
    inputs, labels, keys = blobs(30, "a")
    tags = torch.eye(3)[labels]
    knn = KnnMonitor((inputs, tags, keys), (inputs, tags, [k + "'" for k in keys]), 3, CPU, k=3)
    assert knn.name == "knn_roc_auc" and knn.measure(nn.Identity()) == 1.0


def test_ctrl_c_once_asks_twice_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGINT)
        assert stop and stop.interrupted
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_minutes_stop() -> None:
    assert Stop(minutes=0.0)
    assert not Stop(minutes=1.0)


@dataclass(frozen=True)
class Config:
    """Configuration for tests."""

    preset: str = ""
    lr: float = 0.1  # rate
    steps: int = 10


def test_flags_override_presets_override_defaults(tmp_path: Path) -> None:
    (tmp_path / "fast.json").write_text('{"lr": 1, "steps": 3}')
    assert parse(Config, tmp_path, []) == Config()
    assert parse(Config, tmp_path, ["--preset", "fast"]) == Config("fast", 1, 3)
    assert parse(Config, tmp_path, ["--preset=fast", "--lr", "0.5"]) == Config("fast", 0.5, 3)


@pytest.mark.parametrize("arguments", [["--learning-rate", "1"], ["--lr", "fast"], ["--step", "3"], ["extra"]])
def test_bad_flags_exit(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(Config, tmp_path, arguments)
    assert caught.value.code == 2 and capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"), [('{"lrr": 1}', "unknown key 'lrr'"), ('{"steps": "ten"}', "steps must be int")]
)
def test_bad_presets_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_preset(Config, "bad", tmp_path)
    with pytest.raises(ValueError, match="presets are bad"):
        load_preset(Config, "absent", tmp_path)


def test_hash_ignores_what_it_is_told_to() -> None:
    assert config_hash(Config(steps=1), ("steps",)) == config_hash(Config(steps=2), ("steps",))
    assert config_hash(Config(steps=1)) != config_hash(Config(steps=2))


def test_names_resolve_and_only_known_arguments_are_passed() -> None:
    assert resolve("SampleCNN", "fastaug.ssl.encoders").__name__ == "SampleCNN"
    assert resolve("torch.nn:Linear", "fastaug.ssl.encoders") is nn.Linear
    for spec in ("NoSuch", "_block", "STRIDES", "torch.nn:NoSuch"):
        with pytest.raises(ValueError, match="has no callable"):
            resolve(spec, "fastaug.ssl.encoders")
    assert call_with(lambda a, b=1: (a, b), a=5, c=7) == ((5, 1), {"a": 5})
