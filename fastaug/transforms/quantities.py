"""Checking what a transform is told to draw, when it is built rather than in the middle of an epoch."""

from __future__ import annotations

import math

from fastaug.random import Spec

__all__ = ["check_spec"]


def check_spec(name: str, spec: Spec, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise unless ``spec`` is a number, an ordered (low, high) tuple or a non-empty list, within [low, high].

    Args:
        name: "Transform: quantity", for the message.
        spec: what will be drawn.
        low, high: bounds of what makes sense, inclusive.

    Raises:
        TypeError: not a number, tuple, list or range. ValueError: empty, unordered, not finite or out of bounds.
    """
    if isinstance(spec, bool) or not isinstance(spec, int | float | tuple | list | range):
        raise TypeError(f"{name} must be a number, a (low, high) tuple or a list of choices, got {spec!r}")
    values = [spec] if isinstance(spec, int | float) else list(spec)
    if isinstance(spec, tuple) and (len(spec) != 2 or not spec[0] <= spec[1]):
        raise ValueError(f"{name}: a tuple is a range (low, high) with low <= high, got {spec!r}")
    if not values:
        raise ValueError(f"{name}: no choices given")
    for value in values:
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")
