"""Word of the batches that a DataLoader worker will not deliver.

A worker tells of bad records with its next batch. Behind its last one it has none, and to the parent such batches would
be as if they had never been: missing in the counts, and an epoch that ends with one would never be over. Nor does the
parent see the state from which torchdata's StatefulDataLoader has a worker resume. So the worker leaves word in a file,
which the parent and the workers of the next epoch read.

The other way round, a worker that lives on (``persistent_workers=True``) does not see how far the caller came, nor
which epoch was chosen: what it has handed on itself, ahead of the caller, says little. The parent keeps that in a file
beside.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastaug.batch import Stamp
from fastaug.shards.record import BadRecord

__all__ = ["Lost", "Word"]


@dataclass(frozen=True)
class Word:
    """What a worker says.

    Attributes:
        epoch, count: of which epoch, and how many batches that has. stamp: of its iteration, as in `Place`.
        batches: indices of those that it will not deliver. errors, outcomes: as in `Batch`.
        resumed: they came before the place where it resumes; otherwise nothing could be had of them.
    """

    epoch: int
    count: int
    stamp: Stamp
    batches: list[int]
    errors: list[BadRecord] = field(default_factory=list)
    outcomes: list[bool] = field(default_factory=list)
    resumed: bool = False


@dataclass
class Lost:
    """The file, of a name that nobody can guess. There is none before there is something to tell.

    Copies, in workers too, go on reading where the original was when they were made.
    """

    path: str = field(default_factory=lambda: str(Path(tempfile.gettempdir(), f"fastaug-{secrets.token_hex(16)}")))
    _read: int = 0
    _keeps: int = 0  # the process that keeps what its workers recall

    def __post_init__(self) -> None:
        weakref.finalize(self, _remove, self.path, os.getpid())

    def tell(self, word: Word) -> None:
        line = (json.dumps(dataclasses.asdict(word)) + "\n").encode()
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def keep(self, known: dict[str, Any]) -> None:
        """For workers of this process to `recall`: JSON-able, in place of what was kept before."""
        own, file = os.getpid(), f"{self.path}-{os.getpid()}"
        if self._keeps != own:  # a copy that came through a fork has workers of its own
            weakref.finalize(self, _remove, file, own)
            self._keeps = own
        try:
            partial = os.open(f"{file}.partial", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(partial, "w") as opened:
                json.dump(known, opened)
            os.replace(f"{file}.partial", file)
        except OSError:  # a full disk: better nothing than what is no longer true
            _remove(f"{file}.partial", own)
            _remove(file, own)

    def recall(self) -> dict[str, Any] | None:
        """In a worker: what its parent keeps; None for nothing."""
        try:
            known: dict[str, Any] = json.loads(Path(f"{self.path}-{os.getppid()}").read_bytes())
        except FileNotFoundError:
            return None
        return known

    def news(self) -> Iterator[Word]:
        """What was not read before."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._read)
                lines = file.read()
        except FileNotFoundError:
            return
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            said = json.loads(line)
            yield Word(**(said | {"stamp": tuple(said["stamp"]), "errors": _records(said["errors"])}))


def _records(said: Sequence[dict[str, str]]) -> list[BadRecord]:
    return [BadRecord(**one) for one in said]  # type: ignore[arg-type]


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        Path(path).unlink(missing_ok=True)
