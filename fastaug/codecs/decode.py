"""The batched face of decoding: many members, many crops, one tensor, one status a crop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.checks import check_rate
from fastaug.codecs.device import decode_on_device
from fastaug.codecs.native import Encoded, Ints, Members, Wanted, decode_into
from fastaug.codecs.open import open_fallback
from fastaug.codecs.status import DecodeError, Status
from fastaug.ops import _library
from fastaug.ops.resample import output_length

__all__ = ["decode", "describe"]

_PATH = (str, Path)


def decode(
    encoded: Sequence[Encoded],
    starts: Tensor | npt.ArrayLike = 0,
    lengths: Tensor | npt.ArrayLike | None = None,
    sample_rate: int | None = None,
    channels: int | None = 1,
    device: torch.device | str | None = None,
    num_threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode ranges of encoded audio into one batch.

    A file of n samples has ⌈n · out / in⌉ output samples; output sample k sits at source position k · in / out in
    exact integer arithmetic. So a range equals the same slice of the whole, bit for bit. Zeros outside the file.
    Formats are recognised by content. WAV, FLAC and MP3 (MPEG-1, 2 and 2.5 layer III, free format and VBR too) are
    decoded natively, without the GIL, each member probed once and what its crops share decoded once; everything else,
    layers I and II among it, goes through libsndfile, member by member, on as many threads.

    Sample 0 of an MP3 is the recording's: delay and padding that a LAME or FFmpeg tag tells are cut off, without a tag
    nothing is. A stream cut from a longer one keeps its timeline; frames whose bit reservoir was cut off are silent
    (`fastaug.info` tells how many samples these are).

    Args:
        encoded: B members of mixed codecs and rates: bytes, memoryviews, uint8 arrays or tensors (read in place), or
            paths. A file given by path is mapped into memory and must not become shorter meanwhile.
        starts: int64 (B,) or (V, B), in samples at the output rate; an int broadcasts.
        lengths: likewise; None reads to the end of each file.
        sample_rate: output rate in Hz; None keeps each file's own.
        channels: 1 mixes down (the mean, as `fastaug.functional.mix_down`); None keeps (all members must then agree);
            another number keeps members that have it and repeats mono.
        device: of the samples; the CPU by default. On CUDA kernels decode WAV, FLAC and MP3 (`fastaug.codecs.device`)
            from bytes that pass through pinned memory in one copy: bit for bit as the CPU (MP3: within 1e-6), or to
            110 dB where they are resampled. The CPU decodes the rest, and what is damaged. Waits for the device once,
            for the status.
        num_threads: decoding threads; torch's count by default.

    Returns:
        samples: float32 (B, C, T) or (V, B, C, T), T the largest length; shorter ones are zero-padded.
        status: int64 (B,) or (V, B) on the CPU, a `Status`: 0 where all is well, else the reason why that row is all
            zeros. `describe` tells more.

    Raises:
        ValueError: shapes do not fit, a length is negative, or the sample rate is not positive.
    """
    first, count = _crops(starts, lengths, len(encoded))
    batch = _Batch(encoded, first, count, sample_rate, channels, num_threads or _library.threads())
    flat = len(first) == 1 and np.ndim(starts) < 2 and np.ndim(lengths if lengths is not None else 0) < 2
    samples = batch.decode(device, flat)
    return samples, torch.from_numpy(batch.status[0] if flat else batch.status)


