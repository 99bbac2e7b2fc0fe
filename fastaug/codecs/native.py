"""The native decoders (WAV, FLAC): tables for csrc/cpu/decode.cpp, and an open member on top of them."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence
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
from fastaug.ops.resample import output_length

__all__ = ["Encoded", "Ints", "Members", "NativeAudio", "Wanted", "decode_into", "map_file"]

Ints = npt.NDArray[np.int64]
Encoded = bytes | bytearray | memoryview | mmap.mmap | npt.NDArray[np.uint8] | Tensor | str | Path

# Struct Member of csrc/cpu/member.h: fields of int64, in its order.
_MEMBER_FIELDS = (
    "address", "size", "format", "status", "where", "rate", "channels", "bits", "frames",
    "present", "cut", "kind", "block", "data", "end", "origin", "variant", "index", "silent",
)  # fmt: skip
_MEMBER = np.dtype([(name, np.int64) for name in _MEMBER_FIELDS])
WAV, FLAC, MP3 = 1, 2, 4  #: AudioFormat of csrc/codecs/probe.h

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
    """Crops, int64 (n,) each: outputs [start, start + length) of a member, into a row of the result. Length -1: to
    the end."""

    members: Ints
    rows: Ints
    starts: Ints
    lengths: Ints

    def where(self, chosen: npt.NDArray[np.bool_]) -> Wanted:
        if chosen.all():
            return self
        return Wanted(self.members[chosen], self.rows[chosen], self.starts[chosen], self.lengths[chosen])


class Members:
    """Encoded members in memory and what their headers say.

    Args:
        encoded: contents as bytes, or anything that shows its bytes without a copy; paths are mapped into memory.
        names: what to call them in errors; None: by their place in the batch.
        threads: at most so many.
    """

    def __init__(self, encoded: Sequence[Encoded], names: Sequence[str] | None, threads: int) -> None:
        self._names = names
        self._bytes: list[Any] = list(encoded)
        self.table = np.zeros(len(encoded), _MEMBER)
        native, address = _library.native(), self.table.ctypes.data
        if not native.bytes_at(self._bytes, address, len(_MEMBER_FIELDS)):
            self._bytes = [_as_bytes(item) for item in encoded]
            self.table["address"] = [item.__array_interface__["data"][0] for item in self._bytes]
            self.table["size"] = [item.size for item in self._bytes]
        native.fa_audio_probe(address, len(encoded), threads)
        if self.table["index"].any():
            weakref.finalize(self, _release, self.table)

    @property
    def names(self) -> Sequence[str]:
        if self._names is None:
            self._names = [f"encoded[{i}]" for i in range(len(self.table))]
        return self._names

    def status(self, i: int) -> Status:
        """Whether a native decoder takes member ``i``."""
        return Status(int(self.table["status"][i]))

    def view(self, i: int) -> memoryview:
        return memoryview(self._bytes[i])

    def info(self, i: int) -> Info:
        row = self.table[i]
        if row["format"] == WAV:
            kind = f"{_WAV_NAMES[row['variant']]}/{_WAV_KINDS[int(row['kind'])]}"
        elif row["format"] == MP3:
            kind = "MP3/MPEG_LAYER_III"
        else:
            kind = "FLAC/PCM_S8" if row["bits"] == 8 else f"FLAC/PCM_{row['bits']}"
        return Info(int(row["rate"]), int(row["frames"]), int(row["channels"]), kind, int(row["silent"]))

    def error(self, i: int, status: Status, where: int) -> DecodeError:
        """What went wrong with member ``i``, in words."""
        text = status.meaning
        if status == Status.BAD_HEADER and self.table["format"][i] == WAV:
            text = f"expected {_FORMAT_CHUNK.get(int(self.table['kind'][i]), 'a plausible header')}"
        if status == Status.TRUNCATED:
            text = f"the audio ends at sample {self.table['present'][i]} of {self.table['frames'][i]} announced,"
        at = "" if status in (Status.EMPTY, Status.UNSUPPORTED) else f" at byte {where} of {self.table['size'][i]}"
        return DecodeError(f"{self.names[i]}: {text}{at}", status)

    def probe_error(self, i: int) -> DecodeError:
        return self.error(i, self.status(i), int(self.table["where"][i]))

    def simple(self, sample_rate: int | None, channels: int | None) -> npt.NDArray[np.bool_]:
        """Which members a native decoder takes with nothing else to look into: whole, their channels as wanted, and a
        conversion of the rate that is within what `Info.check_conversion` allows, whatever it is exactly."""
        table = self.table
        found = (table["status"] == 0) & (table["present"] == table["frames"])
        if sample_rate is not None:
            rate = table["rate"]
            found &= (rate < 64 * sample_rate) & (64 * rate > sample_rate)
        return found if channels in (None, 1) else found & (table["channels"] == channels)

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


def _release(table: npt.NDArray[np.void]) -> None:
    _library.native().fa_audio_release(table.ctypes.data, len(table))


def _as_bytes(item: Encoded) -> npt.NDArray[np.uint8]:
    """The bytes of a member as an array, without a copy where possible.

    Raises:
        FileNotFoundError: a path without a file. TypeError: neither bytes nor a path.
    """
    if isinstance(item, str | Path):
        return map_file(item)
    if isinstance(item, Tensor):
        item = item.numpy()
    if isinstance(item, np.ndarray) and item.dtype != np.uint8:
        raise TypeError(f"encoded bytes must be uint8, got {item.dtype}")
    if isinstance(item, np.ndarray):
        return np.ascontiguousarray(item).reshape(-1)
    return np.frombuffer(item, np.uint8) if len(item) else np.zeros(0, np.uint8)


def map_file(path: str | Path) -> npt.NDArray[np.uint8]:
    """The bytes of a file, mapped into memory. Raises FileNotFoundError."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such audio file: {path}")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


