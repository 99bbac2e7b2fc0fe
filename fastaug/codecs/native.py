"""The native decoders (WAV, FLAC): tables for csrc/cpu/decode.cpp, and an open member on top of them."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.codecs.info import Info
from fastaug.codecs.status import DecodeError, Status
from fastaug.ops import _library
from fastaug.ops import resample as _resample
from fastaug.ops.resample import output_length, source_range

__all__ = ["Encoded", "Members", "NativeAudio", "Wanted", "decode_into"]

Encoded = bytes | bytearray | memoryview | mmap.mmap | npt.NDArray[np.uint8] | Tensor | str | Path

# Structs of csrc/cpu/decode.cpp: fields of int64, in its order.
_MEMBER_FIELDS = (
    "address", "size", "format", "status", "where", "rate", "channels", "bits", "frames",
    "present", "cut", "kind", "block", "data", "end", "origin", "variant",
)  # fmt: skip
_MEMBER = np.dtype([(name, np.int64) for name in _MEMBER_FIELDS])
_CROP_FIELDS, _PLAN_FIELDS = 10, 7
_WAV, _FLAC = 1, 2  # AudioFormat of csrc/codecs/probe.h

# A crop is decoded in pieces of about so many source samples: 1 MiB of floats, which stay in the cache of a core, and
# several threads can share one long file.
_PIECE = 1 << 18

_WAV_NAMES = ("WAV", "WAVEX", "RF64")
_WAV_KINDS = {1: "PCM_U8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32", 5: "FLOAT", 6: "DOUBLE"}
# By the field of the format chunk that is wrong: its distance from the chunk's first byte.
_FORMAT_CHUNK = {
    0: "a format chunk of at least 16 bytes, 40 if extensible",
    2: "1 to 1024 channels",
    4: "a sample rate from 1 to 2147483647 Hz",
    12: "a block_align above 0",
    14: "a number of bits per sample above 0",
}


@dataclass(frozen=True)
class Wanted:
    """A crop: outputs [start, start + length) of a member, into row ``row`` of the result. Length -1: to the end."""

    member: int
    row: int
    start: int
    length: int


class Members:
    """Encoded members in memory and what their headers say.

    Args:
        encoded: contents as bytes, or anything that shows its bytes without a copy; paths are mapped into memory.
        names: what to call them in errors.
        threads: at most so many.
    """

    def __init__(self, encoded: Sequence[Encoded], names: Sequence[str], threads: int) -> None:
        self.names = names
        self._bytes = [_as_bytes(item) for item in encoded]
        self.table = np.zeros(len(encoded), _MEMBER)
        self.table["address"] = [item.__array_interface__["data"][0] for item in self._bytes]
        self.table["size"] = [item.size for item in self._bytes]
        _library.native().fa_audio_probe(self.table.ctypes.data, len(encoded), threads)

    def status(self, i: int) -> Status:
        """Whether a native decoder takes member ``i``."""
        return Status(int(self.table["status"][i]))

    def view(self, i: int) -> memoryview:
        return self._bytes[i].data

    def info(self, i: int) -> Info:
        row = self.table[i]
        if row["format"] == _WAV:
            kind = f"{_WAV_NAMES[row['variant']]}/{_WAV_KINDS[int(row['kind'])]}"
        else:
            kind = "FLAC/PCM_S8" if row["bits"] == 8 else f"FLAC/PCM_{row['bits']}"
        return Info(int(row["rate"]), int(row["frames"]), int(row["channels"]), kind)

    def error(self, i: int, status: Status, where: int) -> DecodeError:
        """What went wrong with member ``i``, in words."""
        text = status.meaning
        if status == Status.BAD_HEADER and self.table["format"][i] == _WAV:
            text = f"expected {_FORMAT_CHUNK.get(int(self.table['kind'][i]), 'a plausible header')}"
        if status == Status.TRUNCATED:
            text = f"the audio ends at sample {self.table['present'][i]} of {self.table['frames'][i]} announced,"
        at = "" if status in (Status.EMPTY, Status.UNSUPPORTED) else f" at byte {where} of {self.table['size'][i]}"
        return DecodeError(f"{self.names[i]}: {text}{at}", status)

    def probe_error(self, i: int) -> DecodeError:
        return self.error(i, self.status(i), int(self.table["where"][i]))

    def check_end(self, i: int, stop: int | None = None, sample_rate: int | None = None) -> None:
        """Whether member ``i`` has what its header announces, before memory is taken for it.

        Args:
            stop: end of what is wanted of it, at the output rate; None: all.

        Raises:
            DecodeError: it is cut short before that.
        """
        row = self.table[i]
        rate, present = int(row["rate"]), int(row["present"])
        if present < row["frames"] and (stop is None or stop > output_length(present, rate, sample_rate or rate)):
            raise self.error(i, Status(int(row["cut"])), int(row["where"]))


def _as_bytes(item: Encoded) -> npt.NDArray[np.uint8]:
    """The bytes of a member as an array, without a copy where possible.

    Raises:
        FileNotFoundError: a path without a file. TypeError: neither bytes nor a path.
    """
    if isinstance(item, str | Path):
        return _mapped(item)
    if isinstance(item, Tensor):
        item = item.numpy()
    if isinstance(item, np.ndarray) and item.dtype != np.uint8:
        raise TypeError(f"encoded bytes must be uint8, got {item.dtype}")
    if isinstance(item, np.ndarray):
        return np.ascontiguousarray(item).reshape(-1)
    return np.frombuffer(item, np.uint8) if len(item) else np.zeros(0, np.uint8)


def _mapped(path: str | Path) -> npt.NDArray[np.uint8]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such audio file: {path}")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


@lru_cache(maxsize=64)
def _plan(from_rate: int, to_rate: int) -> tuple[tuple[int, ...], Any]:
    """The fields of a Plan of csrc/cpu/decode.cpp, and the tensors that they point at."""
    up, down = _resample._reduced(from_rate, to_rate)
    plan = _resample._plan(up, down, "high")
    tiled, spread = _resample._sorted_taps(up, down, "high")
    fields = (up, down, plan.taps.data_ptr(), plan.half, int(plan.interpolated), _library.pointer(tiled) or 0, spread)
    return fields, (plan, tiled)


def decode_into(
    members: Members, wanted: Iterable[Wanted], sample_rate: int | None, samples: Tensor, threads: int
) -> dict[int, tuple[Status, int]]:
    """Decode crops of members that `Members.status` says are OK.

    Args:
        wanted: the crops; a row may be named once. Members have as many channels as ``samples``, or one, unless
            ``samples`` has one: then the mean.
        samples: float32 (rows, C, T), contiguous, on the CPU. The named rows are written, all of each.

    Returns:
        Row → status and byte offset for each row that failed; it holds zeros.
    """
    rows, channels, width = samples.shape
    rates, frames = members.table["rate"].tolist(), members.table["frames"].tolist()
    plans: list[tuple[tuple[int, ...], Any]] = []
    index: dict[int, int] = {}
    crops: list[int] = []
    for crop in wanted:
        rate = rates[crop.member]
        if rate not in index:
            index[rate] = -1 if sample_rate in (None, rate) else len(plans)
            plans += [] if sample_rate in (None, rate) else [_plan(rate, int(sample_rate or 0))]
        for piece in _pieces(crop, rate, sample_rate or rate, frames[crop.member], width):
            crops += (crop.member, crop.row, index[rate], *piece)
    if not crops or not width:
        return {}
    table = np.array(crops, np.int64).reshape(-1, _CROP_FIELDS)
    filters = np.array([fields for fields, _ in plans], np.int64)
    outcomes = np.zeros((len(table), 2), np.int64)
    _library.native().fa_audio_decode(
        members.table.ctypes.data, table.ctypes.data, len(table), filters.ctypes.data, outcomes.ctypes.data,
        samples.data_ptr(), rows, channels, width, _PIECE, threads,
    )  # fmt: skip
    failed: dict[int, tuple[Status, int]] = {}
    for i in np.flatnonzero(outcomes[:, 0]).tolist():  # pieces of a crop are in order: the first trouble is told
        row = int(table[i, 1])
        failed.setdefault(row, (Status(int(outcomes[i, 0])), int(outcomes[i, 1])))
        samples[row] = 0.0
    return failed


def _pieces(crop: Wanted, rate: int, out_rate: int, frames: int, width: int) -> Iterable[tuple[int, ...]]:
    """The fields of a Crop of csrc/cpu/decode.cpp from ``at`` on: one, or several that share a long crop."""
    total = output_length(frames, rate, out_rate)
    length = crop.length if crop.length >= 0 else max(total - crop.start, 0)
    first, last = max(crop.start, 0), min(crop.start + length, total)
    if first >= last:
        yield (0, 0, 0, 0, 0, 0, width)
        return
    size = max(_PIECE * out_rate // rate, 1)
    # On a grid of the file, so that neither a crop's start nor its length moves the work of a piece about.
    edges = [first, *range((first // size + 2) * size, last - size, size), last]
    for begin, end in itertools.pairwise(edges):
        low, high = source_range(rate, out_rate, begin, end - begin)
        at = begin - crop.start
        before, after = at if begin == first else 0, width - (end - crop.start) if end == last else 0
        yield (at, begin, end - begin, max(low, 0), min(high, frames), before, after)


class NativeAudio:
    """An open member of a native format: exact length, and ranges at any output rate."""

    def __init__(self, members: Members, threads: int) -> None:
        self._members, self._threads = members, threads
        self.info = members.info(0)

    def frames(self, sample_rate: int | None) -> int:
        """Length in samples at the output rate: ⌈frames · out / in⌉."""
        rate = self.info.sample_rate
        return output_length(self.info.frames, rate, sample_rate or rate)

    def read(self, start: int, length: int, sample_rate: int | None = None, channels: int | None = None) -> Tensor:
        """As `SndfileAudio.read`."""
        return self.crops([start], length, sample_rate, channels)[0]

    def crops(
        self, starts: Sequence[int], length: int, sample_rate: int | None = None, channels: int | None = None
    ) -> list[Tensor]:
        """Several ranges of one length at once: what they share is decoded once."""
        count = self.info.channels if channels is None else channels
        self.info.check_conversion(sample_rate, count, self._members.names[0])
        self._members.check_end(0, min(max(starts, default=0) + length, self.frames(sample_rate)), sample_rate)
        samples = torch.empty(len(starts), count, length)
        wanted = [Wanted(0, row, start, length) for row, start in enumerate(starts)]
        failed = decode_into(self._members, wanted, sample_rate, samples, self._threads)
        for status, where in failed.values():
            raise self._members.error(0, status, where)
        return list(samples)
