"""What a Pipeline has delivered, what it could not, and when that is too much."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastaug.shards.record import BadRecord

__all__ = ["Stats", "TooManyBadError"]

_ENOUGH = 1000  # records tried before a fraction of them means anything; fewer only where the epoch ends


class TooManyBadError(RuntimeError):
    """More bad records than ``max_bad_in_row`` or ``max_bad_fraction`` allow."""


@dataclass
class Stats:
    """What a Pipeline has delivered so far, and what it could not. Counts what reached the caller, in that order.

    Attributes:
        delivered: rows handed to the caller.
        tried: records read for them, good and bad. bad_count: the bad among them, each time that they came up.
        bad: every distinct trouble met, in the order of their first coming up.
        max_bad_in_row: bad records without a good one between them that are still accepted; None for any number.
        max_bad_fraction: likewise bad of all tried, looked at from 1000 on and at the end of an epoch.
        error_log: file to which each of ``bad`` is appended as a line of JSON; None for none.
    """

    delivered: int = 0
    tried: int = 0
    bad_count: int = 0
    bad: list[BadRecord] = field(default_factory=list)
    max_bad_in_row: int | None = None
    max_bad_fraction: float | None = None
    error_log: str | Path | None = None
    _in_row: int = 0
    _known: set[BadRecord] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        if self.max_bad_in_row is not None and self.max_bad_in_row < 0:
            raise ValueError(f"max_bad_in_row must not be negative, got {self.max_bad_in_row}")
        if self.max_bad_fraction is not None and not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction must lie in [0, 1], got {self.max_bad_fraction}")

    def note(self, rows: int, errors: Sequence[BadRecord], outcomes: Iterable[bool], last: bool = False) -> None:
        """Count a batch.

        Args:
            errors: its bad records. outcomes: of every record tried, whether it was good. last: the epoch ends.

        Raises:
            TooManyBadError: a limit is exceeded; the batch is counted.
        """
        self.delivered += rows
        longest = self.count(errors, outcomes)
        if self.max_bad_in_row is not None and longest > self.max_bad_in_row:
            found = f"{longest} bad records in a row"
            raise TooManyBadError(f"{found}, max_bad_in_row is {self.max_bad_in_row}{self._end()}")
        share = self.bad_count / max(self.tried, 1)
        if self.max_bad_fraction is not None and share > self.max_bad_fraction and (last or self.tried >= _ENOUGH):
            found = f"{self.bad_count} of {self.tried} records are bad"
            raise TooManyBadError(f"{found}, max_bad_fraction is {self.max_bad_fraction}{self._end()}")

    def count(self, errors: Sequence[BadRecord], outcomes: Iterable[bool], log: bool = True) -> int:
        """Count without a look at the limits; the longest row of bad ones."""
        self.add(errors, log)
        longest = 0
        for good in outcomes:
            self.tried += 1
            self.bad_count += not good
            self._in_row = 0 if good else self._in_row + 1
            longest = max(longest, self._in_row)
        return longest

    def add(self, errors: Iterable[BadRecord], log: bool = True) -> None:
        """List, and log, what is not known yet."""
        fresh = [error for error in dict.fromkeys(errors) if error not in self._known]
        self._known.update(fresh)
        self.bad += fresh
        if fresh and log and self.error_log is not None:
            lines = "".join(json.dumps(error.to_dict()) + "\n" for error in fresh)
            with open(self.error_log, "a", encoding="utf-8") as file:
                file.write(lines)

    def _end(self) -> str:
        return f"; the last: {self.bad[-1]}" if self.bad else ""
