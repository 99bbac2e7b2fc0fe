"""fastaug.ops.wsola against sox, its definition, and the emulated kernels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import reference
from fastaug.ops import wsola as ops
from fastaug.ops._library import native
from fastaug.ops.wsola import pitch_shift, stretch_factor, time_stretch
from oracles import agreement_db, check_rows, emulate_launches, music, needs_sox, sox

FACTORS = [0.66742, 0.8, 1.25, 1.49831, 3.0]


def in_band_db(y: torch.Tensor, expected: torch.Tensor, fraction: float) -> float:
    """Agreement over the lowest `fraction` of the spectrum."""
    n = min(y.shape[-1], expected.shape[-1])
    window = torch.hann_window(n, dtype=torch.float64)  # else the transition band leaks in from the edges
    a, b = (torch.fft.rfft(v[..., :n] * window) for v in (y, expected))
    count = int(fraction * a.shape[-1])
    return agreement_db(torch.view_as_real(a[..., :count]), torch.view_as_real(b[..., :count]))


@needs_sox
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 2), (22_050, 1), (44_100, 2), (96_000, 1)])
def test_time_stretch_equals_sox_tempo(rate: int, channels: int, factor: float) -> None:
    x = music(rate, int(0.9 * rate), channels)
    y, lengths = time_stretch(x[None], factor, rate)
    expected = sox(x, rate, "tempo", factor)
    assert y.shape[1:] == expected.shape and lengths.tolist() == [y.shape[-1]]
    assert (y[0] - expected).abs().max() < 1e-6


@needs_sox
@pytest.mark.parametrize("rate", [22_050, 44_100])
@pytest.mark.parametrize("cents", [-700, -350, -100, 100, 350, 700])
def test_pitch_shift_equals_sox_pitch_in_band(rate: int, cents: int) -> None:
    x = music(rate, 59_049)
    y = pitch_shift(x[None], rate, cents / 100)
    expected = sox(x, rate, "pitch", cents, "rate", rate)
    assert abs(expected.shape[1] - y.shape[2]) <= 1  # sox may lose a sample, as here at -700 cents
    band = 0.85 * min(1.0, 2 ** (cents / 1200))  # below both low-passes' edges
    assert in_band_db(y[0], expected, band) > 80


@pytest.mark.parametrize("factor", [0.5, 0.93, 1.0, 1.7])
@pytest.mark.parametrize("channels", [1, 3])
def test_time_stretch_equals_the_definition(channels: int, factor: float) -> None:
    x = music(8_000, 5_000, channels)
    y, _ = time_stretch(x[None], factor, 8_000)
    torch.testing.assert_close(y[0], torch.from_numpy(reference.stretch(x.numpy(), factor, 8_000)), rtol=0, atol=2e-7)


@pytest.mark.parametrize("semitones", [-24.0, -12.0, -3.3, -0.1, 0.1, 7.0, 12.0, 24.0])
def test_pitch_shift_equals_the_definition(semitones: float) -> None:
    x = music(8_000, 4_000, 2)
    expected = reference.pitch_shift(x.numpy(), semitones, 8_000, ops.STOP_DB)
    assert agreement_db(pitch_shift(x[None], 8_000, semitones)[0], torch.from_numpy(expected)) > 106


@pytest.mark.parametrize("semitones", [-7.0, -2.0, -0.1, 0.1, 2.0, 7.0, 14.0])
def test_pitch_shift_is_an_ideal_resampling_in_the_pass_band(semitones: float) -> None:
    """White noise: whatever is not rejected folds into the band."""
    x = 0.1 * torch.randn(1, 30_000, generator=torch.Generator().manual_seed(0))
    factor = float(stretch_factor(torch.tensor(semitones)))
    stretched, positions = reference.stretch(x.numpy(), factor, 8_000), np.arange(30_000) / factor
    expected = reference.interpolate(stretched[0], positions, min(1.0, factor), 0.97, 130.0)
    y = pitch_shift(x[None], 8_000, semitones)[0]
    middle = slice(500, -500)  # the ideal filter is longer: it sees more of the ends
    band = ops.PASS_BAND * min(1.0, 1 / factor)
    assert in_band_db(y[:, middle], torch.from_numpy(expected[None, middle]), band) > 100


def searched(kind: str, length: int, channels: int, generator: torch.Generator) -> torch.Tensor:
    """Signals on which a search may stumble."""
    noise = torch.randn(channels, length, generator=generator)
    t, hz = torch.arange(length), float(torch.rand((), generator=generator))
    match kind:
        case "noise":
            return noise
        case "sine":  # distances at multiples of the period differ by rounding only
            return torch.sin(hz * t).expand(channels, -1) + 1e-6 * noise
        case "periodic":  # exactly equal distances
            return noise[:, torch.arange(length) % (2 + int(20 * hz))]
        case "steps":
            return noise.sign().repeat_interleave(7, dim=1)[:, :length]
        case "permuted":  # against a constant tail all windows sum the same squares, each in another order
            turns = noise[:, t % (88 if length == 22_050 else 8)]  # which divide the overlaps
            return torch.where((t // (length // 15)) % 2 == 0, 0.7, turns) * (1.0 if hz < 0.5 else 1e-22)
        case "bursts":  # silence between
            return torch.where((t // 50) % 3 == 0, noise, 0.0)
        case "offset":  # the squares lose their differences
            return 1000.0 + 1e-3 * noise
        case "tiny":  # squares below the normal range
            return noise * 10.0 ** (-18 - 27 * hz)
        case "huge":  # distances overflow, all or some
            return noise * 10.0 ** (17 + 5 * hz)
        case _:
            bad = [float("nan"), float("inf"), -float("inf")][int(3 * hz)]
            return torch.where(torch.rand(length, generator=generator) < 3 / length, bad, noise)


@pytest.mark.parametrize(
    "kind", ["noise", "sine", "periodic", "steps", "permuted", "bursts", "offset", "tiny", "huge", "broken"]
)
@pytest.mark.parametrize(("rate", "cases"), [(1_000, 40), (3_000, 20), (22_050, 12)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_pruned_search_chooses_as_the_plain_one(kind: str, rate: int, cases: int) -> None:
    """Bit for bit the signal that the definition pastes together, whose sums are in sox's order."""
    for seed in range(cases):
        generator = torch.Generator().manual_seed(seed)
        x = searched(kind, rate, 1 + seed % 3, generator)
        factor = round(0.6 + 1.5 * float(torch.rand((), generator=generator)), 3)
        y = time_stretch(x[None], factor, rate)[0][0]
        expected = torch.from_numpy(reference.stretch(x.numpy(), factor, rate))
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True, msg=f"{seed=} {factor=}")


