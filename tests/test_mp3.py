"""MP3: equal to mpg123 and libsndfile over a matrix of encoders, ranges equal slices, tags and damage do not matter."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import fastaug
from corpus import tone
from fastaug.codecs import Status, decode

needs_lame = pytest.mark.skipif(shutil.which("lame") is None, reason="no lame command")
needs_mpg123 = pytest.mark.skipif(shutil.which("mpg123") is None, reason="no mpg123 command")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg command")

FULL_ACCURACY_RMS, FULL_ACCURACY_MAX = 8.81e-6, 6.1e-5  # ISO 11172-4, of full scale 1
OURS_MAX = 4e-6


@functools.cache
def lame(rate: int, channels: int, options: str, seconds: float = 2.5) -> bytes:
    """A tone with transients (so that there are short blocks), encoded."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.wav"), Path(folder, "out.mp3")
        x = tone(seconds, rate + channels, rate, channels)
        x[:: rate // 3] = 0.9
        soundfile.write(source, x, rate, subtype="PCM_16")
        command = ["lame", "--quiet", *options.split(), "--resample", f"{rate / 1000:g}", str(source), str(target)]
        subprocess.run(command, check=True)
        return target.read_bytes()


def mpg123(data: bytes, channels: int) -> np.ndarray:
    """(C, T) float32 by mpg123, gapless."""
    with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
        file.write(data)
        file.flush()
        command = ["mpg123", "-q", "-e", "f32", "-s", file.name]
        raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.float32).reshape(-1, channels).T


def whole(data: bytes, channels: int | None = None) -> np.ndarray:
    samples, status = decode([data], channels=channels)
    assert status.tolist() == [Status.OK]
    return np.asarray(samples[0])


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    error = ours.astype(np.float64) - theirs
    assert np.abs(theirs).max() > 0.1
    assert np.sqrt((error**2).mean()) < FULL_ACCURACY_RMS
    assert np.abs(error).max() < OURS_MAX < FULL_ACCURACY_MAX


SETTINGS = [
    *[(44_100, 2, f"-b {rate}") for rate in (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)],
    *[(44_100, 2, f"-V {v}") for v in range(10)],
    *[(44_100, channels, f"--abr {rate}") for channels, rate in ((2, 150), (1, 70), (2, 300))],
    *[(44_100, 2, f"-b 128 -m {mode}") for mode in "sjfd"],
    (44_100, 2, "-b 128 -m m"),
    (44_100, 2, "-V 3 -m f"),
    (44_100, 2, "-b 128 -p"),
    (22_050, 2, "-b 56 -p"),
    (44_100, 2, "--freeformat -b 400"),
    (44_100, 1, "--freeformat -b 350"),
    (22_050, 2, "--freeformat -b 100"),
    (44_100, 2, "--nores -b 128"),
    (44_100, 2, "-b 128 -t"),
    *[(rate, channels, "-b 64") for rate in (48_000, 32_000) for channels in (1, 2)],
    *[(rate, channels, "-b 32") for rate in (24_000, 22_050, 16_000) for channels in (1, 2)],
    *[(rate, channels, "-b 24") for rate in (12_000, 11_025, 8_000) for channels in (1, 2)],
    (22_050, 2, "-V 4"),
    (11_025, 1, "-V 4"),
    (48_000, 2, "-V 5"),
    (32_000, 2, "-V 5"),
    (16_000, 1, "--abr 40"),
    (24_000, 2, "--nores -b 48"),
]


@needs_lame
@needs_mpg123
@pytest.mark.parametrize(("rate", "channels", "options"), SETTINGS)
def test_equals_mpg123(rate: int, channels: int, options: str) -> None:
    data, channels = lame(rate, channels, options), 1 if "-m m" in options else channels
    assert_close(whole(data), mpg123(data, channels))


