"""WAV: every kind bit for bit as libsndfile reads it, odd files, and what is wrong said with its byte."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
import torch

import fastaug
from fastaug.codecs import DecodeError, Status, decode, describe

KINDS = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
RATE = 8_000


def noise(length: int, channels: int, seed: int = 0) -> np.ndarray:
    """Reaches both ends of the scale, holds the smallest steps and zeros of both signs."""
    x = np.random.default_rng(seed).uniform(-1, 1, (length, channels)) ** 3
    x[:6] = np.array([1, -1, 2.0**-31, -(2.0**-31), 0.0, -0.0])[: min(6, length), None]
    return x


def written(x: np.ndarray, kind: str, container: str = "WAV", rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate, kind, format=container)
    return buffer.getvalue()


def as_libsndfile(data: bytes) -> torch.Tensor:
    return torch.from_numpy(soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T.copy())


def equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def chunk(name: bytes, body: bytes, size: int | None = None, pad: bool = True) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2 if pad else 0)


def fmt(channels: int = 1, rate: int = RATE, bits: int = 16, block: int | None = None, tag: int = 1) -> bytes:
    block = channels * ((bits + 7) // 8) if block is None else block
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits))


def riff(*chunks: bytes, name: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack("<I", len(body) if size is None else size) + body


SAMPLES = np.array([0, 1, -1, 32767, -32768, 257, -4660], dtype="<i2")
VALUES = torch.from_numpy(SAMPLES.astype(np.float32))[None] / 32768
DATA = chunk(b"data", SAMPLES.tobytes())


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_as_libsndfile_reads_it(kind: str, channels: int) -> None:
    for container in ("WAV", "WAVEX", "RF64"):
        for length in (0, 1, 2, 5, 6, 4099):
            data = written(noise(length, channels, length), kind, container)
            samples, rate = fastaug.load(data)
            assert rate == RATE and equal_bits(samples, as_libsndfile(data)), (container, length)
            assert fastaug.info(data) == fastaug.codecs.Info(RATE, length, channels, f"{container}/{kind}")


def test_all_values_of_the_short_integers() -> None:
    for kind, values in (("PCM_U8", np.arange(256, dtype=np.uint8)), ("PCM_16", np.arange(-(2**15), 2**15))):
        body = values.astype({"PCM_U8": np.uint8, "PCM_16": "<i2"}[kind]).tobytes()
        data = riff(fmt(bits=8 if kind == "PCM_U8" else 16), chunk(b"data", body))
        assert equal_bits(fastaug.load(data)[0], as_libsndfile(data))


def test_24_bit_at_every_place_of_a_vector() -> None:
    """Four samples are unpacked at once: none may take a neighbour's byte."""
    for i in range(40):
        values = np.zeros(40, np.int32)
        values[i] = -0x123457
        body = b"".join(int(v & 0xFFFFFF).to_bytes(3, "little") for v in values)
        samples, _ = fastaug.load(riff(fmt(bits=24), chunk(b"data", body)))
        assert samples[0].nonzero().tolist() == [[i]] and samples[0, i] == -0x123457 / 2**23


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_is_that_of_mix_down(kind: str, channels: int) -> None:
    data = written(noise(9001, channels, 3), kind)
    whole = fastaug.functional.mix_down(as_libsndfile(data))
    for start, length in ((0, 9001), (1, 700), (4000, 1), (2040, 4100)):
        mono, status = decode([data], start, length)
        assert not status.any() and equal_bits(mono[0], whole[:, start : start + length])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [None, 8_000, 5_000, 22_050])
