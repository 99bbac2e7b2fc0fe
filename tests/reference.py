"""Definitions of the native operators in NumPy: slow, plain, float64 unless a decision depends on rounding.

They share nothing with csrc/ but the published numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

COMBS = (1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617)
ALLPASSES = (225, 341, 441, 556)


# ---- resampling ----


def kaiser_low_pass(x: np.ndarray, pass_band: float, stop_db: float) -> np.ndarray:
    """Kaiser-windowed sinc, -6 dB halfway between `pass_band` and 1; x in samples of the lower rate."""
    support = (stop_db - 7.95) / (2.285 * math.pi * (1.0 - pass_band)) / 2.0
    beta, cutoff = 0.1102 * (stop_db - 8.7), (1.0 + pass_band) / 2.0
    window = np.i0(beta * np.sqrt(np.clip(1.0 - (x / support) ** 2, 0.0, None))) / np.i0(beta)
    return np.where(np.abs(x) < support, cutoff * np.sinc(cutoff * x) * window, 0.0)


def interpolate(x: np.ndarray, positions: np.ndarray, scale: float, pass_band: float, stop_db: float) -> np.ndarray:
    """x (T,) at real `positions`, low-passed at `scale` of its Nyquist frequency; zeros outside."""
    support = (stop_db - 7.95) / (2.285 * math.pi * (1.0 - pass_band)) / 2.0
    reach = int(support / scale) + 1
    padded = np.pad(x.astype(np.float64), reach + 1)
    first = np.floor(positions).astype(np.int64) - reach
    y = np.zeros(len(positions))
    for j in range(2 * reach + 2):
        source = first + j
        value = padded[np.clip(source + reach + 1, 0, len(padded) - 1)]
        inside = (source >= 0) & (source < len(x))
        y += np.where(inside, value, 0.0) * scale * kaiser_low_pass((positions - source) * scale, pass_band, stop_db)
    return y


def resample(x: np.ndarray, from_rate: int, to_rate: int, pass_band: float, stop_db: float) -> np.ndarray:
    length = -(-len(x) * to_rate // from_rate)
    k = np.arange(length, dtype=np.int64)
    positions = k * from_rate // to_rate + (k * from_rate % to_rate) / to_rate
    return interpolate(x, positions, min(1.0, to_rate / from_rate), pass_band, stop_db)


# ---- reverb ----


def _wet(x: np.ndarray, side: int, rate: float, setting: dict[str, float]) -> np.ndarray:
    """One side's combs and allpasses over x (T,), in blocks that no delay is shorter than."""
    feedback = 1 - 0.7 * (0.02 / 0.7) ** (setting["reverberance"] / 100)
    damping = 0.2 + 0.3 * setting["hf_damping"] / 100
    room = 0.1 + 0.9 * setting["room_scale"] / 100
    signs = [0.0 if side == 0 else (1.0, -1.0)[i % 2] * setting["stereo_depth"] / 100 for i in range(12)]
    combs = [int(room * rate / 44100 * (n + 12 * s) + 0.5) for n, s in zip(COMBS, signs)]
    allpasses = [int(rate / 44100 * (n + 12 * s) + 0.5) for n, s in zip(ALLPASSES, signs[8:])]
    wet = np.zeros(len(x))
    for delay in combs:
        line, state = np.zeros(delay + len(x)), 0.0
        for t in range(len(x)):
            out = line[t]
            state = out + (state - out) * damping
            line[t + delay] = x[t] + feedback * state
        wet += line[: len(x)]
    for delay in allpasses:
        line = np.zeros(delay + len(x))
        for start in range(0, len(x), delay):
            stop = min(start + delay, len(x))
            line[start + delay : stop + delay] = wet[start:stop] + 0.5 * line[start:stop]
        wet = line[: len(x)] - wet
    return 0.015 * 10 ** (setting["wet_gain_db"] / 20) * wet


def reverb(x: np.ndarray, rate: float, wet_only: bool = False, clip: bool = True, **setting: float) -> np.ndarray:
    """x (C, T) with sox's settings."""
    names = ("reverberance", "hf_damping", "room_scale", "stereo_depth", "pre_delay_ms", "wet_gain_db")
    given = dict(zip(names, (50.0, 50.0, 100.0, 100.0, 0.0, 0.0))) | setting
    if len(x) > 2:
        given["stereo_depth"] = 0.0
    limit = (lambda v: np.clip(v, -1.0, 1.0)) if clip else (lambda v: v)
    x = limit(x.astype(np.float64))
    late = int(given["pre_delay_ms"] / 1000 * rate + 0.5)
    heard = np.concatenate([np.zeros((len(x), late)), x], axis=1)[:, : x.shape[1]]
    dry = 0.0 * x if wet_only else x
    if given["stereo_depth"] == 0.0:
        return limit(dry + np.stack([_wet(h, 0, rate, given) for h in heard]))
    if len(x) == 1:
        return sum(limit(dry + _wet(heard[0], side, rate, given)) for side in (0, 1)) / 2
    sides = [sum(_wet(h, side, rate, given) for h in heard) / 2 for side in (0, 1)]
    return limit(dry + np.stack(sides))


# ---- time stretch and pitch shift ----


