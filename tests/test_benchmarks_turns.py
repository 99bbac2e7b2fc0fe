"""How the benchmarks take turns and what they make of the times: pairs, medians, when enough is enough."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from test_benchmarks_smoke import Benchmark, Clock, costing, harness, load

turns = load("turns")


def contender(*seconds: float, items: int = 1, rounds: range | None = None, costs: float = 0.0) -> Any:
    count, numbers = len(seconds), list(rounds if rounds is not None else range(len(seconds)))
    return turns.Contender(
        costing("x", 0), items, seconds=list(seconds), costs=[costs] * count, rounds=numbers, held=[True] * count
    )


def test_spread_is_the_interquartile_range_beside_the_fastest_turns() -> None:
    found = turns.spread(contender(8.0, 2.0, 6.0, 4.0, 100.0, items=2))
    assert (found["low"], found["median"], found["high"], found["rounds"]) == (2.0, 3.0, 4.0, 5)
    assert found["best"] == 1.5, "the mean of the two fastest turns"
    assert found["best_within"] == (1.5, 2.5), "the first half says 5 / 2, the second also: (4 + 6) / 2 / 2"
    assert turns.spread(contender(3.0))["best"] == 3.0


def test_what_others_cost_changes_no_ratio_as_long_as_two_turns_are_spared() -> None:
    calm_ours, calm_theirs = [8.0, 8.0], [5.0, 5.0]
    ours = contender(*(calm_ours + [8 * slow for slow in (1.9, 3, 1.2, 1.8)]), items=8)
    peer = contender(*([5 * slow for slow in (1.5, 1.1, 1.8)] + calm_theirs + [9.0]))
    assert turns.ratio(ours, peer)["ratio"] == pytest.approx(5.0)


def test_a_ratio_is_formed_of_as_many_turns_of_either() -> None:
    """Ours come after everybody's: who may choose from more turns finds faster ones."""
    ours = contender(4.0, 1.0, 4.0, 1.0, 6.0)
    peer = contender(12.0, 20.0, rounds=range(0, 3, 2))
    assert turns.ratio(ours, peer)["ratio"] == pytest.approx(16.0 / 4.0), "not over the 1.0 of turns after others'"


def test_the_doubt_is_what_the_visits_differ() -> None:
    ours, peer = contender(1.0, 1.0, 2.0, 2.0), contender(4.0, 4.0, 10.0, 10.0)
    for one in (ours, peer):
        one.starts = [2]
    assert turns.ratio(ours, peer) == pytest.approx({"ratio": 4.0, "ratio_low": 4.0, "ratio_high": 5.0})
    assert turns.spread(peer)["best_within"] == (4.0, 10.0)
    ours.starts = peer.starts = [1, 3]  # and two more
    assert turns.ratio(ours, peer)["ratio_high"] == 5.0 and turns.ratio(ours, peer)["ratio_low"] == 4.0
    assert turns.ratio(contender(2.0), contender(6.0)) == {"ratio": 3.0, "ratio_low": 3.0, "ratio_high": 3.0}


def test_a_slow_baseline_makes_no_turn_fast() -> None:
    """Of 5 and 2 apiece, and once 5 and 4, as the machine was slow during the baseline alone."""
    peer = contender(3.0, 1.0, 3.0, costs=2.0)
    peer.costs[1] = 4.0
    assert peer.best(range(3)) == pytest.approx(3.0)


def play(monkeypatch: pytest.MonkeyPatch, ours: Callable[[], Any], **peers: Callable[[], Any]) -> tuple[Any, list[str]]:
    clock = Clock()
    us = turns.Contender(ours, 1, first=clock(ours))
    others = [turns.Contender(run, 1, first=clock(run)) for run in peers.values()]
    clock.turns.clear()
    turns.take_turns(Benchmark(), us, others, clock)
    return us, clock.turns


def varying(name: str, seconds: list[float]) -> Callable[[], Any]:
    """Costs these in turn, over and over."""
    calls = iter(range(10**9))

    def run() -> None:
        Clock.costs.append((name, seconds[next(calls) % len(seconds)]))

    return run


def test_short_contenders_take_the_most_turns_and_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    _, most = turns.ROUNDS
    _, order = play(monkeypatch, costing("o", 0.01), p=costing("p", 0.01), q=costing("q", 0.01))
    assert "".join(order) == ("poqoqopo" * most)[: 4 * most], "each peer's turn lies between two of ours"
    _, order = play(monkeypatch, costing("o", turns.SHORT * 1.2), p=costing("p", 0.01), q=costing("q", 0.01))
    assert "".join(order) == ("pqoqpo" * most)[: 3 * most], "of long calls, one a round"


