"""One member, opened by whatever decodes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastaug.codecs.native import Encoded, Members, NativeAudio
from fastaug.codecs.sndfile import SndfileAudio, open_sndfile
from fastaug.codecs.status import Status
from fastaug.ops import _library

__all__ = ["OpenAudio", "open_audio", "open_fallback"]

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
