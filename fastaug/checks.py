"""Argument checks that several stages share."""

from __future__ import annotations

import errno

__all__ = ["check_rate", "raise_if_ours"]

_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)


def check_rate(rate: int, name: str) -> None:
    """Raise ValueError unless ``rate`` is a positive whole number of Hz."""
    if type(rate) is int and rate > 0:
        return
    if isinstance(rate, bool) or not isinstance(rate, int | float) or int(rate) != rate or rate <= 0:
        raise ValueError(f"{name}: sample_rate must be a positive whole number of Hz, got {rate!r}")


def raise_if_ours(error: OSError) -> None:
    """Raise errors of this process (too many open files, no memory): blamed on records, they would lose all of them."""
    if error.errno in _OURS:
        raise error
