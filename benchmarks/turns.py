"""How contenders are timed beside each other, and what their times say.

In each round the peers take turns, in alternating order, and after each of them we do (once a round, where a call of
ours is long). A turn repeats a short call until it lasts `TURN` seconds, after half as many calls that are not timed:
what the one before left behind (its data and code in the caches, threads that still spin, pages to copy after a fork)
is nobody's cost. A turn in which the machine was slow is taken again, unless that would take too long (`pace.py`).
Rounds go on until every contender has used its time up. A slow peer, which can afford few turns, takes them spread over
the rounds, not all at the beginning.

What others do to a shared machine only ever costs time, and how much of a run it costs changes from hour to hour: a
median drifts with it, the fastest turns do not. So a contender is known by the mean of its two fastest turns, and a
peer's ratio is that of its own over that of ours right after each of them: as many, as long, of the same minutes, with
the same luck. The doubt that is told is how far the visits of a case, minutes apart, differ. A case that was not calm
in enough turns is visited again.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from pace import Pace

QUICK = os.environ.get("QUICK", "0") not in ("", "0")
TURN = 0.002 if QUICK else 0.005  # seconds: the least that a turn lasts
# Of one visit to a case; there are two, minutes apart, but for a quick run.
BUDGET = 0.08 if QUICK else 0.3  # seconds of turns, after which a contender need take no more
WARM = 0.02 if QUICK else 0.3  # seconds: a longer call pays for what the one before left behind, and hardly notices
SAME = 0.3  # seconds, up to which our turn lasts as long as the peer's before it: a long one meets more slow spells
SHORT = 0.1  # seconds: a call of ours up to which we take a turn after each peer's
PAUSE = 0.006  # seconds in which threads fall asleep: libgomp's spin for 4 ms after a parallel region
ROUNDS = (3, 9) if QUICK else (5, 20)  # fewest and most
FEW = (2, 2) if QUICK else (3, 2)  # at least, of one whose `ROUNDS` would exceed the budget; whose calls take seconds
FASTEST = 2  # turns whose mean a contender is known by

Run = Callable[[], Any]
Timer = Callable[[Run], float]


@dataclass
class Contender:
    """A function that takes part, and the seconds that a call of it took in each of its turns, less the baseline.

    Args:
        first: seconds of the first call.
        baseline: what is also done but not the work itself; its time is taken off.
        calls: in a turn.
        warm: whether half as many calls that are not timed come before a turn.
        pause: seconds to wait before that.
        pace: waits until the machine is not slow, and knows whether it has been meanwhile, so that the turn is taken
            again; None: does not matter.
        costs: seconds of the baseline in each turn, a call.
        rounds: which of our turns came next after each of its turns.
        held: whether the machine held its pace in each of its turns.
        starts: how many turns it had taken when each visit after the first began.
    """

    run: Run
    items: int
    first: float = 0.0
    baseline: Run | None = None
    calls: int = 1
    warm: bool = False
    pause: float = 0.0
    pace: Pace | None = None
    seconds: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """A visit."""
        if self.seconds:
            self.starts.append(len(self.seconds))

    @property
    def begun(self) -> int:
        """Turns of the visits before."""
        return self.starts[-1] if self.starts else 0

    @property
    def calm(self) -> bool:
        """Whether enough of its turns were; long ones do not say."""
        return sum(self.held) >= min(ROUNDS[0], len(self.held))

    def forget(self) -> None:
        """The turns of this visit."""
        for column in (self.seconds, self.costs, self.rounds, self.held):
            del column[self.begun :]

    def get_ready(self) -> None:
        """Leave behind what the one before left behind."""
        if self.pause:
            time.sleep(self.pause)
        if self.pace is not None:
            self.pace.wait()
        if self.warm:
            for _ in range((self.calls + 1) // 2):  # a call of a millisecond becomes faster for eight
                self.run()

    def take_turn(self, timer: Timer, number: int, at_least: float = 0.0) -> None:
        """Be timed, ready; for so many seconds at least, where calls are repeated."""
        calls = max(self.calls, round(at_least / max(self.first, 1e-6))) if self.pace is not None else self.calls

        def repeated() -> None:
            for _ in range(calls):
                self.run()

        same_draws()
        spent = timer(repeated)
        while self.pace is not None and self.pace.again():
            self.get_ready()
            same_draws()
            spent = timer(repeated)
        cost = 0.0 if self.baseline is None else timer(self.baseline)
        self.seconds.append(max(spent - cost, 1e-9) / calls)
        self.costs.append(cost / calls)
        self.rounds.append(number)
        self.held.append(self.pace is None or self.pace.held)

    def best(self, turns: Iterable[int]) -> float:
        """Seconds per item in the fastest of these turns. The fastest baseline is taken off: one from a slow spell
        would make its turn look fast."""
        chosen = list(turns)
        cost = fastest(self.costs[i] for i in chosen)
        return max(fastest(self.seconds[i] + self.costs[i] for i in chosen) - cost, 1e-9) / self.items

    @property
    def fewest(self) -> int:
        """Turns that it must take in a visit."""
        return ROUNDS[0] if self.first * ROUNDS[0] < BUDGET else FEW[self.first > 2]

    @property
    def has_time(self) -> bool:
        return self.taken < self.fewest or self.calls * sum(self.seconds[self.begun :]) < BUDGET

    @property
    def taken(self) -> int:
        """Turns, in this visit."""
        return len(self.seconds) - self.begun

    def wants_turn(self, number: int, first: int) -> bool:
        """Whether its next turn is in this round: its fewest, spread over the ``first`` rounds, and, with time left,
        all later ones."""
        return self.has_time if number >= first else self.taken * first <= number * self.fewest


def take_turns(benchmark: Any, ours: Contender, peers: Sequence[Contender], timer: Timer) -> None:
    """Time everybody. pytest-benchmark, where it is given, sees the first of our turns; the others' lie between."""
    fewest = max(contender.fewest for contender in (ours, *peers))

    def groups() -> Iterator[Sequence[Contender]]:
        """Who takes a turn before each of ours, until all is known."""
        number = 0
        while number < fewest or (number < ROUNDS[1] and any(one.has_time for one in peers or [ours])):
            now = [peer for peer in peers if peer.wants_turn(number, fewest)][:: 1 if number % 2 == 0 else -1]
            yield from [[peer] for peer in now] if now and ours.first <= SHORT else [now]
            number += 1

    length = 0.0

    def others(group: Sequence[Contender]) -> None:
        nonlocal length
        length = min(SAME, max((peer.calls * peer.first for peer in group), default=0.0))
        for peer in group:
            peer.get_ready()
            peer.take_turn(timer, len(ours.seconds))
        ours.get_ready()

    def us() -> None:
        ours.take_turn(timer, len(ours.seconds), length)

    turns = groups()
    if benchmark is not None:
        benchmark.pedantic(us, setup=lambda: others(next(turns)), rounds=fewest)
    for group in turns:
        others(group)
        us()


