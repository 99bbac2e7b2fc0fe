"""Decoding kernels in emulation, against the CPU: the whole path but for the device itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import flac_writer as fw
from emulation import Report, emulate
from fastaug.codecs import decode
from fastaug.codecs.device import DeviceBatch, Staging, decode_on_device
from fastaug.codecs.native import Members, Wanted, decode_into
from fastaug.ops import _cuda
from test_decode_batch import clips
from test_flac import encode, music, needs_flac
from test_wav import KINDS, noise, written


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[Report]]]:
    """Launches run in emulation, forwards and backwards; their reports by kernel. Fresh memory is full of NaN."""
    reports: dict[str, list[Report]] = {}

    def launch(
        file: str, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_bytes: int = 0
    ) -> None:
        if 0 in grid:
            return
        report = emulate(file).launch(name, grid, block, args, shared_bytes, count="sectors" in reports)
        reports.setdefault(name, []).append(report)

    monkeypatch.setattr(_cuda, "launch", launch)
    torch.use_deterministic_algorithms(True)
    yield reports
    torch.use_deterministic_algorithms(False)


def crops(encoded: Sequence[bytes], spans: Sequence[tuple[int, int, int]]) -> tuple[Members, Wanted]:
    """Spans of (member, start, length), a row each."""
    columns = [np.array(column, np.int64) for column in zip(*spans)]
    members = Members(encoded, [f"member {i}" for i in range(len(encoded))], 1)
    return members, Wanted(columns[0], np.arange(len(spans)), columns[1], columns[2])


def both(
    encoded: Sequence[bytes], spans: Sequence[tuple[int, int, int]], channels: int, rate: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, set[int], DeviceBatch]:
    """The CPU's samples and the emulated device's, the rows that the device refused, and its batch."""
    members, wanted = crops(encoded, spans)
    shape = (len(spans), channels, max(length for _, _, length in spans))
    expected = torch.full(shape, 7.0)
    assert not decode_into(members, wanted, rate, expected, 1)
    batch = DeviceBatch(members, wanted, rate, shape, "cpu", 1)
    refused = set(torch.nonzero(batch._status).flatten().tolist())
    return expected, batch.samples, refused, batch


def check(encoded: Sequence[bytes], spans: Sequence[tuple[int, int, int]], channels: int) -> None:
    expected, samples, refused, _ = both(encoded, spans, channels)
    assert not refused
    assert torch.equal(samples.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_wav_of_every_kind(launched: dict[str, list[Report]], kind: str, channels: int) -> None:
    data = [written(noise(length, channels, length), kind) for length in (9_001, 40, 1)]
    spans = [(0, 0, 9_001), (0, 17, 3_000), (0, 8_999, 2), (1, -5, 60), (2, 0, 1), (1, 100, 7), (0, 5, 5_000)]
    check(data, spans, 1)
    check(data, spans, channels)
    assert launched["fa_wav_kernel"]


# Options of the encoder, depth, channels: every depth, 1 to 8 channels, all stereo modes, block sizes 16 to 65535.
SETTINGS = [
    *(("-5", bits, 2) for bits in (8, 12, 16, 20, 24, 32)),
    *(("-8 -e -p", bits, 2) for bits in (16, 24)),
    *(("-5", 16, channels) for channels in (1, 3, 5, 8)),
    ("-l 32 -b 4096 -q 15", 24, 2),
    ("-l 32 -b 4096 -q 15", 32, 1),
    ("-0 -b 16", 16, 2),
    ("-5 -b 17", 16, 2),
    ("-8 -r 0,15 -b 32768", 16, 2),
    ("-0 -b 65535", 32, 3),
    ("-5 --disable-fixed-subframes", 32, 2),
    ("-0 --disable-constant-subframes", 16, 1),
]


@needs_flac
@pytest.mark.parametrize(("options", "bits", "channels"), SETTINGS)
def test_flac_of_the_encoder(
    launched: dict[str, list[Report]], tmp_path: Any, options: str, bits: int, channels: int
) -> None:
    small = "-b 1" in options
    length = 1_500 if small else 66_001 if "65535" in options or "32768" in options else 9_001
    data = encode(tmp_path, music(bits, channels, length, seed=bits), *options.split(), bits=bits)
    spans = [(0, 0, length), (0, length // 2, 300), (0, 1, 1), (0, length - 3, 3), (0, -7, 30)]
    check([data], spans if length < 20_000 else spans[1:], 1)
    if channels > 1:
        check([data], spans[1:], channels)
    assert all(launched[f"fa_flac_{name}_kernel"] for name in ("read", "restore", "place"))


def written_frame(
    kind: fw.Subframe | Sequence[fw.Subframe], x: np.ndarray, bits: int, stereo: int | None = None
) -> bytes:
    """A stream of two equal frames."""
    frames = [fw.frame(x, i, kind, bits=bits, stereo=stereo) for i in range(2)]
    length = x.shape[1]
    return fw.stream(frames, 2 * length, bits=bits, channels=len(x), smallest=max(length, 16), largest=max(length, 16))


def small_values(length: int, channels: int = 1, step: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-60, 60, (channels, length)) * step


KINDS_OF_SUBFRAMES: list[tuple[str, Any, np.ndarray, int]] = [
    ("constant", fw.Constant(), np.full((1, 40), -77), 16),
    ("constant with wasted bits", fw.Constant(wasted=3), np.full((1, 40), -80), 16),
    ("verbatim", fw.Verbatim(), small_values(40), 8),
    ("verbatim with wasted bits", fw.Verbatim(wasted=5), small_values(40, step=32), 24),
    *((f"fixed {n}", fw.Predicted(order=n), small_values(48), 16) for n in range(5)),
    ("fixed with wasted bits", fw.Predicted(order=2, wasted=4), small_values(48, step=16), 16),
    ("a block as long as its order", fw.Predicted(order=4, rice=fw.Rice((0,))), small_values(4), 16),
    ("one partition of warm-up only", fw.Predicted(order=4, rice=fw.Rice((3, 4, 5, 6))), small_values(16), 16),
    ("escaped", fw.Predicted(order=1, rice=fw.Rice((("raw", 9),))), small_values(32), 16),
    ("escaped, 0 bits", fw.Predicted(order=1, rice=fw.Rice((("raw", 0),))), np.full((1, 32), 5), 16),
    ("mixed", fw.Predicted(order=1, rice=fw.Rice((2, ("raw", 12), 0, 14))), small_values(64), 16),
    ("Rice2", fw.Predicted(order=1, rice=fw.Rice((3, ("raw", 20), 30, 27), 1)), small_values(64), 16),
    ("long codes", fw.Predicted(order=0, rice=fw.Rice((0,))), np.array([[0, 200, -300, 64, 31, -32, 33, 500]]), 16),
    ("LPC 1", fw.Predicted(coefficients=(7,), precision=4, shift=3), small_values(48), 16),
    ("LPC 9", fw.Predicted(coefficients=range(-4, 5), precision=5, shift=4), small_values(48), 16),
    ("LPC 32", fw.Predicted(coefficients=range(-16, 16), precision=6, shift=5), small_values(48), 16),
    ("LPC 32 of one block", fw.Predicted(coefficients=range(-16, 16), shift=9), small_values(32), 16),
    ("four bits", fw.Verbatim(), np.array([[-8, 7, 0, -1, 3]]), 4),
    ("32 bits", fw.Verbatim(), np.array([[-(2**31), 2**31 - 1, 0, -1]]), 32),
]


@pytest.mark.parametrize(("kind", "x", "bits"), [case[1:] for case in KINDS_OF_SUBFRAMES],
                         ids=[case[0] for case in KINDS_OF_SUBFRAMES])  # fmt: skip
def test_flac_subframes(launched: dict[str, list[Report]], kind: fw.Subframe, x: np.ndarray, bits: int) -> None:
    data = written_frame(kind, x, bits)
    check([data], [(0, 0, 2 * x.shape[1]), (0, 1, x.shape[1])], 1)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("stereo", [8, 9, 10])
def test_flac_stereo(launched: dict[str, list[Report]], stereo: int, bits: int) -> None:
    rng = np.random.default_rng(stereo)
    top = 2 ** (bits - 1)
    loud = np.concatenate([rng.integers(-top, top, (2, 60)), [[-top, top - 1], [top - 1, -top]]], 1)
    kinds: list[Any] = [fw.Verbatim()]
    predicted = fw.Predicted(order=2, rice=fw.Rice((28,) if bits == 32 else (8,), int(bits == 32)))
    calm = np.clip(np.cumsum(rng.integers(-9, 9, (2, 62)), 1) * 4, -top, top - 4)
    data = [written_frame(kind, loud, bits, stereo) for kind in kinds]
    data += [written_frame(kind, calm, bits, stereo) for kind in (predicted, fw.Verbatim(wasted=1), fw.Verbatim())]
    if bits == 32:
        near = calm + np.array([[2**30], [-(2**30)]]) + np.array([[2**30 - 4000], [-(2**30) + 4000]])
        lpc = fw.Predicted(coefficients=(5, -3, 1), precision=5, shift=1, rice=fw.Rice((27,), 1))
        data += [written_frame([lpc, lpc], near // 2 * 2, bits, stereo)]
        wasted = fw.Predicted(order=2, rice=fw.Rice((27,), 1), wasted=1)
        data += [written_frame([wasted, wasted], near // 4 * 4, bits, stereo)]
    spans = [(i, start, 90) for i in range(len(data)) for start in (0, 33)]
    check(data, spans, 2)
    check(data, spans, 1)


def test_mixed_members_in_one_batch(launched: dict[str, list[Report]]) -> None:
    """Frames of other sizes, depths and numbers of channels share launches, not lanes that do not fit."""
    data = [
        written_frame(fw.Predicted(order=2), small_values(48), 16),
        written_frame(fw.Verbatim(), small_values(700, 2), 12, 10),
        written_frame(fw.Predicted(order=1, rice=fw.Rice((5,))), small_values(300, 2), 24),
        written(noise(5_000, 2, 1), "PCM_16"),
        written_frame(
            [fw.Constant(), fw.Verbatim(), fw.Predicted(order=0)], np.repeat(small_values(90), 3, 0) * 0 + 9, 8
        ),
        written(noise(5_000, 1, 1), "FLOAT"),
    ]
    check(data, [(i, start, 80) for start in (0, 3, 50) for i in range(len(data))] * 3, 1)


def test_a_batch_in_several_launches(launched: dict[str, list[Report]], monkeypatch: pytest.MonkeyPatch) -> None:
    from fastaug.codecs import device

    monkeypatch.setattr(device, "_SCRATCH", 4_000)
    data = [written_frame(fw.Predicted(order=2), small_values(n), 16) for n in (16, 48, 20, 100, 31)] * 30
    check(data, [(i, i % 5, 25) for i in range(len(data))], 1)
    assert len(launched["fa_flac_read_kernel"]) == 3


def flip(data: bytes, rng: np.random.Generator, rounds: int) -> bytes:
    """A stream of frames of one size whose first frame's body has wrong bits and a right CRC-16."""
    begin = data.index(b"\xff\xf8")
    size = (len(data) - begin) // 2
    body = bytearray(data[begin : begin + size - 2])
    for at in rng.integers(10 * 8, len(body) * 8, rounds):
        body[at // 8] ^= 1 << at % 8
    return data[:begin] + bytes(body) + fw.crc(bytes(body), 16, 0x8005).to_bytes(2, "big") + data[begin + size :]


def test_damage_behind_a_right_checksum_is_flagged(launched: dict[str, list[Report]]) -> None:
    """The device refuses exactly what the CPU refuses, and reads nothing outside of what it was given."""
    rng = np.random.default_rng(0)
    shapes = [
        (fw.Predicted(order=2, rice=fw.Rice((2, ("raw", 12), 5, 6))), small_values(64), 16, None),
        (fw.Predicted(coefficients=range(-4, 5), precision=5, shift=4), small_values(48), 16, None),
        (fw.Predicted(order=1, rice=fw.Rice((3, 7), 1)), small_values(40, 2), 16, 10),
        (fw.Constant(), np.full((1, 40), 9), 16, None),
        (fw.Predicted(order=3, rice=fw.Rice((9,), 1)), small_values(40, 2), 32, 8),
    ]
    data = [flip(written_frame(*shapes[i % 5]), rng, 1 + i % 3) for i in range(200)]
    members, wanted = crops(data, [(i, 0, 60) for i in range(len(data))])
    expected = torch.empty(len(data), 1, 60)
    refused = decode_into(members, wanted, None, expected, 1)
    batch = DeviceBatch(members, wanted, None, (len(data), 1, 60), "cpu", 1)
    assert set(torch.nonzero(batch._status).flatten().tolist()) == set(refused)
    assert 40 < len(refused) < 160
    right = [i for i in range(len(data)) if i not in refused]
    assert torch.equal(batch.samples[right], expected[right])
    assert batch.finish() == refused
    assert torch.equal(batch.samples[right], expected[right])


def test_a_residual_outside_of_32_bits_is_refused(launched: dict[str, list[Report]]) -> None:
    """-2^31 is no residual (RFC 9639, 9.2.7.3), though the sample that it would make fits; one more is."""
    kind = fw.Predicted(order=0, rice=fw.Rice((30,), 1))
    data = [written_frame(kind, np.array([[3, -(2**31) + by, 7, 0]]), 32) for by in (0, 1)]
    members, wanted = crops(data, [(0, 0, 8), (1, 0, 8)])
    refused = decode_into(members, wanted, None, torch.empty(2, 1, 8), 1)
    batch = DeviceBatch(members, wanted, None, (2, 1, 8), "cpu", 1)
    assert list(refused) == [0] and batch._status.tolist() == [7, 0]


def test_what_the_host_refuses_goes_to_the_cpu(launched: dict[str, list[Report]]) -> None:
    """Wrong checksums, cut files, NaN, and formats without a kernel: statuses and neighbours as on the CPU."""
    good = written_frame(fw.Predicted(order=2), small_values(48), 16)
    at = good.index(b"\xff\xf8") + 20
    bad = good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :]
    nan = written(np.array([[0.1], [np.nan], [0.2]]), "FLOAT")
    cut = written(noise(900, 1), "PCM_24")[:-300]
    samples = np.clip(noise(4_000, 1), -0.5, 0.5)
    data = [good, bad, nan, cut, written(samples, "PCM_16"), good[:-11]]
    members, wanted = crops(data, [(i, 0, 90) for i in range(len(data))])
    expected = torch.empty(len(data), 1, 90)
    failed = decode_into(members, wanted, None, expected, 1)
    assert {i: int(status) for i, (status, _) in failed.items()} == {1: 7, 2: 8, 5: 6}
    samples, ours = decode_on_device(members, wanted, None, (len(data), 1, 90), "cpu", 1)
    assert ours == failed
    right = [i for i in range(len(data)) if i not in failed]
    assert torch.equal(samples[right], expected[right])


