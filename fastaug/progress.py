"""How far the caller has come in an epoch, and which part of the rest each DataLoader worker plays.

Of w workers, worker k plays every w-th batch. One that loses a batch, because all its records are bad, delivers its
next one in that one's turn: batches then reach the caller out of order, and some behind the first that is missing are
there already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastaug.batch import Place, Stamp
from fastaug.lost import Word

__all__ = ["STATE_VERSION", "Progress", "changes"]

STATE_VERSION = 3


@dataclass
class Progress:
    """What has reached the caller; in a worker, what it has handed on.

    Attributes:
        epoch: that ``iter`` plays, or is playing.
        batch: the first batch that is still to come. done: those behind it that are not.
        turn: the batch behind the last: the worker that it belongs to is the next to deliver.
        begun: whether there was a batch since the epoch was chosen, or this place in it.
        told: whether this place is known from workers that a StatefulDataLoader has put there.
        stamp: the last iteration that was heard of; None for one without workers.
    """

    epoch: int = 0
    batch: int = 0
    turn: int = 0
    done: set[int] = field(default_factory=set)
    begun: bool = False
    told: bool = False
    stamp: Stamp | None = None

    def reset(self, epoch: int) -> None:
        """To the beginning of an epoch. The stamp stays: what an earlier iteration still delivers is no news."""
        self.epoch, self.batch, self.turn, self.done = epoch, 0, 0, set()
        self.begun = self.told = False

    def lane(self, count: int, worker: tuple[int, int]) -> Sequence[int]:
        """The batches still to come that are a worker's, (id, number) of all; ``count`` are in the epoch."""
        rest = range(self._own(self.batch, worker), count, worker[1])
        return [index for index in rest if index not in self.done] if self.done else rest

    def deliver(self, place: Place) -> None:
        """A batch has reached the caller, and so has, or never will, what its worker played before it."""
        self._enter(place.epoch, place.stamp)
        if place.epoch != self.epoch:  # the caller has chosen another meanwhile
            return
        if self.told and not self.begun:  # a StatefulDataLoader may have passed over some, up to this one
            self.done.update(range(self.batch, place.index - place.lost * place.stride))
        first = self.batch + (place.index - self.batch) % place.stride
        self.done.update(range(first, place.index + 1, place.stride))
        self.turn, self.begun = place.index + 1, True
        self._settle(place.count)

    def take(self, word: Word) -> None:
        """Some batches will not reach the caller, as a worker has said."""
        if self.stamp is None or word.stamp[1:] >= self.stamp[1:]:
            self._enter(word.epoch, word.stamp)
        if (word.epoch, word.stamp) != (self.epoch, self.stamp):
            return
        self.told |= word.resumed
        self.done.update(index for index in word.batches if index >= self.batch)
        self._settle(word.count)

    def hand_on(self, index: int, worker: tuple[int, int]) -> None:
        """In a worker: all before ``index`` that is its own is through."""
        self.batch = self._own(index, worker)
        self.turn, self.begun = self.batch - worker[0], True

    def passed(self, worker: tuple[int, int]) -> list[int]:
        """In a worker: what is not its any more."""
        first = self._own(self.batch, worker)
        return [*self.done, *range(first % worker[1], first, worker[1])]

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch, "turn": self.turn, "done": sorted(self.done)}

    def load(self, state: dict[str, Any]) -> None:
        self.reset(int(state["epoch"]))
        self.batch, self.turn, self.done = int(state["batch"]), int(state["turn"]), set(state["done"])

    def known(self) -> dict[str, Any]:
        """All of it, for `Lost.keep`."""
        return {**self.state(), "begun": self.begun, "told": self.told, "stamp": self.stamp}

    def follow(self, known: dict[str, Any]) -> None:
        """In a worker that lives on: be where the parent is."""
        self.load(known)
        self.begun, self.told = known["begun"], known["told"]
        self.stamp = None if known["stamp"] is None else tuple(known["stamp"])

    def _own(self, index: int, worker: tuple[int, int]) -> int:
        """The first batch from ``index`` on that is the worker's."""
        shift, stride = worker
        return index + (self.turn + shift - index) % stride

    def _enter(self, epoch: int, stamp: Stamp | None) -> None:
        if stamp != self.stamp and (self.begun or epoch != self.epoch):  # one that was left early begins again
            self.reset(epoch)
        self.stamp = stamp

    def _settle(self, count: int) -> None:
        while self.batch in self.done:
            self.done.remove(self.batch)
            self.batch += 1
        if self.batch >= count:
            self.reset(self.epoch + 1)


def changes(state: dict[str, Any], layout: dict[str, Any], worker: tuple[int, int] | None) -> list[str]:
    """Why a state cannot be loaded where the order and the content of batches depend on ``layout``."""
    edge = not state["batch"] and not state["done"]
    free, theirs = ("rank", "world_size") if edge else (), state["layout"]
    found = [f"{k}: {theirs.get(k)!r} → {v!r}" for k, v in layout.items() if k not in free and theirs.get(k) != v]
    if state["worker"] is not None and not edge and tuple(state["worker"]) != worker:
        found.append(f"worker and number of workers: {state['worker']} → {worker}")
    return found
