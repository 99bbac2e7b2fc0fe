"""Drum hits of the synthetic corpus: falling sines and shaped noise, drawn anew for each track."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fastaug.datasets.synth_voices import Draws, fade, sine

__all__ = ["DRUMS"]

Floats = npt.NDArray[np.float32]


def _high(noise: Floats, times: int) -> Floats:
    """High-passed by ``times`` first differences."""
    for _ in range(times):
        noise = (noise[1:] - noise[:-1]) * np.float32(0.6)
    return noise


def _low(noise: Floats, width: int) -> Floats:
    """Low-passed by a moving average of ``width`` samples, at the level of the input."""
    total = np.cumsum(noise, dtype=np.float64)
    return ((total[width:] - total[:-width]) / np.sqrt(width)).astype(np.float32)


def _burst(draws: Draws, rate: int, seconds: float, decay: float, high: int = 0, low: int = 1) -> Floats:
    count = int(seconds * rate)
    low = max(1, low * rate // 22_050)
    noise = _high(draws.noise(count + high + low), high)
    return _low(noise, low)[:count] * fade(count, decay, rate)


def _drop(rate: int, seconds: float, start: float, end: float, bend: float, decay: float) -> Floats:
    """A sine that falls from ``start`` to ``end`` Hz with time constant ``bend``: kicks, toms, congas."""
    time = np.arange(int(seconds * rate)) / rate
    cycles = end * time + (start - end) * bend * (1.0 - np.exp(-time / bend))
    return (sine(cycles) * np.exp(-time / decay)).astype(np.float32)


def _kick(d: Draws, r: int) -> Floats:
    return _drop(r, 0.4, d.uniform(120, 260), d.uniform(42, 62), 0.03, d.uniform(0.08, 0.2))


def _snare(d: Draws, r: int) -> Floats:
    body = _drop(r, 0.3, 260, d.uniform(150, 220), 0.02, 0.05)
    return body * np.float32(0.5) + _burst(d, r, 0.3, d.uniform(0.05, 0.12), high=1) * np.float32(0.8)


def _tom(d: Draws, r: int) -> Floats:
    low = d.uniform(70, 130)
    return _drop(r, 0.45, low * 1.6, low, 0.05, d.uniform(0.1, 0.18))


def _conga(d: Draws, r: int) -> Floats:
    low = d.uniform(180, 330)
    return _drop(r, 0.25, low * 1.15, low, 0.02, d.uniform(0.05, 0.1)) * np.float32(0.8)


def _rim(d: Draws, r: int) -> Floats:
    return _drop(r, 0.06, 1_700, d.uniform(800, 1_200), 0.01, 0.015) * np.float32(0.7)


def _hat(d: Draws, r: int) -> Floats:
    return _burst(d, r, 0.12, d.uniform(0.015, 0.04), high=2) * np.float32(0.5)


def _open_hat(d: Draws, r: int) -> Floats:
    return _burst(d, r, 0.45, d.uniform(0.1, 0.2), high=2) * np.float32(0.45)


def _ride(d: Draws, r: int) -> Floats:
    ring = _drop(r, 0.6, 3_300, d.uniform(2_700, 3_200), 0.2, 0.25) * np.float32(0.15)
    return ring + _burst(d, r, 0.6, d.uniform(0.12, 0.25), high=2) * np.float32(0.25)


def _shaker(d: Draws, r: int) -> Floats:
    hit = _burst(d, r, 0.1, d.uniform(0.02, 0.04), high=1)
    rise = int(0.015 * r)
    hit[:rise] *= np.arange(rise, dtype=np.float32) / np.float32(rise)
    return hit * np.float32(0.5)


def _clap(d: Draws, r: int) -> Floats:
    hit = _burst(d, r, 0.25, d.uniform(0.05, 0.1), low=2)
    for start in (0.011, 0.022):
        at = int(start * r)
        hit[at:] += _burst(d, r, 0.25, 0.012, high=1)[: hit.size - at]
    return hit * np.float32(0.6)


def _blip(d: Draws, r: int) -> Floats:
    """The noise channel of an early games console: held samples."""
    hold = max(1, r // 5_000)
    count = int(0.15 * r)
    steps = np.repeat(d.noise(count // hold + 1), hold)[:count]
    return steps * fade(count, d.uniform(0.02, 0.06), r) * np.float32(0.7)


#: Drum name -> maker of one hit (n,) at a sample rate.
DRUMS: dict[str, Callable[[Draws, int], Floats]] = {
    "kick": _kick,
    "snare": _snare,
    "tom": _tom,
    "conga": _conga,
    "rim": _rim,
    "hat": _hat,
    "open": _open_hat,
    "ride": _ride,
    "shaker": _shaker,
    "clap": _clap,
    "blip": _blip,
}