def test_pruned_search_allows_for_squares_below_the_normal_range() -> None:
    """Offsets 10 and 300 are equally far, one unit of 2^-149; fused, the tie of half a unit makes two of the first."""
    window = 2 * 1_544 - 162
    x = torch.randn(1, 1, 4_500, generator=torch.Generator().manual_seed(0))
    x[..., 1_544:1_808] = 0.0
    x[..., window : window + 588] = 1e-10
    x[..., window + 10 : window + 274] = x[..., window + 300 : window + 564] = 0.0
    x[..., window + 10] = x[..., window + 300] = 2.0**-74.5
    x[..., window + 26] = 2.0**-75
    expected = torch.from_numpy(reference.stretch(x[0].numpy(), 2.0, 22_050))
    assert torch.equal(time_stretch(x, 2.0, 22_050)[0][0], expected)
    assert torch.equal(expected[0, 1_808:2_250], x[0, 0, window + 274 : window + 716])  # offset 10


@needs_sox
def test_the_first_of_equal_candidates_wins() -> None:
    """All windows of the first search are silent; which one is taken shows in where the sound behind them starts."""
    x = music(4_000, 1_500)
    x[:, :340] = 0
    y = time_stretch(x[None], 0.8, 4_000)[0][0]
    assert (y - sox(x, 4_000, "tempo", 0.8)).abs().max() < 1e-6
    assert (y - torch.from_numpy(reference.stretch(x.numpy(), 0.8, 4_000))).abs().max() < 1e-6


def test_factor_is_rounded_as_sox_prints_it() -> None:
    semitones = torch.arange(-3600, 3601, dtype=torch.float64) / 100
    expected = [float(f"{2 ** (-s / 12):g}") for s in semitones.tolist()]
    assert stretch_factor(semitones).tolist() == expected


