"""The low-pass filters of `fastaug.ops.resample`, in float64: quality levels, tables of taps, spectra of blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.ops import _fft as fft

__all__ = [
    "CUBICS",
    "DENSITY",
    "QUALITIES",
    "Blocks",
    "Quality",
    "blocks",
    "cubics",
    "half_width",
    "low_pass",
    "prototype",
]

#: Samples of the prototype filter per zero crossing.
DENSITY = 128
CUBICS = 16  #: kResampleCubics of csrc/cuda/resample.cu
#: The largest complex FFT of a block: two of them, in sixteen lanes, fill the second cache.
_LARGEST_FFT = 2560
#: The largest FFT of a sequence in csrc/halve.h: with its table, a pair of blocks takes a seventh of that cache.
_LARGEST_HALVES = 512


@dataclass(frozen=True)
class Quality:
    """A low-pass for resampling; frequencies are fractions of the lower of the two Nyquist frequencies.

    Args:
        pass_band: flat up to here (ripple at most ``stop_db`` below the signal); everything from 1.0 on is rejected.
        stop_db: rejection of images and aliases.
    """

    pass_band: float
    stop_db: float

    @property
    def support(self) -> float:
        """Half length of the filter in samples of the lower rate (Kaiser's estimate)."""
        return (self.stop_db - 7.95) / (2.285 * math.pi * (1.0 - self.pass_band)) / 2.0

    @property
    def beta(self) -> float:
        """Shape of the Kaiser window (Kaiser & Schafer 1980, for more than 50 dB)."""
        return 0.1102 * (self.stop_db - 8.7)


#: "high" is the default: the transition band and the rejection of soxr's HQ. Measured in docs/resampling.md.
QUALITIES = {"fast": Quality(0.80, 110.0), "high": Quality(0.915, 128.0), "best": Quality(0.95, 128.0)}


def half_width(support: float, scale: float) -> int:
    """Half width of a filter with its cutoff at ``scale`` of the source's Nyquist frequency, in source samples: a
    multiple of 8, so that the taps fill whole lanes (fa_half_width of csrc/resample.h)."""
    return (int(support / scale) + 2 + 7) // 8 * 8


@lru_cache(maxsize=8)
def prototype(quality: str) -> Tensor:
    """The low-pass at x = -1, 0, 1, … in steps of 1 / 128 zero crossing (float64), zeros from ``support`` on."""
    spec = QUALITIES[quality]
    x = np.arange(-1, int(spec.support * DENSITY) + 8) / DENSITY
    return torch.from_numpy(low_pass(x, spec))


def low_pass(x: npt.NDArray[np.float64], spec: Quality) -> npt.NDArray[np.float64]:
    """Windowed sinc that is -6 dB in the middle of the transition band, in float64."""
    cutoff = (1.0 + spec.pass_band) / 2.0
    inside = np.clip(1.0 - (x / spec.support) ** 2, 0.0, None)
    window = np.where(inside > 0, np.i0(spec.beta * np.sqrt(inside)) / np.i0(spec.beta), 0.0)
    low: npt.NDArray[np.float64] = cutoff * np.sinc(cutoff * x) * window
    return low


@lru_cache(maxsize=8)
def cubics(quality: str) -> Tensor:
    """The low-pass between 0 and its support, float32 (intervals, 4): coefficients of a cubic in each interval of
    1 / CUBICS zero crossing, through its values at thirds (error below -130 dB)."""
    spec = QUALITIES[quality]
    thirds = np.arange(4) / 3
    x = (np.arange(int(spec.support * CUBICS) + 1)[:, None] + thirds) / CUBICS
    return torch.from_numpy(
        (low_pass(x, spec) @ np.linalg.inv(np.vander(thirds, increasing=True)).T).astype(np.float32)
    )


@dataclass(frozen=True)
class Blocks:
    """A conversion by blocks, see csrc/resample_fft.h: block b gives the outputs [b, b + 1) * ``outputs`` from
    ``samples`` source samples from b * ``hop`` - ``lead`` on, by complex FFTs of two sizes. To half the rate
    (csrc/halve.h): pairs of blocks, with FFTs of a sixteenth of one, and no ``target`` and ``sources``."""

    outputs: int
    hop: int
    lead: int
    samples: int
    forward_size: int
    inverse_size: int
    target: Tensor
    sources: Tensor
    factors: Tensor

    @property
    def arguments(self) -> tuple[int, ...]:
        """Those of fa_resample_blocks from the number of outputs to the factors."""
        tables = (self.target.data_ptr(), self.sources.data_ptr(), self.factors.data_ptr())
        return (self.outputs, self.hop, self.lead, self.forward_size, self.inverse_size, *tables)


@lru_cache(maxsize=64)
def blocks(up: int, down: int, quality: str) -> Blocks | None:
    """The blocks of a conversion by ``up / down`` (coprime), or None where single outputs are cheaper."""
    spec, scale = QUALITIES[quality], min(1.0, up / down)
    half = half_width(spec.support, scale)
    if (up, down) == (1, 2):
        return _make_halves(half, spec)
    best: tuple[float, int, int] | None = None
    for m in range(4 // math.gcd(4, math.gcd(2 * up, 2 * down)), 2 * _LARGEST_FFT // max(up, down) + 1):
        source, result, stretches = m * down, m * up, (m * down - 2 * half) // down
        if source % 4 or result % 4 or stretches < 1:
            continue
        work = [_work(size // 2) for size in (source, result)]
        outputs = stretches * up
        # On average half of a row's last sixteen blocks is wasted: reckoned for rows of 60 000 outputs.
        cost = (sum(work) + 10.0 * result + 2.0 * source) / outputs * (1.0 + 8.0 * outputs / 60_000)
        if best is None or cost < best[0]:
            best = cost, m, stretches
    if best is None or best[0] > 2.8 * half:  # the direct form takes as long as this for its 2 * half taps
        return None
    _, m, stretches = best
    return _make_blocks(up, down, m, stretches, half, spec)


def _work(size: int) -> float:
    """Vector additions of a complex FFT, which are what it waits for; infinite if it has other prime factors."""
    radices = fft.radices(size)
    if not radices:
        return math.inf
    each = {2: 2.0, 3: 4.5, 4: 4.0, 5: 8.0, 7: 13.0, 8: 6.5}
    return size * sum(each[radix] + 2.0 for radix in radices)


def _make_blocks(up: int, down: int, m: int, stretches: int, half: int, spec: Quality) -> Blocks:
    size, out_size = m * down // 2, m * up // 2
    k = np.arange(out_size + 1)
    response = _response(up, down, m, half - 1, half, spec, out_size) / out_size
    # X[k] = p Z[k] + q conj(Z[-k]), Y = response X, V[k] = a Y[k] + b conj(Y[out_size - k])
    turn, out_turn = np.exp(-1j * np.pi * k / size), np.exp(1j * np.pi * k / out_size)
    p, q = response * (1 - 1j * turn) / 2, response * (1 + 1j * turn) / 2
    a, b = ((1 + 1j * out_turn) / 2)[:-1], ((1 - 1j * out_turn) / 2)[:-1]
    mirror = out_size - k[:-1]
    factors = np.stack([a * p[:-1], a * q[:-1], b * q[mirror].conj(), b * p[mirror].conj()], 1)
    position = fft.positions(size)
    sources = position[np.stack([k[:-1], -k[:-1], -mirror, mirror], 1) % size]
    return Blocks(
        outputs=stretches * up,
        hop=stretches * down,
        lead=half - 1,
        samples=2 * size,
        forward_size=size,
        inverse_size=out_size,
        target=torch.from_numpy(fft.positions(out_size)),
        sources=torch.from_numpy(sources.astype(np.int32)),
        factors=torch.from_numpy(np.ascontiguousarray(factors.astype(np.complex64)).view(np.float32)),
    )


def _make_halves(half: int, spec: Quality) -> Blocks:
    lead = -(-half // 16) * 16  # so that the first output kept of a block is the first of eight lanes

    def cost(size: int) -> float:
        """Cycles for an output, measured: 22 for a number across the lanes, 1.75 for a unit of work in the FFTs, and 12
        where the sequences fill the first cache. Of a row's last pair half is wasted: reckoned for rows of 30 000."""
        outputs = 16 * size - 2 * lead
        cycles = (22.0 + 12.0 * (size > 128)) * size + 1.75 * _work(size)
        return cycles / outputs * (1.0 + outputs / 60_000) if outputs > 0 else math.inf

    size = min(range(64, _LARGEST_HALVES + 1, 64), key=cost)
    samples = 16 * size
    outputs = samples - 2 * lead
    bins, order = np.empty(size, np.int64), fft.positions(size)
    bins[order] = np.arange(size)
    turns = np.exp(-2j * np.pi * (np.arange(16)[:, None] * bins % samples) / samples)  # (lanes, bins)
    kept = np.abs(bins + size * np.array([0, 1, 2, 3, -4, -3, -2, -1])[:, None])  # (8, bins)
    gains = _response(1, 2, samples // 2, 0, half, spec, samples // 4).real[kept] / (samples // 2)
    group = size // 16
    factors = np.concatenate(
        [
            np.stack([turns.real, turns.imag], 1).reshape(32, group, 16).swapaxes(0, 1),
            gains.reshape(8, group, 16).swapaxes(0, 1),
        ],
        axis=1,
    )
    none = torch.empty(0, dtype=torch.int32)
    return Blocks(
        outputs=outputs,
        hop=2 * outputs,
        lead=lead,
        samples=samples + outputs,
        forward_size=size,
        inverse_size=size,
        target=none,
        sources=none,
        factors=torch.from_numpy(np.ascontiguousarray(factors, np.float32)),
    )


def _response(
    up: int, down: int, m: int, lead: int, half: int, spec: Quality, out_size: int
) -> npt.NDArray[np.complex128]:
    """The filter at the frequencies 0..out_size of a block, ahead by ``lead``; zero from the lower Nyquist on."""
    scale = min(1.0, up / down)
    # Taps at so many points per source sample; their images lie where the filter's side lobes have died away.
    fine = 8 * -(-up // down)
    length = m * down * fine
    t = np.arange(-half * fine, half * fine + 1)
    taps = np.zeros(length)
    taps[t % length] = scale * low_pass(t / fine * scale, spec)
    count = min(m * down // 2, out_size)
    response = np.zeros(out_size + 1, np.complex128)
    ahead = np.exp(2j * np.pi * np.arange(count) * lead / (m * down))
    response[:count] = np.fft.rfft(taps).real[:count] * (up / (down * fine)) * ahead
    return response
