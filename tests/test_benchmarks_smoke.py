"""The benchmark harness itself: what it says when outputs disagree, a peer is missing, and how ratios are formed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fastaug_benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(FOLDER))  # they import each other
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


harness, render = load("harness"), load("render")
ONES = np.ones(8)


class Benchmark:
    """The three things of pytest-benchmark's fixture that the harness uses."""

    def __init__(self, name: str = "test_x") -> None:
        self.name = name
        self.extra_info: dict[str, Any] = {}

    def pedantic(self, target: Callable[[], Any], setup: Callable[[], Any], rounds: int) -> None:
        for _ in range(rounds):
            setup()
            target()


class Clock:
    """A timer that believes what the functions of `costing` say they cost, and remembers who ran when."""

    costs: ClassVar[list[tuple[str, float]]] = []

    def __init__(self) -> None:
        self.turns: list[str] = []

    def __call__(self, run: Callable[[], Any]) -> float:
        run()
        name, cost = self.costs.pop()
        self.turns.append(name)
        return cost


def costing(name: str, seconds: float, value: Any = ONES) -> Callable[[], Any]:
    def run() -> Any:
        Clock.costs.append((name, seconds))
        return value

    return run


def test_ratio_is_peer_time_over_ours_per_item() -> None:
    benchmark = Benchmark()
    peers = [
        harness.Peer("slow", None, lambda: costing("slow", 0.4), check=harness.agrees(60)),
        harness.Peer("subset", None, lambda: costing("subset", 0.1), items=2, differs="draws"),
    ]
    record = harness.compare(benchmark, costing("ours", 0.1), peers, items=8, unit="clip", timer=Clock())
    slow, subset = record["peers"]
    assert record["ours"]["median"] == pytest.approx(0.1 / 8)
    assert slow["ratio"] == pytest.approx(4.0) and slow["agreement"] == "200 dB"
    assert subset["ratio"] == pytest.approx((0.1 / 2) / (0.1 / 8)) and subset["differs"] == "draws"
    assert benchmark.extra_info["peers"] is record["peers"]
    json.dumps(record)


def test_a_target_in_seconds_is_per_item_and_recorded_before_it_is_asserted() -> None:
    def ours(limit: float) -> dict[str, Any]:
        benchmark = Benchmark()
        options = {"items": 8, "unit": "clip", "timer": Clock(), "maximum_seconds": limit}
        try:
            harness.compare(benchmark, costing("ours", 0.1), [], **options)
        finally:
            seen.append(benchmark.extra_info)
        return seen[-1]["ours"]

    seen: list[dict[str, Any]] = []
    assert ours(0.0126)["met"] is True
    with pytest.raises(AssertionError, match=r"fastaug: 0\.0125 s, at most 0\.0124 s asked"):
        ours(0.0124)
    assert seen[-1]["ours"] == {**seen[0]["ours"], "maximum": 0.0124, "met": False}
    case = {"suite": "chain", "case": "x", **seen[-1]}
    assert "12.5 ms/clip; 12.5 [12.5, 12.5] (target 12.4 ms: not met)" in render.case_rows(case)[0]


def test_disagreement_is_reported_and_not_timed() -> None:
    benchmark = Benchmark()
    peers = [harness.Peer("wrong", None, lambda: costing("wrong", 0.1, ONES * 1.01), check=harness.agrees(60))]
    with pytest.raises(AssertionError, match=r"wrong: disagrees: 40\.0 dB, at least 60 dB asked"):
        harness.compare(benchmark, costing("ours", 0.1), peers, items=1, unit="clip", timer=Clock())
    (row,) = benchmark.extra_info["peers"]
    assert row["disagrees"] and "ratio" not in row and "disagrees" in row["error"]


@pytest.mark.parametrize("theirs", [np.ones(7), np.full(8, np.nan)], ids=["shape", "nan"])
def test_other_shapes_and_nan_disagree(theirs: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        harness.agrees(0)(ONES, theirs)


def test_silence_never_agrees() -> None:
    with pytest.raises(AssertionError, match="silent"):
        harness.agrees(0)(ONES * 0, ONES * 0)


def test_missing_peer_keeps_its_row() -> None:
    def build() -> Callable[[], Any]:
        import no_such_audio_library

        return no_such_audio_library.run

    benchmark = Benchmark()
    peers = [harness.Peer("gone", "no-such-audio-library", build, differs="draws")]
    harness.compare(benchmark, costing("ours", 0.1), peers, items=1, unit="clip", timer=Clock())
    (row,) = benchmark.extra_info["peers"]
    assert row["error"].startswith("ModuleNotFoundError: No module named 'no_such_audio_library'")
    assert row["version"] is None and not row["disagrees"]


def test_peer_must_agree_or_say_why_not() -> None:
    for settings in ({}, {"differs": "draws", "check": harness.agrees(1)}):
        with pytest.raises(TypeError, match=r"check= .* or differs="):
            harness.Peer("vague", None, lambda: costing("vague", 1), **settings)


def test_a_quick_run_fails_for_wrong_outputs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "QUICK", True)
    settings: dict[str, Any] = {"items": 1, "unit": "clip", "timer": Clock()}
    peers = [harness.Peer("peer", None, lambda: costing("peer", 0.3), differs="draws")]
    record = harness.compare(Benchmark(), costing("ours", 0.1), peers, minimum_ratio={"peer": 9}, **settings)
    assert record["peers"][0]["met"] is False
    wrong = [harness.Peer("wrong", None, lambda: costing("wrong", 0.1, ONES * 1.01), check=harness.agrees(60))]
    with pytest.raises(AssertionError, match="wrong: disagrees"):
        harness.compare(Benchmark(), costing("ours", 0.1), wrong, **settings)


