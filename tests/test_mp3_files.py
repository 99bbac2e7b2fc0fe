"""Files that are nearly MP3: other layers and codecs under its name, streams that change, tags of every kind."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

import fastaug
from corpus import tone
from fastaug.codecs import DecodeError, Status, decode, describe
from test_mp3 import APE_TAG, ID3V2, LYRICS, assert_close, lame, mpg123, needs_ffmpeg, needs_lame, needs_mpg123, whole


def ffmpeg(folder: Path, *options: str) -> bytes:
    """Two and a half seconds of stereo, encoded, under the name of an MP3."""
    source, target = folder / "in.wav", folder / "out.mp3"
    soundfile.write(source, tone(2.5, 3, 44_100, 2), 44_100)
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", "-i", source, *options, target], check=True)
    return target.read_bytes()


@needs_ffmpeg
@needs_mpg123
@pytest.mark.parametrize("options", ["-b:a 192k", "-ar 24000 -b:a 64k"])
def test_layer_two_goes_to_libsndfile(tmp_path: Path, options: str) -> None:
    data = ffmpeg(tmp_path, "-c:a", "mp2", *options.split(), "-f", "mp2")
    assert fastaug.info(data).format == "MP3/MPEG_LAYER_II"
    ours, theirs = whole(data), mpg123(data, 2)
    length = theirs.shape[1]
    assert length <= ours.shape[1] < length + 1152 and np.abs(theirs).max() > 0.1  # libsndfile estimates the length
    assert np.abs(ours[:, :length] - theirs).max() <= 2**-14 and not ours[:, length:].any()


def test_layer_one_is_silence_or_refused() -> None:
    """No encoder at hand makes it: frames without a bit allocation."""
    frame = b"\xff\xff\x10\xc4" + bytes(28)  # 32 kbit/s, 44.1 kHz, mono, 384 samples
    samples, status = decode([frame * 40], channels=None)
    if status[0] == Status.OK:
        assert samples.shape[2] == 40 * 384 and not samples.any()
    else:
        assert status[0] in (Status.UNSUPPORTED, Status.CORRUPT)


@needs_ffmpeg
@pytest.mark.parametrize("options", ["-c:a aac -f adts", "-c:a aac -b:a 32k -f adts", "-c:a ac3 -f ac3"])
def test_other_codecs_named_mp3_are_refused(tmp_path: Path, options: str) -> None:
    data = ffmpeg(tmp_path, *options.split())
    _, status = decode([data], 0, 1000)
    assert status.tolist() == [Status.UNSUPPORTED]
    (said,) = describe(status, [tmp_path / "out.mp3"], 0, 1000)
    assert "out.mp3: no decodable audio frames" in said
    with pytest.raises(DecodeError, match=r"out\.mp3"):
        fastaug.load(tmp_path / "out.mp3")


@needs_lame
@pytest.mark.parametrize(
    ("rate", "channels", "between"), [(44_100, 1, b""), (48_000, 2, b""), (22_050, 2, ID3V2), (48_000, 2, bytes(500))]
)
def test_a_change_of_rate_or_channels_is_named(rate: int, channels: int, between: bytes) -> None:
    first, second = lame(44_100, 2, "-b 128"), lame(rate, channels, "-b 64")
    both, alone = first + between + second, whole(first)
    total, length = fastaug.info(both).frames, alone.shape[1]
    assert abs(total - length - 2.5 * 44_100) < 4 * 1152
    samples, status = decode([both, both], [0, total - 3000], 3000, channels=None)
    assert status.tolist() == [Status.OK, Status.CHANGED]
    assert np.array_equal(samples[0], alone[:, :3000]) and not samples[1].any()
    (said,) = describe(status, [both, both], [0, total - 3000], 3000)
    at = int(said.split("at byte ")[1].split()[0])
    assert len(first) <= at <= len(first) + len(between)
    got, status = decode([both], 0, length, channels=None)
    assert status.tolist() == [Status.OK] and np.array_equal(got[0], alone)


@needs_lame
def test_a_header_that_lies_once_is_no_change() -> None:
    """One frame that claims to be mono, or of another rate, is passed over."""
    data = lame(44_100, 2, "-b 128 --nores")
    full = whole(data)
    at = data.find(b"\xff\xfb", 40 * 417)
    for byte, value in ((3, 0xC4), (2, data[at + 2] ^ 0x04)):
        broken = bytearray(data)
        broken[at + byte] = value
        samples, status = decode([bytes(broken)], 0, full.shape[1] - 4 * 1152, channels=None)
        assert status.tolist() == [Status.OK]
        assert np.array_equal(samples[0, :, :30_000], full[:, :30_000])
        assert np.array_equal(samples[0, :, -30_000:], full[:, -3 * 1152 - 30_000 : -3 * 1152])


@needs_lame
@needs_ffmpeg
def test_a_vbri_frame_is_no_sound_and_tells_the_length(tmp_path: Path) -> None:
    """As FFmpeg has it; mpg123 plays that frame, a silent one."""
    data = lame(44_100, 2, "-b 128 -t")  # without a tag of its own
    frames = whole(data).shape[1] // 1152
    tag = b"VBRI" + struct.pack(">HHHII", 1, 0, 75, len(data), frames) + struct.pack(">HHHH", 0, 1, 2, frames)
    frame = data[:4] + bytes(32) + tag
    tagged = frame.ljust(144 * 128_000 // 44_100 + (data[2] >> 1 & 1), b"\0") + data
    assert np.array_equal(whole(tagged), whole(data))
    (tmp_path / "tagged.mp3").write_bytes(tagged)
    command = ["ffmpeg", "-loglevel", "error", "-i", tmp_path / "tagged.mp3", "-f", "f32le", "-"]
    theirs = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32)
    assert_close(whole(tagged), theirs.reshape(-1, 2).T)
    _, status = decode([tagged[: len(tagged) // 2]], [frames * 1152 - 10], 10)
    assert status.tolist() == [Status.TRUNCATED] and fastaug.info(tagged[: len(tagged) // 2]).frames == frames * 1152


@needs_lame
@needs_mpg123
@pytest.mark.parametrize("options", ["-b 128", "-V 3", "-b 128 -p"])
def test_a_xing_frame_without_delays_trims_nothing(options: str) -> None:
    data = lame(44_100, 2, options)
    at = data.index(b"LAME", 0, 500)
    bare = data[:at] + bytes(4) + data[at + 4 :]
    ours = whole(bare)
    assert ours.shape == mpg123(bare, 2).shape == (2, ours.shape[1] // 1152 * 1152)
    assert np.array_equal(ours[:, 1105 : 1105 + 50_000], whole(data)[:, :50_000])


@needs_lame
def test_a_pipeline_keeps_the_timeline_of_a_cut_stream(tmp_path: Path) -> None:
    data = lame(44_100, 2, "-b 128")
    cut = data[len(data) // 3 :]
    (tmp_path / "cut.mp3").write_bytes(cut)
    pipe = fastaug.Pipeline(tmp_path, crop="whole", sample_rate=44_100, batch_size=1, channels=2, device="cpu")
    (batch,) = list(pipe)
    silent = fastaug.info(tmp_path / "cut.mp3").silent
    assert silent > 0 and not pipe.stats.bad and not batch.audio[..., :silent].any()
    assert np.array_equal(batch.audio[0], whole(cut))


FOOTER = b"ID3\x04\x00\x10" + bytes([0, 0, 0, 64]) + bytes(64) + b"3DI\x04\x00\x10" + bytes([0, 0, 0, 64])
APE_WITH_HEADER = (
    b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 40, 1, 0xA000_0000) + bytes(8) + b"\xff\xfb\x90\x64" * 10
    + b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 40, 1, 0x8000_0000) + bytes(8)
)  # fmt: skip


@needs_lame
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FOOTER, b""),
        (ID3V2 + FOOTER + ID3V2, b""),
        (b"", FOOTER),
        (APE_WITH_HEADER, b""),
        (b"", APE_WITH_HEADER),
        (ID3V2, APE_WITH_HEADER + LYRICS + APE_TAG + b"TAG+" + bytes(223) + b"TAG" + bytes(125)),
    ],
)
def test_tags_with_headers_and_footers(before: bytes, after: bytes) -> None:
    data = lame(44_100, 2, "-b 128")
    assert np.array_equal(whole(before + data + after), whole(data))


@needs_lame
@pytest.mark.parametrize("inside", [b"", ID3V2])
def test_mpeg_in_a_riff_file_with_tags_around(inside: bytes) -> None:
    data = lame(44_100, 2, "-b 128")
    header = struct.pack("<HHIIHHH", 0x55, 2, 44_100, 16_000, 1, 0, 12) + bytes(12)
    body = inside + data
    chunks = b"fmt " + struct.pack("<I", len(header)) + header + b"fact\x04\0\0\0\0\0\0\0"
    chunks += (
        b"data" + struct.pack("<I", len(body)) + body + b"LIST" + struct.pack("<I", 400) + b"\xff\xfb\x90\x64" * 100
    )
    wrapped = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    assert np.array_equal(whole(wrapped), whole(data))
