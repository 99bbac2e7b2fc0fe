"""What a benchmark does while the machine is slow: other cores, waiting, turns taken again; and for how long."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from test_benchmarks_smoke import FOLDER, load

turns, paces, cores = load("turns"), load("pace"), load("cores")


class Machine:
    """Each core's loops take what it is told, by a clock that only moves while something runs."""

    def __init__(self, *speeds: list[float]) -> None:
        self.now, self.naps = 0.0, 0
        self.speeds = {core: list(one) for core, one in enumerate(speeds)}  # then 1
        self.moves: list[tuple[int, ...]] = []

    def work(self, place: tuple[int, ...]) -> float:
        took = max(1e-4 * (self.speeds[core].pop(0) if self.speeds[core] else 1.0) for core in place)
        self.now += took
        return took

    def nap(self, seconds: float) -> None:
        self.now, self.naps = self.now + seconds, self.naps + 1

    def pace(self, threads: int = 1, left: float = 1.0, share: float = 0.0) -> Any:
        """That of a case of so many threads, which knows how fast the machine can be."""
        told = paces.Pace(self.work, self.moves.append, lambda: self.now, self.nap, left, share)
        told.stay(cores.places(range(len(self.speeds)), threads))
        told.fastest = 1e-4
        return told


def test_a_turn_waits_until_the_machine_is_at_its_pace() -> None:
    machine = Machine([1.0, 1.8, 1.8, 1.8, 1.1])
    told = machine.pace()
    told.wait()
    assert machine.naps == 0
    told.wait()
    assert machine.naps == 3 and told.lost == pytest.approx(3 * (paces.NAP + 1.8e-4)) and not machine.moves


def test_a_case_moves_to_the_core_that_is_calm_and_stays_there() -> None:
    machine = Machine([1.0, *[1.8] * 100], [1.9])
    told = machine.pace()
    told.wait()
    assert machine.moves == [] and told.places[0] == (0,)
    told.wait()
    assert machine.moves == [(1,), (0,), (1,)] and machine.naps == 1, "both were slow once, then the second calm"
    told.wait()
    assert machine.naps == 1 and told.places[0] == (1,) and len(machine.moves) == 3


def test_all_cores_of_a_case_must_be_calm_at_once() -> None:
    machine = Machine([1.8, 1.0, 1.0], [1.0, 1.8, 1.0])
    machine.pace(threads=2).wait()
    assert machine.naps == 2 and machine.moves == []


def test_the_pace_is_learnt_from_many_looks_a_nap_apart() -> None:
    """A process that begins in a slow spell does not take that for the machine's own pace."""
    machine = Machine([*[1.8] * 5, *[1.0] * (paces.LOOKS - 6), 1.8, 1.0])
    told = machine.pace()
    told.fastest = None
    told.wait()
    assert told.fastest == pytest.approx(1e-4) and machine.naps == paces.LOOKS


def test_a_turn_in_a_slow_spell_is_taken_again() -> None:
    machine = Machine([1.0, 1.8])  # before the turn; behind it
    taken: list[float] = []

    def timer(run: Any) -> float:
        taken.append(0.1 if len(taken) else 0.2)
        machine.now += taken[-1]
        return taken[-1]

    one = turns.Contender(lambda: None, 1, pace=machine.pace())
    one.get_ready()
    one.take_turn(timer, 0)
    assert taken == [0.2, 0.1] and one.seconds == [0.1]
    assert one.pace.lost == pytest.approx(0.2, abs=1e-3) and one.pace.kept == pytest.approx(0.1, abs=1e-3)


def test_a_long_turn_waits_but_is_not_taken_again() -> None:
    machine = Machine([1.8, 1.0, *[1.8] * 9])
    told = machine.pace()
    told.wait()
    machine.now += paces.LONG * 1.01
    assert machine.naps == 1 and not told.again() and told.kept == pytest.approx(paces.LONG * 1.01)
    assert told.held and told.slow == 0.0


def test_a_machine_that_stays_slow_is_not_waited_for_beyond_the_time_there_is() -> None:
    told = (machine := Machine([1.8] * 1000)).pace(left=0.1)
    told.wait()
    told.wait()
    assert machine.naps == math.ceil(0.1 / (paces.NAP + 1.8e-4)) and not told.again() and not told.held
    told = (machine := Machine([1.0, *[1.8] * 1000])).pace(left=0.1)
    told.wait()
    found = []
    for _ in range(3):
        machine.now += 0.06
        found.append(told.again())
        told.begun = machine.now
    assert found == [True, True, False] and not told.held and told.slow == pytest.approx(0.06)


