"""FLAC streams by hand (RFC 9639): the shapes that no encoder makes, and broken ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


class Bits:
    """A string of bits, the most significant first."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def put(self, value: int, bits: int) -> Bits:
        if bits:
            self.text.append(format(value & ((1 << bits) - 1), f"0{bits}b"))
        return self

    def unary(self, zeros: int) -> Bits:
        self.text.append("0" * zeros + "1")
        return self

    def bytes(self) -> bytes:
        text = "".join(self.text)
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big") if text else b""


def crc(data: bytes, bits: int, polynomial: int) -> int:
    value, top, mask = 0, 1 << (bits - 1), (1 << bits) - 1
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial) & mask if value & top else value << 1
    return value


def utf8(number: int) -> bytes:
    """The number as UTF-8 would code it, up to 36 bits."""
    if number < 0x80:
        return bytes([number])
    tail = []
    length = 2
    while number >= 1 << (5 * length + 1):
        length += 1
    for _ in range(length - 1):
        tail.append(0x80 | (number & 0x3F))
        number >>= 6
    return bytes([(0xFF << (8 - length) & 0xFF) | number, *reversed(tail)])


def unfold(residual: int) -> int:
    return residual << 1 if residual >= 0 else (-residual << 1) - 1


@dataclass
class Rice:
    """How to write residuals: ``parameters`` for each of 2^order partitions, ``("raw", n)`` for an escaped one."""

    parameters: Sequence[int | tuple[str, int]] = (4,)
    method: int = 0

    def write(self, out: Bits, residuals: Sequence[int], warm_up: int) -> None:
        order = len(self.parameters).bit_length() - 1
        size = (len(residuals) + warm_up) >> order
        out.put(self.method, 2).put(order, 4)
        at = 0
        for i, parameter in enumerate(self.parameters):
            part = residuals[at : (i + 1) * size - warm_up]
            at += len(part)
            if isinstance(parameter, tuple):
                out.put(31 if self.method else 15, 4 + self.method).put(parameter[1], 5)
                for r in part:
                    out.put(r, parameter[1])
                continue
            out.put(parameter, 4 + self.method)
            for r in part:
                out.unary(unfold(r) >> parameter).put(unfold(r), parameter)


def head(out: Bits, kind: int, wasted: int) -> None:
    out.put(0, 1).put(kind, 6).put(int(wasted > 0), 1)
    if wasted:
        out.unary(wasted - 1)


@dataclass
class Constant:
    wasted: int = 0

    def write(self, out: Bits, x: list[int], bits: int) -> None:
        head(out, 0, self.wasted)
        out.put(x[0] >> self.wasted, bits - self.wasted)


@dataclass
class Verbatim:
    wasted: int = 0

    def write(self, out: Bits, x: list[int], bits: int) -> None:
        head(out, 1, self.wasted)
        for value in x:
            out.put(value >> self.wasted, bits - self.wasted)


@dataclass
class Predicted:
    """Fixed if ``order`` is given, else linear prediction with ``coefficients`` of ``precision`` bits."""

    order: int | None = None
    coefficients: Sequence[int] = ()
    precision: int = 15
    shift: int = 0
    rice: Rice = field(default_factory=Rice)
    wasted: int = 0
    kind: int | None = None  #: overrides the type's six bits

    def write(self, out: Bits, x: list[int], bits: int) -> None:
        fixed = {0: (), 1: (1,), 2: (2, -1), 3: (3, -3, 1), 4: (4, -6, 4, -1)}
        taps = list(self.coefficients) if self.order is None else list(fixed[self.order])
        order = len(taps)
        kind = 31 + order if self.order is None else 8 + order
        head(out, kind if self.kind is None else self.kind, self.wasted)
        x = [value >> self.wasted for value in x]
        for value in x[:order]:
            out.put(value, bits - self.wasted)
        if self.order is None:
            out.put(self.precision - 1, 4).put(self.shift, 5)
            for tap in taps:
                out.put(tap, self.precision)
        shift = max(self.shift, 0) if self.order is None else 0
        residuals = []
        for i in range(order, len(x)):
            residuals.append(x[i] - (sum(t * x[i - 1 - j] for j, t in enumerate(taps)) >> shift))
        self.rice.write(out, residuals, order)


Subframe = Constant | Verbatim | Predicted

RATES = {88200: 1, 176400: 2, 192000: 3, 8000: 4, 16000: 5, 22050: 6, 24000: 7, 32000: 8, 44100: 9, 48000: 10}
DEPTHS = {8: 1, 12: 2, 16: 4, 20: 5, 24: 6, 32: 7}


def frame(
    channels: Sequence[Sequence[int]],
    number: int,
    subframes: Subframe | Sequence[Subframe] | None = None,
    *,
    bits: int = 16,
    rate: int = 44100,
    variable: bool = False,
    stereo: int | None = None,
    rate_code: int | None = None,
    bits_code: int | None = None,
) -> bytes:
    """One frame, verbatim by default. ``stereo`` 8, 9, 10: left/side, side/right, mid/side of the two channels."""
    x = [[int(value) for value in channel] for channel in channels]
    depths = [bits] * len(x)
    if stereo:
        left, right = x
        side = [a - b for a, b in zip(left, right)]
        mid = [(a + b) >> 1 for a, b in zip(left, right)]
        x = {8: [left, side], 9: [side, right], 10: [mid, side]}[stereo]
        depths[0 if stereo == 9 else 1] += 1
    header = Bits().put(0x3FFE, 14).put(0, 1).put(int(variable), 1)
    header.put(7, 4).put(RATES.get(rate, 0) if rate_code is None else rate_code, 4)
    header.put(stereo or len(x) - 1, 4).put(DEPTHS.get(bits, 0) if bits_code is None else bits_code, 3).put(0, 1)
    opening = header.bytes() + utf8(number) + (len(x[0]) - 1).to_bytes(2, "big")
    opening += bytes([crc(opening, 8, 0x07)])
    body = Bits()
    kinds = subframes if isinstance(subframes, Sequence) else [subframes or Verbatim()] * len(x)
    for channel, depth, kind in zip(x, depths, kinds):
        kind.write(body, channel, depth)
    whole = opening + body.bytes()
    return whole + crc(whole, 16, 0x8005).to_bytes(2, "big")


def digest(samples: np.ndarray, bits: int) -> bytes:
    """STREAMINFO's MD5 of samples (C, T): little endian, as few bytes a sample as hold it."""
    width = (bits + 7) // 8
    data = np.ascontiguousarray(samples.T).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width]
    return hashlib.md5(data.tobytes()).digest()


def block(kind: int, body: bytes, last: bool = False) -> bytes:
    return bytes([kind | 0x80 * last]) + len(body).to_bytes(3, "big") + body


def streaminfo(
    total: int,
    channels: int = 1,
    bits: int = 16,
    rate: int = 44100,
    smallest: int = 4096,
    largest: int = 4096,
    md5: bytes = bytes(16),
) -> bytes:
    packed = Bits().put(smallest, 16).put(largest, 16).put(0, 48)
    packed.put(rate, 20).put(channels - 1, 3).put(bits - 1, 5).put(total, 36)
    return packed.bytes() + md5


def stream(frames: Sequence[bytes], total: int, last: bool = True, **facts: int) -> bytes:
    """ "fLaC", STREAMINFO, the frames."""
    return b"fLaC" + block(0, streaminfo(total, **facts), last) + b"".join(frames)  # type: ignore[arg-type]