def test_a_tone_arrives_at_its_new_pitch() -> None:
    rate, n = 22_050, 1 << 16
    x = torch.sin(2 * math.pi * 440 / rate * torch.arange(n)).expand(3, 1, n)
    y = pitch_shift(x, rate, torch.tensor([-7.0, 3.0, 7.0]))
    peaks = torch.fft.rfft(y[:, 0] * torch.hann_window(n)).abs().argmax(-1) * rate / n
    expected = 440 * 2 ** (torch.tensor([-7.0, 3.0, 7.0]) / 12)
    assert (peaks - expected).abs().max() < 1.0


def test_identities() -> None:
    x = 3 * torch.randn(2, 2, 3000)
    assert torch.equal(pitch_shift(x, 8_000, 0.0), x)
    y, lengths = time_stretch(x, 1.0, 8_000)
    assert torch.equal(y, x) and lengths.tolist() == [3000, 3000]


def test_in_place() -> None:
    x = torch.stack([music(8_000, 3_000, 2, seed) for seed in range(4)])
    semitones, active = torch.tensor([-7.0, 5.0, 0.0, 3.0]), torch.tensor([True, True, True, False])
    expected, mine = pitch_shift(x, 8_000, semitones, active), x.clone()
    y = pitch_shift(mine, 8_000, semitones, active, inplace=True)
    assert y.data_ptr() == mine.data_ptr() and torch.equal(y, expected)
    expanded = x[:1].expand(4, -1, -1)
    assert torch.equal(pitch_shift(expanded, 8_000, 2.0, inplace=True)[0], pitch_shift(x[:1], 8_000, 2.0)[0])
    assert torch.equal(expanded[1], x[0])


def test_stretched_rows_keep_their_own_lengths() -> None:
    x = torch.stack([music(8_000, 3_000)] * 4)
    factors, active = torch.tensor([0.5, 1.0, 2.0, 0.5]), torch.tensor([True, True, True, False])
    y, lengths = time_stretch(x, factors, 8_000, active)
    assert lengths.tolist() == [6000, 3000, 1500, 3000] and y.shape == (4, 1, 6000)
    for row, length in zip(y, lengths.tolist()):
        assert not row[:, length:].any()
    assert torch.equal(y[3, :, :3000], x[3])
    assert torch.equal(y[2, :, :1500], time_stretch(x[2:3], 2.0, 8_000)[0][0])


def test_rows_are_independent() -> None:
    x = torch.stack([music(8_000, 4_000, 2, seed) for seed in range(5)])
    semitones = torch.tensor([-7.0, 3.5, 0.0, 12.0, 1.0])
    check_rows(lambda x, rows, on: pitch_shift(x, 8_000, semitones[rows], on), x)
    check_rows(lambda x, rows, on: time_stretch(x, 1.3, 8_000, on)[0], x, same_shape=False)


@pytest.mark.parametrize("length", [0, 1, 2, 15, 16, 17, 263, 655, 656, 657, 1024, 1025, 1807, 1808])
@pytest.mark.parametrize("rate", [1000, 8_000, 22_050, 96_000])
def test_short_and_silent(length: int, rate: int) -> None:
    """Shorter than one segment (656 samples at 8 kHz, 1808 at 22.05 kHz): what there is, then zeros."""
    for x in (torch.zeros(2, 1, length), torch.rand(2, 1, length)):
        for factor in (0.5, 2.5):
            y, _ = time_stretch(x, factor, rate)
            expected = reference.stretch(x[0].numpy(), factor, rate)
            torch.testing.assert_close(y[0], torch.from_numpy(expected), rtol=0, atol=2e-7)
        for semitones in (-12.0, 7.0):
            y, expected = pitch_shift(x, rate, semitones), reference.pitch_shift(x[0].numpy(), semitones, rate, 108.0)
            torch.testing.assert_close(y[0], torch.from_numpy(expected).float(), rtol=0, atol=2e-5)
    assert not pitch_shift(torch.zeros(1, 1, length), rate, 5.0).any()
    assert pitch_shift(torch.zeros(0, 1, length), rate, 5.0).shape == (0, 1, length)