def test_a_slow_peer_takes_its_turns_spread_over_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were they all in the first rounds, its median and ours would be of different minutes."""
    fewest, _ = turns.ROUNDS
    slow = costing("s", turns.BUDGET / 2)
    _, order = play(monkeypatch, costing("o", 0.001), p=costing("p", 0.001), s=slow)
    places = [order[:at].count("p") for at, name in enumerate(order) if name == "s"]
    assert len(places) == turns.FEW[0] and places[0] <= 1 and places[-1] >= fewest - 1
    assert max(b - a for a, b in itertools.pairwise(places)) <= 1 + fewest / turns.FEW[0]


def test_a_turn_begins_with_a_call_that_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that leaves something behind, which makes the next call of anybody slow, changes nobody's time."""
    left: list[str] = []

    def leaving(name: str, seconds: float) -> Callable[[], Any]:
        def run() -> None:
            late = bool(left) and left[-1] != name
            left.append(name)
            Clock.costs.append((name, seconds + (1.0 if late else 0.0)))

        return run

    def timed(warm: bool) -> tuple[Any, Any]:
        left[:] = ["somebody"]
        us, them = (turns.Contender(leaving(*one), 1, first=one[1], warm=warm) for one in (("o", 0.01), ("p", 0.04)))
        turns.take_turns(Benchmark(), us, [them], Clock())
        return us, them

    us, them = timed(True)
    assert set(us.seconds) == {0.01} and set(them.seconds) == {0.04}
    assert turns.ratio(us, them)["ratio"] == pytest.approx(4.0)
    us, them = timed(False)
    assert turns.ratio(us, them)["ratio"] == pytest.approx(1.04 / 1.01), "without it, nothing but what was left behind"


def test_no_contender_exceeds_its_time_for_long_and_a_slow_one_takes_few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    scatter = [0.5, 1.0, 2.0]
    wild = varying("w", [turns.BUDGET / 20 * s for s in scatter])
    us, order = play(monkeypatch, costing("o", 0.001), w=wild, s=costing("s", 3.0), m=costing("m", turns.BUDGET / 2))
    assert order.count("s") == turns.FEW[1] and order.count("m") == turns.FEW[0]
    assert turns.ROUNDS[0] < order.count("w") <= 24, "the budget divided by the mean, and a few"
    assert len(us.seconds) == len(order) - len(us.seconds), "one of ours after each of theirs"


def test_what_the_baseline_takes_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    both = turns.Contender(costing("work", 0.5), 1, baseline=costing("idle", 0.2))
    both.take_turn(Clock(), 4)
    assert both.seconds == pytest.approx([0.3]) and both.rounds == [4]


def test_a_short_call_is_repeated_to_fill_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert turns.calls_a_turn(turns.TURN / 4.5) == 5 and turns.calls_a_turn(1.0) == 1
    seen: list[int] = []
    short = turns.Contender(lambda: seen.append(1), 1, calls=7)
    short.take_turn(lambda run: run() or 0.7, 0)
    assert len(seen) == 7 and short.seconds == pytest.approx([0.1])


def test_our_turn_lasts_as_long_as_the_one_before_it() -> None:
    """Else a spell that no long turn escapes is always escaped by some short ones."""

    class Calm:
        held = True

        def wait(self) -> None: ...

        def again(self) -> bool:
            return False

    calls: list[str] = []

    def one(name: str, seconds: float) -> Any:
        return turns.Contender(lambda: calls.append(name), 1, first=seconds, pace=Calm())

    def timer(run: Callable[[], Any]) -> float:
        before = len(calls)
        run()
        return {"o": 0.01, "p": 0.04, "s": 3.0}[calls[-1]] * (len(calls) - before)

    us, them, slow = one("o", 0.01), one("p", 0.04), one("s", 3.0)
    turns.take_turns(Benchmark(), us, [them], timer)
    assert us.seconds == pytest.approx([0.01] * len(them.seconds)) and "".join(calls[:10]) == "poooopoooo"
    calls.clear()
    turns.take_turns(None, us, [slow], timer)
    assert "".join(calls).split("s")[1].count("o") < round(turns.SAME / 0.01) + turns.ROUNDS[0], (
        "but no longer than that"
    )
    assert calls[: 1 + round(turns.SAME / 0.01)] == ["s", *["o"] * round(turns.SAME / 0.01)]


