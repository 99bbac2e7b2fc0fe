"""Decoding, natively and through libsndfile: ranges equal slices, errors name the file; load and info."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import fastaug
from corpus import KINDS, RATE, encoded, tone
from fastaug.codecs import DecodeError, Status, decode, describe
from fastaug.ops.resample import resample


@pytest.fixture(scope="module", params=KINDS)
def clip(request: pytest.FixtureRequest) -> bytes:
    return encoded(tone(1.5, 3, channels=2), request.param)


@pytest.mark.parametrize("rate", [None, 8_000, 22_050, 44_100])
def test_ranges_equal_slices(clip: bytes, rate: int | None) -> None:
    whole, out_rate = fastaug.load(clip, sample_rate=rate)
    assert out_rate == (rate or RATE)
    total = whole.shape[1]
    starts = [0, 1, 575, 1151, 1152, total // 2, total - 1, total - 700]
    for start in starts:
        part, _ = fastaug.load(clip, start, 700, rate)
        expected = torch.nn.functional.pad(whole[:, start : start + 700], (0, max(0, start + 700 - total)))
        assert torch.equal(part, expected), start


def test_length_is_the_ceiling(clip: bytes) -> None:
    info = fastaug.info(clip)
    assert (info.sample_rate, info.channels) == (RATE, 2)
    for rate in (8_000, 22_050, 44_100, 16_001):
        assert fastaug.load(clip, sample_rate=rate)[0].shape[1] == -(-info.frames * rate // RATE)


def test_resampling_a_range_is_the_range_of_the_resampled(clip: bytes) -> None:
    native, _ = fastaug.load(clip)
    part, _ = fastaug.load(clip, 2000, 3000, 22_050)
    assert torch.equal(part, resample(native, RATE, 22_050)[:, 2000:5000])


def test_before_and_after_the_file_stand_zeros() -> None:
    clip = encoded(tone(0.1, 0), "wav")
    whole, _ = fastaug.load(clip)
    around, _ = fastaug.load(clip, -100, 100 + whole.shape[1] + 50)
    assert torch.equal(around[:, 100:-50], whole)
    assert not around[:, :100].any() and not around[:, -50:].any()
    assert not fastaug.load(clip, 10_000_000, 5)[0].any()


def test_integers_become_floats_by_two_to_the_fifteen() -> None:
    values = np.array([[-32768], [-1], [0], [1], [32767]], dtype=np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, values, 8000, format="WAV", subtype="PCM_16")
    assert torch.equal(fastaug.load(buffer.getvalue())[0] * 32768, torch.from_numpy(values.T.astype(np.float32)))


def test_a_path_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    path.write_bytes(encoded(tone(0.2, 1), "flac"))
    assert torch.equal(fastaug.load(path)[0], fastaug.load(path.read_bytes())[0])
    assert fastaug.info(str(path)) == fastaug.info(memoryview(path.read_bytes()))


def test_a_batch_of_mixed_codecs_rates_and_channels() -> None:
    clips = [
        encoded(tone(0.5, i, rate, 1 + i % 2), kind, rate)
        for i, (kind, rate) in enumerate(zip(KINDS, (8_000, 16_000, 22_050, 44_100), strict=True))
    ]
    starts = np.array([[0, 10, 20, 30], [5, 100, 200, 2_000]])
    samples, status = decode(clips, starts, 4_000, 16_000)
    assert samples.shape == (2, 4, 1, 4_000) and status.shape == (2, 4) and not status.any()
    for view in range(2):
        for i, clip in enumerate(clips):
            alone, _ = fastaug.load(clip, int(starts[view, i]), 4_000, 16_000)
            mixed, _ = decode([clip], int(starts[view, i]), 4_000, 16_000)
            assert torch.equal(samples[view, i], mixed[0])
            if alone.shape[0] == 1:
                assert torch.equal(samples[view, i], alone)
    one, four = (decode(clips, starts, 4_000, 16_000, num_threads=n)[0] for n in (1, 4))
    assert torch.equal(one, four)


def test_downmix_is_the_mean_of_the_channels() -> None:
    clip = encoded(tone(0.3, 2, channels=2), "wav")
    both, _ = fastaug.load(clip)
    mono, _ = decode([clip], 0, None, None)
    assert torch.allclose(mono[0], both.mean(0, keepdim=True), atol=1e-7)
    assert decode([clip], channels=None)[0].shape[1] == 2
    left, right = decode([encoded(tone(0.1, 0), "wav")], channels=2)[0][0]
    assert torch.equal(left, right)


def test_lengths_pad_with_zeros_and_whole_files_differ_in_length() -> None:
    clips = [encoded(tone(seconds, 0), "wav") for seconds in (0.1, 0.2)]
    samples, _ = decode(clips)
    assert samples.shape == (2, 1, 3_200) and not samples[0, 0, 1_600:].any() and samples[0, 0, :1_600].any()
    ragged, _ = decode(clips, [0, 0], [100, 300])
    assert ragged.shape == (2, 1, 300) and not ragged[0, 0, 100:].any()


BAD = {
    "zero bytes": (b"", "0 bytes"),
    "text": (b"hello, I am a text file, not a recording\n" * 50, ""),
    "cut header": (encoded(tone(0.5, 0), "flac")[:20], ""),
    "nan": (None, "NaN or infinite"),
}


def nan_wav() -> bytes:
    samples = tone(0.5, 0)
    samples[500] = np.nan
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_only_its_row_is_zero(tmp_path: Path, name: str) -> None:
    data, reason = BAD[name]
    path = tmp_path / "bad.wav"
    path.write_bytes(nan_wav() if data is None else data)
    with pytest.raises(DecodeError, match=rf"bad\.wav: .*{reason}"):
        fastaug.load(path)
    good = encoded(tone(0.5, 1), "wav")
    samples, status = decode([good, path, good], 0, 1000)
    assert status.shape == (3,) and status[0] == status[2] == 0 and status[1]
    (line,) = describe(status, [good, path, good], 0, 1000)
    assert re.match(rf"example 1: .*bad\.wav: .*{reason}", line)
    assert describe(status) == [f"example 1: {Status(int(status[1])).meaning}"]
    assert not samples[1].any() and torch.equal(samples[0], samples[2]) and samples[0].any()


def test_a_file_cut_short_is_an_error_where_samples_are_missing() -> None:
    whole = encoded(tone(4.0, 0), "flac")
    cut = whole[: len(whole) // 2]
    assert torch.equal(fastaug.load(cut, 0, 8_000)[0], fastaug.load(whole, 0, 8_000)[0])
    with pytest.raises(DecodeError):
        fastaug.load(cut, 50_000, 8_000)


def test_an_mp3_cut_short_is_an_error_where_samples_are_missing() -> None:
    """Its tag still announces the whole length."""
    whole = encoded(tone(8.0, 0), "mp3")
    cut = whole[: len(whole) // 2]
    assert fastaug.info(cut).frames == fastaug.info(whole).frames
    assert torch.equal(fastaug.load(cut, 0, 8_000)[0], fastaug.load(whole, 0, 8_000)[0])
    with pytest.raises(DecodeError, match=r"ends at sample \d+ of 128000 announced"):
        fastaug.load(cut, 100_000, 8_000)


@pytest.mark.parametrize("rate", [0, -1, 22_050.5, True])
def test_bad_sample_rates(rate: int) -> None:
    with pytest.raises(ValueError, match="positive whole number of Hz"):
        fastaug.load(encoded(tone(0.1, 0), "wav"), sample_rate=rate)


def test_bad_arguments_of_decode() -> None:
    clip = encoded(tone(0.1, 0), "wav")
    with pytest.raises(ValueError, match="starts must be an int"):
        decode([clip], [0, 1], 10)
    with pytest.raises(ValueError, match="whole samples"):
        decode([clip], 0.5, 10)
    with pytest.raises(ValueError, match="negative"):
        decode([clip], 0, -1)
    with pytest.raises(ValueError, match="channels"):
        decode([clip, encoded(tone(0.1, 0, channels=2), "wav")], channels=None)
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        fastaug.load("gone.wav")
