"""Members, opened by whatever decodes them: one, or many at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from fastaug.checks import raise_if_ours
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

    Attributes:
        totals: int64 (n,), length of each member at the output rate; 0 where it cannot be had.
        channels: int64 (n,), channels that its crops have; 0 where it cannot be had.
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
    ) -> None:
        self._rate, self._channels, self._whole, self._threads = sample_rate, channels, whole, threads
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
            samples: float32 (rows, C, T), contiguous, on the CPU. The named rows are written, all of each.
        """
        native = ~np.isin(wanted.members, list(self._others)) if self._others else np.ones(len(wanted.rows), bool)
        ours = wanted.where(native)
        failed = decode_into(self._members, ours, self._rate, samples, self._threads)
        for row, (status, where) in failed.items():
            i = int(ours.members[np.flatnonzero(ours.rows == row)[0]])
            self.fail(i, self._members.error(i, status, where))
        for k in np.flatnonzero(~native).tolist():
            i, start, length = int(wanted.members[k]), int(wanted.starts[k]), int(wanted.lengths[k])
            try:
                span = length if length >= 0 else max(int(self.totals[i]) - start, 0)
                crop = self._others[i].read(start, span, self._rate, self._channels)
            except DecodeError as error:
                self.fail(i, error)
                continue
            row_samples = samples[int(wanted.rows[k])]
            row_samples[:, :span], row_samples[:, span:] = crop, 0.0

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
