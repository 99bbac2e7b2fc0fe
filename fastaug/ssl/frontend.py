"""A front end as a checkpoint's card holds it."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastaug.frontends import LogMel

__all__ = ["logmel_settings"]


def logmel_settings(frontend: LogMel) -> dict[str, Any]:
    """Those arguments of ``frontend`` that are not the defaults, JSON-able: ``LogMel(**settings)`` rebuilds it.

    Raises:
        TypeError: not a plain LogMel; a card cannot describe another front end.
    """
    if type(frontend) is not LogMel:
        raise TypeError(f"a checkpoint's card holds the arguments of a LogMel, got {type(frontend).__name__}")
    fields = [f for f in dataclasses.fields(frontend) if f.init and f.name != "dtype"]
    values = {f.name: getattr(frontend, f.name) for f in fields}
    return {f.name: values[f.name] for f in fields if values[f.name] != f.default}
