"""FLAC: bit-exact against `flac` and MD5 over a matrix, ranges equal slices, broken streams say what is wrong."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

import flac_writer as fw
import nvrtc
from fastaug._paths import csrc_dir
from fastaug.ops._library import native

needs_flac = pytest.mark.skipif(shutil.which("flac") is None, reason="no flac command")

OK, EMPTY, UNSUPPORTED, NO_DATA, TRUNCATED, CORRUPT, GAP, CHANGED, MISLABELED = 0, 1, 2, 5, 6, 7, 11, 12, 13


class Facts(NamedTuple):
    status: int
    rate: int
    channels: int
    bits: int
    total: int
    block: int
    begin: int
    end: int
    trouble: int
    md5: bytes


def probe(data: bytes) -> Facts:
    source, facts, md5 = np.frombuffer(data, np.uint8), np.zeros(8, np.int64), np.zeros(16, np.uint8)
    status = native().fa_flac_probe(source.ctypes.data, len(data), facts.ctypes.data, md5.ctypes.data)
    return Facts(status, *facts.tolist(), md5.tobytes())


class Decoded(NamedTuple):
    status: int
    samples: np.ndarray
    trouble: int


def decode(data: bytes, start: int = 0, length: int | None = None, floats: bool = False) -> Decoded:
    """Samples (C, length), of the whole file by default."""
    facts = probe(data)
    length = facts.total if length is None else length
    out = np.full((max(facts.channels, 1), length + 1), 77, np.float32 if floats else np.int32)
    source, trouble = np.frombuffer(data, np.uint8), np.full(1, -1)
    into = (out.ctypes.data, None) if floats else (None, out.ctypes.data)
    status = native().fa_flac_decode(
        source.ctypes.data, len(data), start, length, *into, out.shape[1], trouble.ctypes.data
    )
    assert (out[:, length] == 77).all(), "wrote past the range"
    return Decoded(status, out[:, :length], int(trouble[0]))


def slice_of(whole: np.ndarray, start: int, length: int) -> np.ndarray:
    """whole[:, start : start + length] with zeros outside."""
    out = np.zeros((whole.shape[0], length), whole.dtype)
    low, high = max(start, 0), min(start + length, whole.shape[1])
    if low < high:
        out[:, low - start : high - start] = whole[:, low:high]
    return out


def check_ranges(data: bytes, whole: np.ndarray, edges: Sequence[int], count: int, longest: int = 3000) -> None:
    rng = np.random.default_rng(len(data))
    total = whole.shape[1]
    starts = [0, 1, total - 1, total, -5, total // 2, *(edge + by for edge in edges for by in (-1, 0, 1))]
    starts += rng.integers(0, total, count).tolist()
    for start in starts:
        length = int(rng.integers(1, min(longest, total + 10)))
        part = decode(data, int(start), length)
        assert part.status == OK
        assert np.array_equal(part.samples, slice_of(whole, int(start), length)), (start, length)


def music(bits: int, channels: int, length: int, seed: int = 0) -> np.ndarray:
    """Integers (C, T) of a chirp and noise, the channels alike, loud enough to clip now and then."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    common = np.sin(t * 0.02 + t**2 * 1e-6) * (0.6 + 0.4 * np.sin(t / 3000)) + 0.3 * np.sin(t * 0.11)
    x = common + 0.05 * rng.standard_normal((channels, length))
    top = 2.0 ** (bits - 1)
    return np.clip(np.round(x * 0.9 * top), -top, top - 1).astype(np.int64).astype(np.int32)


def wav(x: np.ndarray, bits: int, rate: int) -> bytes:
    """A WAVE_FORMAT_EXTENSIBLE file, whose samples stand on the left of as many bytes as they need."""
    width = (bits + 7) // 8
    shifted = (x.T.astype(np.int64) << (8 * width - bits)).astype("<i8")
    if bits <= 8:
        shifted += 128
    body = np.ascontiguousarray(shifted).view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
    channels = x.shape[0]
    mask = {1: 4, 2: 3}.get(channels, (1 << channels) - 1)
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    form = struct.pack(
        "<HHIIHHHHI", 0xFFFE, channels, rate, rate * channels * width, channels * width, 8 * width, 22, bits, mask
    )
    chunks = b"fmt " + struct.pack("<I", 40) + form + guid + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


