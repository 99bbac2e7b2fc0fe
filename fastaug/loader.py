"""Records → cropped samples: what one decode thread does with a chunk of tasks, and how chunks become a Batch."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaug.batch import Batch, Place
from fastaug.blocks import Blocks
from fastaug.checks import raise_if_ours
from fastaug.codecs.native import Ints, Wanted
from fastaug.codecs.open import OpenBatch
from fastaug.codecs.status import DecodeError
from fastaug.labels import LabelError, Labels
from fastaug.random import Keys, sample_id
from fastaug.shards.record import BadRecord, Record, RecordError
from fastaug.shards.source import Source
from fastaug.tasks import HERE, Part, Row, Task, Way

__all__ = ["CROPS", "Loader"]

CROPS = ("random", "center", "segments", "whole")
_MAX_REPLACEMENTS = 16
_PROBED = 64  # records of one native probe


@dataclass
class _Slot:
    """One task of a chunk on its way: the rows [at, at + segments) are its own."""

    task: Task
    at: int
    rows: list[Row] = field(default_factory=list)
    errors: list[BadRecord] = field(default_factory=list)


@dataclass
class Loader:
    """How to read, crop, decode and label records. Plain data, so that it travels to worker processes."""

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
    _blocks: Blocks = field(default_factory=Blocks)

    def room(self, rows: int, device: torch.device | None = None) -> Tensor | None:
        """Samples (V, rows, C, T) of a batch, uninitialised; None where their shape depends on the records."""
        if self.crop_samples is None or self.channels is None:
            return None
        shape = (self.views, rows, self.channels, self.crop_samples)
        return self._blocks.empty(*shape) if device is None else torch.empty(shape, device=device)

    def announce(self, tasks: Sequence[Task]) -> None:
        """Have the records of some tasks fetched from storage, without waiting for them."""
        if self.source.announce is not None:
            for task in tasks:
                self.source.announce(task.record)

    def load_batch(self, tasks: Sequence[Task], place: Place, way: Way = HERE) -> Batch | Part:
        """A whole batch; a `Part` where nothing of it could be had. See `load` and `collate`."""
        audio = self.room(sum(len(task.segments) for task in tasks), way.device)
        part = self.load(tasks, place.epoch, audio, way=way)
        return self.collate(part, audio, place) if part.rows else part

    def load(
        self, tasks: Sequence[Task], epoch: int, audio: Tensor | None = None, first: int = 0, way: Way = HERE
    ) -> Part:
        """The rows of some tasks, decoded by one native call, and what went wrong on the way.

        Args:
            audio: `room` of the batch, of which the tasks' rows begin at ``first``; None: rows get their own.
            way: by what to decode.

        Raises:
            DecodeError: a record is bad and ``on_error`` is "raise", or too many replacements were bad as well.
        """
        slots: list[_Slot] = []
        for task in tasks:
            slots.append(_Slot(task, first))
            first += len(task.segments)
        todo = slots
        for attempt in range(_MAX_REPLACEMENTS):
            self._attempt(todo, epoch, audio, way)
            todo = [slot for slot in todo if not slot.rows]
            if todo and self.on_error == "raise":
                raise DecodeError(str(todo[0].errors[0]))
            if not todo or self.on_error == "skip":
                break
            for slot in todo:
                slot.task = self._replacement(slot.task, epoch, attempt)
        else:
            raise DecodeError(f"{_MAX_REPLACEMENTS} records in a row are bad, the last: {todo[0].errors[-1]}")
        part = Part()
        for slot in slots:
            part += Part(slot.rows, slot.errors, [False] * len(slot.errors) + [True] * bool(slot.rows))
        return part

    def count_segments(self, records: Sequence[int], threads: int = 1) -> list[int | BadRecord]:
        """Number of segments of each record, or why it cannot be read."""
        unknown = [record for record in dict.fromkeys(records) if record not in self._lengths]
        chunks = [unknown[i : i + _PROBED] for i in range(0, len(unknown), _PROBED)]
        with ThreadPoolExecutor(threads) as pool:
            lengths = itertools.chain.from_iterable(pool.map(self._measure, chunks))
        self._lengths.update(zip(unknown, lengths, strict=True))
        width, counts = int(self.crop_samples or 1), []
        for record in records:
            n = self._lengths[record]
            counts.append(n if isinstance(n, BadRecord) else max(1, 1 + (n - width) // self.hop_samples))
        return counts

    def collate(self, part: Part, audio: Tensor | None, place: Place) -> Batch:
        """A batch of not yet augmented samples, these where they were decoded, all else on the CPU."""
        rows = part.rows
        starts, lengths = (
            torch.tensor([getattr(row, what) for row in rows], dtype=torch.int64).T.contiguous()
            for what in ("starts", "lengths")
        )
        audio = _gather(rows, audio, self.crop_samples)
        ids = np.array([row.sample_id for row in rows], dtype=np.uint64)
        occurrences = np.array([row.occurrence for row in rows], dtype=np.int64)
        keys = [Keys.of(self.seed, ids, place.epoch, view, occurrences) for view in range(self.views)]
        segmented = self.crop == "segments"
        names = sorted({name for row in rows for name in row.fields})
        return Batch(
            audio=audio[0] if self.flat else audio,
            sample_rate=self.sample_rate,
            keys=[row.key for row in rows],
            fields={name: [row.fields.get(name) for row in rows] for name in names},
            starts=starts[0] if self.flat else starts,
            lengths=lengths[0] if self.flat else lengths,
            labels=self.labels.tensor([row.label for row in rows]) if self.labels else None,
            segment=torch.tensor([row.segment for row in rows], dtype=torch.int64) if segmented else None,
            errors=part.errors,
            outcomes=part.outcomes,
            subkeys=torch.from_numpy(np.stack([key.rows.astype(np.int64) for key in keys])),
            place=place,
        )

    def _attempt(self, slots: list[_Slot], epoch: int, audio: Tensor | None, way: Way) -> None:
        """One try at each slot's record: its rows, or one more error."""
        records, labels, good = [], [], []
        for slot in slots:
            record = self._read(slot.task.record)
            if isinstance(record, BadRecord):
                slot.errors.append(record)
                continue
            try:
                labels.append(self.labels.encode(record.fields) if self.labels else None)
            except LabelError as error:
                slot.errors.append(record.failure("label", str(error)))
                continue
            records.append(record)
            good.append(slot)
        with self._open(records, way) as opened:
            for slot, rows in zip(good, self._rows(opened, records, labels, good, epoch, audio), strict=True):
                slot.rows = rows
            for i, trouble in opened.errors.items():
                good[i].rows = []
                good[i].errors.append(records[i].failure("decode", str(trouble)))

    def _open(self, records: Sequence[Record], way: Way = HERE) -> OpenBatch:
        opened = OpenBatch(
            [record.audio for record in records], [record.member or record.key for record in records],
            self.sample_rate, self.channels, self.crop_samples is None, way.threads, way.device,
        )  # fmt: skip
        for i in np.flatnonzero(opened.totals == 0).tolist():
            opened.fail(i, DecodeError(f"{records[i].key}: no samples"))
        return opened

    def _rows(
        self, opened: OpenBatch, records: list[Record], labels: list[Any], slots: list[_Slot], epoch: int,
        audio: Tensor | None,
    ) -> list[list[Row]]:  # fmt: skip
        """The rows of each record; what they hold where the record turns out to be bad is not specified."""
        counts = [len(slot.task.segments) for slot in slots]
        of = np.repeat(np.arange(len(slots)), counts)  # row → record
        segments = np.array([s for slot in slots for s in slot.task.segments], np.int64)
        ids = np.array([sample_id(record.key) for record in records], np.uint64)
        occurrences = np.array([slot.task.occurrence for slot in slots], np.int64)
        starts = self._starts(ids[of], opened.totals[of], occurrences[of], segments, epoch)
        lengths = np.clip(opened.totals[of] - starts, 0, self.crop_samples or opened.totals.max(initial=0))
        places = np.array([slot.at + k for slot in slots for k in range(len(slot.task.segments))], np.int64)
        if audio is None:
            places = np.arange(len(of))
            audio = self._room_for(opened, len(of))
        usable = np.array([i not in opened.errors for i in range(len(slots))], bool)[of]
        self._decode(opened, of[usable], places[usable], starts[:, usable], audio)
        rows: list[list[Row]] = [[] for _ in slots]
        columns = (of, segments, starts.T, lengths.T, places)
        for i, segment, start, length, at in zip(*(column.tolist() for column in columns), strict=True):
            record, occurrence = records[i], slots[i].task.occurrence
            key, fields, number = record.key, record.fields, int(ids[i])
            rows[i].append(Row(key, number, fields, labels[i], occurrence, segment, start, length, audio, at))
        return rows

    def _decode(self, opened: OpenBatch, of: Ints, places: Ints, starts: Ints, audio: Tensor) -> None:
        """Row k, from record of[k], into audio[:, places[k]]."""
        views, slots = audio.shape[:2]
        width = np.full(starts.size, -1 if self.crop_samples is None else self.crop_samples)
        into = np.add.outer(np.arange(views) * slots, places).ravel()
        opened.read(Wanted(np.tile(of, views), into, starts.ravel(), width), audio.flatten(0, 1))

    def _room_for(self, opened: OpenBatch, rows: int) -> Tensor:
        """Samples (V, rows, C, T) that hold the longest of some records."""
        counts = sorted({int(count) for count in opened.channels if count})
        _check_channels(counts)
        width = self.crop_samples or int(opened.totals.max(initial=0))
        return torch.empty(self.views, rows, counts[0] if counts else 1, width, device=opened.device)

    def _starts(self, ids: Any, totals: Ints, occurrences: Ints, segments: Ints, epoch: int) -> Ints:
        """First sample of each crop, int64 (V, rows)."""
        room = np.maximum(totals - (self.crop_samples or totals), 0)
        if self.crop == "random":
            drawn = 1 if self.share_crop else self.views
            views = np.repeat(np.arange(drawn), len(ids))
            keys = Keys.of(self.seed, np.tile(ids, drawn), epoch, views, np.tile(occurrences, drawn), path="crop")
            starts: Ints = keys.integers("start", 0, np.tile(room, drawn) + 1).numpy().reshape(drawn, len(ids))
        else:
            starts = {"center": room // 2, "segments": segments * self.hop_samples, "whole": 0 * room}[self.crop][None]
        return np.broadcast_to(starts, (self.views, len(ids)))

    def _read(self, index: int) -> Record | BadRecord:
        try:
            return self.source.read(index)
        except RecordError as error:
            return dataclasses.replace(error.bad, key=self.source.key(index))  # in a mixture it has a prefix
        except OSError as error:
            raise_if_ours(error)
            return BadRecord(self.source.key(index), "read", str(error), url=_text(error.filename))

    def _measure(self, records: Sequence[int]) -> list[int | BadRecord]:
        """Output length of each record, or why it cannot be read."""
        read = [self._read(record) for record in records]
        good = [record for record in read if isinstance(record, Record)]
        with self._open(good) as opened:
            bad = {i: good[i].failure("probe", str(error)) for i, error in opened.errors.items()}
        lengths = iter([bad.get(i, int(total)) for i, total in enumerate(opened.totals)])
        return [next(lengths) if isinstance(record, Record) else record for record in read]

    def _replacement(self, task: Task, epoch: int, attempt: int) -> Task:
        """Another record in place of a bad one: a draw like any other, so a replay finds the same."""
        key = self.source.key(task.record)
        draw = Keys.of(self.seed, [key], epoch, 0, task.occurrence, path="order/replacement")
        index = int(draw.integers(f"record/{attempt}", 0, len(self.source)))
        return Task(index, 1 + task.position % ((1 << 24) - 1), task.position)


def _gather(rows: list[Row], audio: Tensor | None, width: int | None) -> Tensor:
    """Samples (V, B, C, T) of the rows: ``audio`` itself where all of it is filled, else a copy."""
    if audio is not None:
        if len(rows) == audio.shape[1]:
            return audio
        return audio[:, [row.at for row in rows]]
    counts = sorted({row.audio.shape[2] for row in rows})
    _check_channels(counts)
    width = width or max(length for row in rows for length in row.lengths)
    first = rows[0].audio
    if first.shape[1] == len(rows) and first.shape[3] == width and all(row.audio is first for row in rows):
        return first
    audio = torch.zeros(first.shape[0], len(rows), counts[0], width, device=first.device)
    for b, row in enumerate(rows):
        n = min(width, row.audio.shape[3])
        audio[:, b, :, :n] = row.audio[:, row.at, :, :n]
    return audio


def _check_channels(counts: list[int]) -> None:
    if len(counts) > 1:
        raise ValueError(f"examples of {counts} channels in one batch: give Pipeline(channels=1) or another number")


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