def describe(
    status: Tensor,
    encoded: Sequence[Encoded] | None = None,
    starts: Tensor | npt.ArrayLike = 0,
    lengths: Tensor | npt.ArrayLike | None = None,
    sample_rate: int | None = None,
    channels: int | None = 1,
) -> list[str]:
    """One line for each crop that failed: its place in the batch and why.

    With the arguments of `decode` beside the status, the failed members are decoded once more and the lines tell the
    place in the file, and what was expected there.

    Args:
        status: from `decode`, (B,) or (V, B).
    """
    table = status.reshape(-1, status.shape[-1])
    reasons: dict[tuple[int, int], str] = {}
    if encoded is not None:
        first, count = _crops(starts, lengths, len(encoded))
        for b in torch.nonzero(table.any(0)).flatten().tolist():
            crops = (first[:, b : b + 1], count[:, b : b + 1])
            again = _Batch(encoded[b : b + 1], *crops, sample_rate, channels, 1, [_name(encoded[b], b)])
            again.decode("cpu")
            reasons |= {(v, b): text for (v, _), text in again.reasons.items()}
    lines = []
    for v, b in torch.nonzero(table).tolist():
        place = f"example {b}" if status.dim() < 2 else f"view {v} of example {b}"
        lines.append(f"{place}: {reasons.get((v, b)) or Status(int(table[v, b])).meaning}")
    return lines


