"""MP3 frames by hand (ISO 11172-3, 13818-3, MPEG 2.5): what no encoder at hand makes, and broken ones."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flac_writer import Bits

RATES = (44_100, 48_000, 32_000, 22_050, 24_000, 16_000, 11_025, 12_000, 8_000)  # a stream's `rate` is an index here
LINES = 576
LONG, START, SHORT, STOP = range(4)

_SOURCE = (Path(__file__).parent.parent / "csrc" / "codecs" / "mp3_codes.h").read_text()


def table(name: str) -> np.ndarray:
    """A constant of csrc/codecs/mp3_codes.h, which prints those of the standards."""
    found = re.search(rf"{name}((?:\[\d+\])+) = {{(.*?)}};", _SOURCE, re.DOTALL)
    assert found is not None
    shape = [int(n) for n in re.findall(r"\d+", found[1])]
    return np.array([int(n) for n in re.findall(r"-?\d+", found[2])]).reshape(shape)


LONG_BANDS, SHORT_BANDS, LINBITS = table("kMp3LongBands"), table("kMp3ShortBands"), table("kMp3Linbits")
SLEN, LSF_COUNTS = table("kMp3Slen"), table("kMp3LsfCounts")


@functools.cache
def codes() -> dict[int, tuple[int, list[str]]]:
    """By table: values are below the first number; codes, the last value fastest. 32 and 33: quadruples A and B."""
    text = _SOURCE[_SOURCE.index("kMp3Codes[]") : _SOURCE.index("kMp3Linbits")]
    sets = re.findall(r"{(\d+), (\d+),\s*((?:\"[01 ]+\"\s*)+)}", text)
    found = {int(n): (int(size), " ".join(re.findall(r"[01]+", body)).split()) for n, size, body in sets}
    for n in (*range(17, 24), *range(25, 32)):
        found[n] = found[16 if n < 24 else 24]
    return found


@dataclass(frozen=True)
class Granule:
    """One granule of one channel. Lines and factors are in stream order; what is None follows from the lines."""

    lines: Sequence[int] = ()
    gain: int = 170
    factors: Sequence[int] = ()
    compress: int = 0
    block: int = LONG
    mixed: bool = False
    subblock_gain: tuple[int, int, int] = (0, 0, 0)
    preflag: int = 0
    scale: int = 0
    regions: tuple[int, int] = (7, 5)
    tables: tuple[int, ...] | None = None
    quadruples: int = 0  # table A or B
    big: int | None = None  # pairs
    told_big: int | None = None  # what the side information claims instead
    told_bits: int | None = None  # as well: part2_3_length

    @property
    def kind(self) -> int:
        """Of its bands: 0 long, 1 short, 2 mixed."""
        return 0 if self.block != SHORT else 2 if self.mixed else 1

    def padded(self) -> np.ndarray:
        return np.pad(np.array(self.lines, int), (0, LINES - len(self.lines)))

    def factor(self, band: int) -> int:
        return self.factors[band] if band < len(self.factors) else 0


EMPTY = Granule()


def bands(rate: int, kind: int) -> list[tuple[int, int, int]]:
    """First line, line behind the last, window (3: a long band) of each band, in stream order."""
    boundary = {0: LINES, 1: 0, 2: 72 if rate == 8 else 36}[kind]
    found = [(a, b, 3) for a, b in zip(LONG_BANDS[rate], LONG_BANDS[rate][1:], strict=False) if b <= boundary]
    for a, b in zip(SHORT_BANDS[rate], SHORT_BANDS[rate][1:], strict=False):
        if kind and 3 * a >= boundary:
            found += [(3 * a + w * (b - a), 3 * a + (w + 1) * (b - a), w) for w in range(3)]
    return [(int(a), int(b), w) for a, b, w in found]


def factor_sizes(rate: int, g: Granule, intensity: bool = False) -> list[int]:
    """Bits of each scale factor. `intensity`: of the right channel of an intensity frame (LSF)."""
    if rate < 3:
        low, high = SLEN[0][g.compress], SLEN[1][g.compress]
        first, count = ((11, 21), (18, 36), (17, 35))[g.kind]
        return [int(low)] * first + [int(high)] * (count - first)
    n = g.compress >> 1 if intensity else g.compress
    if intensity:
        if n < 180:
            split, sizes = 3, (n // 36, n % 36 // 6, n % 6, 0)
        elif n < 244:
            split, sizes = 4, ((n - 180) // 16, (n - 180) // 4 % 4, (n - 180) % 4, 0)
        else:
            split, sizes = 5, ((n - 244) // 3, (n - 244) % 3, 0, 0)
    elif n < 400:
        split, sizes = 0, (n // 80, n // 16 % 5, n // 4 % 4, n % 4)
    elif n < 500:
        split, sizes = 1, ((n - 400) // 20, (n - 400) // 4 % 5, (n - 400) % 4, 0)
    else:
        split, sizes = 2, ((n - 500) // 3, (n - 500) % 3, 0, 0)
    return [size for size, count in zip(sizes, LSF_COUNTS[split][g.kind], strict=True) for _ in range(count)]


def _region_edges(rate: int, g: Granule) -> tuple[int, int]:
    if g.block != LONG:
        first = 36 if rate < 3 or g.block == SHORT else 54
        return (2 * first if rate == 8 else first), LINES
    return tuple(int(LONG_BANDS[rate][min(n, 22)]) for n in (g.regions[0] + 1, sum(g.regions) + 2))  # type: ignore


def _table_for(values: np.ndarray) -> int:
    top = np.abs(values).max(initial=0)
    if top < 16:
        return 13 if top else 0
    return next(n for n in range(24, 32) if top < 15 + (1 << LINBITS[n]))


def _signs(values: Sequence[int], bits: Bits) -> None:
    for value in values:
        if value:
            bits.put(int(value < 0), 1)


def _pairs(bits: Bits, values: np.ndarray, number: int) -> None:
    size, words = codes()[number]
    extra = int(LINBITS[number])
    for pair in values.reshape(-1, 2).tolist():
        low = [min(abs(v), 15) if extra else abs(v) for v in pair]
        assert max(low) < size
        bits.text.append(words[low[0] * size + low[1]])
        for v in pair:
            if extra and abs(v) >= 15:
                bits.put(abs(v) - 15, extra)
            _signs([v], bits)


def _main_data(rate: int, g: Granule, shared: int, intensity: bool) -> tuple[Bits, int, list[int]]:
    """Bits of parts 2 and 3, pairs of big values, tables of the three regions."""
    bits, lines = Bits(), g.padded()
    for b, size in enumerate(factor_sizes(rate, g, intensity)):
        group = 0 if b < 6 else 1 if b < 11 else 2 if b < 16 else 3
        if not (g.kind == 0 and shared >> (3 - group) & 1):
            assert g.factor(b) < 1 << size
            bits.put(g.factor(b), size)
    large, some = np.flatnonzero(np.abs(lines) > 1), np.flatnonzero(lines)
    big = g.big if g.big is not None else (int(large[-1]) // 2 + 1 if large.size else 0)
    if g.big is None and some.size and some[-1] >= LINES - (LINES - 2 * big) % 4:
        big += 1  # quadruples end two lines short of it
    edges = [0, *(min(n, 2 * big) for n in _region_edges(rate, g)), 2 * big]
    parts = [lines[a:b] for a, b in itertools.pairwise(edges)]
    tables = list(g.tables) if g.tables is not None else [_table_for(part) for part in parts]
    for part, number in zip(parts, tables, strict=False):
        if number:
            _pairs(bits, part, number)
    end = 2 * big + (max(int(some[-1]) + 1 - 2 * big, 0) + 3) // 4 * 4 if some.size else 0
    for at in range(2 * big, min(end, LINES - 3), 4):
        four = lines[at : at + 4].tolist()
        bits.text.append(codes()[32 + g.quadruples][1][int("".join(str(abs(v)) for v in four), 2)])
        _signs(four, bits)
    return bits, big, tables


@dataclass(frozen=True)
class Frame:
    """granules[granule][channel]; its main data are its own, the reservoir stays empty."""

    granules: Sequence[Sequence[Granule]]
    rate: int = 0
    ms: bool = False
    intensity: bool = False
    shared: tuple[int, int] = (0, 0)  # scfsi of both channels: bit 3 is group 0
    kbps_index: int = 14

    @property
    def channels(self) -> int:
        return len(self.granules[0])

    def shared_of(self, granule: int, channel: int) -> int:
        return self.shared[channel] if granule == 1 else 0

    def bytes(self) -> bytes:
        side, main = Bits(), Bits()
        first = self.rate < 3
        assert len(self.granules) == (2 if first else 1)
        side.put(0, 9 if first else 8).put(0, (5, 3)[self.channels - 1] if first else self.channels)
        for c in range(self.channels * first):
            side.put(self.shared[c], 4)
        for i, granule in enumerate(self.granules):
            for c, g in enumerate(granule):
                part, big, tables = _main_data(self.rate, g, self.shared_of(i, c), self.intensity and c == 1)
                length = sum(map(len, part.text))
                main.text += part.text
                side.put(length if g.told_bits is None else g.told_bits, 12)
                side.put(big if g.told_big is None else g.told_big, 9).put(g.gain, 8)
                side.put(g.compress, 4 if first else 9).put(int(g.block != LONG), 1)
                if g.block != LONG:
                    side.put(g.block, 2).put(int(g.mixed), 1).put(tables[0], 5).put(tables[1], 5)
                    for w in range(3):
                        side.put(g.subblock_gain[w], 3)
                else:
                    for r in range(3):
                        side.put(tables[r], 5)
                    side.put(g.regions[0], 4).put(g.regions[1], 3)
                side.put(g.preflag, int(first)).put(g.scale, 1).put(g.quadruples, 1)
        version = (3, 2, 0)[self.rate // 3]
        mode = 3 if self.channels == 1 else 1 if self.ms or self.intensity else 0
        head = bytes(
            [
                0xFF,
                0xE0 | version << 3 | 0b011,
                self.kbps_index << 4 | self.rate % 3 << 2,
                mode << 6 | self.ms << 5 | self.intensity << 4,
            ]
        )
        kbps = (32 + 8 * ((self.kbps_index - 1) & 3)) << ((self.kbps_index - 1) >> 2) if first else 0
        if not first:
            kbps = 8 * self.kbps_index if self.kbps_index <= 8 else 16 * (self.kbps_index - 4)
        size = (144_000 if first else 72_000) * kbps // RATES[self.rate]
        data = head + side.bytes() + main.bytes()
        assert len(data) <= size, (len(data), size)
        return data.ljust(size, b"\0")


def silent(like: Frame) -> Frame:
    return replace(like, granules=[[EMPTY] * like.channels] * len(like.granules), shared=(0, 0))


def stream(frames: Sequence[Frame]) -> bytes:
    return b"".join(frame.bytes() for frame in frames)
