"""fastaug.ops.resample: frequency response, exact ranges, both devices."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from fastaug.ops import resample as ops
from fastaug.ops.resample import QUALITIES, output_length, resample, resample_range, source_range
from oracles import agreement_db, check_rows, emulate_launches

RATES = [(44_100, 22_050), (48_000, 22_050), (22_050, 16_000), (44_100, 8_000), (8_000, 96_000), (44_099, 22_051)]


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_equals_the_definition(from_rate: int, to_rate: int, quality: str) -> None:
    x = torch.randn(1, 700)
    spec = QUALITIES[quality]
    expected = reference.resample(x[0].numpy(), from_rate, to_rate, spec.pass_band, spec.stop_db)
    y = resample(x, from_rate, to_rate, quality)
    assert y.shape == (1, output_length(700, from_rate, to_rate)) == (1, math.ceil(700 * to_rate / from_rate))
    assert agreement_db(y[0], torch.from_numpy(expected)) > 120


def tone(hz: float, rate: int, length: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * hz / rate * torch.arange(length, dtype=torch.float64) + 0.3)


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_pass_band_and_stop_band(from_rate: int, to_rate: int, quality: str) -> None:
    nyquist, spec, length = min(from_rate, to_rate) / 2, QUALITIES[quality], 3000 * from_rate // min(from_rate, to_rate)
    inside = [nyquist * spec.pass_band * part for part in (0.01, 0.3, 0.77, 0.9, 0.97, 0.995, 1.0)]
    outside = [nyquist * part for part in (1.0, 1.005, 1.05, 1.2, 1.7) if nyquist * part < from_rate / 2]
    x = torch.stack([tone(hz, from_rate, length) for hz in (*inside, *outside)]).float()
    y = resample(x, from_rate, to_rate, quality)
    middle = slice(y.shape[1] // 4, y.shape[1] * 3 // 4)
    for row, hz in zip(y, inside):  # amplitude, phase, and images of upsampling
        expected = tone(hz, to_rate, len(row))
        assert agreement_db(row[middle], expected[middle]) > spec.stop_db - 6
    for row in y[len(inside) :]:
        assert 20 * math.log10(float(row[middle].abs().max())) < -(spec.stop_db - 3)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*RATES, (22_050, 22_050), (32_000, 22_050), (96_000, 8_000), (11_025, 44_100)]),
    st.integers(0, 3000),
    st.integers(-50, 2500),
    st.integers(0, 1500),
    st.integers(0, 40),
    st.sampled_from(["fast", "high"]),
)
def test_any_range_has_the_bits_of_the_whole(
    rates: tuple[int, int], total: int, start: int, length: int, spare: int, quality: str
) -> None:
    x = torch.randn(2, total, generator=torch.Generator().manual_seed(total))
    whole = resample(x, *rates, quality)
    low, high = source_range(*rates, start, length, quality)
    low, high = max(low - spare, 0), max(min(high + spare, total), 0)
    low = min(low, high)
    y = resample_range(x[:, low:high], low, *rates, start, length, total, quality)
    padded = torch.nn.functional.pad(whole, (max(-start, 0), max(start + length - whole.shape[1], 0)))
    assert torch.equal(y, padded[:, start + max(-start, 0) :][:, :length])


@pytest.mark.parametrize(
    ("rates", "total"), [((44_100, 22_050), 9000), ((48_000, 22_050), 12_000), ((8_000, 22_050), 6000), ((3, 1), 7000)]
)
def test_tiles_have_the_bits_of_single_outputs(rates: tuple[int, int], total: int) -> None:
    """Long conversions run by tiles, short ones output by output; the taps of a tile must not spread a NaN."""
    x = torch.randn(3, total)
    x[1, total // 2], x[2, total // 3], x[2, -1] = float("nan"), float("inf"), -float("inf")
    assert ops._sorted_taps(*ops._reduced(*rates), "fast")[0] is not None
    for start in (0, 5):
        length = output_length(total, *rates) - start
        whole = resample_range(x, 0, *rates, start, length, total, "fast")
        assert whole[0].isfinite().all() and whole[1].isfinite().sum() > length // 2
        pieces = [
            resample_range(x, 0, *rates, start + k, min(1000, length - k), total, "fast")
            for k in range(0, length, 1000)
        ]
        assert whole.numpy().tobytes() == torch.cat(pieces, -1).numpy().tobytes()


def test_range_past_an_hour_keeps_exact_positions() -> None:
    """Source position 2^31 and beyond: a float32 or a 32-bit integer would have lost it."""
    start = 3_000_000_000
    low, high = source_range(48_000, 22_050, start, 1000)
    x = torch.sin(2 * math.pi * 0.01 * torch.arange(low, high, dtype=torch.float64)).float()
    y = resample_range(x, low, 48_000, 22_050, start, 1000, 1 << 40)
    position = torch.from_numpy(start * 320 % (147 * 100) / 147 + np.arange(1000) * 320 / 147)
    assert agreement_db(y, torch.sin(2 * math.pi * 0.01 * position)) > 100


def test_a_range_that_lacks_samples_raises() -> None:
    low, high = source_range(44_100, 22_050, 1000, 100)
    x = torch.zeros(high - low)
    resample_range(x, low, 44_100, 22_050, 1000, 100, 10_000)
    with pytest.raises(ValueError, match=r"outputs \[1000, 1100\) need source samples"):
        resample_range(x[1:], low + 1, 44_100, 22_050, 1000, 100, 10_000)
    with pytest.raises(ValueError, match="need source samples"):
        resample_range(x[:-1], low, 44_100, 22_050, 1000, 100, 10_000)


def test_equal_rates_copy() -> None:
    x = torch.randn(2, 3, 50)
    y = resample(x, 16_000, 16_000)
    assert torch.equal(y, x) and y.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("rates", [(48_000, 22_050), (44_099, 22_051), (8_000, 44_100)])
def test_rows_are_independent(rates: tuple[int, int]) -> None:
    check_rows(lambda x, rows, active: resample(x, *rates), torch.randn(4, 2, 900), same_shape=False)


def test_large_coprime_ratios_need_no_large_table() -> None:
    assert ops._plan(*ops._reduced(44_099, 96_001), "best").taps.numel() < 1 << 20


@pytest.mark.parametrize("length", [0, 1, 2, 15])
def test_tiny(length: int) -> None:
    x = torch.ones(1, length)
    assert resample(x, 8_000, 22_050).shape == (1, math.ceil(length * 22_050 / 8_000))
    assert resample(x, 96_000, 8_000).isfinite().all()
    assert resample(torch.ones(0, 2, length), 8_000, 22_050).shape[:2] == (0, 2)


def test_bad_arguments_raise() -> None:
    x = torch.zeros(1, 10)
    with pytest.raises(ValueError, match="from_rate=0"):
        resample(x, 0, 8_000)
    with pytest.raises(ValueError, match="quality must be one of fast, high, best, got 'superb'"):
        resample(x, 1, 2, "superb")
    with pytest.raises(ValueError, match="float32"):
        resample(x.double(), 1, 2)


def test_op() -> None:
    x = torch.randn(2, 1, 300)
    torch.library.opcheck(torch.ops.fastaug.resample.default, (x, 48_000, 22_050, "high"))
    assert torch.equal(torch.ops.fastaug.resample(x, 48_000, 22_050, "high"), resample(x, 48_000, 22_050))
    compiled = torch.compile(lambda x: resample(x, 48_000, 22_050), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), resample(x, 48_000, 22_050))
    with pytest.raises(RuntimeError, match="fastaug::resample has no gradient"):
        resample(x.requires_grad_(), 48_000, 22_050).sum().backward()


@pytest.mark.parametrize(("rates", "start"), [((48_000, 22_050), 0), ((44_099, 22_051), 77), ((8_000, 22_050), 300)])
def test_kernel_is_bit_equal_to_the_cpu(rates: tuple[int, int], start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, total, length = torch.randn(2, 2, 900), 900, 130
    low, high = (max(0, min(bound, total)) for bound in source_range(*rates, start, length))
    x = whole[..., low:high].contiguous()
    expected = resample_range(x, low, *rates, start, length, total)
    plan = ops._plan(*ops._reduced(*rates), "high")
    y = torch.empty_like(expected)
    reports = emulate_launches(monkeypatch, count=True)
    ops._launch(x, y, (4, x.shape[-1], x.shape[-1], low, start, length, plan.up, plan.down), plan)
    assert torch.equal(y, expected)
    # Two half warps read two runs of 64 bytes each, unaligned: up to 3 sectors where 2 could do.
    assert reports[0].ratio < 1.6


def test_a_small_call_is_cheap() -> None:
    x = torch.randn(1, 64)
    best = math.inf
    for _ in range(300):
        before = time.perf_counter()
        resample(x, 44_100, 22_050, threads=1)
        best = min(best, time.perf_counter() - before)
    assert best < 100e-6  # 9 us on an idle core
