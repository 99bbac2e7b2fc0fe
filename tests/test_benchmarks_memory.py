"""What the benchmarks do so that two runs agree: memory that is there for every call, and nobody else at work."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from test_benchmarks_smoke import FOLDER, load

quietness = load("quietness")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, asks glibc")

FAULTS = """
import resource, sys, time
sys.path.insert(0, {folder!r})
import numpy as np
import memory_pages
if {reserved}:
    memory_pages.reserve(192 << 20)
def call():
    blocks = [np.ones(size // 8) for size in (48 << 20, 20 << 20, 1 << 20)]  # mapped anew, of the heap's end, small
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
call()
memory_pages.settle()
before = faults()
for _ in range(3):
    call()
print(faults() - before)
"""


@linux
def test_a_call_finds_its_memory_at_hand_in_the_reserve() -> None:
    def faults(reserved: bool) -> int:
        code = FAULTS.format(folder=str(FOLDER), reserved=reserved)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return int(done.stdout)

    if faults(False) < 50:
        pytest.skip("not glibc: blocks of 48 MiB are kept without being asked for")
    assert faults(True) < 10


def machine(monkeypatch: pytest.MonkeyPatch, everybody: list[float | None], ours: float) -> None:
    """A machine on which a try takes a second and all cores together use so much in each, and we ``ours``."""
    now = {"tries": 0, "all": 0.0}

    def used_by_all() -> float | None:
        return None if everybody[0] is None else now["all"]

    monkeypatch.setattr(quietness, "TRIES", 3)
    monkeypatch.setattr(quietness, "_left", [30.0])
    monkeypatch.setattr(quietness, "used_by_all", used_by_all)
    monkeypatch.setattr(quietness, "used_by_us", lambda: ours * now["tries"])
    monkeypatch.setattr(quietness.time, "monotonic", lambda: float(now["tries"]))

    def timing(number: int) -> None:
        assert number == now["tries"]
        now["all"] += everybody[number] or 0.0
        now["tries"] += 1

    monkeypatch.setattr(quietness, "timing", timing, raising=False)


def test_a_disturbed_case_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, [1.9, 1.05], ours=1.0)
    assert quietness.undisturbed(quietness.timing) == pytest.approx(0.05)
    assert quietness._left == [pytest.approx(29.0)]
    machine(monkeypatch, [1.05], ours=1.0)
    assert quietness.undisturbed(quietness.timing) == pytest.approx(0.05), "and one try is enough if nobody is there"


def test_tries_and_their_time_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, [1.9, 1.8, 1.7], ours=1.0)
    assert quietness.undisturbed(quietness.timing) == pytest.approx(0.7)
    machine(monkeypatch, [1.9], ours=1.0)
    monkeypatch.setattr(quietness, "_left", [0.5])
    assert quietness.undisturbed(quietness.timing) == pytest.approx(0.9)
    machine(monkeypatch, [None], ours=1.0)
    assert quietness.undisturbed(quietness.timing) is None


@linux
def test_what_a_child_uses_is_ours_whether_it_lives_or_not() -> None:
    burn = "import time\nwhile time.process_time() < 0.15: pass\n"
    before = quietness.used_by_us()
    subprocess.run([sys.executable, "-c", burn], check=True)
    with subprocess.Popen([sys.executable, "-c", f"{burn}print(1, flush=True)\ninput()"], **PIPES) as child:
        assert child.stdout is not None and child.stdout.readline() == "1\n"
        assert quietness.used_by_us() - before > 0.25
        child.communicate("\n")
    assert quietness.used_by_all() > quietness.used_by_us()


PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