def test_a_clip_of_many_minutes() -> None:
    """Its memory is given back, but not before the row is done."""
    x = torch.randn(1, 1, 4_300_000, generator=torch.Generator().manual_seed(0))
    y, (stretched, _) = pitch_shift(x, 1000, 2.0), time_stretch(x, 0.9, 1000)
    assert torch.equal(y[..., :9_000], pitch_shift(x[..., :10_000], 1000, 2.0)[..., :9_000])
    assert torch.equal(stretched[..., :9_000], time_stretch(x[..., :10_000], 0.9, 1000)[0][..., :9_000])
    assert 0.9 < float(y[..., -1_000_000:].std()) < 1.1 and 0.9 < float(stretched[..., -1_000_000:].std()) < 1.1


@pytest.mark.parametrize("semitones", [-3.0, 4.0])
def test_a_row_that_is_cut_more_than_once(semitones: float) -> None:
    """csrc/cpu/repitch.cpp takes 16 x 8040 outputs at a time: white noise around the end of the first of them."""
    x = 0.1 * torch.randn(1, 1, 140_000, generator=torch.Generator().manual_seed(0))
    factor, cut = float(stretch_factor(torch.tensor(semitones))), 16 * 8040
    around = slice(cut - 1_000, cut + 1_000)
    stretched = time_stretch(x, factor, 1000)[0][0, 0].numpy()
    positions = np.arange(around.start, around.stop) / factor
    expected = torch.from_numpy(reference.interpolate(stretched, positions, min(1.0, factor), 0.97, 130.0))
    y = pitch_shift(x, 1000, semitones)[0, :, around]
    assert in_band_db(y, expected[None], ops.PASS_BAND * min(1.0, 1 / factor)) > 100


@pytest.mark.parametrize("length", [1, 2, 5, 31, 40, 64, 65, 300, 1023, 1024, 1025])
def test_short_clips_are_resampled_like_the_beginning_of_long_ones(length: int) -> None:
    """White noise in which silence follows where they end, stretched or not; up to 1024 samples take a path of their
    own."""
    semitones = torch.tensor([-36.0, -12.0, -5.0, -0.01, 0.01, 1.0, 6.3, 7.0, 12.0, 19.0, 36.0])
    x = torch.zeros(len(semitones), 2, length + 1100)
    x[..., :length] = torch.randn(len(semitones), 2, length, generator=torch.Generator().manual_seed(length))
    for row, end in zip(x, ops.stretched_length(length, stretch_factor(semitones)).tolist()):
        row[:, end:] = 0.0
    alone, expected = pitch_shift(x[..., :length], 22_050, semitones), pitch_shift(x, 22_050, semitones)[..., :length]
    torch.testing.assert_close(alone, expected, rtol=0, atol=4e-6)


def test_short_clips_keep_to_another_half_band() -> None:
    """What a thread keeps of the filter for its next row is that filter's only."""
    x, y = torch.randn(1, 1, 40), torch.empty(1, 1, 40)
    expected, taps = pitch_shift(x, 8_000, 4.0), ops.half_band_taps()
    factors = stretch_factor(torch.tensor([4.0], dtype=torch.float64))
    for scale in (0.0, 1.0):
        scaled = scale * taps
        arguments = (x.data_ptr(), y.data_ptr(), factors.data_ptr(), 0, 1, 1, 40, 8_000.0, scaled.data_ptr(), 1)
        native().fa_pitch_shift(*arguments)
        assert torch.equal(y, expected) == (scale == 1.0)


def test_bad_arguments_raise() -> None:
    x = torch.zeros(2, 1, 100)
    with pytest.raises(ValueError, match=r"factor must lie in \[0.1, 100\]"):
        time_stretch(x, 0.01, 8_000)
    with pytest.raises(ValueError, match=r"factor must lie in \[0.1, 100\]"):
        time_stretch(x, torch.tensor([1.0, float("nan")]), 8_000)
    for bad in (40.0, torch.tensor([0.0, float("nan")])):
        with pytest.raises(ValueError, match=r"semitones must lie in \[-36, 36\]"):
            pitch_shift(x, 8_000, bad)
    with pytest.raises(ValueError, match="at least 1000"):
        pitch_shift(x, 500, 1.0)
    with pytest.raises(ValueError, match=r"semitones must be a number or have shape \(2,\)"):
        pitch_shift(x, 8_000, torch.zeros(3))


