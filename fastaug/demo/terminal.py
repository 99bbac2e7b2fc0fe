"""What the demo shows in the terminal."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["box", "columns", "command", "quiet_decoders", "say"]

# Lines that libmpg123 writes. They all concern its way through one file; what is really wrong comes back as an error.
_CHATTER = (
    b"[src/libmpg123/",
    b"Warning: Xing stream size",
    b"Note: Illegal Audio-MPEG-Header",
    b"Note: Trying to resync",
)
_CHATTER += (b"Note: Hit end of (available) data", b"\n")


def say(topic: str, text: str) -> None:
    """One line, its topic in a column of its own."""
    print(f"{topic:>7}  {text}", flush=True)


def box(*lines: str) -> None:
    """Lines in a frame."""
    width = max(map(len, lines))
    print(f"\n  ╭{'─' * (width + 2)}╮")
    for line in lines:
        print(f"  │ {line:<{width}} │")
    print(f"  ╰{'─' * (width + 2)}╯\n", flush=True)


def columns(rows: Sequence[tuple[str, str]]) -> None:
    """Commands, and beside each what it does."""
    width = max(len(left) for left, _ in rows)
    for left, right in rows:
        print(f"  {left:<{width}}   {right}", flush=True)


def command() -> str:
    """How to call fastaug from here: by its name, by the script beside this Python, or as a module."""
    if shutil.which("fastaug"):
        return "fastaug"
    script = Path(sys.executable).with_name("fastaug")
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m fastaug.cli"
    return shlex.quote(os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script))


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep libmpg123 from talking over the progress bars.

    Entering an MP3 in its middle makes it write "part2_3_length too large" on file descriptor 2, although nothing is
    wrong: the first frame refers to bytes before it. Other notes are of padding and tags. All else that arrives there passes. Python's own ``sys.stderr``
    keeps going straight to where it went, so progress bars still find their terminal.
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
