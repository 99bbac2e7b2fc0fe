"""For programs with a terminal: what libmpg123 says about healthy files is kept off it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator

__all__ = ["quiet_decoders"]

# Lines that libmpg123 writes. They all concern its way through one file; what is really wrong comes back as an error.
_CHATTER = (
    b"[src/libmpg123/",
    b"Warning: Xing stream size",
    b"Note: Illegal Audio-MPEG-Header",
    b"Note: Trying to resync",
    b"Note: Hit end of (available) data",
    b"\n",
)


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep libmpg123 from talking over the progress bars.

    Entering an MP3 in its middle makes it write "part2_3_length too large" on file descriptor 2, although nothing is
    wrong: the first frame refers to bytes before it. Other notes are of padding and tags. All else that arrives there
    passes. Python's own ``sys.stderr`` keeps going straight to where it went, so progress bars find their terminal.
    """
    real = os.dup(2)
    reader, writer = os.pipe()
    ours, before = _goes_to(sys.stderr, 2), sys.stderr
    if ours:
        before.flush()
        sys.stderr = open(os.dup(real), "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    os.dup2(writer, 2)
    os.close(writer)
    thread = threading.Thread(target=_forward, args=(reader, real), daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(real, 2)  # closes the last writing end, which ends the thread
        if ours:
            sys.stderr.close()
            sys.stderr = before
        thread.join(1.0)
        os.close(real)


def _forward(reader: int, real: int) -> None:
    with open(reader, "rb") as lines:
        for line in lines:
            if not line.startswith(_CHATTER):
                os.write(real, line)


def _goes_to(stream: object, descriptor: int) -> bool:
    """Whether a Python stream writes to a file descriptor (a captured one does not)."""
    try:
        return isinstance(stream, io.TextIOBase) and stream.fileno() == descriptor
    except (OSError, ValueError):
        return False
