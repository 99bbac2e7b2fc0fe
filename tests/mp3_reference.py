"""Layer III in float64, straight from the formulas of ISO 11172-3 (clause numbers below) and 13818-3: from the fields
of mp3_writer's frames to samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mp3_writer import LINES, LONG, SHORT, START, Frame, Granule, bands, factor_sizes, table

PRETAB = table("kMp3Pretab")
_PRINTED = table("kMp3Window") / 65536
# Table 3-B.3: the second half mirrors the first, with the sign changed except every 64th.
WINDOW = np.array([_PRINTED[n] if n <= 256 else _PRINTED[512 - n] * (1 if n % 64 == 0 else -1) for n in range(512)])


def requantised(rate: int, g: Granule, intensity: bool) -> np.ndarray:
    """2.4.3.4.7.1"""
    xr, lines = np.zeros(LINES), g.padded()
    step = 1.0 if g.scale else 0.5
    preflag = g.preflag or (rate >= 3 and g.compress >= 500 and not intensity)
    for b, (first, stop, window) in enumerate(bands(rate, g.kind)):
        exponent = (g.gain - 210) / 4
        factor = g.factor(b)
        if window == 3:
            exponent -= step * (factor + preflag * PRETAB[b])
        else:
            exponent -= 2 * g.subblock_gain[window] + step * factor
        part = lines[first:stop]
        xr[first:stop] = np.sign(part) * np.abs(part) ** (4 / 3) * 2.0**exponent
    return xr


def shares(rate: int, g: Granule, band: int) -> tuple[float, float] | None:
    """2.4.3.4.9.3, and 2.4.3.2 of 13818-3: factors of the left channel's line; None if the position is illegal."""
    position = g.factor(band)
    if rate < 3:
        if position >= 7:
            return None
        if position == 6:
            return 1.0, 0.0
        ratio = np.tan(position * np.pi / 12)
        return ratio / (1 + ratio), 1 / (1 + ratio)
    size = factor_sizes(rate, g, True)[band]
    if size and position == (1 << size) - 1:
        return None
    base = 2**-0.5 if g.compress & 1 else 2**-0.25
    if position % 2:
        return base ** ((position + 1) // 2), 1.0
    return 1.0, base ** (position // 2)


def stereo(frame: Frame, right: Granule, mid: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.4.3.4.9: intensity above the last band of the right channel that is not zero, in each window; else MS."""
    out_l, out_r = ((mid + side) / np.sqrt(2), (mid - side) / np.sqrt(2)) if frame.ms else (mid.copy(), side.copy())
    if not frame.intensity:
        return out_l, out_r
    found = bands(frame.rate, right.kind)
    last = {
        w: max((b for b, (i, j, v) in enumerate(found) if v == w and side[i:j].any()), default=-1) for w in range(4)
    }
    for b, (i, j, w) in enumerate(found):
        windows = 1 if w == 3 else 3
        long_below_short = w == 3 and max(last[v] for v in range(3)) >= 0
        if b <= last[w] or long_below_short:
            continue
        # The last band has no factor; it takes that of the band before.
        share = shares(frame.rate, right, b - windows if b >= len(found) - windows else b)
        if share is not None:
            out_l[i:j], out_r[i:j] = share[0] * mid[i:j], share[1] * mid[i:j]
    return out_l, out_r


def reordered(rate: int, g: Granule, xr: np.ndarray) -> np.ndarray:
    """2.4.3.4.8: the lines of a short band's three windows become neighbours."""
    out = xr.copy()
    for first, stop, window in bands(rate, g.kind):
        if window != 3:
            width = stop - first
            start = first - window * width
            out[start + window : start + 3 * width : 3] = xr[first:stop]
    return out


def alias_reduced(g: Granule, xr: np.ndarray) -> np.ndarray:
    """2.4.3.4.10.1, table 3-B.9"""
    c = np.array([-0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037])
    cs, ca = 1 / np.sqrt(1 + c * c), c / np.sqrt(1 + c * c)
    out = xr.copy()
    for edge in range(18, {0: LINES, 1: 18, 2: 36}[g.kind], 18):
        for i in range(8):
            a, b = xr[edge - 1 - i], xr[edge + i]
            out[edge - 1 - i], out[edge + i] = a * cs[i] - b * ca[i], b * cs[i] + a * ca[i]
    return out


def imdct(xr: np.ndarray) -> np.ndarray:
    """2.4.3.4.10.2: n / 2 lines, n samples."""
    n = 2 * len(xr)
    i, k = np.arange(n)[:, None], np.arange(n // 2)
    return np.cos(np.pi / (2 * n) * (2 * i + 1 + n // 2) * (2 * k + 1)) @ xr


def windowed(block: int, xr: np.ndarray) -> np.ndarray:
    """2.4.3.4.10.3: 36 samples of one subband."""
    i = np.arange(36)
    long = np.sin(np.pi / 36 * (i + 0.5))
    short = np.sin(np.pi / 12 * (np.arange(12) + 0.5))
    if block == SHORT:
        out = np.zeros(36)
        for w in range(3):
            out[6 + 6 * w : 18 + 6 * w] += short * imdct(xr[w::3])
        return out
    if block == LONG:
        return long * imdct(xr)
    start = np.concatenate([long[:18], np.ones(6), short[6:], np.zeros(6)])
    return (start if block == START else start[::-1]) * imdct(xr)


class FilterBank:
    """2.4.3.4.10.4, 2.4.3.4.10.5 and the synthesis of figure 3-A.2, of one channel."""

    def __init__(self) -> None:
        self.overlap = np.zeros((32, 18))
        self.v = np.zeros(1024)

    def run(self, g: Granule, xr: np.ndarray) -> np.ndarray:
        slots = np.empty((32, 18))
        for sb in range(32):
            block = LONG if g.mixed and sb < 2 else g.block
            out = windowed(block, xr[18 * sb : 18 * sb + 18])
            slots[sb], self.overlap[sb] = out[:18] + self.overlap[sb], out[18:]
        slots[1::2, 1::2] *= -1
        return np.concatenate([self.slot(slots[:, i]) for i in range(18)])

    def slot(self, samples: np.ndarray) -> np.ndarray:
        i, k = np.arange(64)[:, None], np.arange(32)
        self.v = np.concatenate([np.cos((16 + i) * (2 * k + 1) * np.pi / 64) @ samples, self.v[:-64]])
        u = np.concatenate([self.v[128 * n + a : 128 * n + a + 32] for n in range(8) for a in (0, 96)])
        return (u * WINDOW).reshape(16, 32).sum(0)


def decode(frames: Sequence[Frame]) -> np.ndarray:
    """(C, T) float64"""
    channels = frames[0].channels
    banks = [FilterBank() for _ in range(channels)]
    out: list[list[np.ndarray]] = [[] for _ in range(channels)]
    for frame in frames:
        for granule in frame.granules:
            xr = [requantised(frame.rate, g, frame.intensity and c == 1) for c, g in enumerate(granule)]
            if channels == 2:
                xr = list(stereo(frame, granule[1], *xr))
            for c, g in enumerate(granule):
                out[c].append(banks[c].run(g, alias_reduced(g, reordered(frame.rate, g, xr[c]))))
    return np.stack([np.concatenate(channel) for channel in out])
