"""What the effects do to sound, measured: decibels, intervals, positions; and how their arguments are checked."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fastaug.random import Keys
from fastaug.transforms import (
    Delay,
    Gain,
    HighLowPass,
    HighPass,
    LowPass,
    MixDown,
    Noise,
    PitchShift,
    PolarityInversion,
    RandomCrop,
    Resample,
    Reverb,
    SpecAugment,
    Speed,
)

RATE = 22_050


def tone(hz: float, seconds: float = 1.0, rate: int = RATE, rows: int = 1) -> Tensor:
    t = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    return (0.3 * torch.sin(2 * math.pi * hz * t)).float().expand(rows, 1, -1).contiguous()


def level_db(x: Tensor, reference: Tensor, edge: int = 1000) -> float:
    inner = (x[..., edge:-edge].double().square().mean() / reference[..., edge:-edge].double().square().mean()).item()
    return 10 * math.log10(inner)


def peak_hz(x: Tensor, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(x.flatten().double().numpy() * np.hanning(x.numel()), 1 << 19))
    return float(np.argmax(spectrum)) * rate / (1 << 19)


def test_polarity_and_gain() -> None:
    x = torch.randn(4, 2, 50)
    assert torch.equal(PolarityInversion()(x), -x)
    transform = Gain(gain_db=(-20.0, 6.0))
    params = transform.draw(Keys.of(0, range(4)))
    expected = x.double() * 10 ** (params["gain_db"].double() / 20)[:, None, None]
    assert torch.allclose(transform.apply(x, params).double(), expected, rtol=1e-7)
    assert Gain(gain_db=20.0, clip=True)(x).abs().max() == 1.0


def test_crop_is_a_window_of_the_clip_at_the_drawn_place() -> None:
    x = torch.arange(1000.0).expand(500, 1, -1)
    transform = RandomCrop(samples=990)
    params = transform.draw(Keys.of(0, range(500)))
    out = transform.apply(x, params)
    start = out[:, 0, 0]
    assert torch.equal(start.long(), (params["word"] * 11) >> 32)
    assert torch.equal(out, (start[:, None] + torch.arange(990.0))[:, None])
    assert set(start.tolist()) == set(range(11)), "every start, the last one included, is drawn"


def test_crop_pads_short_clips_and_stays_in_the_valid_part() -> None:
    x = torch.ones(3, 1, 100)
    assert torch.equal(RandomCrop(samples=150)(x).sum((1, 2)), torch.full((3,), 100.0))
    ramp = torch.arange(1.0, 101.0).expand(200, 1, -1)
    lengths = torch.tensor([60] * 100 + [20] * 100)
    out = RandomCrop(samples=50)(ramp, None, lengths)
    assert out[:100].max() == 60 and out[:100, 0, 0].min() == 1
    assert (out[100:, 0, 0] == 1).all(), "a clip shorter than the window starts at its beginning"
    assert RandomCrop(seconds=0.5)(x, 25).shape[-1] == 13, "floor(seconds * rate + 0.5)"


@pytest.mark.parametrize("snr_db", [0.0, 20.0, 40.0])
def test_noise_has_the_snr(snr_db: float) -> None:
    x = tone(440.0, rows=3)
    noise = Noise(snr_db=snr_db)(x) - x
    assert abs(level_db(x, noise) - snr_db) < 0.2
    assert abs(float(torch.corrcoef(noise[:, 0])[0, 1])) < 0.05, "rows must not share their noise"


def test_noise_by_std_ratio_and_range() -> None:
    x = tone(440.0, rows=50)
    transform = Noise(std_ratio=(0.1, 0.5))
    params = transform.draw(Keys.of(0, range(50)))
    noise = transform.apply(x, params) - x
    ratio = noise.double().std((1, 2)) / x.double().std((1, 2))
    assert torch.allclose(ratio, params["std_ratio"].double(), rtol=0.05)
    assert 0.1 <= params["std_ratio"].min() < 0.15 and 0.45 < params["std_ratio"].max() < 0.5


@pytest.mark.parametrize("level", [{"snr_db": 10.0}, {"std_ratio": 10**-0.5}])
def test_noise_level_is_that_of_the_valid_part(level: dict[str, float]) -> None:
    x = tone(440.0)
    padded = torch.nn.functional.pad(x, (0, 3 * x.shape[-1]))
    lengths = torch.tensor([x.shape[-1]])
    noise = Noise(**level)(padded, None, lengths) - padded
    assert abs(level_db(x, noise[..., : x.shape[-1]]) - 10) < 0.2
    assert (noise[..., x.shape[-1] :] == 0).all()


@pytest.mark.parametrize("cutoff", [300.0, 1200.0, 4000.0])
def test_filters_keep_and_kill_tones(cutoff: float) -> None:
    below, above = tone(cutoff * 0.7), tone(cutoff * 1.4)
    low, high = LowPass(cutoff_hz=cutoff, sample_rate=RATE), HighPass(cutoff_hz=cutoff, sample_rate=RATE)
    assert abs(level_db(low(below), below)) < 0.1 and abs(level_db(high(above), above)) < 0.1
    assert level_db(low(above), above) < -40 and level_db(high(below), below) < -40
    assert abs(level_db(low(tone(cutoff)), tone(cutoff)) + 6) < 0.3, "-6 dB at the cutoff"
    x = torch.randn(1, 1, 8000)
    assert torch.allclose(low(x) + high(x), x, atol=1e-5)


def test_a_cutoff_above_nyquist_keeps_everything() -> None:
    x = torch.randn(2, 1, 3000)
    assert torch.allclose(LowPass(cutoff_hz=9000.0)(x, 8000), x, atol=1e-5)
    assert HighPass(cutoff_hz=9000.0)(x, 8000).abs().max() < 1e-5


def test_high_low_pass_tosses_a_fair_coin() -> None:
    params = HighLowPass().draw(Keys.of(0, range(4000)))
    high, cutoff = params["highpass"], params["cutoff_hz"]
    assert abs(high.double().mean() - 0.5) < 0.03
    assert cutoff[high].min() >= 200 and cutoff[high].max() < 1200
    assert cutoff[~high].min() >= 2200 and cutoff[~high].max() < 4000
    transform = HighLowPass(sample_rate=RATE)
    x = tone(100.0, rows=20)
    params = transform.draw(Keys.of(0, range(20)))
    kept = [level_db(row[None], x[:1]) > -1 for row in transform.apply(x, params)]
    assert kept == (~params["highpass"]).tolist()


@pytest.mark.parametrize(("halve", "dry"), [(True, 0.5), (False, 1.0)])
def test_echo_lands_on_its_sample(halve: bool, dry: float) -> None:
    x = torch.zeros(2, 1, RATE)
    x[:, :, 100] = 1.0
    transform = Delay(delay_ms=[250.0], factor=0.4, halve=halve, sample_rate=RATE)
    out = transform(x)
    assert out[0, 0].nonzero().flatten().tolist() == [100, 100 + int(250 * 22.05)]
    assert torch.allclose(out[0, 0][out[0, 0] != 0], torch.tensor([dry, 0.4 * dry]))


def test_delay_draws_from_the_list() -> None:
    drawn = Delay().draw(Keys.of(0, range(2000)))["delay_ms"]
    assert set(drawn.tolist()) == {200, 250, 300, 350, 400, 450, 500}


@pytest.mark.parametrize("semitones", [-7.0, -2.5, 0.0, 3.0, 7.0])
def test_pitch_moves_by_the_interval(semitones: float) -> None:
    x = tone(440.0, 2.0)
    out = PitchShift(semitones=semitones)(x, RATE)
    assert out.shape == x.shape
    assert abs(12 * math.log2(peak_hz(out) / peak_hz(x)) - semitones) < 0.03


def test_pitch_moves_channels_together_and_per_example() -> None:
    x = torch.cat([tone(440.0, 1.0), 0.5 * tone(440.0, 1.0)], dim=1).repeat(4, 1, 1)
    transform = PitchShift(semitones=(-7.0, 7.0), sample_rate=RATE)
    params = transform.draw(Keys.of(0, range(4)))
    out = transform.apply(x, params)
    for row, semitones in zip(out, params["semitones"].tolist()):
        assert abs(12 * math.log2(peak_hz(row[0]) / 440) - semitones) < 0.05
        assert torch.allclose(row[0], 2 * row[1], atol=1e-4)


def test_whole_cents() -> None:
    drawn = PitchShift(semitones=(-0.02, 0.02), whole_cents=True).draw(Keys.of(0, range(2000)))["semitones"]
    assert sorted(set(drawn.tolist())) == pytest.approx([-0.02, -0.01, 0.0, 0.01, 0.02])


def test_reverb_golden_impulse() -> None:
    """sox 14.4.2: reverb 50 50 100 channels 1 on 0.5 at sample 0."""
    x = torch.zeros(1, 1, 4000)
    x[..., 0] = 0.5
    transform = Reverb(reverberance=50.0, hf_damping=50.0, room_scale=100.0, sample_rate=RATE)
    out = transform(x)[0, 0].double()
    golden = {558: 0.00375003, 564: 0.00375003, 588: 0.00375003, 671: -0.00375003, 707: -0.007499993, 1000: -0.00562501}
    for at, value in {**golden, 2000: -0.002279639, 3999: 0.0003186464}.items():
        assert abs(out[at] - value) < 1e-7
    assert abs(out.sum() - 0.5781986) < 1e-5


def test_reverberance_lengthens_the_tail() -> None:
    x = torch.zeros(3, 1, RATE)
    x[..., 0] = 0.5
    transform = Reverb(sample_rate=RATE)
    params = transform.draw(Keys.of(0, range(3)))
    params["reverberance"] = torch.tensor([0.0, 50.0, 100.0])
    tail = transform.apply(x, params)[:, 0, RATE // 2 :].square().sum(1)
    assert tail[0] < tail[1] < tail[2]


def test_resample_and_mix_down() -> None:
    x = tone(1000.0, 1.0)
    out = Resample(to_rate=16_000)(x, RATE)
    assert out.shape[-1] == 16_000 and abs(peak_hz(out, 16_000) - 1000) < 1
    stereo = torch.cat([x, -3 * x], dim=1)
    assert torch.allclose(MixDown()(stereo), -x)
    assert MixDown()(x[0, 0]).shape == x[0, 0].shape


class TestSpecAugment:
    def test_masks_are_uniform_within_bounds(self) -> None:
        x = torch.ones(3000, 1, 20, 30)
        out = SpecAugment(freq_masks=1, freq_width=5, time_masks=0, fill=0.0)(x)
        rows = (out[:, 0, :, 0] == 0).sum(1)
        assert torch.equal((out == 0).all(3).any(1), (out == 0).any(3).any(1)), "a masked bin is masked in all frames"
        counts = torch.bincount(rows, minlength=6)
        assert len(counts) == 6 and ((counts - 500).abs() < 5 * 500**0.5).all(), "width uniform over 0 ... W"
        covered = (out[:, 0, :, 0] == 0).double().mean(0)
        assert covered.min() > 0.01, "the edges are reached"

    def test_share_of_the_axis_and_lengths(self) -> None:
        x = torch.ones(400, 1, 10, 200)
        lengths = torch.tensor([50] * 200 + [200] * 200)
        out = SpecAugment(freq_masks=0, time_masks=1, time_width=0.1, fill=0.0)(x, None, lengths)
        masked = (out[:, 0, 0] == 0).sum(1)
        assert masked[:200].max() == 5 and masked[200:].max() == 20
        assert (out[:200, :, :, 50:] == 1).all()

    def test_fill_and_channels(self) -> None:
        x = torch.randn(4, 2, 16, 16) + 3
        out = SpecAugment(freq_width=8, time_width=8)(x)
        changed = out != x
        assert changed.any() and torch.equal(changed[:, 0], changed[:, 1])
        mean = x.double().mean((1, 2, 3)).float()
        for row in range(4):
            assert (out[row][changed[row]] == mean[row]).all()

    def test_mistakes(self) -> None:
        for wrong in ({"freq_width": 1.5}, {"time_masks": -1}, {"fill": "zero"}):
            with pytest.raises(ValueError, match="SpecAugment"):
                SpecAugment(**wrong)


@pytest.mark.parametrize("percent", [50, 91, 110, 200])
def test_speed_moves_pitch_and_tempo_together(percent: int) -> None:
    x = tone(1000.0)
    x[..., x.shape[-1] // 4 :] = 0.0  # the tone ends at a quarter, so at a quarter / speed afterwards
    out = Speed(percent=percent)(x)
    assert out.shape == x.shape
    end = min(x.shape[-1], x.shape[-1] * 25 // percent)
    assert peak_hz(out[..., :end]) == pytest.approx(10.0 * percent, rel=2e-3)
    assert level_db(out[..., :end], tone(1000.0)[..., :end]) == pytest.approx(0.0, abs=0.1)
    assert out[..., end + 100 :].abs().max() < 1e-3


def test_speed_draws_whole_percent_and_keeps_the_padding() -> None:
    drawn = Speed(percent=(95.0, 105.0)).draw(Keys.of(0, range(2000)))["percent"]
    assert set(drawn.tolist()) == set(range(95, 106))
    x = tone(1000.0, 0.2)
    out = Speed(percent=80)(x, lengths=torch.tensor([2000]))
    assert torch.equal(out[..., 2000:], x[..., 2000:]) and not torch.equal(out[..., :2000], x[..., :2000])
    assert torch.equal(out[..., :2000], Speed(percent=80)(x)[..., :2000])
    assert torch.equal(Speed(percent=100)(x), x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gain(gain_db=(0.0, -6.0)), "low <= high"),
        (lambda: Gain(gain_db=[]), "no choices"),
        (lambda: Gain(gain_db=float("nan")), "must lie in"),
        (lambda: Gain(p=1.5), r"p must lie in \[0, 1\]"),
        (lambda: Reverb(room_scale=(0.0, 120.0)), r"room_scale must lie in \[0, 100\]"),
        (lambda: Noise(snr_db=3.0, std_ratio=0.1), "either"),
        (lambda: RandomCrop(), "either"),
        (lambda: RandomCrop(samples=0), "longer than nothing"),
        (lambda: PitchShift(semitones=30.0), "semitones must lie"),
        (lambda: PitchShift(semitones=3.0, whole_cents=True), "whole_cents"),
        (lambda: Delay(delay_ms=-1.0), "delay_ms must lie"),
        (lambda: Resample(to_rate=0), "to_rate"),
        (lambda: Speed(percent=(10.0, 110.0)), r"percent must lie in \[25, 400\]"),
        (lambda: LowPass(cutoff_hz=0.0), "cutoff_hz must lie"),
    ],
)
def test_mistakes_are_named(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()


def test_wrong_types_are_named() -> None:
    with pytest.raises(TypeError, match="gain_db must be a number"):
        Gain(gain_db="loud")  # type: ignore[arg-type]
