"""One example as it is stored: encoded bytes, fields, and where it came from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Suffixes (lower case, no dot) taken for audio in shards and folders.
AUDIO_SUFFIXES = frozenset(
    {"wav", "wave", "w64", "rf64", "bwf", "flac", "mp3", "mp2", "mp1", "mpga", "ogg", "oga", "opus"}
    | {"aif", "aiff", "aifc", "au", "snd", "caf", "m4a", "aac"}
)


@dataclass
class Record:
    """Encoded audio and the fields of one example.

    Attributes:
        key: names the example for ever; all its random draws derive from it. "<shard file>/<member key>" in shards,
            the relative path in folders.
        audio: encoded bytes, or the path of a file.
        fields: labels and anything else that is known of the example.
        shard: path of the tar file, None outside shards.
        member: name of the audio member inside the shard.
        offset: byte offset of that member's data inside the shard.
    """

    key: str
    audio: bytes | memoryview | str | Path
    fields: dict[str, Any] = field(default_factory=dict)
    shard: str | None = None
    member: str | None = None
    offset: int | None = None

    @property
    def place(self) -> str:
        """Where the audio lies, for messages."""
        if self.shard is not None:
            return f"{self.shard}: member {self.member} at byte {self.offset}"
        return str(self.audio) if isinstance(self.audio, str | Path) else f"record {self.key!r}"

    def failure(self, stage: str, reason: str) -> BadRecord:
        """This record as one that cannot be delivered."""
        url = self.shard if self.shard is not None else str(self.audio) if isinstance(self.audio, str | Path) else None
        return BadRecord(self.key, stage, reason, url, self.member, self.offset)


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be delivered, and why.

    Attributes:
        key: the record's key, or the shard's name where no record could be read.
        stage: "read", "probe", "decode" or "label".
        reason: one line.
        url: the shard or file; None for records in memory.
        member, offset: name and byte offset inside the shard, as far as known.
    """

    key: str
    stage: str
    reason: str
    url: str | None = None
    member: str | None = None
    offset: int | None = None

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        if self.member is not None:
            return f"{self.url}: member {self.member} at byte {self.offset}"
        return self.url or f"record {self.key!r}"

    def to_dict(self) -> dict[str, str | int | None]:
        """The attributes, for a line of JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return f"{self.place}: {self.stage} failed: {self.reason}"


class RecordError(ValueError):
    """A record cannot be read, through its own fault."""

    def __init__(self, bad: BadRecord) -> None:
        super().__init__(str(bad))
        self.bad = bad

    def __reduce__(self) -> tuple[type[RecordError], tuple[BadRecord]]:
        return RecordError, (self.bad,)
