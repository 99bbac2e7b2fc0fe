"""Batches: mixed codecs and rates, several crops of a member, bad members among good ones, any kind of buffer."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import fastaug
from corpus import KINDS, encoded, tone
from fastaug.codecs import DecodeError, Status, decode, describe, open_audio
from fastaug.functional import mix_down, resample

DATA = Path(os.environ.get("FASTAUG_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
NATIVE = ("wav", "flac")
RATES = (8_000, 22_050, 44_100, 48_000)


def clips(count: int, seconds: float = 0.6) -> list[bytes]:
    """Codecs, rates and channels mixed."""
    return [
        encoded(tone(seconds + 0.01 * i, i, RATES[i // 3 % 4], 1 + i % 2), NATIVE[i % 2], RATES[i // 3 % 4])
        for i in range(count)
    ]


def expected(data: bytes, start: int, length: int, rate: int | None) -> torch.Tensor:
    """By the other way: the whole, mixed, resampled, cut."""
    whole, own = fastaug.load(data)
    mixed = mix_down(whole)
    out = mixed if rate is None else resample(mixed, own, rate)
    padded = torch.nn.functional.pad(out, (max(-start, 0), max(start + length - out.shape[1], 0)))
    begin = max(start, 0) if start >= 0 else 0
    return padded[:, begin : begin + length]


@pytest.mark.parametrize("rate", [None, 16_000, 22_050, 44_100])
def test_a_batch_is_its_crops(rate: int | None) -> None:
    batch = clips(12)
    rng = np.random.default_rng(0)
    starts = rng.integers(-500, 30_000, (3, len(batch)))
    lengths = rng.integers(0, 4_000, (3, len(batch)))
    samples, status = decode(batch, starts, lengths, rate)
    assert samples.shape == (3, 12, 1, lengths.max()) and not status.any()
    for v, b in np.ndindex(3, len(batch)):
        n = lengths[v, b]
        assert torch.equal(samples[v, b, :, :n], expected(batch[b], int(starts[v, b]), int(n), rate)), (v, b)
        assert not samples[v, b, :, n:].any()


def test_threads_and_batch_mates_change_nothing() -> None:
    batch = clips(24)
    starts = np.arange(48).reshape(2, 24) * 300
    one, two, many = (decode(batch, starts, 3_000, 22_050, num_threads=n)[0] for n in (1, 2, 7))
    assert torch.equal(one, two) and torch.equal(one, many)
    for b in (0, 5, 23):
        alone, _ = decode(batch[b : b + 1], starts[:1, b], 3_000, 22_050)
        assert torch.equal(alone[0], one[0, b])


@pytest.mark.parametrize("threads", [2, 7])
def test_a_batch_of_many_large_pages(threads: int) -> None:
    data = [encoded(tone(3.0, i, 44_100, 2), "wav", 44_100) for i in range(4)] * 12
    starts, length = np.arange(48) * 50, 59_049
    one, _ = decode(data, starts, length, 22_050, num_threads=1)
    for _ in range(3):  # fresh memory, and such as an earlier result had
        many, status = decode(data, starts, length, 22_050, num_threads=threads)
        assert torch.equal(many, one) and not status.any()
        many.fill_(7.0)
        del many


def test_a_process_forked_after_threads_have_run_decodes_on_threads() -> None:
    """Neither OpenMP's threads nor any others have come along: waiting for them would last for ever."""
    batch = [*clips(6), encoded(tone(0.6, 7), "ogg"), encoded(tone(0.6, 8, 44_100), "mp3", 44_100)]
    before, _ = decode(batch, 100, 5_000, 22_050, num_threads=2)
    torch.ones(1 << 20).add_(1.0)  # torch's own threads
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(30)
            for _ in range(3):
                again, status = decode(batch, 100, 5_000, 22_050, num_threads=2)
                if not np.array_equal(again.numpy(), before.numpy()) or status.numpy().any():
                    os._exit(2)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.equal(decode(batch, 100, 5_000, 22_050, num_threads=2)[0], before)


