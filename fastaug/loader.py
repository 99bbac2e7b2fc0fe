"""Records → cropped samples: what one decode thread does, and how its rows become a Batch on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaug.batch import Batch, Place
from fastaug.codecs.open import OpenAudio, open_audio
from fastaug.codecs.status import DecodeError
from fastaug.random import Keys, sample_id
from fastaug.shards.record import BadRecord, Record
from fastaug.shards.source import Source

__all__ = ["CROPS", "Labels", "Loader", "Row", "Task", "merge_rows"]

CROPS = ("random", "center", "segments", "whole")
_MAX_REPLACEMENTS = 16


@dataclass(frozen=True)
class Task:
    """One record to load.

    Attributes:
        record: index in the source. occurrence: earlier deliveries of it in this epoch.
        position: place in this rank's order, which makes the draws of a replacement unique.
        segments: ordinals of the segments wanted, for ``crop="segments"``.
    """

    record: int
    occurrence: int
    position: int
    segments: tuple[int, ...] = (0,)


@dataclass
class Row:
    """One row of a batch: V crops of one example."""

    key: str
    fields: dict[str, Any]
    label: Any
    occurrence: int
    crops: list[Tensor]
    starts: list[int]
    lengths: list[int]
    segment: int


@dataclass
class Labels:
    """Names ↔ indices of the label that a Pipeline delivers.

    Attributes:
        name: the field, e.g. "genre". classes: ordered names; None where the field holds integers.
        multi: multi-hot rather than one index.
    """

    name: str
    classes: list[str] | None
    multi: bool = False

    def encode(self, fields: dict[str, Any]) -> Any:
        """A field value as an index, or as the list of indices of a multi-hot row; None when absent.

        Raises:
            ValueError: the value is not among the classes.
        """
        value = fields.get(self.name)
        if value is None:
            return None
        if self.multi:
            return [self._index(item) for item in (value if isinstance(value, list) else [value])]
        return self._index(value)

    def _index(self, value: Any) -> int:
        if self.classes is None:
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            raise ValueError(f"{self.name} is {value!r}: give classes=[...] to Pipeline for labels that are names")
        if value not in self.classes:
            raise ValueError(f"{self.name} is {value!r}, not one of the {len(self.classes)} classes")
        return self.classes.index(value)

    def tensor(self, encoded: Sequence[Any]) -> Tensor:
        """int64 (B,) with -1 for None, or float32 (B, n) with NaN for None."""
        if not self.multi:
            return torch.tensor([-1 if value is None else value for value in encoded], dtype=torch.int64)
        hot = torch.zeros(len(encoded), len(self.classes or []))
        for row, value in zip(hot, encoded, strict=True):
            row[value if value is not None else slice(None)] = 1.0 if value is not None else torch.nan
        return hot


@dataclass
class Loader:
    """How to read, crop, decode and label one record. Plain data, so that it travels to worker processes."""

    source: Source
    sample_rate: int
    crop: str
    crop_samples: int | None
    hop_samples: int
    views: int
    share_crop: bool
    channels: int | None
    labels: Labels | None
    seed: int
    on_error: str
    flat: bool = False
    #: output length of every record, filled by `count_segments`
    _lengths: dict[int, int | BadRecord] = field(default_factory=dict)

    def load(self, task: Task, epoch: int) -> tuple[list[Row], list[BadRecord]]:
        """The rows of one task, and what went wrong on the way.

        Raises:
            DecodeError: the record is bad and ``on_error`` is "raise", or too many replacements were bad as well.
        """
        errors: list[BadRecord] = []
        for attempt in range(_MAX_REPLACEMENTS):
            rows = self._attempt(task, epoch)
            if not isinstance(rows, BadRecord):
                return rows, errors
            errors.append(rows)
            if self.on_error == "raise":
                raise DecodeError(str(rows))
            if self.on_error == "skip":
                return [], errors
            task = self._replacement(task, epoch, attempt)
        raise DecodeError(f"{_MAX_REPLACEMENTS} records in a row are bad, the last: {errors[-1]}")

    def count_segments(self, record: int) -> int | BadRecord:
        """Number of segments of a record, or why it cannot be read."""
        if record not in self._lengths:
            self._lengths[record] = self._length(record)
        length = self._lengths[record]
        if isinstance(length, BadRecord):
            return length
        return max(1, 1 + (length - int(self.crop_samples or 1)) // self.hop_samples)

    def collate(self, rows: list[Row], errors: list[BadRecord], place: Place) -> Batch:
        """A CPU batch of not yet augmented samples."""
        width = max((crop.shape[1] for row in rows for crop in row.crops), default=self.crop_samples or 0)
        counts = sorted({crop.shape[0] for row in rows for crop in row.crops})
        if len(counts) > 1:
            raise ValueError(f"examples of {counts} channels in one batch: give Pipeline(channels=1) or another number")
        audio = torch.zeros(self.views, len(rows), counts[0] if counts else 1, width)
        for b, row in enumerate(rows):
            for v, crop in enumerate(row.crops):
                audio[v, b, :, : crop.shape[1]] = crop
        names = sorted({name for row in rows for name in row.fields})
        starts, lengths = (
            torch.tensor([[getattr(row, what)[v] for row in rows] for v in range(self.views)], dtype=torch.int64)
            for what in ("starts", "lengths")
        )
        ids = np.array([sample_id(row.key) for row in rows], dtype=np.uint64)
        occurrences = np.array([row.occurrence for row in rows], dtype=np.int64)
        keys = [Keys.of(self.seed, ids, place.epoch, view, occurrences) for view in range(self.views)]
        segmented = self.crop == "segments"
        return Batch(
            audio=audio[0] if self.flat else audio,
            sample_rate=self.sample_rate,
            keys=[row.key for row in rows],
            fields={name: [row.fields.get(name) for row in rows] for name in names},
            starts=starts[0] if self.flat else starts,
            lengths=lengths[0] if self.flat else lengths,
            labels=self.labels.tensor([row.label for row in rows]) if self.labels else None,
            segment=torch.tensor([row.segment for row in rows], dtype=torch.int64) if segmented else None,
            errors=errors,
            subkeys=torch.from_numpy(np.stack([key.rows.astype(np.int64) for key in keys])),
            place=place,
        )

    def _read(self, index: int) -> Record | BadRecord:
        try:
            return self.source.read(index)
        except (OSError, ValueError) as error:
            key = self.source.key(index)
            return BadRecord(key, str(getattr(error, "filename", None) or key), "read", str(error))

    def _attempt(self, task: Task, epoch: int) -> list[Row] | BadRecord:
        record = self._read(task.record)
        if isinstance(record, BadRecord):
            return record
        try:
            label = self.labels.encode(record.fields) if self.labels else None
        except ValueError as error:
            return BadRecord(record.key, record.place, "label", str(error))
        try:
            with open_audio(record.audio, record.member or record.key, threads=1) as audio:
                return self._rows(record, label, audio, task, epoch)
        except (DecodeError, OSError) as error:
            return BadRecord(record.key, record.place, "decode", str(error))

    def _rows(self, record: Record, label: Any, audio: OpenAudio, task: Task, epoch: int) -> list[Row]:
        total = audio.frames(self.sample_rate)
        if total == 0:
            raise DecodeError(f"{record.key}: no samples")
        width = self.crop_samples if self.crop_samples is not None else total
        wanted = [self._starts(record.key, total, task.occurrence, segment, epoch) for segment in task.segments]
        distinct = sorted({start for starts in wanted for start in starts})
        crops = dict(zip(distinct, audio.crops(distinct, width, self.sample_rate, self.channels), strict=True))
        rows = []
        for segment, starts in zip(task.segments, wanted, strict=True):
            lengths = [max(min(width, total - start), 0) for start in starts]
            views = [crops[start] for start in starts]
            rows.append(Row(record.key, record.fields, label, task.occurrence, views, starts, lengths, segment))
        return rows

    def _starts(self, key: str, total: int, occurrence: int, segment: int, epoch: int) -> list[int]:
        room = max(total - int(self.crop_samples or total), 0)
        if self.crop == "random":
            drawn = 1 if self.share_crop else self.views
            keys = Keys.of(self.seed, [key], epoch, np.arange(drawn), occurrence, path="crop")
            return (keys.integers("start", 0, room + 1).tolist() * self.views)[: self.views]
        start = {"center": room // 2, "segments": segment * self.hop_samples, "whole": 0}[self.crop]
        return [start] * self.views

    def _length(self, index: int) -> int | BadRecord:
        record = self._read(index)
        if isinstance(record, BadRecord):
            return record
        try:
            with open_audio(record.audio, record.member or record.key, threads=1) as audio:
                return audio.frames(self.sample_rate)
        except (DecodeError, OSError) as error:
            return BadRecord(record.key, record.place, "probe", str(error))

    def _replacement(self, task: Task, epoch: int, attempt: int) -> Task:
        """Another record in place of a bad one: a draw like any other, so a replay finds the same."""
        key = self.source.key(task.record)
        draw = Keys.of(self.seed, [key], epoch, 0, task.occurrence, path="order/replacement")
        index = int(draw.integers(f"record/{attempt}", 0, len(self.source)))
        return Task(index, 1 + task.position % ((1 << 24) - 1), task.position)


def merge_rows(rows: list[Task]) -> list[Task]:
    """Adjacent rows of one delivery as one task, so that each member is opened once a batch."""
    tasks: list[Task] = []
    for row in rows:
        if tasks and tasks[-1].position == row.position:
            tasks[-1] = dataclasses.replace(tasks[-1], segments=tasks[-1].segments + row.segments)
        else:
            tasks.append(row)
    return tasks
