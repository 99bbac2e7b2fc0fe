"""Whether the machine runs at its own pace.

A virtual machine shares its cores with others that no counter of its own shows: a fixed loop took 0.48 ms, and for half
a second at a time, every few seconds, 0.85 ms. A turn in such a spell says nothing about whoever took it, so a small
matrix product, on as many threads as the case has, is timed on both sides of a turn, and where it was slow the turn
waits or is taken again. All contenders are treated alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from turns import QUICK

SLOWER = 1.15  # times the fastest product so far, up to which a turn is believed
NAP = 0.02  # seconds between looks while waiting
SECONDS = 4.0 if QUICK else 20.0  # of a process, for waiting and for turns that were taken in vain


class Pace:
    """Args: product: what is timed; clock: in seconds; nap: waits that long; left: seconds that may be spent."""

    def __init__(
        self,
        product: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        nap: Callable[[float], None] = time.sleep,
        left: float = SECONDS,
    ) -> None:
        self.product, self.clock, self.nap, self.left = product or small_product(), clock, nap, left
        self.fastest: dict[int, float] = {}  # by threads
        self.lost = 0.0  # seconds, of `left`

    def holds(self) -> bool:
        """Whether the product is as fast as it has been."""
        threads, times = torch.get_num_threads(), []
        for _ in range(3 if threads in self.fastest else 100):
            start = self.clock()
            self.product()
            times.append(self.clock() - start)
        self.fastest[threads] = min(*times, self.fastest.get(threads, times[0]))
        return min(times) <= SLOWER * self.fastest[threads]

    def wait(self) -> None:
        """Until it holds, or the time is spent."""
        start = self.clock()
        while self.lost < self.left and not self.holds():
            self.nap(NAP)
            self.lost += self.clock() - start
            start = self.clock()

    def believed(self, seconds: float) -> bool:
        """Whether a turn that took so long counts: the pace still holds, or no time is left to take it again."""
        if self.lost >= self.left or self.holds():
            return True
        self.lost += seconds
        return False


def small_product() -> Callable[[], object]:
    """0.2 ms on one core, all of it in the cache."""
    a, b, out = torch.ones(160, 192), torch.ones(192, 160), torch.empty(160, 160)
    return lambda: torch.mm(a, b, out=out)