@pytest.mark.parametrize("kind", NATIVE)
def test_crops_of_one_member_overlap_touch_and_lie_apart(kind: str) -> None:
    data = encoded(tone(8.0, 1, 44_100, 2), kind, 44_100)
    starts = np.array([0, 100, 100, 50_000, 49_000, 52_000, 120_000, -700, 176_000, 400_000])[:, None]
    for rate, channels in ((None, 1), (22_050, 1), (22_050, 2), (44_100, None)):
        samples, status = decode([data], starts, 3_000, rate, channels)
        assert not status.any()
        for v, start in enumerate(starts[:, 0].tolist()):
            alone, _ = decode([data], start, 3_000, rate, channels)
            assert torch.equal(samples[v], alone)
        assert torch.equal(samples[1], samples[2])


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_ranges_of_flac_at_every_rate(channels: int) -> None:
    data = encoded(tone(1.5, 4, 44_100, channels), "flac", 44_100)
    for rate in (None, 22_050, 48_000, 16_000):
        whole, _ = fastaug.load(data, sample_rate=rate)
        for start in (0, 1, 4_095, 4_096, 20_000, whole.shape[1] - 1, whole.shape[1] - 50):
            part, _ = fastaug.load(data, start, 777, rate)
            wanted = whole[:, start : start + 777]
            assert torch.equal(part[:, : wanted.shape[1]], wanted) and not part[:, wanted.shape[1] :].any()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_mean_of_flac_is_that_of_mix_down(channels: int) -> None:
    data = encoded(tone(0.5, 6, channels=channels), "flac")
    whole, _ = fastaug.load(data)
    assert torch.equal(decode([data])[0][0], mix_down(whole))


@pytest.mark.parametrize("kind", NATIVE)
def test_a_long_crop_in_pieces_with_zeros_around(kind: str) -> None:
    data = encoded(tone(30.0, 7, 44_100), kind, 44_100)
    for rate in (None, 22_050):
        whole, _ = fastaug.load(data, sample_rate=rate)
        total = whole.shape[1]
        samples, status = decode([data], [[-700], [0]], total + 1_900, rate, num_threads=2)
        assert not status.any()
        assert torch.equal(samples[0, 0], torch.nn.functional.pad(whole, (700, 1_200)))
        assert torch.equal(samples[1, 0], torch.nn.functional.pad(whole, (0, 1_900)))


def test_of_several_pieces_the_first_trouble_is_told() -> None:
    data = bytearray(encoded(tone(30.0, 7, 44_100), "flac", 44_100))
    places = len(data) // 4, 3 * len(data) // 4
    for place in places:
        data[place] ^= 0x55
    samples, status = decode([data], num_threads=2)
    assert status.tolist() == [Status.CORRUPT] and not samples.any()
    (line,) = describe(status, [data])
    assert abs(int(line.split("at byte ")[1].split()[0]) - places[0]) < 20_000


def damaged_flac() -> tuple[bytes, int]:
    """Four seconds with one bad byte near the middle, and about which sample it spoils."""
    data = bytearray(encoded(tone(4.0, 0), "flac"))
    data[len(data) // 2] ^= 0x55
    return bytes(data), 32_000


def test_damage_is_told_only_by_crops_that_hear_it() -> None:
    data, place = damaged_flac()
    starts = [[0], [place - 6_000], [place + 8_000], [place - 9_500]]  # they overlap: decoded as one, judged apart
    samples, status = decode([data], starts, 12_000)
    assert (status[:, 0] != 0).tolist() == [False, True, False, True]
    whole, _ = fastaug.load(encoded(tone(4.0, 0), "flac"))
    assert torch.equal(samples[0, 0], whole[:, :12_000]) and torch.equal(samples[2, 0], whole[:, 40_000:52_000])
    assert not samples[1].any() and not samples[3].any()
    lines = describe(status, [data], starts, 12_000)
    assert len(lines) == 2 and all("at byte" in line for line in lines) and lines[0].startswith("view 1 of example 0")


BAD = {
    Status.EMPTY: b"",
    Status.UNSUPPORTED: b"just some text, by no means audio" * 9,
    Status.NO_FORMAT: b"RIFF\x24\0\0\0WAVE",
    Status.NO_DATA: encoded(tone(0.1, 0), "flac")[:60],
    Status.TRUNCATED: encoded(tone(4.0, 0), "flac")[:40_000],
    Status.NOT_FOUND: "/nowhere/gone.wav",
}


def test_bad_members_leave_the_others_untouched() -> None:
    good = clips(6)
    mixed: list[bytes | str] = []
    for clip, bad in zip(good, BAD.values(), strict=True):
        mixed += [clip, bad]
    for rate in (None, 22_050):
        samples, status = decode(mixed, 3_000 if rate else 60_000, 2_000, rate)
        if rate is None:
            assert status[1::2].tolist() == list(BAD)
        assert not status[0::2].any() and not samples[1::2][status[1::2] != 0].any()
        assert torch.equal(samples[0::2], decode(good, 3_000 if rate else 60_000, 2_000, rate)[0])
    lines = describe(*decode(mixed, 60_000, 2_000)[1:], mixed, 60_000, 2_000)
    assert len(lines) == 6 and "gone.wav: no such audio file" in lines[-1] and "announced" in lines[-2]


def test_other_channels_are_a_status() -> None:
    six, two, one = (encoded(tone(0.2, 0, channels=c), "wav") for c in (6, 2, 1))
    samples, status = decode([six, two, one], 0, 100, channels=2)
    assert status.tolist() == [Status.CHANNELS, 0, 0] and samples.shape == (3, 2, 100)
    assert torch.equal(samples[2, 0], samples[2, 1]) and not torch.equal(samples[1, 0], samples[1, 1])
    with pytest.raises(ValueError, match=r"\[1, 2, 6\] channels"):
        decode([six, two, one], channels=None)


@pytest.mark.parametrize("kind", KINDS)
def test_any_buffer_is_read_in_place(kind: str, tmp_path: Path) -> None:
    data = encoded(tone(0.5, 2, channels=2), kind)
    path = tmp_path / "name that says nothing"
    path.write_bytes(b"before" + data + b"behind")
    (tmp_path / "alone").write_bytes(data)
    whole, part = fastaug.load(data)[0], fastaug.load(data, 100, 500)[0]
    array = np.frombuffer(data, np.uint8)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)[6 : 6 + len(data)]
        buffers = [data, bytearray(data), view, array, torch.tensor(array), tmp_path / "alone", str(tmp_path / "alone")]
        for buffer in [*buffers, np.repeat(array, 2)[::2]]:
            assert torch.equal(fastaug.load(buffer)[0], whole)
        samples, status = decode(buffers, 100, 500, channels=None)
        assert not status.any() and all(torch.equal(row, part) for row in samples)
        del buffers, buffer
        view.release()
    with pytest.raises(TypeError, match="uint8"):
        fastaug.load(array.astype(np.int32))