def test_rows_that_the_device_refused_are_zero_once_resampled(launched: dict[str, list[Report]]) -> None:
    broken = noise(500, 1)
    broken[250] = np.inf
    data = [written(noise(500, 1), "FLOAT"), written(broken, "FLOAT"), written(noise(300, 1), "FLOAT")]
    members, wanted = crops(data, [(i, 5, 300) for i in range(3)])
    batch = DeviceBatch(members, wanted, 12_000, (3, 1, 300), "cpu", 1)
    assert batch._status.tolist() == [0, 8, 0]
    assert not batch.samples[1].any() and batch.samples[0].any() and batch.samples.isfinite().all()


def loss_db(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(((a - b).double() ** 2).mean() / (b.double() ** 2).mean() + 1e-30))


@needs_flac
@pytest.mark.parametrize(
    ("rate", "out_rate"), [(44_100, 22_050), (44_100, 16_000), (22_050, 44_100), (48_000, 44_100), (44_100, 44_101)]
)
def test_resampled_ranges(launched: dict[str, list[Report]], tmp_path: Any, rate: int, out_rate: int) -> None:
    """Within 110 dB of the CPU, and a range equals the slice of the whole: rows share a launch, not their phase."""
    x = music(16, 2, 3_000)
    data = [encode(tmp_path, x, rate=rate), written(x.T / 32768, "PCM_16", rate=rate)]
    total = -(-3_000 * out_rate // rate)
    starts = [0, 1, 7, 100, 333, total // 2, total - 40, total - 1, -9, total + 5]
    spans = [(i % 2, start, 50) for i, start in enumerate(starts)] + [(0, 0, total), (1, 3, total)]
    expected, samples, refused, _ = both(data, spans, 1, out_rate)
    assert not refused
    assert loss_db(samples, expected) < -110
    if out_rate == 44_101:  # too many phases: the CPU's
        assert not launched and torch.equal(samples, expected)
        return
    whole = torch.nn.functional.pad(samples[10, 0, :total], (20, 80))
    for row, start in enumerate(starts):
        assert torch.equal(samples[row, 0, :50], whole[20 + start : 70 + start]), start
    assert torch.equal(samples[11, 0, : total - 3], samples[10, 0, 3:total])
    assert (samples[:10, :, 50:] == 0).all()


def test_a_whole_batch_is_resampled_in_place(launched: dict[str, list[Report]]) -> None:
    data = [written(noise(4_000, 2, i), "PCM_16", rate=16_000) for i in range(3)]
    expected, samples, refused, _ = both(data, [(i, 300, 500) for i in range(3)], 1, 8_000)
    assert not refused and loss_db(samples, expected) < -110
    assert "fa_place_rows_kernel" not in launched


def test_channels_are_kept_and_mono_is_repeated(launched: dict[str, list[Report]]) -> None:
    data = [written(noise(2_000, 2, 1), "PCM_24"), written(noise(2_000, 1, 2), "PCM_16")]
    data += [
        written_frame(fw.Verbatim(), small_values(300, 2), 16),
        written_frame(fw.Verbatim(), small_values(300), 16),
    ]
    check(data, [(i, 100, 400) for i in range(4)], 2)
    check(data[1::2], [(0, 5, 40), (1, 5, 300)], 3)
    expected, samples, _, _ = both(data[:2], [(0, 10, 300), (1, 50, 200)], 2, 4_000)
    assert loss_db(samples, expected) < -110


@needs_flac
def test_frames_of_clips_of_several_rates_share_a_block(launched: dict[str, list[Report]], tmp_path: Any) -> None:
    """Lines of each source rate have a length of their own on the way to the resampler."""
    rates = (44_100, 22_050, 32_000)
    data = [encode(tmp_path, music(16, 2, 3_000), "-3", "-b", "256", rate=rate) for rate in rates]
    expected, samples, refused, _ = both(data, [(0, 10, 900), (1, 20, 1_500), (2, 0, 700)], 2, 16_000)
    assert not refused and loss_db(samples, expected) < -110


def test_empty_batches(launched: dict[str, list[Report]]) -> None:
    data = [written(noise(50, 1), "PCM_16")]
    members, wanted = crops(data, [(0, 60, 20), (0, -40, 30)])
    for rate in (None, 4_000):
        samples, failed = decode_on_device(members, wanted, rate, (2, 1, 30), "cpu", 1)
        assert not failed and not samples.any()
    samples, failed = decode_on_device(members, wanted, None, (2, 1, 0), "cpu", 1)
    assert samples.shape == (2, 1, 0) and not failed


@needs_flac
def test_sectors(launched: dict[str, list[Report]], tmp_path: Any) -> None:
    """Reads of the stream are a word in each lane's own line, and stay in the first-level cache; all else is dense."""
    launched["sectors"] = []
    x = music(16, 2, 64 * 1024)
    check(
        [encode(tmp_path, x, "-5", "-b", "1024"), written(x.T / 32768, "PCM_16")], [(0, 3, 65_000), (1, 7, 65_000)], 1
    )
    print({name: [round(r.ratio, 2) for r in reports] for name, reports in launched.items()})
    assert launched["fa_wav_kernel"][0].ratio < 1.2
    assert launched["fa_flac_place_kernel"][0].ratio < 1.5
    assert launched["fa_flac_restore_kernel"][0].ratio < 1.2
    (read,) = launched["fa_flac_read_kernel"]
    assert max(site.sectors / site.minimum for site in read.sites if site.store and site.accesses > 1_000) < 1.5


def test_staging_pads_and_grows() -> None:
    staging = Staging("cpu")
    small, large = staging.reserve(5), staging.reserve(3 << 20)
    staging.view(small, 5)[:] = 7
    staging.view(large, 3 << 20)[:] = 9
    last = staging.reserve(16)
    assert (small, large % 16, last % 16) == (0, 0, 0)
    staging.view(last, 16)[:] = 3
    there = staging.upload()
    assert there[:16].tolist() == [7] * 5 + [0] * 11
    assert (there[large : large + (3 << 20)] == 9).all() and not there[large + (3 << 20) : last].any()
    assert not there[last + 16 :].any() and there.numel() - last - 16 >= 8
    for late in (lambda: staging.reserve(1), staging.view, staging.upload):
        with pytest.raises(RuntimeError, match="have been uploaded"):
            late()


@pytest.mark.gpu
@pytest.mark.parametrize("rate", [None, 8_000, 22_050])
def test_decode_on_a_gpu_is_that_on_the_cpu(rate: int | None) -> None:
    data = clips(24)
    starts = np.arange(48).reshape(2, 24) * 97 - 50
    cpu, _ = decode(data, starts, 3_000, rate)
    gpu, status = decode(data, starts, 3_000, rate, device="cuda")
    assert gpu.is_cuda and not status.is_cuda and not status.any()
    assert torch.equal(gpu.cpu(), cpu) if rate is None else loss_db(gpu.cpu(), cpu) < -110


@pytest.mark.gpu
@needs_flac
@pytest.mark.parametrize(("options", "bits", "channels"), SETTINGS)
def test_flac_of_the_encoder_on_a_gpu(tmp_path: Any, options: str, bits: int, channels: int) -> None:
    data = [encode(tmp_path, music(bits, channels, 70_001, seed=i), *options.split(), bits=bits) for i in range(4)]
    for count in (1, channels):
        cpu, _ = decode(data * 20, np.arange(80) * 311, 40_000, None, count)
        gpu, status = decode(data * 20, np.arange(80) * 311, 40_000, None, count, device="cuda")
        assert not status.any() and torch.equal(gpu.cpu(), cpu)


@pytest.mark.gpu
def test_damage_on_a_gpu_is_flagged() -> None:
    rng = np.random.default_rng(0)
    frame = (fw.Predicted(order=2, rice=fw.Rice((2, ("raw", 12), 5, 6))), small_values(64), 16)
    data = [flip(written_frame(*frame), rng, 1) for _ in range(400)]
    cpu, expected = decode(data, 0, 100)
    gpu, status = decode(data, 0, 100, device="cuda")
    assert expected.any() and torch.equal(status, expected) and torch.equal(gpu.cpu(), cpu)


@pytest.mark.gpu
def test_staging_buffers_are_not_overwritten_while_they_are_read() -> None:
    """Many batches queued behind slow work, each from a reused buffer."""
    data = [[written(noise(30_000, 1, i * 50 + j), "PCM_16") for j in range(8)] for i in range(12)]
    expected = [decode(batch, 5, 20_000)[0] for batch in data]
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(200_000_000)
        batches = []
        for batch in data:
            members, wanted = crops(batch, [(i, 5, 20_000) for i in range(8)])
            batches.append(DeviceBatch(members, wanted, None, (8, 1, 20_000), "cuda", 1))
        for batch, samples in zip(batches, expected):
            assert not batch.finish() and torch.equal(batch.samples.cpu(), samples)