@lru_cache(maxsize=64)
def _plan(from_rate: int, to_rate: int) -> tuple[tuple[int, ...], Any]:
    """The fields of a Plan of csrc/cpu/crops.h, and what keeps their tables in memory."""
    up, down = _resample.reduced(from_rate, to_rate)
    plan, grid = _resample._plan(up, down, "high"), _resample.blocks(up, down, "high")
    blocks = (*grid.arguments, grid.samples) if grid else (0,) * 9
    return (from_rate, up, down, plan.taps.data_ptr(), plan.half, int(plan.interpolated), *blocks), (plan, grid)


def decode_into(
    members: Members, wanted: Wanted, sample_rate: int | None, samples: Tensor, threads: int
) -> dict[int, tuple[Status, int]]:
    """Decode crops of members that `Members.status` says are OK.

    Args:
        wanted: the crops; no row is named twice. Members have as many channels as ``samples``, or one, unless
            ``samples`` has one: then the mean.
        samples: float32 (rows, C, T), contiguous, on the CPU. The named rows are written, all of each.

    Returns:
        Row → status and byte offset for each row that failed; what it holds is not specified.
    """
    rows, channels, width = samples.shape
    count = len(wanted.rows)
    if not count or not width:
        return {}
    table = np.empty((4, count), np.int64)
    table[0], table[1], table[2], table[3] = wanted.members, wanted.rows, wanted.starts, wanted.lengths
    plans = []
    if sample_rate is not None:
        rates = set(members.table["rate"][table[0]].tolist()) - {sample_rate}
        plans = [_plan(rate, sample_rate) for rate in sorted(rates)]
    filters = np.array([fields for fields, _ in plans], np.int64)
    outcomes = np.zeros((count, 2), np.int64)
    # How many failed decides what is read of `outcomes`: after a large batch each line of code and memory is cold.
    failures = _library.native().fa_audio_decode(
        members.table.ctypes.data, table.ctypes.data, count, sample_rate or 0, filters.ctypes.data, len(plans),
        outcomes.ctypes.data, samples.data_ptr(), rows, channels, width, _PIECE, threads,
    )  # fmt: skip
    failed = outcomes[:, 0].nonzero()[0] if failures else ()
    return {int(table[1, i]): (Status(int(outcomes[i, 0])), int(outcomes[i, 1])) for i in failed}


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
        wanted = Wanted(
            np.zeros(len(starts), np.int64), np.arange(len(starts)), np.array(starts), np.full(len(starts), length)
        )
        failed = decode_into(self._members, wanted, sample_rate, samples, self._threads)
        for status, where in failed.values():
            raise self._members.error(0, status, where)
        return list(samples)