@needs_lame
@pytest.mark.parametrize(("rate", "channels", "options"), SETTINGS[::4])
def test_equals_libsndfile(rate: int, channels: int, options: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
        file.write(lame(rate, channels, options))
        file.flush()
        theirs, found = soundfile.read(file.name, dtype="float32", always_2d=True)
    assert found == rate
    assert_close(whole(lame(rate, channels, options)), theirs.T)


@needs_ffmpeg
@needs_mpg123
@pytest.mark.parametrize("options", ["-b:a 160k", "-q:a 2", "-b:a 64k -joint_stereo 0", "-b:a 96k -reservoir 0"])
def test_equals_mpg123_on_files_of_ffmpeg(options: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", tone(2.5, 3, 44_100, 2), 44_100)
    out = tmp_path / "out.mp3"
    command = ["ffmpeg", "-loglevel", "error", "-i", str(tmp_path / "in.wav"), *options.split(), str(out)]
    subprocess.run(command, check=True)
    assert_close(whole(out.read_bytes()), mpg123(out.read_bytes(), 2))


def block_types(data: bytes) -> set[int]:
    """Of all granules and channels of a stereo MPEG-1 stream without checksums, from its side information."""
    found, at = set(), 0
    while (at := data.find(b"\xff\xfb", at)) >= 0:
        bits = int.from_bytes(data[at + 4 : at + 36], "big")
        for granule in range(4):
            shift = 256 - 20 - 59 * granule - 36  # behind window_switching_flag and block_type
            found.add(bits >> shift & 3 if bits >> shift + 2 & 1 else 0)
        at += 36
    return found


@needs_lame
def test_the_matrix_has_all_block_types() -> None:
    assert block_types(lame(44_100, 2, "-b 128")) == {0, 1, 2, 3}


RANGED = [
    (44_100, 2, "-b 128"),
    (44_100, 2, "-V 2"),
    (44_100, 1, "--nores -b 64"),
    (22_050, 2, "-b 32"),
    (8_000, 1, "-b 8"),
    (44_100, 2, "-b 128 -m f"),
]


@needs_lame
@pytest.mark.parametrize("channels", [None, 1])
@pytest.mark.parametrize(("rate", "source_channels", "options"), RANGED)
def test_ranges_equal_slices(rate: int, source_channels: int, options: str, channels: int | None) -> None:
    data = lame(rate, source_channels, options)
    full = whole(data, channels)
    total = full.shape[1]
    rng = np.random.default_rng(1)
    starts = [0, 1, 575, 576, 1151, 1152, total - 1, total - 700, -300, total + 5, *rng.integers(0, total, 190)]
    lengths = [*[1500] * 10, *rng.integers(1, 4000, 190)]
    check_ranges(data, full, starts, lengths, channels)


def check_ranges(
    data: bytes, full: np.ndarray, starts: Iterable[int], lengths: Iterable[int], channels: int | None
) -> None:
    """One call each: in a single call overlapping ranges of one member are decoded together."""
    total = full.shape[1]
    for start, length in zip(starts, lengths, strict=True):
        got, status = decode([data], int(start), int(length), channels=channels)
        assert status.tolist() == [0]
        expected = np.zeros((full.shape[0], length), np.float32)
        low, high = max(start, 0), min(start + length, total)
        if low < high:
            expected[:, low - start : high - start] = full[:, low:high]
        assert np.array_equal(got[0], expected), (start, length)


@needs_lame
@pytest.mark.slow
@pytest.mark.parametrize("channels", [None, 1])
@pytest.mark.parametrize(("rate", "source_channels", "options"), RANGED)
def test_a_thousand_random_ranges_equal_slices(
    rate: int, source_channels: int, options: str, channels: int | None
) -> None:
    data = lame(rate, source_channels, options)
    full = whole(data, channels)
    rng = np.random.default_rng(2)
    starts, lengths = rng.integers(-100, full.shape[1] + 100, 1000), rng.integers(1, 6000, 1000)
    check_ranges(data, full, starts, lengths, channels)


@needs_lame
def test_the_mean_of_the_channels_is_mixed_before_the_filter_bank() -> None:
    for options in ("-b 128", "-b 128 -m s", "-b 128 -m f", "-V 0"):
        data = lame(44_100, 2, options)
        stereo = whole(data)
        assert np.abs(whole(data, 1)[0] - stereo.mean(0)).max() < 5e-7


ID3V2 = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + b"\xff\xfb\x90\x64" * 64  # 256 bytes that look like frames
APE_TAG = b"APETAGEX" + struct.pack("<III", 2000, 32, 0) + bytes(8)
LYRICS = b"LYRICSBEGIN" + b"\xff\xfb\x90\x64" * 5 + b"000031LYRICS200"


@needs_lame
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ID3V2, b""),
        (ID3V2 * 3, b""),
        (b"", b"TAG" + bytes(125)),
        (b"", APE_TAG + b"TAG" + bytes(125)),
        (b"", LYRICS),
        (ID3V2, LYRICS + APE_TAG + b"TAG" + bytes(125)),
        (b"\x00" * 1000, b""),
        (b"\xff\xfb\x90" * 7, b"\x00" * 333),
    ],
)
def test_tags_and_padding_around_the_frames_do_not_matter(before: bytes, after: bytes) -> None:
    data = lame(44_100, 2, "-b 128")
    assert np.array_equal(whole(before + data + after), whole(data))