def test_the_interpreter_runs_meanwhile() -> None:
    data = [encoded(tone(20.0, 0, 44_100, 2), "wav", 44_100)] * 8
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    begin = time.perf_counter()
    decode(data, 0, None, 48_000, num_threads=1)
    end = time.perf_counter()
    stop.set()
    thread.join()
    inside = [t for t in ticks if begin < t < end]
    # Had the call kept the GIL, one gap would fill nearly all of it.
    assert len(inside) > 3 and max(np.diff([begin, *inside, end])) < 0.5 * (end - begin)


def test_a_cut_flac_announces_its_length_and_orders_no_memory_for_it() -> None:
    whole = encoded(tone(4.0, 0), "flac")
    total = 1 << 35
    at = whole.index(b"fLaC") + 8 + 13
    header = int.from_bytes(whole[at : at + 5], "big")
    lying = whole[:at] + (header >> 36 << 36 | total).to_bytes(5, "big") + whole[at + 5 :]
    assert fastaug.info(lying).frames == total
    with open_audio(lying) as audio, pytest.raises(DecodeError, match=f"ends at sample 64000 of {total} announced"):
        audio.read(0, total)
    with pytest.raises(DecodeError, match="ends at sample 64000"):
        fastaug.load(lying)
    assert decode([lying])[1].tolist() == [Status.TRUNCATED]
    assert torch.equal(fastaug.load(lying, 0, 64_000)[0], fastaug.load(whole)[0])


def test_no_members_no_views_no_samples() -> None:
    data = encoded(tone(0.1, 0), "wav")
    assert decode([], 0, 10)[0].shape == decode([])[0].shape == (0, 1, 0)
    samples, status = decode([data], 0, 0)
    assert samples.shape == (1, 1, 0) and status.tolist() == [0]
    samples, status = decode([data], np.zeros((0, 1), int), 5)
    assert samples.shape == (0, 1, 1, 0) and status.shape == (0, 1)


@pytest.mark.parametrize("far", [2**62, -(2**62), 2**63 - 1, -(2**63)])
def test_starts_beyond_all_files(far: int) -> None:
    for kind in KINDS:
        samples, status = decode([encoded(tone(0.1, 0), kind)], far, 20, 22_050)
        assert not samples.any() and status.tolist() == [0]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no recordings at {DATA} (FASTAUG_TEST_DATA)")
def test_every_file_decodes_or_says_why() -> None:
    """And what libsndfile decodes through the same formats has its samples."""
    import soundfile

    seen = {"equal": 0, "other": 0, "failed": 0}
    for path in sorted(p for p in DATA.rglob("*") if p.is_file() and p.suffix not in ("", ".md", ".txt")):
        try:
            samples, rate = fastaug.load(path)
        except DecodeError as error:
            assert path.name in str(error) and str(error).endswith(str(error).strip())
            seen["failed"] += 1
            continue
        assert rate > 0 and bool(torch.isfinite(samples).all())
        seen["other"] += 1
        if path.suffix in (".wav", ".flac"):
            try:
                theirs, _ = soundfile.read(str(path), dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                continue  # FLAC that libsndfile refuses
            n = min(len(theirs), samples.shape[1])  # an MP3 inside WAV ends a granule apart
            assert torch.equal(samples[:, :n], torch.from_numpy(theirs.T.copy())[:, :n]), path
            seen["equal"] += 1
    assert seen["equal"] > 350 and seen["failed"] < 0.1 * sum(seen.values())