def test_with_no_time_left_a_turn_that_is_calm_is_known_from_one_that_is_not() -> None:
    """And a core that is calm is still looked for."""
    machine = Machine([1.8, 1.8], [1.0, 1.0, 1.0, 1.8])
    told = machine.pace(left=0.0)
    for calm in (True, False):
        told.wait()
        machine.now += 0.01
        assert not told.again() and told.held is calm
    assert machine.naps == 0 and machine.moves == [(1,)] and told.slow == pytest.approx(0.01) == told.kept / 2


def test_a_turn_of_a_contender_remembers_whether_both_its_ends_were_calm() -> None:
    machine = Machine([1.0, 1.0, 1.0, 1.8, 1.8, 1.0])  # before and behind each of three
    one = turns.Contender(lambda: None, 1, pace=machine.pace(left=0.0))
    for number in range(3):
        one.get_ready()
        one.take_turn(lambda run: 0.1, number)
    assert one.held == [True, False, False]


def test_what_the_turns_took_buys_more_time() -> None:
    told = (machine := Machine([1.8] * 10_000)).pace(left=0.0, share=0.5)
    told.wait()
    machine.now += 0.2
    assert machine.naps == 0 and not told.again() and told.kept == told.slow == pytest.approx(0.2)
    told.wait()
    assert told.lost == pytest.approx(0.1, abs=0.03)


def test_places_have_no_core_in_common() -> None:
    assert cores.places({3, 0, 1, 2}, 1) == [(0,), (1,), (2,), (3,)]
    assert cores.places({3, 0, 1, 2, 9}, 2) == [(0, 1), (2, 3)]
    assert cores.places({0, 1}, 2) == cores.places({0, 1}, 8) == [(0, 1)]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are pinned on Linux only")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_what_a_contender_has_started_moves_along() -> None:
    """Its threads and its processes, but not the threads of a pool that has more cores."""
    before = os.sched_getaffinity(0)
    one, other = sorted(before)[:2]
    done, ids = threading.Event(), []

    def start() -> threading.Thread:
        thread = threading.Thread(target=done.wait)
        thread.start()
        ids.append(thread.native_id)
        return thread

    started = [start()]
    try:
        os.sched_setaffinity(0, (one,))
        started.append(start())
        code = "import sys; sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
            cores.go((other,))
            found = [os.sched_getaffinity(task) for task in (0, ids[1], child.pid, ids[0])]
            assert child.stdin is not None
            child.stdin.close()
        assert found == [{other}, {other}, {other}, before]
    finally:
        os.sched_setaffinity(0, before)
        done.set()
        for thread in started:
            thread.join()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are pinned on Linux only")
def test_the_loop_is_timed_on_all_cores_of_the_case_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    place = tuple(sorted(before))[:2]
    if len(place) < 2:
        pytest.skip("one core")
    together, seen = threading.Barrier(2, timeout=30), []

    class Hash:
        def __init__(self, data: bytes) -> None:
            seen.append(os.sched_getaffinity(0))
            together.wait()  # one after the other they would wait for ever

        def digest(self) -> None: ...

    assert 0 < cores.slowest(place) < 0.1 and os.sched_getaffinity(0) == before
    monkeypatch.setattr(cores.hashlib, "blake2b", Hash)
    assert cores.slowest(place) > 0
    assert sorted(seen, key=sorted) == [{place[0]}] * 2 + [{place[1]}] * 2
    together.abort()
    with pytest.raises(threading.BrokenBarrierError):
        cores.slowest(place[:1])
    assert seen[4:] == [before], "a single core is where the caller is"


def test_work_that_was_interrupted_is_no_slow_spell(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 11.0, 20.0, 21.0])
    monkeypatch.setattr(cores.time, "perf_counter", lambda: next(times))
    assert cores.hashing() == 1.0


def test_a_target_missed_in_both_visits_fails_the_run_and_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pytest-benchmark itself, at the end of a full run, which is what `make bench` exits by."""
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    (tmp_path / "test_toy.py").write_text("""
import turns
from harness import PACE, compare
PACE.work = lambda place: 1.0  # always calm
def test_fine(benchmark):
    compare(benchmark, lambda: [1.0], [], items=1, unit="clip", maximum_seconds=1.0)
def test_slow(benchmark):
    compare(benchmark, lambda: [1.0], [], items=1, unit="clip", maximum_seconds=1e-12)
""")
    (tmp_path / "conftest.py").write_text((FOLDER / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]")
    monkeypatch.delenv("QUICK", raising=False)
    monkeypatch.setenv("FASTAUG_BENCH_HEAP_MIB", "16")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(FOLDER), str(FOLDER.parent))))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-json=out.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "all visits together miss\ntest_slow: fastaug: " in done.stdout and "test_fine: " not in done.stdout
    cases = {case["case"]: case for case in json.loads((tmp_path / "out.json").read_text())["cases"]}
    assert cases["slow"]["ours"]["met"] is False and cases["fine"]["ours"]["rounds"] >= 2 * turns.ROUNDS[0]
