"""``fastaug demo``: the whole line in a few minutes, on music it makes itself or on one's own."""

from __future__ import annotations

from fastaug.demo.steps import run

__all__ = ["run"]
