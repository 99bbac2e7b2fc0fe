"""What the demo shows in the terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["box", "columns", "command", "say"]


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