def same_draws(number: int = 0) -> None:
    """Have generators of the process begin anew: where work depends on draws, the fastest turn must not be the one that
    drew the least of it."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def fastest(values: Iterable[float]) -> float:
    return statistics.fmean(sorted(values)[:FASTEST])


def visits(contender: Contender) -> list[range]:
    """The turns of each visit; of a single one, those of either half."""
    count = len(contender.seconds)
    edges = [0, *(contender.starts or [count // 2]), count]
    return [range(a, b) for a, b in itertools.pairwise(edges) if a < b]


def spread(contender: Contender) -> dict[str, Any]:
    """Seconds per item: of the fastest turns, that in either visit ("best_within": the least and the most of them), and
    median, lower and upper quartile of all; how many items and turns stand behind them."""
    seconds = sorted(seconds / contender.items for seconds in contender.seconds)
    if len(seconds) > 1:
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    else:
        low = median = high = seconds[0]
    best = contender.best(range(len(contender.seconds)))
    found = {"best": best, "best_within": within(best, map(contender.best, visits(contender)))}
    return {**found, "median": median, "low": low, "high": high, "rounds": len(seconds), "items": contender.items}


def ratio(ours: Contender, peer: Contender) -> dict[str, float]:
    """The peer's fastest turns over the fastest of ours among those that came next after one of its turns; the same in
    either visit ("ratio_low", "ratio_high": the least and the most of the three)."""

    def over(turns: Iterable[int]) -> float:
        chosen = list(turns)
        return peer.best(chosen) / ours.best({peer.rounds[i] for i in chosen})

    found = over(range(len(peer.seconds)))
    low, high = within(found, map(over, visits(peer)))
    return {"ratio": found, "ratio_low": low, "ratio_high": high}


def within(found: float, others: Iterable[float]) -> tuple[float, float]:
    values = [found, *others]
    return min(values), max(values)


def calls_a_turn(seconds: float) -> int:
    """How often a call of so many seconds is repeated to fill a turn."""
    return max(1, math.ceil(TURN / max(seconds, 1e-6)))


def wall_clock(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
