"""Argument checks that several stages share."""

from __future__ import annotations

__all__ = ["check_rate"]


def check_rate(rate: int, name: str) -> None:
    """Raise ValueError unless ``rate`` is a positive whole number of Hz."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or int(rate) != rate or rate <= 0:
        raise ValueError(f"{name}: sample_rate must be a positive whole number of Hz, got {rate!r}")
