"""csrc/cuda/mp3_*.cu in emulation: integer lines equal to the CPU decoder's, samples within 1e-6 of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mp3_writer as mw
from emulation import Emulated, emulate, emulate_source
from fastaug.codecs import Status, decode, device_mp3
from fastaug.codecs.device import DeviceBatch, decode_on_device
from fastaug.codecs.native import Members, Wanted
from fastaug.codecs.staging import Staging
from fastaug.ops import _cuda
from mp3_writer import EMPTY, LONG, SHORT, START, STOP, Frame, Granule
from test_mp3 import lame, needs_lame
from test_mp3_frames import (
    KINDS,
    LSF_INTENSITY,
    LSF_SPLITS,
    band_factors,
    frames_of,
    intensity_frames,
    pair_values,
    spectrum,
)
from test_wav import noise, written

CLOSE = 1e-6
_CROP = np.dtype([(name, np.int64) for name in ("member", "row", "low", "high", "to", "stride", "status")])


class Emulator:
    """Stands in for `fastaug.ops._cuda.launch`."""

    def __init__(self, count: bool = False) -> None:
        self.count, self.args, self.reports = count, {}, {}  # type: bool, dict[str, Any], dict[str, Report]

    def __call__(self, file: str, name: str, grid: Any, block: Any, args: Any, shared_bytes: int = 0) -> None:
        self.args[name] = args
        self.reports[name] = emulate(file).launch(name, grid, block, args, shared_bytes, count=self.count)


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    found = Emulator()
    monkeypatch.setattr(_cuda, "launch", found)
    return found


def on_device(
    encoded: Sequence[bytes], starts: Sequence[int], length: int, channels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples (B, C, T), statuses of the host, flags of the device."""
    members = Members(list(encoded), [str(i) for i in range(len(encoded))], 1)
    assert (members.table["status"] == 0).all() and (members.table["format"] == 4).all()
    crops = np.zeros(len(encoded), _CROP)
    crops["member"] = crops["row"] = np.arange(len(encoded))
    frames = members.table["frames"]
    crops["low"] = np.clip(starts, 0, frames)
    crops["high"] = np.clip(np.array(starts) + length, 0, frames)
    crops["to"] = np.arange(len(encoded)) * channels * length + crops["low"] - starts
    crops["stride"] = length
    samples, status = torch.zeros(len(encoded), channels, length), torch.zeros(len(encoded), dtype=torch.int32)
    staging = Staging("cpu")
    parts = device_mp3.stage_mp3(members, crops, staging, 1)
    staged = staging.upload()
    for part in parts:
        device_mp3.launch_mp3(part, staged, samples, None, status)
    return samples.numpy(), crops["status"], status.numpy()


def check(encoded: Sequence[bytes], starts: Sequence[int], length: int, source: int, loud: float = 0.05) -> np.ndarray:
    """Every number of channels against the CPU decoder; returns the samples of all channels."""
    found = np.zeros(0)
    for channels in {1, source}:
        found, refused, flagged = on_device(encoded, starts, length, channels)
        expected, status = decode(list(encoded), np.array(starts), length, channels=channels)
        assert not status.any() and not refused.any() and not flagged.any()
        peak = max(1.0, float(expected.abs().max()))
        assert peak > loud
        assert np.abs(found - expected.numpy()).max() <= CLOSE * peak
    return found


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cpu() -> Emulated:
    return emulate_source((Path(__file__).parent / "mp3_lines.h").read_text())


def check_lines(cpu: Emulated, emulator: Emulator, data: bytes, channels: int) -> None:
    """All units of a file that begins with its first frame of sound and has no tag."""
    frames = int(Members([data], ["one"], 1).table["frames"][0])
    on_device([data], [0], frames, channels)
    _, _, _, _, counts, rows, total, _ = emulator.args["fa_mp3_lines_kernel"]
    units = len(counts)
    lines, theirs = np.zeros((units, 576), np.int16), np.zeros(units, np.int32)
    factors = np.zeros((units, 40), np.uint8)
    padded = np.frombuffer(data + bytes(4096), np.uint8)
    cpu.launch("cpu_lines", (1,), (1,), (padded, len(data), lines, theirs, factors), count=False)
    whole = rows.numpy().reshape(units, 304)
    assert total == units and (counts.numpy() == theirs).all() and theirs.max() > 4
    ours = whole[:, 16:].copy().view(np.int16)
    written = np.arange(576) < theirs[:, None]
    assert (ours[written] == lines[written]).all() and not lines[~written].any()
    head = whole[:, :10].copy().view(np.uint8) & 127
    granule1 = np.arange(units) // channels % 2 == 1
    assert (head[~granule1] == factors[~granule1])[:, :39].all()
    assert ((head == factors) | (head == 0))[:, :39].all()  # shared ones are taken from granule 0