def encode(folder: Path, x: np.ndarray, *options: str, bits: int = 16, rate: int = 44100) -> bytes:
    source, result = folder / "x.wav", folder / "x.flac"
    source.write_bytes(wav(x, bits, rate))
    command = ["flac", "-s", "-f", "--lax", "--no-padding", "--channel-map=none", *options, "-o", str(result)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return result.read_bytes()


def check_whole(data: bytes, x: np.ndarray, bits: int, rate: int = 44100) -> None:
    facts, whole = probe(data), decode(data)
    assert (facts.status, whole.status) == (OK, OK)
    assert (facts.rate, facts.channels, facts.bits, facts.total) == (rate, *x.shape[:1], bits, x.shape[1])
    assert np.array_equal(whole.samples, x)
    assert fw.digest(whole.samples, bits) == facts.md5
    floats = decode(data, floats=True).samples
    assert np.array_equal(floats, (x.astype(np.float32) * np.float32(2.0 ** (1 - bits))))


# Every option of the encoder that changes the stream, with the depths, channels and rates spread over them.
SETTINGS = [
    *((f"-{level}", bits, channels) for level in (0, 5, 8) for bits in (16, 24) for channels in (1, 2)),
    *(("-5", bits, channels) for bits in (8, 12, 20, 32) for channels in (1, 2, 5)),
    *(("-5", 16, channels) for channels in (3, 4, 6, 7, 8)),
    *(("-8 -e -p", bits, 2) for bits in (8, 16, 24)),
    *((f"-l 32 -b 4096 -q {precision}", bits, 2) for precision in (5, 15) for bits in (16, 24)),
    *((f"-5 -b {size}", 16, 2) for size in (16, 17, 192, 255, 256, 1000, 4608, 16384, 65535)),
    ("-8 -r 0,15 -b 32768", 16, 2),
    ("-0 -b 65535", 32, 8),
    ("-5 -M", 16, 2),
    ("-5 --disable-fixed-subframes", 32, 2),
    ("-0 --disable-constant-subframes", 16, 1),
]


@needs_flac
@pytest.mark.parametrize(("options", "bits", "channels"), SETTINGS)
def test_bit_exact_against_the_encoder(tmp_path: Path, options: str, bits: int, channels: int) -> None:
    small = "-b 16" in options or "-b 17" in options
    x = music(bits, channels, 5000 if small else 70_001 if "65535" in options else 21_001, seed=bits)
    rate = {16: 44100, 24: 96000, 8: 11025, 12: 12345, 20: 655350, 32: 7}[bits]
    data = encode(tmp_path, x, *options.split(), bits=bits, rate=rate)
    check_whole(data, x, bits, rate)
    block = probe(data).block
    check_ranges(data, x, [block, 2 * block, x.shape[1] // block * block], 30)


@needs_flac
@pytest.mark.parametrize("bits", [8, 16, 24])
def test_agrees_with_libsndfile_and_the_command(tmp_path: Path, bits: int) -> None:
    x = music(bits, 2, 30_000)
    data = encode(tmp_path, x, "-8", bits=bits)
    theirs, _ = soundfile.read(tmp_path / "x.flac", dtype="float32", always_2d=True)
    assert np.array_equal(decode(data, floats=True).samples, theirs.T)
    raw = ["flac", "-d", "-c", "-s", "--force-raw-format", "--endian=little", "--sign=signed", tmp_path / "x.flac"]
    output = subprocess.run(raw, capture_output=True, check=True).stdout
    width = bits // 8
    ours = np.ascontiguousarray(decode(data).samples.T).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width]
    assert ours.tobytes() == output


CONTENTS = {
    "silence": lambda n: np.zeros((2, n), np.int32),
    "constant": lambda n: np.full((2, n), -1234, np.int32),
    "white noise": lambda n: np.random.default_rng(0).integers(-(2**15), 2**15, (2, n)).astype(np.int32),
    "full scale": lambda n: np.where(np.arange(2 * n).reshape(2, n) % 7 < 3, 32767, -32768).astype(np.int32),
    "wasted bits": lambda n: music(16, 2, n) // 16 * 16,
    "one channel wasted": lambda n: np.stack([music(16, 1, n)[0] // 8 * 8, music(16, 1, n, 5)[0]]),
    "mono as stereo": lambda n: np.repeat(music(16, 1, n), 2, 0),
    "opposite": lambda n: music(15, 1, n) * np.array([[1], [-1]], np.int32),
    "quiet": lambda n: np.random.default_rng(0).integers(-1, 2, (2, n)).astype(np.int32),
    "clicks": lambda n: np.where(np.random.default_rng(0).random((2, n)) < 0.001, 32767, 0).astype(np.int32),
}


@needs_flac
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("level", ["-0", "-5", "-8"])
def test_contents(tmp_path: Path, content: str, level: str) -> None:
    x = CONTENTS[content](13_000)
    data = encode(tmp_path, x, level)
    check_whole(data, x, 16)
    check_ranges(data, x, [4096, 8192], 10)


@needs_flac
def test_ten_thousand_ranges(tmp_path: Path) -> None:
    x = music(16, 2, 300_000)
    x[:, 100_000:150_000] = 0  # frames of 20 bytes: the guess by bytes is far off
    data = encode(tmp_path, x, "-5", "-b", "1152")
    check_ranges(data, x, range(1152, 300_000, 1152 * 9), 10_000, longest=900)


# ------------------------------------------------------------------------------------------------ streams by hand


def noise(bits: int, length: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (channels, length))


def smooth(bits: int, length: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    walk = np.sin(np.cumsum(rng.random((channels, length)), 1) * 0.1) * 0.97 * 2 ** (bits - 1)
    return np.floor(walk).astype(np.int64)


def check_frame(x: np.ndarray, subframes: object, bits: int = 16, **options: object) -> None:
    data = fw.stream(
        [fw.frame(x, 0, subframes, bits=bits, **options)],  # type: ignore[arg-type]
        x.shape[1],
        channels=len(x),
        bits=bits,
        smallest=x.shape[1],
        largest=x.shape[1],
    )
    whole = decode(data)
    assert (probe(data).status, whole.status, probe(data).bits) == (OK, OK, bits)
    assert np.array_equal(whole.samples, x)


@pytest.mark.parametrize("bits", range(4, 33))
def test_every_depth(bits: int) -> None:
    x = smooth(bits, 600, channels=2)
    x[:, 300:305] = [[-(2 ** (bits - 1))], [2 ** (bits - 1) - 1]]  # the widest difference: needs the extra bit
    for stereo in (None, 8, 9, 10):
        check_frame(x, fw.Verbatim(), bits, stereo=stereo)
    if bits == 32:  # without jumps, which would ask for residuals of more than 32 bits
        x = np.floor(0.99 * 2**31 * np.sin(np.arange(600) / 50) * np.array([[1], [-1]])).astype(np.int64)
    rice = fw.Rice([min(bits - 3, 14)] if bits < 20 else [bits - 4], method=int(bits >= 20))
    taps = fw.Predicted(coefficients=(11_000, -4_000, 300), shift=13, rice=rice)
    for stereo in (None, 8, 9, 10):
        check_frame(x, fw.Predicted(2, rice=rice), bits, stereo=stereo)
        check_frame(x, taps, bits, stereo=stereo)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("bits", [16, 28, 29, 32])
def test_fixed_orders(order: int, bits: int) -> None:
    for length in (order, order + 1, 16, 17, 999):
        if length:
            x = smooth(bits, length, order)
            check_frame(x, fw.Predicted(order, rice=fw.Rice([bits - 3], method=1)), bits)


@pytest.mark.parametrize("order", range(1, 33))
def test_linear_orders(order: int) -> None:
    rng = np.random.default_rng(order)
    for bits, precision in ((16, 12), (16, 15), (24, 15), (32, 15)):
        taps = rng.integers(-(2 ** (precision - 1)), 2 ** (precision - 1), order) // (2 * order if bits > 16 else 1)
        # Wild coefficients: residuals as large as the samples, or larger.
        for length in (order, order + 1, order + 7, order + 8, order + 9, 400):
            subframe = fw.Predicted(
                coefficients=taps.tolist(),
                precision=precision,
                shift=15,
                rice=fw.Rice([bits - 3], method=1),
            )
            check_frame(smooth(bits, length, order) // 2, subframe, bits)


def test_every_rice_parameter() -> None:
    x = smooth(16, 960)
    for k in range(31):
        part = x // 2 ** max(0, 8 - k)
        check_frame(part, fw.Predicted(k % 5, rice=fw.Rice([k], method=1)))
        if k < 15:
            check_frame(part, fw.Predicted(k % 5, rice=fw.Rice([k])))


def test_long_unary_codes() -> None:
    """Runs of zeros over several windows: a 16-bit jump coded with parameter 0."""
    x = np.zeros((1, 200), np.int64)
    x[0, ::50] = [5, 30_000, -32_768, 63]
    for k in (0, 1, 5):
        check_frame(x, fw.Predicted(0, rice=fw.Rice([k])))


def test_extreme_residuals() -> None:
    """Just inside (-2^31, 2^31), as 32-bit samples need them; -2^31 itself is refused (9.2.7.3)."""
    x = np.array([[-(2**30), 2**30 - 1, 2**30 - 1, -(2**30), 0, 7] * 4])
    for k in (26, 27, 30):
        check_frame(x, fw.Predicted(1, rice=fw.Rice([k], method=1)), 32)
    x = np.array([[2**31 - 1] + [0] * 15])
    check_frame(x, fw.Predicted(0, rice=fw.Rice([28], method=1)), 32)
    x[0, 0] = -(2**31)
    data = fw.stream([fw.frame(x, 0, fw.Predicted(0, rice=fw.Rice([28], method=1)), bits=32)], 16, bits=32)
    assert decode(data, 0, 16).status in (CORRUPT, NO_DATA)


def test_escaped_partitions() -> None:
    """Raw residuals of 0 to 31 bits, among Rice coded ones (9.2.7.1)."""
    x = np.zeros((1, 256), np.int64)
    x[0, 64:128] = noise(5, 64)[0]
    x[0, 192:] = noise(16, 64)[0]
    for method in (0, 1):
        check_frame(x, fw.Predicted(0, rice=fw.Rice([("raw", 0), ("raw", 5), 3, ("raw", 16)], method)))
    wide = noise(31, 64)
    check_frame(wide, fw.Predicted(0, rice=fw.Rice([("raw", 31)], 1)), 32)


def test_partition_orders() -> None:
    x = smooth(16, 32_768)
    for order in (0, 8, 13, 15):
        parameters = [(i * 7) % 5 + 8 for i in range(1 << order)]
        check_frame(x, fw.Predicted(1, rice=fw.Rice(parameters)))
    # The first partition holds nothing but the warm-up.
    check_frame(x[:, :64], fw.Predicted(4, rice=fw.Rice([9] * 16)))


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_wasted_bits(bits: int) -> None:
    x = smooth(bits, 300, channels=2) // 2**9 * 2**9
    rice = fw.Rice([bits - 4], method=1)
    for stereo in (None, 8, 9, 10):
        if stereo == 10:
            x[0] = x[1] + (x[0] - x[1]) // 2**11 * 2**11
        for kind in (fw.Constant, fw.Verbatim, fw.Predicted):
            y = np.full_like(x, x[0, 9]) if kind is fw.Constant else x
            extra = {"order": 1, "rice": rice} if kind is fw.Predicted else {}
            check_frame(y, kind(wasted=9, **extra), bits, stereo=stereo)  # type: ignore[arg-type]


def test_variable_block_sizes() -> None:
    """Frames that name their first sample, of 1 to 40,000 samples."""
    sizes = [16, 4000, 17, 1, 40_000, 2, 999, 5]
    x = smooth(16, sum(sizes), channels=2)
    starts = np.cumsum([0, *sizes])
    rice = fw.Predicted(1, rice=fw.Rice([11]))
    frames = [
        fw.frame(x[:, a : a + n], int(a), fw.Verbatim() if n < 3 else rice, variable=True)
        for a, n in zip(starts, sizes)
    ]
    for total in (x.shape[1], 0):
        data = fw.stream(frames, total, channels=2, smallest=16, largest=40_000)
        assert probe(data)[:6] == (OK, 44100, 2, 16, x.shape[1], 0)
        check_ranges(data, x, starts.tolist(), 100, longest=50_000)


def test_samples_counted_without_saying_so() -> None:
    """Streams of before FLAC 1.2.1: block sizes change, the header does not say it, the number is a sample's."""
    sizes = [1000, 500, 2000, 100]
    x = smooth(16, sum(sizes))
    starts = np.cumsum([0, *sizes])
    data = fw.stream(
        [fw.frame(x[:, a : a + n], int(a)) for a, n in zip(starts, sizes)], x.shape[1], smallest=100, largest=2000
    )
    assert probe(data).block == 0
    check_ranges(data, x, starts.tolist(), 30)


def test_numbers_of_up_to_36_bits() -> None:
    """A stream cut out of a long one begins at its own first frame."""
    for first in (0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x1FFFFF, 0x200000, 0x3FFFFFF, 0x4000000, 0x7FFFFFFF):
        x = smooth(16, 640)
        frames = [fw.frame(x[:, 64 * i : 64 * i + 64], first + i) for i in range(10)]
        data = fw.stream(frames, 0, smallest=64, largest=64)
        assert (probe(data).status, probe(data).total) == (OK, 640)
        check_ranges(data, x, [64, 128], 10)
    frames = [fw.frame(x[:, 64 * i : 64 * i + 64], (1 << 36) - 1 - 64 * (10 - i), variable=True) for i in range(10)]
    assert np.array_equal(decode(fw.stream(frames, 0)).samples, x)


@pytest.mark.parametrize(("code", "rate"), [(12, 48_000), (13, 12_345), (14, 123_450), (0, 1_048_575)])
def test_rates_behind_the_number(code: int, rate: int) -> None:
    coded = {12: bytes([48]), 13: (12_345).to_bytes(2, "big"), 14: (12_345).to_bytes(2, "big"), 0: b""}[code]
    x = noise(16, 32)
    plain = fw.frame(x, 0, rate_code=code)
    opening = plain[:7] + coded  # sync, codes, number, block size
    opening += bytes([fw.crc(opening, 8, 0x07)])
    whole = opening + plain[8:-2]
    data = fw.stream([whole + fw.crc(whole, 16, 0x8005).to_bytes(2, "big")], 32, rate=rate)
    assert probe(data)[:5] == (OK, rate, 1, 16, 32)
    assert np.array_equal(decode(data).samples, x)


# ---------------------------------------------------------------------------------------------- headers that lie


@pytest.fixture(scope="module")
def tune() -> tuple[np.ndarray, list[bytes]]:
    """x (2, 5120) and its ten frames of 512."""
    x = smooth(16, 5120, channels=2)
    subframe = fw.Predicted(coefficients=(16_000, -7_500), shift=13, rice=fw.Rice([11] * 4))
    return x, [fw.frame(x[:, 512 * i : 512 * i + 512], i, subframe, stereo=8) for i in range(10)]


Tune = tuple[np.ndarray, list[bytes]]
PLAIN = {"channels": 2, "smallest": 512, "largest": 512}


@pytest.mark.parametrize("told", [0, 1, 5119, 5121, 512, 1 << 35])
def test_the_length_is_counted_where_it_is_not_told(tune: Tune, told: int) -> None:
    x, frames = tune
    data = fw.stream(frames, told, **PLAIN)
    facts = probe(data)
    assert facts.total == 5120
    assert facts.status == (OK if told == 0 else TRUNCATED if told > 5120 else MISLABELED)
    check_ranges(data, x, [512, 1024], 20)


@pytest.mark.parametrize("lie", [{"rate": 48000}, {"channels": 1}, {"bits": 24}, {"largest": 16}, {"smallest": 4096}])
def test_frames_are_believed_before_the_header(tune: Tune, lie: dict[str, int]) -> None:
    x, frames = tune
    data = fw.stream(frames, 5120, **(PLAIN | lie))
    facts = probe(data)
    assert facts[1:5] == (44100, 2, 16, 5120)
    assert facts.status == (MISLABELED if lie.keys() & {"rate", "channels", "bits"} else OK)
    check_ranges(data, x, [512], 20)


def test_streams_without_header(tune: Tune) -> None:
    x, frames = tune
    for data in (b"".join(frames), b"fLaC" + fw.block(1, bytes(30), True) + b"".join(frames)):
        assert probe(data)[:5] == (OK, 44100, 2, 16, 5120)
        check_ranges(data, x, [512], 20)
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 3000).astype(np.uint8).tobytes() + b"".join(frames)
    assert probe(data)[:5] == (GAP, 44100, 2, 16, 5120)
    check_ranges(data, x, [512], 20)


def test_metadata_of_all_kinds(tune: Tune) -> None:
    x, frames = tune
    info, body = fw.block(0, fw.streaminfo(5120, **PLAIN)), b"".join(frames)
    table = fw.block(3, struct.pack(">QQH", 512, 1 << 40, 512) + b"\xff" * 18)  # wrong, and a placeholder
    odd = fw.block(4, b"\xff" * 50) + fw.block(77, bytes(10)) + fw.block(6, b"\xff\xf8" * 4000)
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
    behind = b"TAG" + bytes(125)
    good = [
        b"fLaC" + info + table + odd + fw.block(1, b"", True) + body,
        b"fLaC" + fw.block(1, bytes(9)) + odd + info + fw.block(1, bytes(5), True) + body,  # STREAMINFO not first
        tag + tag + b"fLaC" + info + fw.block(1, b"", True) + body,
        b"fLaC" + info + fw.block(1, b"", True) + body + behind,
    ]
    for data in good:
        assert probe(data)[:5] == (OK, 44100, 2, 16, 5120)
        assert np.array_equal(decode(data).samples, x)
    assert probe(good[-1]).end == len(good[-1]) - len(behind)
    for length in (0, 3, 11, 300, 700, 1 << 23):  # of a block of 10 bytes
        data = b"fLaC" + info + bytes([0x81]) + length.to_bytes(3, "big") + bytes(10) + body
        facts = probe(data)
        assert facts[1:5] == (44100, 2, 16, 5120), length
        assert facts.status == GAP
        assert np.array_equal(decode(data).samples, x)


# -------------------------------------------------------------------------------------------------- broken streams


def test_a_change_of_format_is_told(tune: Tune) -> None:
    x, frames = tune
    part = x[:, 2560:3072]
    mono, slow = fw.frame(part[:1], 5), fw.frame(part, 5, rate=48000)
    deep = fw.frame(part, 5, bits=24)
    for other in (mono, slow, deep):
        middle = fw.stream([*frames[:5], other, *frames[6:]], 5120, **PLAIN)
        whole = decode(middle)
        expected = x.copy()
        expected[:, 2560:3072] = 0
        assert whole.status == CHANGED
        assert middle[whole.trouble :].startswith(other)
        assert np.array_equal(whole.samples, expected)
        end = fw.stream([*frames[:5], other], 3072, **PLAIN)
        assert (probe(end).status, probe(end).total) == (CHANGED, 2560)
        assert np.array_equal(decode(end).samples, x[:, :2560])


def test_gaps_stay_on_the_timeline(tune: Tune) -> None:
    x, frames = tune
    junk = np.random.default_rng(1).integers(0, 256, 500).astype(np.uint8).tobytes() + b"\xff\xf8\xff\xf9"
    for missing, filler in ((3, b""), (3, junk), (0, b""), (0, junk)):
        data = fw.stream([*frames[:missing], filler, *frames[missing + 1 :]], 5120, **PLAIN)
        expected = x.copy()
        expected[:, 512 * missing : 512 * missing + 512] = 0
        whole = decode(data)
        assert (whole.status, probe(data).total) == (GAP, 5120)
        assert np.array_equal(whole.samples, expected)
        for start in range(0, 5120, 97):
            part = decode(data, start, 300)
            assert np.array_equal(part.samples, slice_of(expected, start, 300))
            touched = start < 512 * missing + 512 and start + 300 > 512 * missing
            assert part.status == (GAP if touched else OK)
    between = fw.stream([*frames[:4], junk, *frames[4:]], 5120, **PLAIN)
    assert (decode(between).status, decode(between).trouble) == (GAP, 42 + sum(map(len, frames[:4])))
    assert np.array_equal(decode(between).samples, x)


def test_another_stream_behind_the_first_is_not_its_end(tune: Tune) -> None:
    x, frames = tune
    other = fw.stream(frames[:7], 512 * 7, **PLAIN)
    data = fw.stream(frames, 5120, **PLAIN) + other
    assert probe(data).total == 5120
    assert np.array_equal(decode(data).samples, x)
    check_ranges(data, x, [512], 30)


def flipped(data: bytes, bit: int) -> bytes:
    broken = bytearray(data)
    broken[bit // 8] ^= 0x80 >> bit % 8
    return bytes(broken)


def test_a_flipped_bit_costs_one_frame_and_is_told(tune: Tune) -> None:
    x, frames = tune
    data = fw.stream(frames, 5120, **PLAIN)
    begin = [42]
    for one in frames:
        begin.append(begin[-1] + len(one))
    rng = np.random.default_rng(0)
    for i in range(10):
        bits = [0, 20, 35, 50, 70, 72, 80, 8 * len(frames[i]) - 1, *rng.integers(90, 8 * len(frames[i]), 6)]
        for bit in bits:
            broken = flipped(data, 8 * begin[i] + int(bit))
            whole = decode(broken)
            status = probe(broken).status or whole.status
            assert status in (CORRUPT, GAP, TRUNCATED, CHANGED), (i, bit)
            expected = x.copy()
            expected[:, 512 * i : 512 * i + 512] = 0
            assert np.array_equal(slice_of(whole.samples, 0, 5120), expected), (i, bit)
            for start in (512 * i - 1, 512 * i + 100, 512 * i + 511, 512 * i + 512):
                part = decode(broken, start, 600).samples
                assert np.array_equal(part, slice_of(expected, start, 600)), (i, bit, start)


def test_crcs_are_checked(tune: Tune) -> None:
    x, frames = tune
    wrong = frames[0][:-1] + bytes([frames[0][-1] ^ 1])
    whole = decode(fw.stream([wrong, *frames[1:]], 5120, **PLAIN))
    assert (whole.status, whole.trouble) == (CORRUPT, 42)
    assert not whole.samples[:, :512].any()
    assert np.array_equal(whole.samples[:, 512:], x[:, 512:])


ILLEGAL = {
    "reserved type": fw.Predicted(0, kind=2),
    "reserved type 13": fw.Predicted(0, kind=13),
    "negative shift": fw.Predicted(coefficients=(1,), shift=-1),
    "precision 16": fw.Predicted(coefficients=(1,), precision=16),
    "residual method 2": fw.Predicted(0, rice=fw.Rice([4], method=2)),
    "residual method 3": fw.Predicted(0, rice=fw.Rice([4], method=3)),
    "partitions do not divide the block": fw.Predicted(0, rice=fw.Rice([4] * 256)),
    "first partition shorter than the warm-up": fw.Predicted(4, rice=fw.Rice([4] * 64)),
    "no bits left": fw.Verbatim(wasted=16),
    "sample out of range": fw.Predicted(coefficients=(16_383,), shift=0),
}


@pytest.mark.parametrize("case", ILLEGAL)
def test_illegal_subframes_are_refused(case: str) -> None:
    part = np.full((2, 160), 3)
    bad = fw.frame(part, 0, ILLEGAL[case])
    if case == "sample out of range":  # residuals 0 against a predictor that multiplies by 16383
        body = fw.Bits()
        for _ in range(2):
            body.put(0, 1).put(32, 6).put(0, 1).put(3, 16).put(14, 4).put(0, 5).put(16_383, 15).put(0, 6).put(0, 4)
            body.put((1 << 159) - 1, 159)
        whole = bad[:8] + body.bytes()
        bad = whole + fw.crc(whole, 16, 0x8005).to_bytes(2, "big")
    data = fw.stream([bad, *(fw.frame(part, 1 + i) for i in range(3))], 640, channels=2, smallest=160, largest=160)
    whole = decode(data, 0, 640)
    assert (whole.status, whole.trouble) == (CORRUPT, 42)
    assert not whole.samples[:, :160].any()
    assert (whole.samples[:, 160:] == 3).all()


def test_reserved_header_values_are_no_frames(tune: Tune) -> None:
    x, _ = tune
    good = fw.frame(x[:, :64], 0)
    changes = {1: [0xFA], 2: [0x09, 0x7F], 3: [0xB8, 0xF8, 0x16, 0x19], 4: [0x80, 0xFE, 0xFF]}
    for at, values in changes.items():
        for value in values:
            opening = good[:at] + bytes([value]) + good[at + 1 : 7]
            whole = opening + bytes([fw.crc(opening, 8, 0x07)]) + good[8:-2]
            data = fw.stream([whole + fw.crc(whole, 16, 0x8005).to_bytes(2, "big")], 64, channels=2)
            assert decode(data, 0, 64).status in (NO_DATA, CHANGED), (at, value)
    too_long = good[:5] + b"\xff\xff"  # a block of 65536 (9.1.6 forbids it)
    whole = too_long + bytes([fw.crc(too_long, 8, 0x07)]) + good[8:-2]
    data = fw.stream([whole + fw.crc(whole, 16, 0x8005).to_bytes(2, "big")], 64, channels=2)
    assert probe(data).status == NO_DATA


def test_cut_anywhere(tune: Tune) -> None:
    """Every length of a small file: what is there comes right, the rest is told."""
    x, frames = tune
    data = fw.stream(frames[:3], 1536, **PLAIN)
    begins = np.cumsum([42, *map(len, frames[:3])])
    for size in range(len(data)):
        cut = data[:size]
        facts, whole = probe(cut), decode(cut, 0, 1536)
        frames_there = int(np.searchsorted(begins, size, "right")) - 1
        if frames_there < 1:
            assert facts.status in (EMPTY, UNSUPPORTED, NO_DATA), size
            continue
        assert (facts.status, facts.total) == (TRUNCATED, 512 * frames_there)
        assert facts.trouble == begins[frames_there]
        expected = slice_of(x[:, : 512 * frames_there], 0, 1536)
        assert np.array_equal(whole.samples, expected)


def test_thousands_of_broken_files_are_survived(tune: Tune) -> None:
    """Flipped, cut, doubled and shuffled bytes: nothing crashes, and no status outside the list comes back."""
    _, frames = tune
    data = fw.stream(frames[:4], 2048, **PLAIN)
    rng = np.random.default_rng(7)
    for i in range(3000):
        broken = bytearray(data)
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(0, len(broken) if i % 2 else 120))
            kind = rng.integers(0, 4)
            if kind == 0:
                broken[at] ^= 1 << int(rng.integers(0, 8))
            elif kind == 1:
                broken[at] = int(rng.integers(0, 256))
            elif kind == 2:
                del broken[at : at + int(rng.integers(1, 40))]
            else:
                broken[at:at] = broken[at : at + int(rng.integers(1, 300))]
        facts = probe(bytes(broken))
        whole = decode(bytes(broken), 0, 3000)
        assert 0 <= facts.status <= MISLABELED and 0 <= whole.status <= MISLABELED
        assert 0 <= facts.total <= 1 << 62


def test_other_files_are_not_flac() -> None:
    rng = np.random.default_rng(0)
    for data in (b"", b"f", b"fLaC", b"RIFF" + bytes(100), bytes(5000), rng.bytes(100_000), b"\xff\xfb\x90\x64" * 999):
        assert probe(data).status in (EMPTY, UNSUPPORTED, NO_DATA)


def test_headers_inside_frames_are_not_believed() -> None:
    """Frames whose samples hold headers with a right CRC-8, of the same and of the next frames, at any place."""
    rng = np.random.default_rng(3)
    frames, parts = [], []
    for i in range(60):
        body = bytearray(rng.integers(0, 256, 2000).astype(np.uint8).tobytes())
        for at in range(100, 1900, 200):
            fake = fw.frame(np.zeros((1, 1000), int), i + int(rng.integers(0, 3)))[:9]
            body[at : at + len(fake)] = fake
        parts.append(np.frombuffer(bytes(body), ">i2").astype(np.int64))
        frames.append(fw.frame(parts[-1][None], i))
    x = np.concatenate(parts)[None]
    for total in (60_000, 0):
        data = fw.stream(frames, total, smallest=1000, largest=1000)
        assert probe(data)[:5] == (OK, 44100, 1, 16, 60_000)
        check_ranges(data, x, range(1000, 60_000, 1000), 300)
    cut = fw.stream([*frames[:20], *frames[21:]], 60_000, smallest=1000, largest=1000)
    expected = x.copy()
    expected[:, 20_000:21_000] = 0
    for start in range(0, 60_000, 700):
        part = decode(cut, start, 600)
        assert np.array_equal(part.samples, slice_of(expected, start, 600)), start
        assert part.status == (GAP if 19_400 < start < 21_000 else OK), start


def test_a_sample_that_wraps_round_into_its_range_is_refused() -> None:
    """16383 · 2^20 is -2^20 modulo 2^32, which 24 bits would hold."""
    body = fw.Bits().put(0, 1).put(32, 6).put(0, 1).put(1 << 20, 24).put(14, 4).put(0, 5).put(16_383, 15)
    body.put(0, 6).put(0, 4).put((1 << 31) - 1, 31)  # 31 residuals of 0
    good = fw.frame(np.zeros((1, 32), int), 0, bits=24)
    whole = good[:8] + body.bytes()
    data = fw.stream([whole + fw.crc(whole, 16, 0x8005).to_bytes(2, "big")], 32, bits=24, smallest=32, largest=32)
    assert decode(data, 0, 32).status == CORRUPT


def test_work_in_vain_has_an_end() -> None:
    """A frame of 40 bytes may hold 524,280 samples. After some hundred wrong ones nobody looks for a right one."""
    silence = np.zeros((8, 65_535), np.int8)
    plain = fw.frame(silence, 0, fw.Constant())

    def numbered(number: int, wrong: int = 0) -> bytes:
        opening = plain[:4] + fw.utf8(number) + plain[5:7]
        whole = opening + bytes([fw.crc(opening, 8, 0x07)]) + plain[8:-2]
        return whole + (fw.crc(whole, 16, 0x8005) ^ wrong).to_bytes(2, "big")

    one, good = numbered(0), numbered(1000)
    wrong = [numbered(10 + 2 * i, wrong=1) for i in range(400)]
    told = {"channels": 8, "smallest": 65_535, "largest": 65_535}
    assert probe(fw.stream([one, *wrong[:3], good], 0, **told)).total == 1001 * 65_535
    assert probe(fw.stream([one, *wrong, good], 0, **told)).total == 65_535
    assert probe(fw.stream([*wrong, good], 0, **told)).status == NO_DATA


KERNEL = """
#include "codecs/flac.h"
extern "C" __global__ void read_frames(const unsigned char* data, long long size, int* x, int* status) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    FaFlacFrame frame;
    if (!fa_flac_frame_header(data + i, size, frame)) return;
    FaBits bits = fa_bits_open(data + i + frame.bytes, size);
    FaFlacSubframe sub;
    int found = fa_flac_subframe(bits, frame.block, 16, sub, x + i);
    FaFlacUnfold sink = {sub.order};
    if (!found) found = fa_flac_residual(bits, frame.block, sub.order, x + i, sink);
    if (!found && !fa_flac_predict(sub, frame.block, x + i)) found = fa::kCorrupt;
    FA_ST(status + i, found);
}
"""


@pytest.mark.skipif(nvrtc.load_nvrtc() is None, reason="no libnvrtc")
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_the_header_compiles_for_a_gpu(architecture: str) -> None:
    _, log = nvrtc.compile_cubin(KERNEL, csrc_dir(), architecture)
    assert [kernel.name for kernel in nvrtc.parse_log(log)] == ["read_frames"]


FUZZ = Path(__file__).parent / "fuzz" / "run.sh"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang++") is None, reason="no clang++")
@pytest.mark.parametrize("target", ["flac", "crops"])
def test_ten_seconds_of_fuzzing(tmp_path: Path, target: str) -> None:
    done = subprocess.run(
        [FUZZ, target, "10", tmp_path], capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable}
    )
    if "libclang_rt" in done.stderr:
        pytest.skip("clang without its sanitizers (libclang-rt-dev)")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "number_of_executed_units" in done.stdout


def test_real_files(test_data: Path) -> None:
    """Every FLAC file at hand decodes with the MD5 of its header, or says why not."""
    known = {  # files whose header or end is broken on purpose
        "106-invalid-streaminfo.flac": OK,  # an MD5 of other samples
        "106-short-picture-block-size.flac": GAP,
        "invalid_block_sizes.flac": GAP,
        "empty_file.flac": EMPTY,
        "invalid_file.flac": UNSUPPORTED,
        "flac_application.flac": NO_DATA,  # metadata and one byte
        "variable-block.flac": TRUNCATED,
        "zero_value_properties.flac": MISLABELED,  # STREAMINFO of zeros
    }
    files = sorted(test_data.rglob("*.flac"))
    assert len(files) > 60
    for path in files:
        data = path.read_bytes()
        facts = probe(data)
        assert facts.status == known.get(path.name, OK), path
        if path.name not in known or facts.status == GAP:
            assert fw.digest(decode(data).samples, facts.bits) == facts.md5, path