class _Batch:
    """Members, their crops (V, B) with length -1 for "to the end", and what becomes of them."""

    def __init__(
        self,
        encoded: Sequence[Encoded],
        first: Ints,
        count: Ints,
        sample_rate: int | None,
        channels: int | None,
        threads: int,
        names: Sequence[str] | None = None,
    ) -> None:
        if sample_rate is not None:
            check_rate(sample_rate, "decode")
        if channels is not None and channels < 1:
            raise ValueError(f"channels must be at least 1 or None, got {channels}")
        self.first, self.count, self.sample_rate, self.channels = first, count, sample_rate, channels
        self.threads = threads
        self.status = np.zeros(first.shape, np.int64)
        self.reasons: dict[tuple[int, int], str] = {}
        self.encoded: Sequence[Encoded | None] = encoded
        found = encoded
        if any(issubclass(kind, _PATH) for kind in set(map(type, encoded))):
            names = names or [_name(item, i) for i, item in enumerate(encoded)]
            self.encoded = [None if isinstance(item, _PATH) and not os.path.isfile(item) else item for item in encoded]
            found = [item if item is not None else b"" for item in self.encoded]
        self.members = Members(found, names, threads)

    def fail(self, b: int, error: DecodeError, v: int | None = None) -> None:
        """Crop ``v`` of member ``b`` has no samples; None: all its crops."""
        for view in range(len(self.first)) if v is None else [v]:
            self.status[view, b] = int(error.status)
            self.reasons[view, b] = str(error)

    def decode(self, device: torch.device | str | None, flat: bool = False) -> Tensor:
        """Samples (V, B, C, T) on the device; of one view, if ``flat``, (B, C, T)."""
        native, other = self._sort()
        others = self._through_libsndfile(other)
        shape = (*self.first.shape, self.channels or self._common(native, others), self._width(native, others))
        if len(native) == shape[1]:
            places = np.arange(shape[0] * shape[1])  # rows of the result
            wanted = Wanted(places % max(shape[1], 1), places, self.first.ravel(), self.count.ravel())
        else:
            places = np.add.outer(np.arange(shape[0]) * shape[1], native).ravel()
            wanted = Wanted(places % shape[1], places, self.first.ravel()[places], self.count.ravel()[places])
        every = (shape[0] * shape[1], *shape[2:])
        if device not in (None, "cpu") and torch.device(device).type == "cuda":
            rows, failed = decode_on_device(self.members, wanted, self.sample_rate, every, device, self.threads)
        else:
            rows = torch.empty(every)
            failed = decode_into(self.members, wanted, self.sample_rate, rows, self.threads)
        if flat and not failed and not others and not self.reasons:
            return rows if device in (None, "cpu") else rows.to(device, non_blocking=True)
        samples = rows.view(shape)
        for row, (status, where) in failed.items():
            v, b = divmod(row, len(self.encoded))
            self.fail(b, self.members.error(b, status, where), v)
        for (v, b), crop in others.items():
            samples[v, b, :, : crop.shape[1]] = crop
            samples[v, b, :, crop.shape[1] :] = 0.0
        for v, b in self.reasons:
            samples[v, b] = 0.0
        samples = samples[0] if flat else samples
        return samples if device is None else samples.to(device, non_blocking=True)

    def _sort(self) -> tuple[Ints, list[int]]:
        """Members for the native decoders, and those for libsndfile; the others have failed."""
        simple = self.members.simple(self.sample_rate, self.channels)
        if simple.all():
            return np.arange(len(simple)), []
        table = self.members.table
        native, other = table["status"] == Status.OK, table["status"] == Status.UNSUPPORTED
        for b in np.flatnonzero(~other & ~simple).tolist():
            try:
                if self.encoded[b] is None:
                    raise DecodeError(f"{self.members.names[b]}: {Status.NOT_FOUND.meaning}", Status.NOT_FOUND)
                if not native[b]:
                    raise self.members.probe_error(b)
                self.members.info(b).check_conversion(self.sample_rate, self.channels, self.members.names[b])
                if (self.count[:, b] < 0).any():
                    self.members.check_end(b)
            except DecodeError as error:
                native[b] = False
                self.fail(b, error)
        return np.flatnonzero(native), np.flatnonzero(other).tolist()

    def _through_libsndfile(self, members: list[int]) -> dict[tuple[int, int], Tensor]:
        """The crops of members that no native decoder takes."""

        def one(b: int) -> dict[tuple[int, int], Tensor] | DecodeError:
            try:
                with open_fallback(self.encoded[b], self.members, b) as audio:
                    total = audio.frames(self.sample_rate)
                    wanted = zip(self.first[:, b].tolist(), self.count[:, b].tolist(), strict=True)
                    spans = [(start, n if n >= 0 else max(total - start, 0)) for start, n in wanted]
                    crops = [audio.read(start, n, self.sample_rate, self.channels) for start, n in spans]
                return {(v, b): crop for v, crop in enumerate(crops)}
            except DecodeError as error:
                return error

        found: dict[tuple[int, int], Tensor] = {}
        if not members:
            return found
        with ThreadPoolExecutor(self.threads) as pool:
            for b, crops in zip(members, pool.map(one, members), strict=True):
                if isinstance(crops, DecodeError):
                    self.fail(b, crops)
                else:
                    found |= crops
        return found

    def _common(self, native: Ints, others: dict[tuple[int, int], Tensor]) -> int:
        """The number of channels that all members have. Raises ValueError."""
        counts = {*self.members.table["channels"][native].tolist(), *(crop.shape[0] for crop in others.values())}
        if len(counts) > 1:
            raise ValueError(f"members have {sorted(counts)} channels: give channels=1, or decode them apart")
        return max(counts, default=1)

    def _width(self, native: Ints, others: dict[tuple[int, int], Tensor]) -> int:
        """T: the largest length, as far as there is one."""
        table = self.members.table
        widths = [int(self.count.max(initial=0)), *(crop.shape[1] for crop in others.values())]
        if self.count.min(initial=0) < 0:
            for b in native.tolist():
                rate = int(table["rate"][b])
                total = output_length(int(table["frames"][b]), rate, self.sample_rate or rate)
                widths += [total - start for start in self.first[:, b].tolist()]
        return max(widths)


def _name(item: Encoded, i: int) -> str:
    return str(item) if isinstance(item, _PATH) else f"encoded[{i}]"


def _crops(starts: Tensor | npt.ArrayLike, lengths: Tensor | npt.ArrayLike | None, members: int) -> tuple[Ints, Ints]:
    """Starts and lengths, each (V, B); length -1 where the crop goes to the end."""
    first = _broadcast(starts, members, "starts")
    count = np.full_like(first, -1) if lengths is None else _broadcast(lengths, members, "lengths")
    if lengths is not None and count.min(initial=0) < 0:
        raise ValueError("lengths must not be negative")
    if first.shape != count.shape:
        first, count = np.broadcast_arrays(first, count)
    return first, count


def _broadcast(values: Tensor | npt.ArrayLike, members: int, name: str) -> Ints:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole samples, got {array.dtype}")
    if array.ndim > 2 or (array.ndim and array.shape[-1] != members):
        raise ValueError(f"{name} must be an int, ({members},) or (V, {members}), got shape {array.shape}")
    every = np.empty((len(array) if array.ndim == 2 else 1, members), np.int64)
    every[:] = array
    return every