FILES = [
    (44_100, 2, "-b 128 -t"),
    (44_100, 2, "-b 320 -t"),
    (44_100, 2, "-V 4 -t"),
    (44_100, 1, "-b 64 -t"),
    (22_050, 2, "-b 32 -t"),
    (8_000, 1, "-b 8 -t"),
]


@needs_lame
@pytest.mark.parametrize(("rate", "channels", "options"), FILES)
def test_lines_equal_the_cpu_decoder(cpu: Emulated, emulator: Emulator, rate: int, channels: int, options: str) -> None:
    check_lines(cpu, emulator, lame(rate, channels, options, 0.4), channels)


# --- samples ---------------------------------------------------------------------------------------------------------


@needs_lame
@pytest.mark.parametrize(("rate", "channels", "options"), FILES)
def test_samples_are_close_to_the_cpu_decoder(emulator: Emulator, rate: int, channels: int, options: str) -> None:
    data = lame(rate, channels, options.replace(" -t", ""), 0.6)
    check([data] * 3, [0, rate // 4, rate // 2], 2500, channels)


@needs_lame
def test_crops_at_both_ends_and_outside_of_a_file(emulator: Emulator) -> None:
    data = lame(44_100, 2, "-b 128", 0.6)
    total = int(Members([data], ["one"], 1).table["frames"][0])
    check([data] * 4, [-700, total - 900, total + 10, 5000], 1900, 2)
    check([data] * 2, [1, 577], 1, 2, loud=0.0)


@needs_lame
def test_members_of_all_kinds_in_one_batch(emulator: Emulator) -> None:
    """Rates, versions and channels side by side; a result does not depend on its batch-mates."""
    kinds = [(44_100, 2, "-V 4"), (8_000, 1, "-b 8"), (22_050, 2, "-b 32"), (48_000, 1, "-b 64")]
    encoded = [lame(*kind, 0.6) for kind in kinds]
    expected = on_device(encoded, [1000] * 4, 2000, 1)[0]
    for i, (data, (_, channels, _)) in enumerate(zip(encoded, kinds, strict=True)):
        check([data], [1000], 2000, channels)
        assert np.array_equal(on_device([data], [1000], 2000, 1)[0][0], expected[i])


@needs_lame
def test_mono_is_repeated_in_a_wider_batch(emulator: Emulator) -> None:
    data = lame(44_100, 1, "-b 64", 0.6)
    got = on_device([data], [4000], 2000, 2)[0][0]
    assert np.abs(got).max() > 0.1 and np.array_equal(got[0], got[1])


@needs_lame
@pytest.mark.parametrize("options", ["-b 128", "-b 320"])
def test_a_stream_cut_from_a_longer_one(emulator: Emulator, options: str) -> None:
    """Frames whose reservoir was cut off are silent, and no fault."""
    data = lame(44_100, 2, options)
    check([data[len(data) // 3 :]], [0], 8000, 2)


@needs_lame
def test_many_launches_equal_one(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    data = lame(44_100, 2, "-b 128", 0.6)
    starts = [0, 3000, 9000, 12_000, 15_000]
    expected = on_device([data] * 5, starts, 1500, 2)[0]
    for limit, value in (("_MOST_UNITS", 50), ("_MOST_BYTES", 5000), ("_MOST_CROPS", 2), ("_MOST_UNITS", 1)):
        monkeypatch.setattr(device_mp3, limit, value)
        emulator.args.clear()
        assert np.array_equal(on_device([data] * 5, starts, 1500, 2)[0], expected)
        assert len(emulator.args["fa_mp3_samples_kernel"][4]) < 5 * 72


# --- frames by hand --------------------------------------------------------------------------------------------------


def check_frames(cpu: Emulated, emulator: Emulator, frames: Sequence[Frame]) -> None:
    """Lines and samples of these frames between silent ones."""
    frames = [mw.silent(frames[0]), *frames, *[mw.silent(frames[0])] * 2]
    data, channels = mw.stream(frames), frames[0].channels
    check_lines(cpu, emulator, data, channels)
    length = int(Members([data], ["one"], 1).table["frames"][0])
    check([data], [0], length, channels, loud=1e-3)


@pytest.mark.parametrize("number", [1, 5, 9, 13, 15, 16, 23, 24, 31])
def test_codes_of_a_table(cpu: Emulated, emulator: Emulator, number: int) -> None:
    """Extra bits and the longest codes among them."""
    lines = pair_values(number, long_values=True)
    gain = 210 - int(4 * np.log2(max(max(map(abs, lines)), 1) ** (4 / 3) / 0.1))
    granules = [
        Granule(part, gain, tables=(number,) * 3, big=len(part) // 2, regions=(7, 4))
        for part in (lines[at : at + 128] for at in range(0, len(lines), 128))
    ]
    check_frames(cpu, emulator, frames_of([each for g in granules for each in (g, EMPTY)], 0))


@pytest.mark.parametrize("table", [0, 1])
@pytest.mark.parametrize("big", [0, 1, 2, 285])
def test_quadruples_behind_pairs(cpu: Emulated, emulator: Emulator, table: int, big: int) -> None:
    """From even and odd pairs on, up to the last four lines."""
    lines = np.random.default_rng(big).integers(-1, 2, 576)
    lines[-2 if big % 2 else 576 :] = 0
    granule = Granule(lines.tolist(), 180, tables=(1, 1, 1), big=big, quadruples=table)
    check_frames(cpu, emulator, frames_of([granule, replace(granule, lines=lines[:300].tolist())], 0))


@pytest.mark.parametrize("number", [22, 23, 31])
def test_pairs_with_extra_bits_for_both(cpu: Emulated, emulator: Emulator, number: int) -> None:
    """From every bit of a word on: the window must be filled again between the two."""
    top = 14 + (1 << int(mw.LINBITS[number]))
    rng = np.random.default_rng(number)
    lines = [(rng.integers(top // 2, top, 140) * rng.choice([-1, 1], 140)).tolist() for _ in range(4)]
    granules = [Granule(part[n:], 150, tables=(number,) * 3) for n, part in enumerate(lines)]
    check_frames(cpu, emulator, frames_of([each for g in granules for each in (g, EMPTY)], 0))


def test_bits_behind_the_last_line(cpu: Emulated, emulator: Emulator) -> None:
    lines = np.random.default_rng(0).integers(-1, 2, 574).tolist()
    for big, told in ((287, 1700), (286, 1700), (288, 1700), (0, 1500)):
        granule = Granule(lines[: 2 * big or 572], 180, tables=(1, 1, 1), big=big, told_bits=told)
        check_frames(cpu, emulator, frames_of([granule, EMPTY], 0))


def test_bits_that_run_out(cpu: Emulated, emulator: Emulator) -> None:
    whole = Granule([2, -1, 1, 2] * 40 + [1, 0, -1, 1] * 20, 190, tables=(5, 5, 5), big=80)
    for channels in (1, 2):
        granules = [replace(whole, told_bits=bits) for bits in (0, 1, 40, 333, 680, 700, 720, 721)]
        frames = [Frame([[g] * channels, [EMPTY] * channels], 0) for g in granules]
        check_frames(cpu, emulator, frames)


@pytest.mark.parametrize("rate", range(9))
def test_regions_and_kinds_of_blocks(cpu: Emulated, emulator: Emulator, rate: int) -> None:
    lines = np.sign(spectrum(9, 576, 40)).tolist()
    granules = [Granule(lines, 190, tables=(2, 5, 7), regions=(n % 16, n % 8), big=288) for n in range(0, 128, 29)]
    for n, (block, mixed) in enumerate([(START, False), (SHORT, False), (SHORT, True), (STOP, True), (START, True)]):
        gains = (n, 7 - n, 3)
        granules.append(Granule(lines, 200, tables=(2, 5), big=288, block=block, mixed=mixed, subblock_gain=gains))
    check_frames(cpu, emulator, frames_of(granules, rate))


@pytest.mark.parametrize("compress", [1, 7, 15])
def test_factors_of_mpeg_1(cpu: Emulated, emulator: Emulator, compress: int) -> None:
    kinds = [Granule(block=LONG), Granule(block=SHORT), Granule(block=SHORT, mixed=True), Granule(block=STOP)]
    granules = []
    for n in range(8):
        g = replace(kinds[n % 4], lines=spectrum(n, 576, 20), gain=175, compress=compress, scale=n // 4)
        granules.append(replace(g, factors=band_factors(0, g, n), preflag=int(g.block != SHORT and n > 0)))
    check_frames(cpu, emulator, frames_of(granules, compress % 3))


@pytest.mark.parametrize("shared", [1, 6, 15])
@pytest.mark.parametrize("channels", [1, 2])
def test_factors_shared_with_the_first_granule(cpu: Emulated, emulator: Emulator, shared: int, channels: int) -> None:
    g = Granule(spectrum(1, 576), 190, compress=15)
    first, second = (replace(g, factors=band_factors(0, g, n)) for n in (1, 2))
    frame = Frame([[first] * channels, [second] * channels], 0, shared=(shared, 15 - shared))
    check_frames(cpu, emulator, [frame])


@pytest.mark.parametrize("rate", [3, 8])
def test_factors_of_the_lower_rates(cpu: Emulated, emulator: Emulator, rate: int) -> None:
    granules = []
    for n, compress in enumerate(LSF_SPLITS):
        block, mixed = [(LONG, False), (SHORT, False), (SHORT, True), (STOP, False)][n % 4]
        g = Granule(spectrum(n, 576, 20), 190, compress=compress, block=block, mixed=mixed, scale=n & 1)
        granules.append(replace(g, factors=band_factors(rate, g, n)))
    check_frames(cpu, emulator, frames_of(granules, rate))


@pytest.mark.parametrize("ms", [False, True])
@pytest.mark.parametrize(("block", "mixed"), KINDS)
def test_intensity_of_mpeg_1(cpu: Emulated, emulator: Emulator, block: int, mixed: bool, ms: bool) -> None:
    check_frames(cpu, emulator, intensity_frames(0, block, mixed, ms, 13, range(6)))


@pytest.mark.parametrize("ms", [False, True])
@pytest.mark.parametrize(("block", "mixed"), KINDS)
@pytest.mark.parametrize("compress", LSF_INTENSITY)
def test_intensity_of_the_lower_rates(
    cpu: Emulated, emulator: Emulator, compress: int, block: int, mixed: bool, ms: bool
) -> None:
    check_frames(cpu, emulator, intensity_frames(4, block, mixed, ms, compress + ms, range(6)))


def test_channels_with_unlike_blocks(cpu: Emulated, emulator: Emulator) -> None:
    """Where the mean of the channels needs two transforms."""
    kinds = [(LONG, False), (START, False), (SHORT, False), (SHORT, True), (STOP, False), (START, True)]
    granules = [Granule(spectrum(n, 500), 190, block=b, mixed=m) for n, (b, m) in enumerate(kinds)]
    pairs = [[a, b] for a in granules for b in granules]
    for ms in (False, True):
        check_frames(cpu, emulator, [Frame(pairs[i : i + 2], 0, ms=ms) for i in range(0, 36, 2)])


# --- batches ---------------------------------------------------------------------------------------------------------


@needs_lame
@pytest.mark.parametrize("out_rate", [22_050, 48_000])
def test_batches_are_mixed_and_resampled(emulator: Emulator, out_rate: int) -> None:
    """Members of all formats, some rows outside of their file, to one rate: within 110 dB of the CPU."""
    encoded = [
        lame(44_100, 2, "-b 128", 0.6),
        lame(22_050, 2, "-b 32", 0.6),
        written(noise(9000, 2, 1), "PCM_16", rate=44_100),
    ]
    starts = np.array([[3000, 100, 5], [-50, out_rate // 2, 700]])
    spans = [(b, int(start)) for row in starts for b, start in enumerate(row)]
    members = Members(encoded, ["a", "b", "c"], 1)
    columns = (np.array(column) for column in zip(*spans, strict=True))
    wanted = Wanted(next(columns), np.arange(6), next(columns), np.full(6, 1500))
    samples, failed = decode_on_device(members, wanted, out_rate, (6, 1, 1500), "cpu", 1)
    expected, status = decode(encoded, starts, 1500, out_rate)
    assert not failed and not status.any()
    error = (samples.view(2, 3, 1, 1500) - expected).double().square().mean((2, 3))
    assert (10 * torch.log10(error / expected.double().square().mean((2, 3))) < -110).all()


@needs_lame
def test_what_the_device_flags_the_cpu_decodes(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    data = lame(44_100, 2, "-b 128", 0.6)
    members = Members([data] * 2, ["a", "b"], 1)
    wanted = Wanted(np.arange(2), np.arange(2), np.array([1000, 2000]), np.full(2, 1500))
    run = Emulator.__call__

    def lying(self: Emulator, file: str, name: str, grid: Any, block: Any, args: Any, shared_bytes: int = 0) -> None:
        if name == "fa_mp3_lines_kernel":
            args[2].view(torch.int32).view(-1, 4)[12, 2] = -1
        run(self, file, name, grid, block, args, shared_bytes)

    monkeypatch.setattr(Emulator, "__call__", lying)
    batch = DeviceBatch(members, wanted, None, (2, 2, 1500), "cpu", 1)
    expected, _ = decode([data] * 2, np.array([1000, 2000]), 1500, channels=2)
    assert not torch.equal(batch.samples[0], expected[0])
    assert not batch.finish()
    assert torch.equal(batch.samples[0], expected[0])


# --- damage ----------------------------------------------------------------------------------------------------------


def test_frames_that_contradict_themselves_are_refused(emulator: Emulator) -> None:
    good = Granule(spectrum(1, 300), 190)
    quiet = Frame([[EMPTY], [EMPTY]], 0)
    for bad in (replace(good, told_big=300), replace(good, told_bits=4000)):
        data = mw.stream([quiet, Frame([[bad], [good]], 0, kbps_index=7), quiet, quiet])
        _, refused, flagged = on_device([data, mw.stream([Frame([[good], [good]], 0)] * 4)], [0, 0], 4000, 1)
        _, status = decode([data], 0, 4000)
        assert refused.tolist() == [status[0], 0] == [Status.CORRUPT, 0]
        assert not flagged.any()


@needs_lame
def test_descriptors_that_lie_are_flagged_and_nothing_else_is_read(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device believes no number: a unit outside the main data, or with too many lines, flags its crop."""
    data = lame(44_100, 2, "-b 128", 0.6)
    expected = on_device([data] * 3, [0, 5000, 9000], 2000, 2)[0]
    units = len(emulator.args["fa_mp3_lines_kernel"][4])
    run, lie = Emulator.__call__, [0, 0]

    def lying(self: Emulator, file: str, name: str, grid: Any, block: Any, args: Any, shared_bytes: int = 0) -> None:
        if name == "fa_mp3_lines_kernel":
            described = args[2].view(torch.int32).view(-1, 4)
            described[units // 2, lie[0]] = lie[1]
        run(self, file, name, grid, block, args, shared_bytes)

    monkeypatch.setattr(Emulator, "__call__", lying)
    for lie[0], lie[1] in ((2, -1), (2, 0x7FFFFFFF), (0, 0x000FFFFF), (0, -1)):
        got, refused, flagged = on_device([data] * 3, [0, 5000, 9000], 2000, 2)
        assert flagged.tolist() == [0, 1, 0] and not refused.any()
        assert np.array_equal(got[[0, 2]], expected[[0, 2]])


@needs_lame
def test_noise_in_place_of_main_data_is_decoded_as_the_cpu_does(cpu: Emulated, emulator: Emulator) -> None:
    """Codes of nothing, that run over their ends: the emulator refuses loads outside the buffer."""
    data = bytearray(lame(44_100, 2, "-b 128 -t --nores", 0.4))
    rng = np.random.default_rng(0)
    at = 0
    while (at := data.find(b"\xff\xfb", at)) >= 0 and at + 417 <= len(data):
        data[at + 36 : at + 417] = rng.integers(0, 255, 381, np.uint8).tobytes()  # no sync words: no byte is 255
        at += 417
    check_lines(cpu, emulator, bytes(data), 2)
    length = int(Members([bytes(data)], ["one"], 1).table["frames"][0])
    check([bytes(data)], [0], length, 2)


@needs_lame
def test_damage_anywhere_is_what_it_is_on_the_cpu(emulator: Emulator) -> None:
    """Flipped bits in headers, side information and main data: the same statuses, and samples where there are any."""
    whole, rng, data = lame(44_100, 2, "-b 128 -t", 0.3), np.random.default_rng(1), []
    for i in range(40):
        broken = bytearray(whole)
        for _ in range(4):
            frame = 417 * int(rng.integers(3, 9)) + int(rng.integers(0, 6))
            broken[frame + int(rng.integers(0, 40 if i % 2 else 400))] ^= 1 << int(rng.integers(8))
        data.append(bytes(broken))
    frames = Members(data, [str(i) for i in range(40)], 1).table["frames"]
    data = [each for each, n in zip(data, frames, strict=True) if n >= 9000]
    found, refused, flagged = on_device(data, [2000] * len(data), 5000, 1)
    expected, status = decode(data, 2000, 5000)
    assert refused.tolist() == status.tolist() and not flagged.any()
    right = np.flatnonzero(refused == 0)
    assert 10 < len(right) < len(data)
    peak = expected.abs().amax((1, 2)).clamp(min=1).numpy()
    assert (np.abs(found - expected.numpy()).max((1, 2))[right] <= CLOSE * peak[right]).all()


# --- memory ----------------------------------------------------------------------------------------------------------


@needs_lame
def test_sectors(emulator: Emulator) -> None:
    """Stores are whole sectors; samples are read once. Main data are read word by word along each thread's own bits:
    seven of eight loads find their sector in L1 (a reason, not a fault)."""
    emulator.count = True
    on_device([lame(44_100, 2, "-b 128", 0.6)] * 2, [1000, 9000], 9000, 1)
    lines, samples = (emulator.reports[f"fa_mp3_{name}_kernel"] for name in ("lines", "samples"))
    print(lines, samples, sep="\n")
    stores = [site for report in (lines, samples) for site in report.sites if site.store and site.accesses > 500]
    assert len(stores) == 2
    for site in stores:
        assert site.sectors <= 1.5 * site.minimum, site
    assert samples.ratio < 1.5


# --- a GPU -----------------------------------------------------------------------------------------------------------


@needs_lame
@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, None])
@pytest.mark.parametrize(("rate", "source", "options"), FILES)
def test_decode_on_a_gpu_is_close_to_the_cpu(rate: int, source: int, options: str, channels: int | None) -> None:
    data = [lame(rate, source, options.replace(" -t", ""), seconds) for seconds in (0.6, 2.5)] * 40
    starts = np.arange(160).reshape(2, 80) * (rate // 100) - 300
    cpu, _ = decode(data, starts, rate, channels=channels)
    gpu, status = decode(data, starts, rate, channels=channels, device="cuda")
    assert gpu.is_cuda and not status.any()
    assert (gpu.cpu() - cpu).abs().max() <= CLOSE * max(1.0, float(cpu.abs().max()))


@needs_lame
@pytest.mark.gpu
def test_frames_by_hand_on_a_gpu() -> None:
    kinds = [(LONG, False), (START, False), (SHORT, False), (SHORT, True), (STOP, False), (START, True)]
    granules = [Granule(spectrum(n, 500), 190, block=b, mixed=m) for n, (b, m) in enumerate(kinds)]
    pairs = [[a, b] for a in granules for b in granules]
    data = [mw.stream([Frame(pairs[i : i + 2], 0, ms=ms) for i in range(0, 36, 2)]) for ms in (False, True)]
    data += [mw.stream(intensity_frames(0, block, mixed, True, 13, range(12))) for block, mixed in KINDS]
    for channels in (1, None):
        cpu, _ = decode(data, channels=channels)
        gpu, status = decode(data, channels=channels, device="cuda")
        assert not status.any() and (gpu.cpu() - cpu).abs().max() <= CLOSE * max(1.0, float(cpu.abs().max()))


@needs_lame
@pytest.mark.gpu
def test_damage_on_a_gpu_is_what_it_is_on_the_cpu() -> None:
    rng, whole = np.random.default_rng(0), lame(44_100, 2, "-b 128")
    data = []
    for _ in range(200):
        broken = bytearray(whole)
        for at in rng.integers(2000, len(whole), 20):
            broken[at] ^= 1 << int(rng.integers(8))
        data.append(bytes(broken))
    cpu, expected = decode(data, 20_000, 30_000)
    gpu, status = decode(data, 20_000, 30_000, device="cuda")
    assert torch.equal(status, expected)
    assert (gpu.cpu() - cpu).abs().max() <= CLOSE * max(1.0, float(cpu.abs().max()))