def test_minimum_ratio_is_asserted_after_recording() -> None:
    benchmark = Benchmark()
    peers = [harness.Peer("peer", None, lambda: costing("peer", 0.3), differs="draws")]
    settings: dict[str, Any] = {"items": 1, "unit": "clip", "timer": Clock()}
    harness.compare(benchmark, costing("ours", 0.1), peers, minimum_ratio={"peer": 2.9}, **settings)
    assert benchmark.extra_info["peers"][0]["met"] is True
    with pytest.raises(AssertionError, match=r"peer: 3\.00x, at least 3\.1x asked"):
        harness.compare(benchmark, costing("ours", 0.1), peers, minimum_ratio={"peer": 3.1}, **settings)
    with pytest.raises(ValueError, match="no such peer: other"):
        harness.compare(benchmark, costing("ours", 0.1), peers, minimum_ratio={"other": 1.0}, **settings)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are pinned on Linux only")
def test_threads_are_limited_and_restored() -> None:
    import torch

    before, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    with harness.equal_threads(1):
        assert torch.get_num_threads() == 1 and len(os.sched_getaffinity(0)) == 1
    assert torch.get_num_threads() == before and os.sched_getaffinity(0) == cores


def test_rendered_table(tmp_path: Path) -> None:
    """Every contender has a row; errors and reasons are told; a quick run never hides a full one."""
    peers = [
        {
            "name": "peer",
            "note": "one | clip",
            "error": None,
            "agreement": None,
            "differs": "draws",
            "best": 0.015,
            "median": 0.02,
            "low": 0.01,
            "high": 0.03,
            "ratio": 9.96,
            "ratio_low": 9.5,
            "ratio_high": 10.5,
        },
        {"name": "gone", "note": "", "error": "ImportError: x"},
    ]
    case = {
        "suite": "effects",
        "case": "gain[1thread]",
        "threads": 1,
        "unit": "clip",
        "peers": peers,
        "ours": {"best": 0.0015, "median": 0.002, "low": 0.001, "high": 0.003},
    }
    part = tmp_path / "part.json"
    machine = {
        "cpu": "Some CPU (R) 9",
        "cores": 2,
        "load_before": 0.75,
        "python": "3.11",
        "versions": {"torch": "2.11.0"},
    }
    part.write_text(json.dumps({"machine": machine, "cases": [case]}))
    full = render.merge([part], tmp_path / "results", "2026-01-01", quick=False)
    render.merge([part], tmp_path / "results", "2026-01-02", quick=True)
    assert full.name == "some-cpu-9-2-cores-2026-01-01.json"
    text = render.render(tmp_path / "results")
    assert "Load average before the run: 0.75 (**busy**" in text
    assert "2026-01-01" in text and "2026-01-02" not in text
    assert "| effects: gain[1thread] | 1 | **fastaug** | 1.5 ms/clip; 2 [1, 3] | 1 |" in text
    assert "| peer (one \\| clip) | 15 ms/clip; 20 [10, 30] | 9.96 ± 5% | differs: draws |" in text
    assert "| gone | not timed | – | ImportError: x |" in text


def test_real_fixture_records_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pytest-benchmark itself: the JSON holds our record, the failing case's too, and no machine name."""
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    (tmp_path / "test_toy.py").write_text(f"""
import sys; sys.path.insert(0, {str(FOLDER)!r})
from harness import Peer, agrees, compare
def test_good(benchmark):
    compare(benchmark, lambda: [1.0], [Peer("p", None, lambda: lambda: [1.0], check=agrees(90))], items=1, unit="x")
def test_bad(benchmark):
    compare(benchmark, lambda: [1.0], [Peer("p", None, lambda: lambda: [2.0], check=agrees(90))], items=1, unit="x")
""")
    (tmp_path / "conftest.py").write_text((FOLDER / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]")
    monkeypatch.setenv("QUICK", "1")
    monkeypatch.setenv("FASTAUG_BENCH_HEAP_MIB", "16")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(FOLDER), str(FOLDER.parent))))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-json=out.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    saved = json.loads((tmp_path / "out.json").read_text())
    cases = {case["case"]: case for case in saved["cases"]}
    assert cases["good"]["peers"][0]["ratio"] > 0 and cases["bad"]["peers"][0]["disagrees"]
    assert saved["machine"]["cores"] >= 1 and "machine_info" not in saved