def test_only_the_wall_clock_repeats_calls() -> None:
    """A timer of the caller's own flushes caches or changes inputs before each call."""
    calls: list[int] = []

    def timer(run: Callable[[], Any]) -> float:
        calls.append(0)
        run()
        return 1e-5

    def ours() -> list[float]:
        calls[-1] += 1
        return [1.0]

    harness.compare(Benchmark(), ours, [], items=1, unit="clip", timer=timer)
    assert set(calls) == {1}


def test_a_second_visit_adds_its_turns_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reported after it is of both, and neither visit's turns are held against the other's."""
    ours, them = turns.Contender(costing("o", 1.0), 1, first=1e-3), turns.Contender(costing("p", 5.0), 1, first=1e-3)
    clock = Clock()
    turns.take_turns(Benchmark(), ours, [them], clock)
    before = len(them.seconds)
    for contender in (ours, them):
        contender.begin()
    ours.run, them.run = costing("o", 10.0), costing("p", 30.0)
    clock.turns.clear()
    turns.take_turns(None, ours, [them], clock)
    assert clock.turns[:2] == ["p", "o"] and len(them.seconds) == 2 * before
    assert turns.ratio(ours, them) == {"ratio": 5.0, "ratio_low": 3.0, "ratio_high": 5.0}
    for contender in (ours, them):
        contender.forget()
    assert set(ours.seconds) == {1.0} and len(ours.seconds) == len(ours.rounds) and set(them.seconds) == {5.0}


def test_every_case_is_visited_again_and_a_failure_leaves_the_first_visit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "QUICK", False)
    monkeypatch.setattr(harness.PACE, "work", lambda place: 1.0)  # always calm
    harness._visits.clear()
    calls: list[int] = []

    def ours() -> list[float]:
        calls.append(0)
        if broken:
            raise OSError("gone")
        return [1.0]

    broken = False
    bench = Benchmark()
    record = harness.compare(bench, ours, [], items=1, unit="clip", maximum_seconds=1.0)
    rounds, once = record["ours"]["rounds"], len(calls)
    harness.visit_again()
    assert len(calls) > once and bench.extra_info["ours"]["rounds"] > rounds and bench.extra_info["ours"]["met"]
    harness.compare(bench, ours, [], items=1, unit="clip")
    first, broken = dict(bench.extra_info), True
    harness.visit_again()
    assert bench.extra_info == first and "not visited again: OSError: gone" in capsys.readouterr().out
    assert not harness._visits


def test_a_case_that_was_not_calm_is_visited_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "QUICK", False)
    visited: list[str] = []
    for name, calm in (("calm", [True] * 9), ("slow once", [False, True]), ("slow", [False] * 9)):
        answers = iter(calm)
        harness.visit_later(lambda name=name: visited.append(name), Benchmark(), lambda answers=answers: next(answers))
    harness.visit_again()
    assert visited == ["calm", "slow once", "slow", "slow once", "slow"], "three times at the most, with the first"
    enough = turns.ROUNDS[0]
    assert contender(1.0, 2.0).calm, "who takes few turns is asked for no more"
    one = contender(*[1.0] * 2 * enough)
    one.held = [True] * (enough - 1) + [False] * (enough + 1)
    assert not one.calm
    one.held[-1] = True
    assert one.calm


def test_a_floor_is_judged_by_both_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "QUICK", False)
    harness._visits.clear()

    def first_visit(name: str, seconds: float) -> Any:
        bench, turns_taken = Benchmark(name), iter((seconds, 1.0, 1.0))

        def visit(_: Any, us: Any, *__: Any) -> None:
            us.seconds += [next(turns_taken)] * (2 if us.seconds else 1)
            us.held, us.costs = [True] * len(us.seconds), [0.0] * len(us.seconds)

        monkeypatch.setattr(harness, "visit", visit)
        harness.compare(bench, lambda: [1.0], [], items=1, unit="clip", maximum_seconds=0.85 if "bad" in name else 1.1)
        return bench, visit

    (late, again) = first_visit("late", 5.0)
    assert late.extra_info["ours"]["met"] is False, "recorded, not yet held against it"
    monkeypatch.setattr(harness, "visit", again)
    assert harness.visit_again() == [] and late.extra_info["ours"]["met"] is True
    (bad, again) = first_visit("bad", 0.8)
    assert bad.extra_info["ours"]["met"] is True
    monkeypatch.setattr(harness, "visit", again)
    assert harness.visit_again() == ["bad: fastaug: 0.9 s, at most 0.85 s asked"]
