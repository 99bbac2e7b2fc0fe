"""Decoding on a CUDA device: the host finds the bytes of each crop, one copy takes them over, kernels do the rest.

The host probes members, finds the frames that a crop needs (FLAC: headers by their CRC-8 and number, then each frame's
CRC-16) and copies their bytes back to back, beside the tables of csrc/cpu/stage.cpp, into a pinned `Staging`.
csrc/cuda/wav.cu and flac.cu make float32 of them, straight into the batch, or into rows that csrc/cuda/resample.cu
converts; MP3 has its own tables and kernels (`fastaug.codecs.device_mp3`). Every frame is checked once more while it is
read: what the device refuses, and whatever it has no kernel for, the CPU decodes, and says what is wrong with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.codecs.device_mp3 import launch_mp3
from fastaug.codecs.device_plan import Rows, make_plan, rows_of
from fastaug.codecs.native import FLAC, MP3, WAV, Ints, Members, Wanted, decode_into
from fastaug.codecs.staging import ALIGNMENT, PADDING, Staging
from fastaug.codecs.status import Status
from fastaug.ops import resample as _resample

__all__ = ["ALIGNMENT", "PADDING", "DeviceBatch", "Staging", "decode_on_device"]

_MOST_PHASES = 4096  # of a conversion: a row is resampled from the start of its period on
_SCRATCH = 1 << 28  # int32 of one launch: a batch of long files takes several
_FACTS = 36 * 32  # kFlacFacts * kFlacLanes of csrc/codecs/flac_lanes.h


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


class DeviceBatch:
    """A batch that is being decoded: all work for the device is queued when the constructor returns.

    Args:
        samples: the tensor to decode into, of that shape, on that device: rows that ``wanted`` does not name keep what
            they hold. None makes one.

    Attributes:
        samples: float32 (rows, C, T) on the device. Rows that the device refuses are wrong until `finish`.
        plan: where things lie in the bytes that went to the device.
    """

    def __init__(
        self,
        members: Members,
        wanted: Wanted,
        sample_rate: int | None,
        shape: tuple[int, int, int],
        device: torch.device | str,
        threads: int,
        samples: Tensor | None = None,
    ) -> None:
        self._members, self._wanted, self._rate, self._threads = members, wanted, sample_rate, threads
        self._failed: dict[int, tuple[Status, int]] = {}
        staging = Staging(device)
        rates, here = self._able(shape[2])
        chosen = [(rate, here & (rates == rate)) for rate in np.unique(rates[here]).tolist()]
        groups = [rows_of(members, wanted.where(mine), rate, sample_rate or rate) for rate, mine in chosen]
        short = [group.rows[group.count < shape[2]] for group in groups if not group.converted]
        if samples is None:
            self.samples = _fresh(shape, not any(map(len, short)), staging.device)
        else:
            self.samples = samples
            for rows in filter(len, short):
                samples.index_fill_(0, torch.from_numpy(np.ascontiguousarray(rows)).to(samples.device), 0.0)
        self._status = torch.zeros(shape[0], dtype=torch.int32, device=staging.device)
        refused: Ints = np.zeros(0, np.int64)
        if groups:
            self.plan, refused = make_plan(members, groups, shape[1], shape[2], staging, threads)
            self.staged = staging.upload()
            self.queue(self.staged)
        self._by_cpu(~here | np.isin(wanted.rows, refused))

    def finish(self) -> dict[int, tuple[Status, int]]:
        """Wait for the device and decode on the CPU what it refused.

        Returns:
            Row → status and byte offset of each row that the CPU could not decode either.
        """
        flagged = np.flatnonzero(self._status.cpu().numpy())
        self._by_cpu(np.isin(self._wanted.rows, flagged))
        self._status.zero_()
        return self._failed

    def queue(self, staged: Tensor) -> None:
        """Queues the kernels on torch's current stream. staged: the bytes of the plan, on the device."""
        plan, device = self.plan, self.samples.device
        clips, frames, table, planes, places = plan.cut(staged)
        converted = [group for group in plan.groups if group.converted]
        other = _fresh((plan.room,), all(group.dense() for group in converted), device) if plan.room else None
        for part in plan.mp3:
            launch_mp3(part, staged, self.samples, other, self._status)
        if plan.clips:
            self._launch_wav(staged, clips, other)
        if plan.count:
            self._launch_flac(staged, frames, table, planes, other)
        at = 0
        for group, place in zip(converted, places, strict=True):
            assert other is not None
            size = len(group.rows) * self.samples.shape[1] * group.line
            self._convert(group, other[at : at + size], place)
            at += size

    def _able(self, width: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Source rates, and which crops the device can decode."""
        table = self._members.table[self._wanted.members]
        rates = table["rate"]
        here = np.isin(table["format"], (WAV, FLAC, MP3)) & (width > 0)
        for rate in np.unique(rates).tolist():
            if rate > 0 and _resample.reduced(rate, self._rate or rate)[0] > _MOST_PHASES:
                here &= rates != rate
        return rates, here

    def _launch_wav(self, staged: Tensor, clips: Tensor, other: Tensor | None) -> None:
        from fastaug.ops._cuda import launch

        count, pieces = self.plan.clips, self.plan.pieces
        args = (staged, clips, self.samples, other, self._status, count, self.samples.shape[1], pieces)
        launch("wav.cu", "fa_wav_kernel", (count * pieces,), (256,), args)

    def _launch_flac(
        self, staged: Tensor, frames: Tensor, groups: Tensor, planes: Tensor, other: Tensor | None
    ) -> None:
        """Reads, predicts and places the frames, as many groups of them at once as the scratch holds."""
        from fastaug.ops._cuda import launch

        plan, count, channels = self.plan, self.plan.count, self.samples.shape[1]
        room = max(min(int(plan.starts[-1]), _SCRATCH), int(np.diff(plan.starts).max()))
        x = torch.empty(room, dtype=torch.int32, device=staged.device)
        facts = torch.empty(plan.planes * _FACTS, dtype=torch.int32, device=staged.device)
        begin = 0
        while begin < count:
            base = int(plan.starts[begin])
            end = int(np.searchsorted(plan.starts[1:], base + room, "right"))
            read = (staged, frames, groups, x, facts, self._status, count, begin, base)
            launch("flac.cu", "fa_flac_read_kernel", (end - begin,), (32,), read)
            some = planes[int(plan.first_plane[begin]) : int(plan.first_plane[end])]
            restore = (some, frames, groups, x, facts, self._status, count, base)
            launch("flac.cu", "fa_flac_restore_kernel", (some.numel(),), (32,), restore)
            tiles = -(-int(plan.blocks[begin:end].max()) // 32)
            place = (frames, groups, x, self.samples, other, count, begin, base, channels, tiles)
            launch("flac.cu", "fa_flac_place_kernel", ((end - begin) * tiles,), (32, 8), place)
            begin = end

    def _convert(self, group: Rows, x: Tensor, table: Tensor) -> None:
        """Resamples the sources x (rows, channels, line) of a group: all rows from the start of a period on."""
        from fastaug.ops._cuda import launch

        rows, channels, width = self.samples.shape
        up, down = _resample.reduced(group.rate, group.out_rate)
        plan = _resample._plan(up, down, "high")
        line, count, length = group.line, len(group.rows), int((group.phase + group.count).max())
        straight = up == 1 and group.ordered(rows) and group.whole(width)
        y = self.samples if straight else _fresh((count, channels, max(length, 1)), length > 0, x.device)
        if length:
            sizes = (count * channels, line, line, 1 - plan.half, 0, length, up, down)
            _resample._launch(x, y, sizes, plan)
        if not straight:
            args = (y, self.samples, table, self._status, count, channels, y.shape[2], width)
            launch("wav.cu", "fa_place_rows_kernel", (count * channels * -(-width // 256),), (256,), args)

    def _by_cpu(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Decodes some of the crops on the CPU and copies them in."""
        if not chosen.any() or not self.samples.shape[2]:
            return
        wanted = self._wanted.where(chosen)
        pinned = self.samples.device.type == "cuda"
        samples = torch.empty(len(wanted.rows), *self.samples.shape[1:], pin_memory=pinned)
        numbered = Wanted(wanted.members, np.arange(len(wanted.rows)), wanted.starts, wanted.lengths)
        failed = decode_into(self._members, numbered, self._rate, samples, self._threads)
        self._failed |= {int(wanted.rows[i]): what for i, what in failed.items()}
        rows = torch.from_numpy(np.ascontiguousarray(wanted.rows)).to(self.samples.device)
        self.samples[rows] = samples.to(self.samples.device, non_blocking=True)


def _fresh(shape: tuple[int, ...], covered: bool, device: torch.device) -> Tensor:
    """Memory that will be written all over, or zeros."""
    return torch.empty(shape, device=device) if covered else torch.zeros(shape, device=device)