@needs_lame
def test_mpeg_in_a_riff_file() -> None:
    data = lame(44_100, 2, "-b 128")
    header = struct.pack("<HHIIHHH", 0x55, 2, 44_100, 16_000, 1, 0, 12) + bytes(12)
    chunks = b"fmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(data)) + data
    wrapped = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    assert np.array_equal(whole(wrapped), whole(data))


@needs_lame
@needs_mpg123
@pytest.mark.parametrize("options", ["-b 128", "-b 320", "-V 2"])
def test_a_stream_cut_from_a_longer_one_keeps_its_timeline(options: str) -> None:
    """Frames whose reservoir was cut off are silent; everything after is as mpg123 has it."""
    data = lame(44_100, 2, options)
    cut = data[len(data) // 3 :]
    ours, theirs = whole(cut), mpg123(cut, 2)
    assert ours.shape == theirs.shape
    silent = fastaug.info(cut).silent
    assert 0 < silent < 4 * 1152 and silent % 1152 == 0 and fastaug.info(data).silent == 0
    assert not ours[:, :silent].any() and ours[:, silent : silent + 1152].any()
    assert np.abs(ours[:, 4 * 1152 :] - theirs[:, 4 * 1152 :]).max() < OURS_MAX


@needs_lame
def test_a_file_cut_short_says_so_and_still_gives_what_is_there() -> None:
    data = lame(44_100, 2, "-b 128")
    cut, full = data[: len(data) // 2], whole(data)
    samples, status = decode([cut, cut], [0, full.shape[1] - 2000], 2000, channels=None)
    assert status.tolist() == [Status.OK, Status.TRUNCATED]
    assert np.array_equal(samples[0], full[:, :2000]) and not samples[1].any()


@needs_lame
def test_garbage_between_frames_is_skipped() -> None:
    data = lame(44_100, 2, "-b 128 --nores")
    full = whole(data)
    frame = 417  # bytes; 418 with padding
    at = data.find(b"\xff\xfb", 40 * frame)
    broken = data[:at] + bytes(range(200)) + data[at:]
    ours = whole(broken)
    assert ours.shape == full.shape
    assert np.array_equal(ours[:, :30_000], full[:, :30_000])
    assert np.array_equal(ours[:, -30_000:], full[:, -30_000:])


@needs_lame
def test_damage_never_reaches_beyond_its_frames() -> None:
    """Bits flipped in main data change some frames and leave the rest as it was; nothing crashes, nothing is NaN."""
    data = lame(44_100, 2, "-b 128 --nores")
    full = whole(data)
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        at = int(rng.integers(2000, len(data)))
        broken[at] ^= 1 << int(rng.integers(8))
        samples, status = decode([bytes(broken)], channels=None)
        assert status[0] in (Status.OK, Status.CORRUPT, Status.TRUNCATED)
        if status[0] == Status.OK and samples.shape[2] == full.shape[1]:
            assert samples.isfinite().all()
            changed = np.flatnonzero((np.asarray(samples[0]) != full).any(0))
            assert changed.size == 0 or np.ptp(changed) < 4 * 1152


@needs_lame
def test_truncated_anywhere_never_fails_badly() -> None:
    data = lame(8_000, 1, "-b 8", 0.6)
    for size in range(0, len(data), 7):
        _, status = decode([data[:size]], 0, 2000)
        assert int(status[0]) in set(Status)


@needs_lame
def test_resampled_ranges_equal_slices() -> None:
    data = lame(44_100, 2, "-b 128")
    full, _ = decode([data], sample_rate=22_050)
    for start in (0, 1, 7001, full.shape[2] - 3000):
        part, _ = decode([data], start, 3000, sample_rate=22_050)
        assert np.array_equal(part[0], full[0, :, start : start + 3000])
