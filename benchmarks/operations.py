"""Multiplications and additions per sample of the algorithms as the CPU runs them, for the roofline.

Counted on paper, once per output sample; what depends on the draw is the mean over the parameters that are timed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from fastaug.ops._resample_filter import QUALITIES, blocks, half_width

GAIN = 1.0
DELAY = 3.0  # dry, wet, sum
REVERB = 16 * 5 + 8 * 3 + 8.0  # combs with damping, allpasses, gains and mixture


def real_fft(points: int) -> float:
    """One real FFT: a complex one of half the length, 5 n log2 n, and its untangling."""
    return 5 * (points / 2) * math.log2(points / 2) + 6 * (points / 2 + 1)


def sinc_filter(cutoffs: Iterable[float]) -> float:
    """csrc/cpu/fir.cpp, cutoffs as shares of the rate, eight zero crossings: the cheaper of direct form, where a pair
    of taps is an addition and a multiply-add, and overlap-save by transforms of 256 to 16384 points."""

    def one(cutoff: float) -> float:
        half = int(8 / cutoff / 2)
        hops = {points: points - 2 * half for points in (256 << size for size in range(7))}
        saved = [(2 * real_fft(points) + 3 * points) / hop for points, hop in hops.items() if hop >= points / 8]
        return min([3.0 * half + 1, *saved])

    found = [one(cutoff) for cutoff in cutoffs]
    return sum(found) / len(found)


def butterworth(order: int) -> float:
    """Sections of second order: five multiplications, four additions; one of first order: three and two."""
    return order // 2 * 9 + order % 2 * 5


def resample(up: int, down: int) -> float:
    """An output of `up / down` (coprime): by blocks of FFTs where the ratio allows, else one product a tap."""
    grid = blocks(up, down, "high")
    if grid is None:
        return 4.0 * half_width(QUALITIES["high"].support, min(1.0, up / down))
    if (up, down) == (1, 2):  # two blocks as one complex one, by csrc/halve.h
        block, result = 16 * grid.forward_size, 8 * grid.forward_size
        last = 4 * block - 5 * block  # of the last level forwards only half of the bins are formed
        return (5 * block * math.log2(block) + last + 2 * result + 5 * result * math.log2(result)) / grid.outputs
    result = grid.samples * up // down  # numbers of the inverse transform, of which a part is kept
    return (real_fft(grid.samples) + real_fft(result) + 14 * result / 2) / grid.outputs


def pitch(factors: Iterable[float]) -> float:
    """Stretch factors at 22,050 Hz: csrc/cpu/wsola_search.cpp, then csrc/repitch_lanes.h.

    A search has 324 candidates of 264 samples, every 1,544 samples of the stretched signal. What the bounds leave of it
    depends on the material; these are the means over the clips and shifts that are timed, one channel each: bounds from
    sums of eight samples in 96 % of the searches, 14.4 candidates in full, all of them in 9 %.
    """
    block_sums, bounds, candidate = (264 + 588) * 5, 324 * 264 / 8 * 3, 264 * 3
    search = (0.96 * (block_sums + bounds) + (14.4 + 0.09 * 324) * candidate) / 1544
    # The half-band is 40 pairs of taps; of the flattening filter each phase has six pairs and a tap in the middle.
    doubling = 40 * 3 + 2 * (6 * 3 + 1)

    def one(factor: float) -> float:
        scale = 1.0 if factor > 1 else 2 * factor  # as fa_repitch of csrc/repitch.h
        pairs, degree = math.ceil(3.5 / scale), 8 if scale > 1 else 6
        short = pairs * (2 + 2 * (degree + 1)) + 2 * degree + 1  # of sums and differences, then Horner's in two halves
        return search / factor + (doubling / factor + short if factor > 1 else doubling + 2 * short)

    found = [one(factor) for factor in factors]
    return sum(found) / len(found)