def test_ranges_are_slices(kind: str, rate: int | None) -> None:
    """At 0, 1, the last sample, beyond the end and before the start, at every rate."""
    data = written(noise(20_011, 3, 1), kind)
    whole, _ = fastaug.load(data, sample_rate=rate)
    total = whole.shape[1]
    padded = torch.nn.functional.pad(whole, (3_000, 3_000))
    for start in (0, 1, 7, total // 2, total - 1, total, total + 50, -1, -100, -2_999):
        for length in (0, 1, 1_999):
            part, _ = fastaug.load(data, start, length, rate)
            assert equal_bits(part, padded[:, 3_000 + start : 3_000 + start + length]), (start, length)
    if rate:
        native, _ = fastaug.load(data)
        assert equal_bits(whole, fastaug.functional.resample(native, RATE, rate))


def test_a_long_file_in_pieces_on_several_threads() -> None:
    """Longer than one piece of work: the seams must not show."""
    data = written(noise(1_400_000, 2, 2), "PCM_16", rate=44_100)
    native = as_libsndfile(data)
    for rate in (None, 22_050, 48_000):
        expected = native if rate is None else fastaug.functional.resample(native, 44_100, rate)
        for threads in (1, 2, 3):
            samples, status = decode([data], 0, None, rate, channels=None, num_threads=threads)
            assert not status.any() and equal_bits(samples[0], expected)


ODD = {
    "chunks before": riff(chunk(b"JUNK", b"x" * 7), fmt(), chunk(b"LIST", b"INFOabc"), DATA),
    "chunks after": riff(fmt(), DATA, chunk(b"LIST", b"INFOabcd")),
    "odd chunk without its pad": riff(fmt(), chunk(b"LIST", b"INFOabc", pad=False), DATA),
    "a pad that is not zero": riff(fmt(), chunk(b"LIST", b"INFOabc", pad=False) + b"A", DATA),
    "a zero too many": riff(fmt(), chunk(b"LIST", b"INFOabcd") + b"\0", DATA),
    "bext": riff(chunk(b"bext", bytes(602)), fmt(), DATA, name=b"RIFF"),
    "format behind the data": riff(DATA, fmt()),
    "sizes of a stream": riff(fmt(), chunk(b"data", SAMPLES.tobytes(), 0xFFFFFFFF), size=0xFFFFFFFF),
    "sizes never written": riff(fmt(), chunk(b"data", SAMPLES.tobytes(), 0), size=0),
    "data size never written": riff(fmt(), chunk(b"data", SAMPLES.tobytes(), 0)),
    "data larger than the file": riff(fmt(), chunk(b"data", SAMPLES.tobytes(), 1 << 30)),
    "riff smaller than the file": riff(fmt(), DATA, size=10),
    "half a sample at the end": riff(fmt(), chunk(b"data", SAMPLES.tobytes() + b"\x7f")),
    "format chunk of 18 bytes": riff(chunk(b"fmt ", fmt()[8:] + b"\0\0"), DATA),
    "a wrong byte rate": riff(chunk(b"fmt ", fmt()[8:16] + b"\1\2\3\4" + fmt()[20:]), DATA),
    "RF64": riff(
        chunk(b"ds64", struct.pack("<QQQI", 0, len(SAMPLES) * 2, len(SAMPLES), 0)),
        fmt(), chunk(b"data", SAMPLES.tobytes(), 0xFFFFFFFF), chunk(b"LIST", b"INFO"), name=b"RF64", size=0xFFFFFFFF,
    ),
    "BW64 without ds64": riff(fmt(), chunk(b"data", SAMPLES.tobytes(), 0xFFFFFFFF), name=b"BW64"),
    "12 bits in 16": riff(fmt(bits=12, block=2), DATA),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_files_hold_the_same_samples(name: str) -> None:
    samples, rate = fastaug.load(ODD[name])
    assert rate == RATE and equal_bits(samples, VALUES)


def test_an_empty_data_chunk_before_another_stays_empty() -> None:
    data = riff(fmt(), chunk(b"data", b""), chunk(b"LIST", b"INFOabcd"))
    assert fastaug.load(data)[0].shape == (1, 0)


def test_every_cut_gives_the_samples_left_or_an_error() -> None:
    data = riff(chunk(b"LIST", b"INFOabc"), fmt(), DATA)
    first = data.index(b"data") + 8
    for size in range(len(data)):
        cut = bytearray(data[:size])
        if size < first:
            with pytest.raises(DecodeError, match=f"{size} bytes|of {size}|not in a format|0 bytes"):
                fastaug.load(cut)
        else:
            assert equal_bits(fastaug.load(cut)[0], VALUES[:, : (size - first) // 2])


WRONG = {
    "no channels": (riff(fmt(channels=0, block=2), DATA), "expected 1 to 1024 channels at byte 22", Status.BAD_HEADER),
    "a rate of 0": (riff(fmt(rate=0), DATA), "expected a sample rate from 1 .* at byte 24", Status.BAD_HEADER),
    "block_align 0": (riff(fmt(block=0), DATA), "expected a block_align above 0 at byte 32", Status.BAD_HEADER),
    "0 bits": (riff(fmt(bits=0, block=2), DATA), "expected a number of bits .* at byte 34", Status.BAD_HEADER),
    "short format": (riff(chunk(b"fmt ", b"\1\0\1\0"), DATA), "at least 16 bytes.* at byte 20", Status.BAD_HEADER),
    "no format": (riff(DATA), "expected a format chunk before the end", Status.NO_FORMAT),
    "no data": (riff(fmt(), chunk(b"LIST", b"INFO")), "expected audio data before the end", Status.NO_DATA),
    "nothing": (b"", "0 bytes", Status.EMPTY),
    "64-bit integers": (riff(fmt(bits=64), DATA), "unimplemented format", Status.CORRUPT),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_byte(name: str) -> None:
    data, words, status = WRONG[name]
    with pytest.raises(DecodeError, match=words) as error:
        fastaug.load(data)
    assert error.value.status == status
    samples, found = decode([data, ODD["RF64"]], 0, 5)
    assert found.tolist() == [status, 0] and not samples[0].any()
    assert torch.equal(samples[1], VALUES[:, :5])
    (line,) = describe(found, [data, ODD["RF64"]], 0, 5)
    assert line.startswith("example 0: encoded[0]: ")


@pytest.mark.parametrize("kind", ["ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_rare_kinds_through_libsndfile(kind: str) -> None:
    t = np.arange(4_000) / RATE
    data = written(0.5 * np.sin(2 * np.pi * 300 * t)[:, None], kind)
    whole = as_libsndfile(data)
    assert torch.equal(fastaug.load(data)[0], whole)
    for start, length in ((0, 10), (1, 999), (3_000, 400)):
        assert torch.equal(fastaug.load(data, start, length)[0], whole[:, start : start + length])


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_only_where_it_is_heard(kind: str, value: float) -> None:
    x = noise(20_000, 2)
    x[9_000, 1] = value
    data = written(x, kind)
    where = data.index(b"data") + 8 + 9_000 * 2 * (4 if kind == "FLOAT" else 8)
    for channels in (1, None):
        starts = [[0], [8_500], [9_001], [8_999]]  # overlapping crops: decoded as one, judged apart
        samples, status = decode([data], starts, 1_000, channels=channels)
        assert status[:, 0].tolist() == [0, Status.NOT_FINITE, 0, Status.NOT_FINITE]
        assert samples[0].any() and not samples[1].any() and samples[2].any() and not samples[3].any()
    with pytest.raises(DecodeError, match=f"NaN or infinite samples at byte {where} of"):
        fastaug.load(data, 8_500, 1_000)


def test_a_header_cannot_order_memory() -> None:
    for data in (
        riff(fmt(), chunk(b"data", SAMPLES.tobytes(), 0xFFFFFFF0)),
        riff(chunk(b"ds64", struct.pack("<QQQI", 1 << 62, 1 << 62, 1 << 62, 0)), fmt(), DATA, name=b"RF64"),
        riff(fmt(channels=1024, block=2048), DATA),
    ):
        assert fastaug.info(data).frames <= len(SAMPLES)
    with pytest.raises(DecodeError, match="cannot become 22050 Hz: expected a ratio up to 1024"):
        fastaug.load(riff(fmt(rate=0x7FFFFFFF), DATA), sample_rate=22_050)
