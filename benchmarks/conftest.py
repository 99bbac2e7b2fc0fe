"""Machine facts in the JSON, nothing else that identifies the machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import harness
import memory_pages
import pytest
import turns

PACKAGES = (
    "torch",
    "torchaudio",
    "torchcodec",
    "torch-audiomentations",
    "audiomentations",
    "pedalboard",
    "soxr",
    "librosa",
    "nnAudio",
    "julius",
    "soundfile",
    "webdataset",
    "miniaudio",
    "nvidia-dali-cuda130",
    "numpy",
    "scipy",
    "cupy-cuda13x",
    "cupy-cuda12x",
)


LOAD_BEFORE = float(os.environ.get("FASTAUG_BENCH_LOAD") or os.getloadavg()[0])
DEADLINE = time.monotonic() + float(os.environ.get("FASTAUG_BENCH_SECONDS", "inf"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA device")
    memory_pages.reserve(int(os.environ.get("FASTAUG_BENCH_HEAP_MIB", "1024")) << 20)


@pytest.fixture(scope="session")
def cuda() -> None:
    """A CUDA device; without one the test is skipped, or fails with FASTAUG_REQUIRE_CUDA=1."""
    import torch

    if not torch.cuda.is_available():
        if os.environ.get("FASTAUG_REQUIRE_CUDA") == "1":
            pytest.fail("FASTAUG_REQUIRE_CUDA=1, but torch sees no CUDA device")
        pytest.skip("needs a CUDA device")


@pytest.fixture
def in_time() -> None:
    """Skips what would begin after FASTAUG_BENCH_SECONDS, so that the results of the rest are still written."""
    if time.monotonic() > DEADLINE:
        pytest.skip("out of time (FASTAUG_BENCH_SECONDS)")


@pytest.fixture(scope="session", autouse=True)
def second_visit() -> Iterator[None]:
    """After the last test, while all that was built is alive. Fails for targets that all visits together miss."""
    yield
    if missed := harness.visit_again():
        pytest.fail("\n".join(["all visits together miss", *missed]), pytrace=False)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What is drawn from a generator of the process is the same in every run."""
    turns.same_draws()


@pytest.fixture(params=[1, 2], ids=["1thread", "2threads"])
def threads(request: pytest.FixtureRequest) -> int:
    if request.param > (os.cpu_count() or 1):
        pytest.skip("more threads than cores")
    return request.param


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Keep what a reader needs: our own record per case, and the machine."""
    output_json["machine"] = machine_facts()
    output_json["pace"] = {name: round(getattr(harness.PACE, name), 1) for name in ("kept", "lost", "slow")}
    output_json["cases"] = [
        {
            "suite": case["fullname"].rsplit("/", 1)[-1].split("::")[0].removeprefix("test_").removesuffix(".py"),
            "case": case["name"].removeprefix("test_"),
            **case["extra_info"],
        }
        for case in output_json.pop("benchmarks")
        if case.get("extra_info")
    ]
    for unwanted in ("machine_info", "commit_info"):
        output_json.pop(unwanted, None)


def machine_facts() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_before": round(LOAD_BEFORE, 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := installed(name))},
    }
    if sox := shutil.which("sox"):
        said = subprocess.run([sox, "--version"], capture_output=True, text=True, check=False).stdout
        facts["versions"]["sox"] = said.strip().rsplit("v", 1)[-1]
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        facts["gpu"] = {
            "name": card.name,
            "memory_gib": round(card.total_memory / 2**30, 1),
            "sm": card.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return facts


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
