"""Members, opened by whatever decodes them: one, or many at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastaug.checks import raise_if_ours
from fastaug.codecs.device import DeviceBatch
from fastaug.codecs.native import Encoded, Ints, Members, NativeAudio, Wanted, decode_into, map_file
from fastaug.codecs.sndfile import SndfileAudio, open_sndfile
from fastaug.codecs.status import DecodeError, Status
from fastaug.ops import _library

__all__ = ["OpenAudio", "OpenBatch", "open_audio", "open_fallback"]

OpenAudio = NativeAudio | SndfileAudio


@contextlib.contextmanager
def open_audio(encoded: Encoded, name: str | None = None, threads: int | None = None) -> Iterator[OpenAudio]:
    """Open encoded audio for probing and range reads.

    Args:
        encoded: the bytes of a file, or its path.
        name: what to call it in errors; the path by default.
        threads: at most so many for one read; torch's number by default.

    Raises:
        DecodeError: empty, unreadable or not audio. FileNotFoundError: no such file.
    """
    label = name or (str(encoded) if isinstance(encoded, str | Path) else "audio bytes")
    members = Members([encoded], [label], 1)
    if members.status(0) == Status.OK:
        yield NativeAudio(members, threads or _library.threads())
        return
    if members.status(0) != Status.UNSUPPORTED:
        raise members.probe_error(0)
    with open_fallback(encoded, members, 0) as audio:
        yield audio


@contextlib.contextmanager
def open_fallback(encoded: Encoded | None, members: Members, i: int) -> Iterator[SndfileAudio]:
    """Member ``i``, which no native decoder takes."""
    source = encoded if isinstance(encoded, str | Path) else members.view(i)
    with open_sndfile(source, members.names[i]) as audio:
        yield audio


class OpenBatch:
    """Members of any formats, probed together; then crops of all of them by one native call.

    A context manager: leaving it closes what libsndfile opened.

    Args:
        encoded: bytes, or paths.
        names: what to call them in errors.
        sample_rate: of all crops and lengths, in Hz.
        channels: 1 mixes down, None keeps, another number keeps members that have it and repeats mono.
        whole: members are wanted to their ends, so a header may not announce more than there is.
        threads: at most so many for the native decoders.
        device: whose kernels decode what they can (`fastaug.codecs.device`); None for the CPU.

    Attributes:
        totals: int64 (n,), length of each member at the output rate; 0 where it cannot be had.
        channels: int64 (n,), channels that its crops have; 0 where it cannot be had.
        device: as given.
        errors: member → why it cannot be had or, after `read`, why a crop of it cannot.
    """

    def __init__(
        self,
        encoded: Sequence[Encoded],
        names: Sequence[str],
        sample_rate: int,
        channels: int | None,
        whole: bool = False,
        threads: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self._rate, self._channels, self._whole, self._threads = sample_rate, channels, whole, threads
        self.device = device
        self._encoded, self._stack = encoded, contextlib.ExitStack()
        self._others: dict[int, SndfileAudio] = {}
        self.errors: dict[int, DecodeError] = {}
        self._members = Members([self._content(i, item) for i, item in enumerate(encoded)], names, threads)
        table = self._members.table
        native = table["status"] == Status.OK
        frames, rates = table["frames"], np.maximum(table["rate"], 1)
        self.totals: Ints = np.where(native, -(-frames * sample_rate // rates), 0)
        self.channels: Ints = np.where(native, table["channels"] if channels is None else channels, 0)
        for i in np.flatnonzero(~self._members.simple(sample_rate, channels)).tolist():
            try:
                self._look(i)
            except DecodeError as error:
                self.fail(i, error)

    def __enter__(self) -> OpenBatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fail(self, i: int, error: DecodeError) -> None:
        """Member ``i`` cannot be had; the first error counts.

        A copy of it is kept: the traceback of an error that was raised holds this object and every caller with what it
        has at hand, samples of batches included, in a cycle that only the garbage collector breaks.
        """
        self.errors.setdefault(i, DecodeError(str(error), error.status))
        self.totals[i] = self.channels[i] = 0

    def read(self, wanted: Wanted, samples: Tensor) -> None:
        """Decode crops into rows of ``samples``; troubles go into `errors`, what their rows hold is not specified.

        Args:
            wanted: crops of members without errors; no row twice.
            samples: float32 (rows, C, T), contiguous, where they are decoded. The named rows are written, all of each;
                on a CUDA device by work that is queued on the current stream.
        """
        native = ~np.isin(wanted.members, list(self._others)) if self._others else np.ones(len(wanted.rows), bool)
        ours = wanted.where(native)
        if self.device is None:
            failed = decode_into(self._members, ours, self._rate, samples, self._threads)
        else:
            shape = (samples.shape[0], samples.shape[1], samples.shape[2])
            failed = DeviceBatch(self._members, ours, self._rate, shape, self.device, self._threads, samples).finish()
        for row, (status, where) in failed.items():
            i = int(ours.members[np.flatnonzero(ours.rows == row)[0]])
            self.fail(i, self._members.error(i, status, where))
        if not native.all():
            self._read_others(wanted.where(~native), samples)

    def _read_others(self, wanted: Wanted, samples: Tensor) -> None:
        """Crops of members that no native decoder takes: they are decoded here, wherever the samples are."""
        here, places = samples, wanted.rows
        if self.device is not None:
            shape = (len(wanted.rows), *samples.shape[1:])
            here, places = torch.zeros(shape, pin_memory=samples.is_cuda), np.arange(len(wanted.rows))
        columns = (wanted.members, wanted.starts, wanted.lengths, places)
        for i, start, length, place in zip(*(column.tolist() for column in columns), strict=True):
            span = length if length >= 0 else max(int(self.totals[i]) - start, 0)
            try:
                crop = self._others[i].read(start, span, self._rate, self._channels)
            except DecodeError as error:
                self.fail(i, error)
                continue
            here[place, :, :span], here[place, :, span:] = crop, 0.0
        if here is not samples:
            rows = torch.from_numpy(np.ascontiguousarray(wanted.rows)).to(samples.device)
            samples.index_copy_(0, rows, here.to(samples.device, non_blocking=True))

    def _content(self, i: int, item: Encoded) -> Encoded:
        """What member ``i`` is decoded from: a path is mapped into memory, if it can be."""
        if not isinstance(item, str | Path):
            return item
        try:
            return map_file(item)
        except OSError as error:
            raise_if_ours(error)
            self.errors[i] = DecodeError(f"{error}", Status.NOT_FOUND)
            return b""

    def _look(self, i: int) -> None:
        """A member that is not simply decoded natively: whether, and by what, it can be had."""
        status = self._members.status(i)
        if i in self.errors:
            return
        if status == Status.UNSUPPORTED:
            audio = self._stack.enter_context(open_fallback(self._encoded[i], self._members, i))
            audio.info.check_conversion(self._rate, self._channels, self._members.names[i])
            self._others[i] = audio
            self.totals[i], self.channels[i] = audio.frames(self._rate), self._channels or audio.info.channels
            return
        if status != Status.OK:
            raise self._members.probe_error(i)
        self._members.info(i).check_conversion(self._rate, self._channels, self._members.names[i])
        if self._whole:
            self._members.check_end(i)
