"""Whether the machine runs at its own pace, and what a case does while it does not.

A virtual machine shares its cores with others that no counter of its own shows: a fixed loop took 0.48 ms, and then,
for a hundredth of a second or for some, 0.85 ms, on each core at times of its own; and at times each core is as fast as
it can be while the other rests, and both together are not. A turn in such a spell says nothing about whoever took it,
so fixed work, a hash, is timed on the case's cores, on all at once, on both sides of a turn. Where it was slow, the
case moves to other cores, if it leaves any free, and waits, or the turn is taken again. All contenders are treated
alike. The time that this may cost is a share of what the turns take: in a slow hour a run lasts half as long again.
When it is used up, a slow turn is kept, and known as one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cores import Place, go, slowest
from turns import PAUSE, QUICK

SLOWER = 1.1  # times the fastest look so far, up to which a turn is believed
NAP = 0.005  # seconds between looks while waiting
LOOKS = 20 if QUICK else 100  # at first, a nap apart: some of them find the machine calm
AT_FIRST, SHARE = (1.0, 0.1) if QUICK else (5.0, 0.5)  # that may be lost: seconds, and of what the turns took
LONG = 0.0 if QUICK else 0.3  # seconds: in a longer turn spells come and go, and it is not taken again


class Pace:
    """Args: work: the seconds that fixed work takes on the slowest of some cores; go: there; clock: in seconds; nap:
    waits that long; at_first, share: seconds that may be lost to waiting and to turns taken in vain, and as a share of
    the seconds of the turns that counted."""

    def __init__(
        self,
        work: Callable[[Place], float] = slowest,
        go: Callable[[Place], None] = go,
        clock: Callable[[], float] = time.perf_counter,
        nap: Callable[[float], None] = time.sleep,
        at_first: float = AT_FIRST,
        share: float = SHARE,
    ) -> None:
        self.work, self.go, self.clock, self.nap = work, go, clock, nap
        self.at_first, self.share = at_first, share
        self.places: Sequence[Place] = [()]  # where the case may run; the first is where it does
        self.fastest: float | None = None  # seconds of the work
        self.lost = self.kept = self.slow = 0.0  # seconds; what was kept though slow, as no time was left
        self.begun, self.held = 0.0, True  # of the turn at hand

    def stay(self, places: Sequence[Place]) -> None:
        """The case may run in each of these places, and is in the first."""
        self.places = list(places)

    def move(self) -> None:
        """To the next place, if there is one."""
        if len(self.places) > 1:
            self.places = [*self.places[1:], self.places[0]]
            self.go(self.places[0])

    def holds(self) -> bool:
        """Whether the work is as fast as it has been."""
        for look in range(LOOKS if self.fastest is None else 1):
            if look:
                self.move()
                self.nap(NAP)
            found = self.work(self.places[0])
            self.fastest = found if self.fastest is None else min(found, self.fastest)
        assert self.fastest is not None
        return found <= SLOWER * self.fastest

    @property
    def spent(self) -> bool:
        """Whether no time is left to lose."""
        return self.lost >= self.at_first + self.share * self.kept

    def find(self) -> bool:
        """Whether it holds here or in another place, to which the case has moved then."""
        for _ in self.places:
            if self.holds():
                return True
            self.move()
        return False

    def wait(self) -> None:
        """Until it holds somewhere, or the time is spent. What follows is a turn."""
        start = self.clock()
        while not (found := self.find()) and not self.spent:
            self.nap(NAP)
            self.lost += self.clock() - start
            start = self.clock()
        self.held, self.begun = found, self.clock()

    def again(self) -> bool:
        """Whether the turn since `wait` is to be taken again: the pace has not held to its end, and time is left.
        `held` is what is known of a turn that counts."""
        took = self.clock() - self.begun
        if took > LONG:
            self.held = True
        else:
            if len(self.places[0]) > 1:
                self.nap(PAUSE)  # threads that spin would make any core look slow
            self.held = self.held and self.holds()
        if not self.held and not self.spent:
            self.lost += took
            return True
        self.kept += took
        self.slow += 0.0 if self.held else took
        return False