def test_ops() -> None:
    x, factors = torch.randn(2, 1, 900), torch.tensor([0.8, 1.5], dtype=torch.float64)
    active = torch.tensor([True, False])
    torch.library.opcheck(torch.ops.fastaug.time_stretch.default, (x, factors, 8000, 1125, active))
    torch.library.opcheck(torch.ops.fastaug.pitch_shift.default, (x, factors, 8000, 12.0, active))
    semitones = torch.tensor([3.0, -2.0])
    compiled = torch.compile(lambda x: pitch_shift(x, 8_000, semitones), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), pitch_shift(x, 8_000, semitones))
    compiled = torch.compile(lambda x: time_stretch(x, 0.8, 8_000), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x)[0], time_stretch(x, 0.8, 8_000)[0])
    with pytest.raises(RuntimeError, match="fastaug::pitch_shift has no gradient"):
        pitch_shift(x.clone().requires_grad_(), 8_000, 2.0).sum().backward()
    with pytest.raises(RuntimeError, match="fastaug::time_stretch has no gradient"):
        time_stretch(x.clone().requires_grad_(), 2.0, 8_000)[0].sum().backward()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_stretch_kernel_is_bit_equal_to_the_cpu(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.stack([music(4_000, 1_500, channels, seed) for seed in range(6)])
    x[2, :, 700:] = float("nan")
    x[3, :, :340] = 0.0  # equal candidates
    x[4, :, 196] = float("nan")  # in candidates 0 and 1 of the first search only
    factors = torch.tensor([0.7, 1.8, 0.9, 0.8, 0.8, 1.0], dtype=torch.float64)
    active = torch.tensor([True, False, True, True, True, True])
    expected = ops._stretch_cpu(x, factors, 4_000, 2143, active)
    emulate_launches(monkeypatch)
    y = ops._stretch_cuda(x, factors, 4_000, 2143, active)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)


def test_stretch_kernel_takes_the_first_of_equal_candidates_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of the first tail, 528 samples at 44.1 kHz: at offsets 81 and 513, the second of which the thread of
    offset 0 tries; and behind the last offset, 646."""
    hop, window = 3_088, 2 * 3_088 - 323
    x = torch.randn(2, 1, 9_000, generator=torch.Generator().manual_seed(0))
    turns = x[0, 0, :432].clone()[torch.arange(960) % 432]
    x[0, 0, hop : hop + 528], x[0, 0, window + 81 : window + 81 + 960] = turns[:528], turns
    x[1, 0, window + 647 : window + 647 + 528] = x[1, 0, hop : hop + 528]
    factors = torch.full((2,), 2.0, dtype=torch.float64)
    expected = torch.stack([torch.from_numpy(reference.stretch(row.numpy(), 2.0, 44_100)) for row in x])
    torch.testing.assert_close(expected[0, 0, hop : hop + 528], turns[:528])  # a copy was found
    assert torch.equal(ops._stretch_cpu(x, factors, 44_100, 4_500, None), expected)
    emulate_launches(monkeypatch)
    assert torch.equal(ops._stretch_cuda(x, factors, 44_100, 4_500, None), expected)


def test_pitch_kernels_agree_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks a row; 20 semitones up take six pairs of taps."""
    x = torch.stack([music(4_000, 1_800, 2, seed) for seed in range(7)])
    factors = stretch_factor(torch.tensor([-5.0, 7.0, 0.0, 3.0, 13.0, 20.0, 1.0]))
    active = torch.tensor([True, True, True, False, True, True, True])
    expected = ops._pitch_cpu(x, factors, 4_000, 20.0, active)
    reports = emulate_launches(monkeypatch, count=True)
    y = ops._pitch_cuda(x, factors, 4_000, 20.0, active)
    # The polynomials are the same, positions and sums are rounded otherwise.
    assert agreement_db(y, expected) > 120 and torch.equal(y[2:4], x[2:4])
    assert reports[0].ratio < 1.5 and reports[1].ratio < 1.5
    y = ops._pitch_cuda(x, factors, 4_000, 13.0, active)
    assert agreement_db(y[:4], expected[:4]) > 120
    assert y[5].isnan().all()  # beyond max_semitones: said loudly, without a wait for the device
