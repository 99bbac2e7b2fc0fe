"""How contenders are timed beside each other, and what their times say.

In each round the peers take turns, in alternating order, and after each of them we do (once a round, where a call of
ours is long). A turn repeats a short call until it lasts `TURN` seconds, after half as many calls that are not timed:
what the one before left behind (its data and code in the caches, threads that still spin, pages to copy after a fork)
is nobody's cost. A turn in which the machine was slow is taken again, or, where that would take too long, does not
count (`pace.py`). A peer's ratio is formed turn by
turn, its time over the mean of ours just before and after, so that a machine that is slow for a while is slow for both;
what counts is the median of these ratios. Rounds go on until that median is known within `DOUBT`, for every peer, or
until a contender has used its time up. A slow peer, which can afford few turns, takes them spread over the rounds, not
all at the beginning: its median and ours are of the same minutes.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pace import Pace

QUICK = os.environ.get("QUICK", "0") not in ("", "0")
TURN = 0.002 if QUICK else 0.010  # seconds: the least that a turn lasts
# Of one visit to a case; there are two, minutes apart, but for a quick run.
BUDGET = 0.08 if QUICK else 0.6  # seconds of turns, after which a contender need take no more
SPAN = 0.0 if QUICK else 0.5  # seconds from the first turn to the last, at least
WARM = 0.02 if QUICK else 0.3  # seconds: a longer call pays for what the one before left behind, and hardly notices
SHORT = 0.1  # seconds: a call of ours up to which we take a turn after each peer's
PAUSE = 0.006  # seconds in which threads fall asleep: libgomp's spin for 4 ms after a parallel region
ROUNDS = (3, 9) if QUICK else (5, 30)  # fewest and most
FEW = (2, 2) if QUICK else (3, 2)  # at least, of one whose `ROUNDS` would exceed the budget; whose calls take seconds
DOUBT = 0.03  # half the width of the interval around a median, as a share of it, at which it is settled

Run = Callable[[], Any]
Timer = Callable[[Run], float]


@dataclass
class Contender:
    """A function that takes part, and the seconds that a call of it took in each of its turns.

    Args:
        first: seconds of the first call.
        baseline: what is also done but not the work itself; its time is taken off.
        calls: in a turn.
        warm: whether half as many calls that are not timed come before a turn.
        pause: seconds to wait before that.
        pace: waits until the machine is not slow, and knows whether it has been meanwhile, so that the turn is taken
            again; None: does not matter.
        rounds: which of our turns came next after each of its turns.
        held: whether the machine held its pace in each of its turns.
        begun: turns that it took in the visits before.
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
    rounds: list[int] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    begun: int = 0

    def forget(self) -> None:
        """The turns of this visit."""
        del self.seconds[self.begun :], self.rounds[self.begun :], self.held[self.begun :]

    def get_ready(self) -> None:
        """Leave behind what the one before left behind."""
        if self.pause:
            time.sleep(self.pause)
        if self.pace is not None:
            self.pace.wait()
        if self.warm:
            for _ in range((self.calls + 1) // 2):  # a call of a millisecond becomes faster for eight
                self.run()

    def take_turn(self, timer: Timer, number: int) -> None:
        """Be timed, ready."""
        spent = timer(self.repeated)
        while self.pace is not None and self.pace.again():
            self.get_ready()
            spent = timer(self.repeated)
        if self.baseline is not None:
            spent -= timer(self.baseline)
        self.seconds.append(max(spent, 1e-9) / self.calls)
        self.rounds.append(number)
        self.held.append(self.pace is None or self.pace.held)

    def repeated(self) -> None:
        for _ in range(self.calls):
            self.run()

    @property
    def per_item(self) -> list[float]:
        """Seconds, of the turns that count."""
        return trusted([seconds / self.items for seconds in self.seconds], self.held)

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
    start, fewest = time.monotonic(), max(contender.fewest for contender in (ours, *peers))

    def enough() -> bool:
        done = all(not peer.has_time or settled(paired(ours, peer), peer.fewest + peer.begun) for peer in peers)
        done = done and (not ours.has_time or settled(ours.per_item, ours.fewest + ours.begun))
        return done and time.monotonic() - start >= SPAN

    def groups() -> Iterator[Sequence[Contender]]:
        """Who takes a turn before each of ours, until all is known."""
        number = 0
        while number < fewest or (number < ROUNDS[1] and not enough()):
            now = [peer for peer in peers if peer.wants_turn(number, fewest)][:: 1 if number % 2 == 0 else -1]
            yield from [[peer] for peer in now] if now and ours.first <= SHORT else [now]
            number += 1

    def others(group: Sequence[Contender]) -> None:
        for peer in group:
            peer.get_ready()
            peer.take_turn(timer, len(ours.seconds))
        ours.get_ready()

    def us() -> None:
        ours.take_turn(timer, len(ours.seconds))

    if ours.begun:  # the first peer of a later visit needs a turn of ours just before it, too
        others([])
        us()
    turns = groups()
    if benchmark is not None:
        benchmark.pedantic(us, setup=lambda: others(next(turns)), rounds=fewest)
    for group in turns:
        others(group)
        us()


def trusted(values: list[float], held: Sequence[bool]) -> list[float]:
    """Those of turns in which the machine held its pace, or all, where these are fewer than the fewest of a visit."""
    found = [value for value, good in zip(values, held, strict=True) if good]
    return found if len(found) >= ROUNDS[0] else values


def paired(ours: Contender, peer: Contender) -> list[float]:
    """The peer's time per item over the mean of ours just before and just after, or over that one of the two in which
    the machine held its pace, for every turn that it took and that counts."""
    found, held = [], []
    for seconds, number, good in zip(peer.seconds, peer.rounds, peer.held, strict=True):
        beside = range(max(number - 1, 0), number + 1)
        calm = [one for one in beside if ours.held[one]]
        near = statistics.fmean(ours.seconds[one] for one in calm or beside)
        found.append(seconds / peer.items / (near / ours.items))
        held.append(good and bool(calm))
    return trusted(found, held)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of what the values are drawn from lies, with a probability of 95 %, whatever its distribution:
    from the k-th smallest to the k-th largest value, for the largest k such that a coin thrown once for each value
    shows heads fewer than k times in at most 2.5 % of all trials. Of five and fewer: from end to end (94 %)."""
    ordered, chance, k = sorted(values), 0.0, 0
    while k < len(ordered) // 2:
        chance += math.comb(len(ordered), k) / 2 ** len(ordered)
        if chance > 0.025:
            break
        k += 1
    at = max(k - 1, 0)
    return ordered[at], ordered[-1 - at]


def doubt(values: Sequence[float]) -> float:
    """Half the width of the interval around the median, as a share of it."""
    low, high = interval(values)
    return (high - low) / 2 / statistics.median(values)


def settled(values: Sequence[float], fewest: int) -> bool:
    return len(values) >= fewest and doubt(values) <= DOUBT


def spread(contender: Contender) -> dict[str, Any]:
    """Median, lower and upper quartile of the seconds per item, the interval in which the median is known, and how many
    items and turns stand behind them."""
    seconds = sorted(contender.per_item)
    if len(seconds) > 1:
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    else:
        low = median = high = seconds[0]
    found = {"median": median, "low": low, "high": high, "median_within": interval(seconds)}
    return {**found, "rounds": len(seconds), "items": contender.items}


def ratio(ours: Contender, peer: Contender) -> dict[str, float]:
    """The median of the paired ratios, and the interval in which it is known."""
    values = paired(ours, peer)
    low, high = interval(values)
    return {"ratio": statistics.median(values), "ratio_low": low, "ratio_high": high}


def calls_a_turn(seconds: float) -> int:
    """How often a call of so many seconds is repeated to fill a turn."""
    return max(1, math.ceil(TURN / max(seconds, 1e-6)))


def wall_clock(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
