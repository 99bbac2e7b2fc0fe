"""Checks that the output of a peer is ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def snr_db(expected: Any, actual: Any) -> float:
    """10 log10 of signal power over error power, in float64; both as arrays of equal shape."""
    import numpy as np

    a, b = (np.asarray(value, dtype=np.float64) for value in (expected, actual))
    assert a.shape == b.shape, f"shape {b.shape}, ours {a.shape}"
    assert np.isfinite(a).all() and np.isfinite(b).all(), "not finite"
    assert (a != 0).any(), "our output is silent"
    error = float(((a - b) ** 2).sum())
    return float("inf") if error == 0 else 10 * float(np.log10((a**2).sum() / error))


def agrees(least_db: float, edge: int = 0) -> Callable[[Any, Any], str]:
    """A check: equal to ours within ``least_db``, leaving out ``edge`` values at both ends of the last axis."""

    def check(ours: Any, theirs: Any) -> str:
        import numpy as np

        a, b = np.asarray(ours), np.asarray(theirs)
        inside = slice(edge, -edge or None)
        found = snr_db(a[..., inside], b[..., inside])
        assert found >= least_db, f"{found:.1f} dB, at least {least_db:.0f} dB asked"
        return f"{min(found, 200):.0f} dB"

    return check


def agrees_below(share: float, least_db: float) -> Callable[[Any, Any], str]:
    """A check of the spectra below ``share`` of the Nyquist frequency, for filters whose transition bands differ."""

    def check(ours: Any, theirs: Any) -> str:
        import numpy as np

        a, b = (np.fft.rfft(np.asarray(value, dtype=np.float64), axis=-1) for value in (ours, theirs))
        until = int(share * a.shape[-1])
        error = float((np.abs(a - b)[..., :until] ** 2).sum())
        found = 10 * float(np.log10((np.abs(a)[..., :until] ** 2).sum() / max(error, 1e-300)))
        assert found >= least_db, f"{found:.1f} dB below {share:g} of the band, at least {least_db:.0f} dB asked"
        return f"{min(found, 200):.0f} dB below {share:g} of the band"

    return check