def stretch(x: np.ndarray, factor: float, rate: float) -> np.ndarray:
    """WSOLA of x (C, T) with sox's geometry; distances in float32, term after term: decisions hang on them."""
    segment, search = int(0.082 * rate + 0.5), int(rate * 82 / 5.587 / 1000 + 0.5)
    overlap = int(max(rate * 82 / 6.833 / 1000 + 4.5, 16)) & ~7
    length = int(x.shape[1] / factor + 0.5)
    if factor == 1.0:
        return x.copy()
    hop, before = segment - overlap, search // 2
    end = int(factor * (length + 2 * hop)) + 2 * (segment + search)
    source = np.pad(x.astype(np.float32), ((0, 0), (before, max(end, 0))))
    y = np.zeros((len(x), length + 2 * segment), np.float32)
    fade = (np.arange(overlap, dtype=np.float32) / np.float32(overlap))[None]
    tail, done, k = np.zeros((len(x), overlap), np.float32), 0, 0
    while done < length:
        window, offset = int(factor * (k * hop) + 0.5), before
        if k:
            sums = np.zeros(search, np.float32)
            for i in range(overlap):
                for channel, wanted in zip(source, tail[:, i]):
                    sums += (channel[window + i : window + i + search] - wanted) ** 2
            offset = 0 if np.isnan(sums[0]) else int(np.nanargmin(sums))
        new = source[:, window + offset : window + offset + segment]
        y[:, done : done + hop] = new[:, :hop]
        if k:
            y[:, done : done + overlap] = tail * (1 - fade) + new[:, :overlap] * fade
        tail, done, k = new[:, hop:], done + hop, k + 1
    return y[:, :length]


def pitch_shift(x: np.ndarray, semitones: float, rate: float, stop_db: float) -> np.ndarray:
    """WSOLA, then the filters of csrc/repitch.h: a half-band of 80 taps, and Kaiser and Bessel's of 7 taps at twice the
    rate with one that flattens it."""
    factor, t = float(f"{2 ** (-semitones / 12):g}"), np.arange(x.shape[1])
    norm = _windowed(np.arange(-39.5, 40), 40, stop_db).sum()

    def half_band(d: np.ndarray) -> np.ndarray:
        return np.where(d == np.round(d), d == 0, _windowed(d, 40, stop_db) / norm)

    def flat(row: np.ndarray) -> np.ndarray:
        return np.convolve(row, flat_taps(), "same")

    rows = []
    for row in stretch(x, factor, rate):
        if factor > 1:
            doubled = _read(row, np.arange(-100, 2 * len(row) + 100) / 2, half_band, 40)
            rows.append(_read(flat(doubled), 100 + 2 * t / factor, short_kernel, 4))
        else:
            scale, ends = 2 * factor, np.arange(-100, 2 * len(t) + 100)
            halves = _read(row, ends / scale, lambda d: scale * short_kernel(scale * d), math.ceil(3.5 / scale))  # noqa: B023
            rows.append(_read(flat(halves), 100 + 2 * t, lambda d: half_band(d / 2) / 2, 80))
    return np.stack(rows)


def _windowed(x: np.ndarray, support: float, stop_db: float) -> np.ndarray:
    beta = 0.1102 * (stop_db - 8.7)
    window = np.i0(beta * np.sqrt(np.clip(1.0 - (x / support) ** 2, 0.0, None))) / np.i0(beta)
    return np.where(np.abs(x) < support, np.sinc(x) * window, 0.0)


def short_kernel(x: np.ndarray) -> np.ndarray:
    """Kaiser and Bessel's kernel of length 7."""
    inside = np.clip(1.0 - (x / 3.5) ** 2, 0.0, None)
    return np.where(np.abs(x) < 3.5, np.i0(16.38 * np.sqrt(inside)) / np.i0(16.38), 0.0)


@cache
def flat_taps(reach: int = 6, edge: float = 0.4575) -> np.ndarray:
    """The taps -reach ... reach that make the product with the kernel flat to `edge` of the Nyquist frequency: least
    squares under Lawson's weights, which go to minimax."""
    omega, at = np.linspace(0, edge * np.pi, 400), np.linspace(-3.5, 3.5, 7001)
    response = (short_kernel(at) * np.cos(np.outer(omega, at))).sum(1) * (at[1] - at[0])
    basis = np.cos(np.outer(omega, np.arange(reach + 1))) * response[:, None]
    weights = np.ones(len(omega))
    for _ in range(60):
        root = np.sqrt(weights)
        half = np.linalg.lstsq(basis * root[:, None], root, rcond=None)[0]
        weights *= np.abs(basis @ half - 1.0) + 1e-14
        weights /= weights.sum()
    half[1:] /= 2
    return np.concatenate([half[:0:-1], half])


def _read(x: np.ndarray, positions: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray], reach: int) -> np.ndarray:
    """sum_j x[j] kernel(position - j) over |position - j| <= reach."""
    first, y = np.floor(positions).astype(np.int64) - reach, np.zeros(len(positions))
    if len(x) == 0:
        return y
    for source in (first + j for j in range(2 * reach + 2)):
        inside = (source >= 0) & (source < len(x))
        y += np.where(inside, x[np.clip(source, 0, len(x) - 1)], 0.0) * kernel(positions - source)
    return y


# ---- filters ----


def windowed_sinc(x: np.ndarray, cutoff: float, highpass: bool = False, zeros: int = 8) -> np.ndarray:
    """x (C, T), cutoff as a fraction of the sample rate."""
    half = int(zeros / cutoff / 2)
    n = np.arange(-half, half + 1)
    window = 0.5 + 0.5 * np.cos(np.pi * n / half) if half else np.ones(1)
    taps = 2 * cutoff * window * np.sinc(2 * cutoff * n)
    padded = np.pad(x.astype(np.float64), ((0, 0), (half, half)), mode="edge")
    low = np.stack([np.convolve(row, taps / taps.sum(), mode="valid") for row in padded])
    return x - low if highpass else low
