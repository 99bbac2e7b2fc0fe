"""Decoding on a CUDA device: the host finds the bytes of each crop, one copy takes them over, kernels do the rest.

The host probes members, finds the frames that a crop needs (FLAC: headers by their CRC-8 and number, then each frame's
CRC-16) and copies their bytes back to back, behind them the tables of csrc/cpu/stage.cpp, into a pinned `Staging`.
csrc/cuda/wav.cu and flac.cu make float32 of them, straight into the batch, or into rows that csrc/cuda/resample.cu
converts; MP3 has its own tables and kernels (`fastaug.codecs.device_mp3`). Every frame is checked once more while it is
read: what the device refuses, and whatever it has no kernel for, the CPU decodes, and says what is wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.codecs.device_mp3 import decode_mp3
from fastaug.codecs.native import Ints, Members, Wanted, decode_into
from fastaug.codecs.staging import ALIGNMENT, PADDING, Staging
from fastaug.codecs.status import Status
from fastaug.ops import _library
from fastaug.ops import resample as _resample

__all__ = ["ALIGNMENT", "PADDING", "DeviceBatch", "Staging", "decode_on_device"]

_WAV, _FLAC, _MP3 = 1, 2, 4  # AudioFormat of csrc/codecs/probe.h
_MOST_PHASES = 4096  # of a conversion: a row holds so many outputs more than the batch
_FAR = 1 << 60
_SCRATCH = 1 << 28  # int32 of one launch: a batch of long files takes several
_FACTS = 36 * 32  # kFlacFacts * kFlacLanes of csrc/codecs/flac_lanes.h

# Struct StageCrop of csrc/cpu/stage.cpp: fields of int64, in its order.
_CROP = np.dtype([(name, np.int64) for name in ("member", "row", "low", "high", "to", "stride", "status")])


def decode_on_device(
    members: Members,
    wanted: Wanted,
    sample_rate: int | None,
    shape: tuple[int, int, int],
    device: torch.device | str,
    threads: int,
) -> tuple[Tensor, dict[int, tuple[Status, int]]]:
    """`decode_into` for a CUDA device.

    Args:
        members, wanted, sample_rate, threads: as `decode_into` wants them.
        shape: rows, C and T of the result.

    Returns:
        samples: float32 (rows, C, T) on the device, bit for bit those of the CPU at the file's own rate (MP3: within
            1e-6), within 110 dB of them where they are resampled. Rows that ``wanted`` does not name are not specified.
        failed: row → status and byte offset of each row that failed; what it holds is not specified.

    Waits for the device once, to learn what it refused; a `DeviceBatch` puts that off.
    """
    batch = DeviceBatch(members, wanted, sample_rate, shape, device, threads)
    return batch.samples, batch.finish()


@dataclass(frozen=True)
class _Rows:
    """Crops of one source rate: rows of the batch, and the outputs and source samples that each needs."""

    rate: int
    out_rate: int
    members: Ints
    rows: Ints
    at: Ints  # where in its row the first output goes
    count: Ints  # outputs inside the file
    first: Ints  # the first of them
    frames: Ints  # source samples of the file

    @property
    def phase(self) -> Ints:
        """Outputs from the period of the conversion that the first one is in."""
        return self.first % _resample.reduced(self.rate, self.out_rate)[0]

    def sources(self) -> tuple[Ints, Ints]:
        """Source samples [low, high) that the outputs need from the start of their period on, outside the file too."""
        if self.rate == self.out_rate:
            return self.first, self.first + self.count
        up, down = _resample.reduced(self.rate, self.out_rate)
        half = _resample._half_width(up, down, "high")
        low = (self.first // up) * down - half + 1
        return low, (self.first + self.count - 1) * down // up + half + 1


class DeviceBatch:
    """A batch that is being decoded: all device work is queued when the constructor returns.

    Attributes:
        samples: float32 (rows, C, T) on the device. Until `finish` says which rows are right, what the device refused
            is not.
    """

    def __init__(
        self,
        members: Members,
        wanted: Wanted,
        sample_rate: int | None,
        shape: tuple[int, int, int],
        device: torch.device | str,
        threads: int,
    ) -> None:
        self._members, self._wanted, self._rate, self._threads = members, wanted, sample_rate, threads
        self._shape, self._failed = shape, {}  # type: tuple[int, int, int], dict[int, tuple[Status, int]]
        self._staging = Staging(device)
        device = self._staging.device
        rates, here = self._able()
        groups = [self._rows(rate, here & (rates == rate)) for rate in np.unique(rates[here]).tolist()]
        self.samples = _fresh(shape, not _covers(groups, shape), device)
        self._status = torch.zeros(shape[0], dtype=torch.int32, device=device)
        refused = self._launch(groups)
        self._by_cpu(~here | np.isin(wanted.rows, refused))

    def finish(self) -> dict[int, tuple[Status, int]]:
        """Wait for the device and decode on the CPU what it refused: row → status and byte offset of what that failed
        to decode too."""
        flagged = np.flatnonzero(self._status.cpu().numpy())
        self._by_cpu(np.isin(self._wanted.rows, flagged))
        self._status.zero_()
        return self._failed

    def _able(self) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Source rates, and which crops the device can decode."""
        table = self._members.table[self._wanted.members]
        rates = table["rate"]
        here = np.isin(table["format"], (_WAV, _FLAC, _MP3)) & (self._shape[2] > 0)
        for rate in np.unique(rates).tolist():
            if _resample.reduced(rate, self._rate or rate)[0] > _MOST_PHASES:
                here &= rates != rate
        return rates, here

    def _rows(self, rate: int, chosen: npt.NDArray[np.bool_]) -> _Rows:
        wanted, out_rate = self._wanted.where(chosen), self._rate or rate
        frames = self._members.table["frames"][wanted.members]
        total = -(-frames * out_rate // rate)  # output_length
        start = np.clip(wanted.starts, -_FAR, _FAR)
        stop = np.where(wanted.lengths < 0, total, start + np.minimum(wanted.lengths, _FAR))
        first, last = np.maximum(start, 0), np.minimum(stop, total)
        inside = first < last
        count = np.where(inside, last - first, 0)
        at = np.where(inside, first - start, 0)
        return _Rows(rate, out_rate, wanted.members, wanted.rows, at, count, np.where(inside, first, 0), frames)

    def _launch(self, groups: list[_Rows]) -> Ints:
        """Queues everything; returns the rows that the host refused."""
        crops, converted, room = self._crops(groups)
        if not len(crops):
            for group in groups:
                self.samples[torch.from_numpy(group.rows).to(self.samples.device)] = 0.0
            return np.zeros(0, np.int64)
        coded = self._members.table["format"][crops["member"]] == _MP3
        mp3, crops = crops[coded], crops[~coded]
        sizes = np.zeros(7, np.int64)
        native = _library.native()
        handle = native.fa_stage_plan(
            self._members.table.ctypes.data, crops.ctypes.data, len(crops), sizes.ctypes.data, self._threads
        )
        audio_bytes, waves, lanes, count, planes, words, pieces = sizes.tolist()
        places = [self._place_table(group) for group in converted]
        numbers = 6 * waves + 7 * lanes + 3 * count + planes
        tables = self._staging.reserve(8 * (numbers + sum(place.size for place in places)))
        audio = self._staging.reserve(audio_bytes)
        view = self._staging.view()
        native.fa_stage_fill(handle, view.ctypes.data + audio, audio, view.ctypes.data + tables, self._threads)
        host = view[tables:audio].view(np.int64)
        at = numbers
        for place in places:
            host[at : at + place.size] = place.ravel()
            at += place.size
        columns = host[6 * waves + 7 * lanes : numbers].copy()
        staged = self._staging.upload()
        device_tables = staged[tables:audio].view(torch.int64)
        other = _fresh((room,), not _fills(converted), self.samples.device) if room else None
        decode_mp3(self._members, mp3, self.samples, other, self._status, self._threads)
        if waves:
            self._launch_wav(staged, device_tables[: 6 * waves], other, pieces)
        if count:
            frames, rest = device_tables[6 * waves :][: 7 * lanes], device_tables[6 * waves + 7 * lanes : numbers]
            self._launch_flac(staged, frames, rest, columns, words, other)
        at, room = numbers, 0
        for group, place in zip(converted, places, strict=True):
            room = self._convert(group, other, room, device_tables[at : at + place.size])
            at += place.size
        return np.concatenate([table["row"][table["status"] != 0] for table in (mp3, crops)])

    def _crops(self, groups: list[_Rows]) -> tuple[npt.NDArray[np.void], list[_Rows], int]:
        """What to stage, the groups to be resampled, and the floats that their sources take."""
        _, channels, width = self._shape
        converted, tables, room = [], [np.zeros(0, _CROP)], 0
        for group in groups:
            table = np.zeros(len(group.rows), _CROP)
            low, high = group.sources()
            table["member"], table["row"] = group.members, group.rows
            table["low"], table["high"] = np.maximum(low, 0), np.minimum(high, group.frames)
            if group.rate == group.out_rate:
                table["to"], table["stride"] = group.rows * channels * width + group.at, width
            else:
                line = int((high - low).max())
                to = room + np.arange(len(group.rows)) * channels * line + (table["low"] - low)
                table["to"], table["stride"] = -1 - to, line
                room += len(group.rows) * channels * line
                converted.append(group)
            tables.append(table[(group.count > 0) & (table["low"] < table["high"])])
        return np.concatenate(tables), converted, room

    def _place_table(self, group: _Rows) -> Ints:
        """Where converted rows go: row, shift, first and last sample (csrc/cuda/wav.cu, fa_place_rows_kernel)."""
        return np.stack([group.rows, group.phase - group.at, group.at, group.at + group.count]).astype(np.int64)

    def _launch_wav(self, staged: Tensor, clips: Tensor, other: Tensor | None, pieces: int) -> None:
        from fastaug.ops._cuda import launch

        count = clips.numel() // 6
        args = (staged, clips, self.samples, other, self._status, count, self._shape[1], pieces)
        launch("wav.cu", "fa_wav_kernel", (count * pieces,), (256,), args)

    def _launch_flac(
        self, staged: Tensor, frames: Tensor, rest: Tensor, columns: Ints, words: int, other: Tensor | None
    ) -> None:
        from fastaug.ops._cuda import launch

        count, channels = frames.numel() // 7 // 32, self._shape[1]
        groups, planes = rest[: 3 * count], rest[3 * count :]
        starts, first_plane = columns[:count], columns[count : 2 * count]
        blocks = columns[2 * count : 3 * count]
        facts = torch.empty(planes.numel() * _FACTS, dtype=torch.int32, device=staged.device)
        stops = np.append(starts[1:], words)
        room = max(min(words, _SCRATCH), int((stops - starts).max()))
        x = torch.empty(room, dtype=torch.int32, device=staged.device)
        begin = 0
        while begin < count:
            base = int(starts[begin])
            end = int(np.searchsorted(stops, base + room, "right"))
            some = end - begin
            first = int(first_plane[begin])
            last = int(first_plane[end]) if end < count else planes.numel()
            read = (staged, frames, groups, x, facts, self._status, count, begin, base)
            launch("flac.cu", "fa_flac_read_kernel", (some,), (32,), read)
            restore = (planes[first:last], frames, groups, x, facts, self._status, count, base)
            launch("flac.cu", "fa_flac_restore_kernel", (last - first,), (32,), restore)
            tiles = -(-int(blocks[begin:end].max()) // 32)
            place = (frames, groups, x, self.samples, other, count, begin, base, channels, tiles)
            launch("flac.cu", "fa_flac_place_kernel", (some * tiles,), (32, 8), place)
            begin = end

    def _convert(self, group: _Rows, other: Tensor | None, room: int, table: Tensor) -> int:
        """Resamples the rows of a group, whose sources begin at ``room``; returns where the next group's do."""
        from fastaug.ops._cuda import launch

        rows, channels, width = self._shape
        up, down = _resample.reduced(group.rate, group.out_rate)
        plan = _resample._plan(up, down, "high")
        low, high = group.sources()
        line, count = int((high - low).max()), len(group.rows)
        assert other is not None
        x = other[room : room + count * channels * line]
        length = int((group.phase + group.count).max())
        if length == 0:
            self.samples[torch.from_numpy(group.rows).to(self.samples.device)] = 0.0
            return room + x.numel()
        straight = up == 1 and count == rows and _is_whole(group, width)
        y = self.samples if straight else torch.empty(count, channels, length, device=x.device)
        _resample._launch(x, y, (count * channels, line, line, 1 - plan.half, 0, length, up, down), plan)
        if not straight:
            grid = count * channels * -(-width // 256)
            args = (y, self.samples, table, self._status, count, channels, length, width)
            launch("wav.cu", "fa_place_rows_kernel", (grid,), (256,), args)
        return room + x.numel()

    def _by_cpu(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Decodes some of the crops on the CPU and copies them in."""
        if not chosen.any() or not self._shape[2]:
            return
        wanted = self._wanted.where(chosen)
        pinned = self.samples.device.type == "cuda"
        samples = torch.empty(len(wanted.rows), *self._shape[1:], pin_memory=pinned)
        numbered = Wanted(wanted.members, np.arange(len(wanted.rows)), wanted.starts, wanted.lengths)
        failed = decode_into(self._members, numbered, self._rate, samples, self._threads)
        self._failed |= {int(wanted.rows[i]): what for i, what in failed.items()}
        rows = torch.from_numpy(np.ascontiguousarray(wanted.rows)).to(self.samples.device)
        self.samples[rows] = samples.to(self.samples.device, non_blocking=True)


def _fresh(shape: tuple[int, ...], zeros: bool, device: torch.device) -> Tensor:
    return torch.zeros(shape, device=device) if zeros else torch.empty(shape, device=device)


def _is_whole(group: _Rows, width: int) -> bool:
    """All rows of the batch in order, and all of each inside its file."""
    ordered = np.array_equal(group.rows, np.arange(len(group.rows)))
    return ordered and bool((group.at == 0).all() and (group.count == width).all())


def _covers(groups: list[_Rows], shape: tuple[int, int, int]) -> bool:
    """Whether every sample of the batch is written by a kernel: rows that are not resampled must be whole."""
    return all(group.rate != group.out_rate or bool((group.count == shape[2]).all()) for group in groups)


def _fills(groups: list[_Rows]) -> bool:
    """Whether the sources of every row lie inside its file and are as many."""
    for group in groups:
        low, high = group.sources()
        if (low < 0).any() or (high > group.frames).any() or len(np.unique(high - low)) > 1:
            return False
    return True
