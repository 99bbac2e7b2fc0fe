"""How contenders are timed beside each other, and what their times say.

Everybody takes a turn in each round: the peers, in alternating order, then ours. A turn repeats a short call until it
lasts `TURN` seconds. A peer's ratio is formed round by round, its time over the mean of ours just before and after, so
that a machine that is slow for a while is slow for both; what counts is the median of these ratios. Rounds go on until
that median is known within `DOUBT`, for every peer, or until a contender has used its time up.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

QUICK = os.environ.get("QUICK", "0") not in ("", "0")
TURN = 0.002 if QUICK else 0.010  # seconds: the least that a turn lasts
BUDGET = 0.08 if QUICK else 1.5  # seconds of turns, after which a contender need take no more
SPAN = 0.0 if QUICK else 1.0  # seconds from the first turn to the last, at least
ROUNDS = (3, 9) if QUICK else (9, 150)  # fewest and most
FEW = (2, 2) if QUICK else (5, 3)  # at least, of one whose `ROUNDS` would exceed the budget; whose calls take seconds
DOUBT = 0.03  # half the width of the interval around a median, as a share of it, at which it is settled

Run = Callable[[], Any]
Timer = Callable[[Run], float]


@dataclass
class Contender:
    """A function that takes part, and the seconds that a call of it took in each of its turns."""

    run: Run
    items: int
    first: float = 0.0  # seconds of the first call
    baseline: Run | None = None
    calls: int = 1  # in a turn
    seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)  # in which it took them

    def take_turn(self, timer: Timer, number: int) -> None:
        spent = timer(self.repeated)
        if self.baseline is not None:
            spent -= timer(self.baseline)
        self.seconds.append(max(spent, 1e-9) / self.calls)
        self.rounds.append(number)

    def repeated(self) -> None:
        for _ in range(self.calls):
            self.run()

    @property
    def per_item(self) -> list[float]:
        return [seconds / self.items for seconds in self.seconds]

    @property
    def fewest(self) -> int:
        """Turns that it must take."""
        return ROUNDS[0] if self.first * ROUNDS[0] < BUDGET else FEW[self.first > 2]

    @property
    def wants_turn(self) -> bool:
        return len(self.seconds) < self.fewest or self.calls * sum(self.seconds) < BUDGET


def take_turns(benchmark: Any, ours: Contender, peers: Sequence[Contender], timer: Timer) -> None:
    """Time everybody. pytest-benchmark sees the first rounds of ours; the others' turns lie between."""
    number, start = 0, time.monotonic()

    def peers_turns() -> None:
        for peer in peers if number % 2 == 0 else reversed(peers):
            if peer.wants_turn:
                peer.take_turn(timer, number)

    def our_turn() -> None:
        nonlocal number
        ours.take_turn(timer, number)
        number += 1

    def enough() -> bool:
        if number >= ROUNDS[1]:
            return True
        done = all(not peer.wants_turn or settled(paired(ours, peer), peer.fewest) for peer in peers)
        done = done and (not ours.wants_turn or settled(ours.seconds, ours.fewest))
        return done and time.monotonic() - start >= SPAN

    benchmark.pedantic(our_turn, setup=peers_turns, rounds=max(contender.fewest for contender in (ours, *peers)))
    while not enough():
        peers_turns()
        our_turn()


def paired(ours: Contender, peer: Contender) -> list[float]:
    """The peer's time per item over ours, in every round in which it took a turn."""
    us, them = ours.per_item, peer.per_item
    beside = [us[number] if number == 0 else (us[number - 1] + us[number]) / 2 for number in peer.rounds]
    return [theirs / near for theirs, near in zip(them, beside, strict=True)]


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
    """Median, lower and upper quartile of the seconds per item, and how many items and turns stand behind them."""
    seconds = sorted(contender.per_item)
    if len(seconds) > 1:
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    else:
        low = median = high = seconds[0]
    return {"median": median, "low": low, "high": high, "rounds": len(seconds), "items": contender.items}


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


def rested(run: Run) -> float:
    """The wall clock after a pause in which the threads that the one before left spinning fall asleep: libgomp's spin
    for 4 ms after a parallel region, and would do so on the next one's cores."""
    time.sleep(0.006)
    return wall_clock(run)
