"""The host's part of decoding on a device: which source samples each row needs, and their bytes and tables, staged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.codecs.device_mp3 import Part, stage_mp3
from fastaug.codecs.native import MP3, Ints, Members, Wanted
from fastaug.codecs.staging import Staging
from fastaug.ops import _library
from fastaug.ops import resample as _resample

__all__ = ["Plan", "Rows", "make_plan", "rows_of"]

_FAR = 1 << 60

# Struct StageCrop of csrc/cpu/stage.cpp: fields of int64, in its order.
_CROP = np.dtype([(name, np.int64) for name in ("member", "row", "low", "high", "to", "stride", "status")])


@dataclass(frozen=True)
class Rows:
    """Crops of one source rate: rows of the batch, and what each needs. All int64 (n,)."""

    rate: int
    out_rate: int
    members: Ints
    rows: Ints
    at: Ints  # where in its row the first output goes
    count: Ints  # outputs inside the file
    first: Ints  # the first of them
    frames: Ints  # source samples of the file
    phase: Ints  # outputs before the first one in its period of the conversion
    low: Ints  # source samples [low, high) that the outputs need from the start of that period on
    high: Ints

    @property
    def converted(self) -> bool:
        return self.rate != self.out_rate

    @property
    def line(self) -> int:
        """Source samples of the longest row."""
        return int((self.high - self.low).max())

    def whole(self, width: int) -> bool:
        """Whether every row is filled from inside its file."""
        return bool((self.count == width).all())

    def ordered(self, rows: int) -> bool:
        """Whether these are all rows of a batch, in its order."""
        return np.array_equal(self.rows, np.arange(rows))

    def dense(self) -> bool:
        """Whether the sources of all rows lie inside their files and are as many."""
        inside = (self.low >= 0) & (self.high <= self.frames) & (self.high - self.low == self.line)
        return bool(inside.all())

    def places(self) -> Ints:
        """Where converted rows go: row, shift, first and last sample (csrc/cuda/wav.cu, fa_place_rows_kernel)."""
        return np.stack([self.rows, self.phase - self.at, self.at, self.at + self.count])


def rows_of(members: Members, wanted: Wanted, rate: int, out_rate: int) -> Rows:
    """The crops of members of one rate."""
    frames = members.table["frames"][wanted.members]
    total = -(-frames * out_rate // rate)  # output_length
    start = np.clip(wanted.starts, -_FAR, _FAR)
    stop = np.where(wanted.lengths < 0, total, start + np.minimum(wanted.lengths, _FAR))
    first, last = np.maximum(start, 0), np.minimum(stop, total)
    inside = first < last
    first, count = np.where(inside, first, 0), np.where(inside, last - first, 0)
    at, phase = np.where(inside, np.maximum(start, 0) - start, 0), np.zeros_like(first)
    low, high = first, first + count
    if rate != out_rate:
        up, down = _resample.reduced(rate, out_rate)
        half, phase = _resample._half_width(up, down, "high"), first % up
        low, high = first // up * down - half + 1, (first + count - 1) * down // up + half + 1
    return Rows(rate, out_rate, wanted.members, wanted.rows, at, count, first, frames, phase, low, high)


@dataclass(frozen=True)
class Plan:
    """Where everything lies in the staged bytes, and what the launches have to know."""

    groups: list[Rows]
    tables: int  # byte offset
    audio: int  # byte offset: behind the tables
    clips: int  # WAV
    pieces: int  # of the WAV clip that has most
    count: int  # groups of 32 FLAC frames
    planes: int  # subframes of a group, over all groups
    starts: Ints  # per group: where its samples begin in the int32 scratch; and where the last ends
    first_plane: Ints  # per group; and `planes`
    blocks: Ints  # per group: samples of its largest frame
    room: int  # floats of the sources that are resampled
    mp3: list[Part]

    def cut(self, staged: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
        """The tables on the device, int64: WAV clips, frames, groups, planes, and the places of each group's rows."""
        places = [4 * len(group.rows) for group in self.groups if group.converted]
        sizes = [6 * self.clips, 7 * 32 * self.count, 3 * self.count, self.planes, *places]
        parts = staged[self.tables : self.tables + 8 * sum(sizes)].view(torch.int64).split(sizes)
        return parts[0], parts[1], parts[2], parts[3], list(parts[4:])


def make_plan(
    members: Members, groups: list[Rows], channels: int, width: int, staging: Staging, threads: int
) -> tuple[Plan, Ints]:
    """Finds the bytes of all crops and copies them into ``staging``.

    Args:
        channels, width: C and T of the batch.

    Returns:
        The plan, and the rows that the host refuses: truncated, or with a FLAC frame that is missing or damaged.
    """
    everything, room = _crops(groups, channels, width)
    coded = members.table["format"][everything["member"]] == MP3
    mp3, crops = everything[coded], everything[~coded]
    parts = stage_mp3(members, mp3, staging, threads)
    sizes = np.zeros(7, np.int64)
    native = _library.native()
    handle = native.fa_stage_plan(members.table.ctypes.data, crops.ctypes.data, len(crops), sizes.ctypes.data, threads)
    audio_bytes, clips, lanes, count, planes, words, pieces = sizes.tolist()
    places = [group.places().ravel() for group in groups if group.converted]
    behind = np.concatenate([np.zeros(0, np.int64), *places])
    numbers = 6 * clips + 7 * lanes + 3 * count + planes
    try:
        tables, audio = staging.reserve(8 * (numbers + len(behind))), staging.reserve(audio_bytes)
        view = staging.view()
    except BaseException:
        native.fa_stage_fill(handle, None, 0, None, threads)  # gives the handle up, and does nothing else
        raise
    native.fa_stage_fill(handle, view.ctypes.data + audio, audio, view.ctypes.data + tables, threads)
    host = view[tables : tables + 8 * (numbers + len(behind))].view(np.int64)
    host[numbers:] = behind
    starts, first_plane, blocks = host[6 * clips + 7 * lanes : numbers - planes].reshape(3, count).copy()
    plan = Plan(
        groups, tables, audio, clips, pieces, count, planes,
        np.append(starts, words), np.append(first_plane, planes), blocks, room, parts,
    )  # fmt: skip
    return plan, np.concatenate([table["row"][table["status"] != 0] for table in (mp3, crops)])


def _crops(groups: list[Rows], channels: int, width: int) -> tuple[npt.NDArray[np.void], int]:
    """What to stage, and how many floats the sources take that are resampled: (rows, channels, line) of each group."""
    tables, room = [np.zeros(0, _CROP)], 0
    for group in groups:
        table = np.zeros(len(group.rows), _CROP)
        table["member"], table["row"] = group.members, group.rows
        table["low"], table["high"] = np.maximum(group.low, 0), np.minimum(group.high, group.frames)
        if group.converted:
            line = group.line
            to = room + np.arange(len(group.rows)) * channels * line + (table["low"] - group.low)
            table["to"], table["stride"] = -1 - to, line
            room += len(group.rows) * channels * line
        else:
            table["to"], table["stride"] = group.rows * channels * width + group.at, width
        tables.append(table[(group.count > 0) & (table["low"] < table["high"])])
    return np.concatenate(tables), room
