"""fastaug.ops.resample: frequency response, exact ranges, both devices."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from fastaug import functional as F
from fastaug.ops import _cuda, _resample_filter
from fastaug.ops import resample as ops
from fastaug.ops import resample_rows as rows_ops
from fastaug.ops.resample import QUALITIES, output_length, resample, resample_range, source_range
from fastaug.ops.resample_rows import resample_rows
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
        assert float(row[middle].abs().max()) < 10 ** (-(spec.stop_db - 3) / 20)


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
    "rates", [(44_100, 22_050), (48_000, 22_050), (8_000, 22_050), (3, 1), (17, 13), (16_000, 15_991)]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_sample_stays_within_the_reach_of_the_filter(rates: tuple[int, int], bad: float) -> None:
    """An FFT would spread it over its whole block."""
    total, at = 9000, 4000
    x = torch.randn(3, total)
    good = resample(x, *rates)
    x[1, at], x[2, at] = bad, bad
    x[2, at + 1] = bad
    y = resample(x, *rates)
    up, down = ops.reduced(*rates)
    reach = ops._half_width(up, down, "high")
    position = torch.arange(y.shape[1]) * down / up
    away = (position - at).abs() > reach + 1
    assert torch.equal(y[0], good[0])
    assert y[1:, away].isfinite().all()
    assert agreement_db(y[1, away], good[1, away]) > 110
    near = int((position - at).abs().argmin())
    assert not y[1, near].isfinite()
    start, length = near - 700, 1500  # and a range has the same bits
    low, high = source_range(*rates, start, length)
    low, high = max(low, 0), min(high, total)
    part = resample_range(x[:, low:high], low, *rates, start, length, total)
    assert part.numpy().tobytes() == y[:, start : start + length].contiguous().numpy().tobytes()


@pytest.mark.parametrize("rates", [(44_100, 22_050), (48_000, 22_050), (16_000, 22_050)])
def test_ranges_at_the_edges_of_blocks(rates: tuple[int, int]) -> None:
    grid = _resample_filter.blocks(*ops.reduced(*rates), "high")
    assert grid is not None
    x = torch.randn(4 * grid.hop)
    whole = resample(x, *rates)
    for start in (grid.outputs - 1, grid.outputs, grid.outputs + 1):
        for length in (1, 2, grid.outputs - 1, grid.outputs, grid.outputs + 1):
            low, high = source_range(*rates, start, length)
            low, high = max(low, 0), min(high, len(x))
            y = resample_range(x[low:high], low, *rates, start, length, len(x))
            assert torch.equal(y, whole[start : start + length])


def test_blocks_do_not_depend_on_their_neighbours_in_the_lanes() -> None:
    x = torch.randn(5, 60_000)
    whole = resample(x, 44_100, 22_050)
    for row in range(5):
        assert torch.equal(resample(x[row], 44_100, 22_050), whole[row])
    assert torch.equal(resample(x[:, :50_000], 44_100, 22_050)[:, :20_000], whole[:, :20_000])


def test_the_blocks_of_a_pair_do_not_mix() -> None:
    """To half the rate two blocks go through one complex transform: what is loud in one must not be heard in the other
    beyond the rounding of its samples, nor a NaN."""
    grid = _resample_filter.blocks(1, 2, "high")
    assert grid is not None and len(grid.sources) == 0
    middle, away = grid.outputs // 2, grid.lead
    x = torch.randn(1, grid.hop)
    for loud in (slice(0, middle), slice(middle, None)):
        other = slice(middle + away, None) if loud.start == 0 else slice(0, middle - away)
        louder, broken = x.clone(), x.clone()
        louder[:, 2 * (loud.start or 0) : loud.stop and 2 * loud.stop] *= 1000
        broken[:, 2 * (loud.start or 0) + 500] = math.nan
        expected = resample(x, 44_100, 22_050)[:, other]
        assert float((resample(louder, 44_100, 22_050)[:, other] - expected).abs().max()) < 1000 * 2e-6
        assert agreement_db(resample(broken, 44_100, 22_050)[:, other], expected) > 110


@pytest.mark.parametrize("size", [2, 12, 28, 40, 98, 100, 256, 294, 360, 512, 1764])
def test_every_radix_is_an_exact_fourier_transform(size: int) -> None:
    """Resampling 1:1 by blocks, the filter replaced by 1: both FFTs and the untangling must cancel."""
    blocks = _resample_filter._make_blocks(1, 1, 2 * size, 2 * size, 0, QUALITIES["high"])
    count, k = 2 * size, np.arange(size + 1)
    turn, p = np.exp(-1j * np.pi * k / size), np.ones(size + 1) / size
    a, b = (1 + 1j * turn.conj()) / 2, (1 - 1j * turn.conj()) / 2
    forward, back = p * (1 - 1j * turn) / 2, p * (1 + 1j * turn) / 2
    mirror = size - k
    factors = np.stack([a * forward, a * back, b * back[mirror].conj(), b * forward[mirror].conj()], 1)[:-1]
    blocks.factors.copy_(torch.from_numpy(factors.astype(np.complex64)).view(torch.float32))
    blocks = replace(blocks, lead=0)
    x = torch.randn(1, 3 * count)
    y = torch.empty_like(x)
    sizes = (1, 3 * count, 3 * count, 0, 0, 3 * count, 1, 1)
    ops._library.native().fa_resample_blocks(x.data_ptr(), y.data_ptr(), *sizes, 0, 0, 0, *blocks.arguments, 1)
    assert agreement_db(y, x) > 125


@pytest.mark.parametrize(
    "rates", [(44_100, 22_050), (48_000, 22_050), (22_050, 16_000), (16_000, 22_050), (44_100, 48_000)]
)
def test_agrees_with_soxr(rates: tuple[int, int]) -> None:
    """An independent resampler, below half the pass band: towards its end soxr rolls off by up to 0.01 dB."""
    soxr = pytest.importorskip("soxr")
    t = torch.arange(20_000, dtype=torch.float64) / rates[0]
    nyquist = min(rates) / 2
    x = sum(torch.sin(2 * math.pi * hz * nyquist * t + hz) for hz in (0.013, 0.11, 0.25, 0.37, 0.45))
    expected = torch.from_numpy(soxr.resample(x.numpy(), *rates, quality="VHQ"))
    y = resample(x.float(), *rates)
    middle = slice(1500, min(len(y), len(expected)) - 1500)
    assert agreement_db(y[middle], expected[middle]) > 115


def test_unit_gain_and_linearity() -> None:
    ones = resample(torch.ones(20_000), 44_100, 22_050)[1000:9000]
    assert (ones - 1).abs().max() < 3e-6
    a, b = torch.randn(2, 9000)
    mixed = resample(0.5 * a - 2 * b, 48_000, 22_050)
    assert agreement_db(mixed, 0.5 * resample(a, 48_000, 22_050) - 2 * resample(b, 48_000, 22_050)) > 125


LEVELS = re.findall(
    r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) dB \| ([\d.]+) dB \| (\d+) \|",
    (Path(__file__).parents[1] / "docs" / "resampling.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)


def gain_db(y: torch.Tensor, hz: float, rate: int) -> float:
    """Of a unit tone behind a Hann window, by projection."""
    t = torch.arange(len(y), dtype=torch.float64)
    window = torch.hann_window(len(y), dtype=torch.float64)
    turned = (y.double() * window * torch.exp(-2j * math.pi * hz / rate * t)).sum() * 2 / window.sum()
    return float(20 * torch.log10(turned.abs()))


def test_the_table_of_quality_levels_is_complete() -> None:
    assert [level[0] for level in LEVELS] == list(QUALITIES)


@pytest.mark.parametrize(("quality", "flat", "half_power", "ripple", "stop", "taps"), LEVELS)
@pytest.mark.parametrize("rates", [(44_100, 22_050), (48_000, 22_050), (48_000, 16_000), (16_000, 22_050), (17, 13)])
def test_measures_what_the_docs_promise(
    rates: tuple[int, int], quality: str, flat: str, half_power: str, ripple: str, stop: str, taps: str
) -> None:
    """docs/resampling.md: a sweep of tones, in float64 but for the resampling itself."""
    nyquist, length = min(rates) / 2, 6000 * rates[0] // min(rates)
    pass_band = [float(flat) * part / 24 for part in range(1, 25)]
    outside = [1.0 + 0.002 * n for n in range(25)] + [1.1, 1.2, 1.3, 1.5, 1.8, 1.99]
    stop_band = [part for part in outside if part * nyquist < rates[0] / 2]
    parts = [*pass_band, float(half_power), *stop_band]
    y = resample(torch.stack([tone(part * nyquist, rates[0], length) for part in parts]).float(), *rates, quality)
    y = y[:, y.shape[1] // 4 : y.shape[1] * 3 // 4]
    for row, part in zip(y, pass_band):
        assert abs(gain_db(row, part * nyquist, rates[1])) < float(ripple)
    assert abs(gain_db(y[len(pass_band)], float(half_power) * nyquist, rates[1]) + 3.01) < 0.02
    for row in y[len(pass_band) + 1 :]:  # root mean square of what a unit sine leaves, at any frequency
        assert 10 * math.log10(2 * float(row.double().square().mean()) + 1e-30) < -float(stop)
    spec = QUALITIES[quality]
    assert 2 * int(spec.support) + 1 == int(taps)


def test_range_past_an_hour_keeps_exact_positions() -> None:
    """Source position 2^31 and beyond: a float32 or a 32-bit integer would have lost it."""
    start = 3_000_000_000
    low, high = source_range(48_000, 22_050, start, 1000)
    x = torch.sin(2 * math.pi * 0.01 * torch.arange(low, high, dtype=torch.float64)).float()
    y = resample_range(x, low, 48_000, 22_050, start, 1000, 1 << 40)
    position = torch.from_numpy(start * 320 % (147 * 100) / 147 + np.arange(1000) * 320 / 147)
    assert agreement_db(y, torch.sin(2 * math.pi * 0.01 * position)) > 100


@pytest.mark.parametrize("rates", [(44_100, 22_050), (48_000, 22_050), (192_000, 8_000)])
def test_a_range_that_lacks_samples_raises(rates: tuple[int, int]) -> None:
    low, high = source_range(*rates, 5000, 100)
    assert low > 1
    x = torch.zeros(high - low)
    resample_range(x, low, *rates, 5000, 100, high + 9)
    with pytest.raises(ValueError, match=r"outputs \[5000, 5100\) need source samples"):
        resample_range(x[1:], low + 1, *rates, 5000, 100, high + 9)
    with pytest.raises(ValueError, match="need source samples"):
        resample_range(x[:-1], low, *rates, 5000, 100, high + 9)


def test_equal_rates_copy() -> None:
    x = torch.randn(2, 3, 50)
    y = resample(x, 16_000, 16_000)
    assert torch.equal(y, x) and y.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("rates", [(48_000, 22_050), (44_099, 22_051), (8_000, 44_100)])
def test_rows_are_independent(rates: tuple[int, int]) -> None:
    check_rows(lambda x, rows, active: resample(x, *rates), torch.randn(4, 2, 900), same_shape=False)


def test_large_coprime_ratios_need_no_large_table() -> None:
    assert ops._plan(*ops.reduced(44_099, 96_001), "best").taps.numel() < 1 << 20


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


@pytest.mark.parametrize("rates", [(44_100, 22_050), (48_000, 22_050), (16_000, 22_050), (44_099, 22_051), (5, 5)])
def test_the_gradient_is_the_adjoint(rates: tuple[int, int]) -> None:
    """<A x, g> = <x, A' g>, and entry by entry against the float64 matrix."""
    length = 60
    matrix = torch.from_numpy(
        np.stack([reference.resample(row, *rates, 0.915, 128.0) for row in np.eye(length)], 1)
        if rates[0] != rates[1]
        else np.eye(length)
    )
    x = torch.randn(2, 1, length, requires_grad=True)
    y = resample(x, *rates)
    g = torch.randn(y.shape)
    (gradient,) = torch.autograd.grad(y, x, g, create_graph=True)
    assert agreement_db(gradient.detach(), g.double() @ matrix) > 110
    rows, _ = resample_rows(x, rates[0], torch.full((2,), rates[1]))
    (again,) = torch.autograd.grad(rows, x, g)
    assert agreement_db(again, g.double() @ matrix) > 110
    g2 = torch.randn(x.shape)  # the gradient's gradient is the conversion itself
    v = torch.randn(y.shape, requires_grad=True)
    (back,) = torch.autograd.grad(resample(x, *rates), x, v, create_graph=True)
    (forth,) = torch.autograd.grad(back, v, g2)
    assert agreement_db(forth, g2.double() @ matrix.T) > 110


FROM = torch.tensor([44_100, 48_000, 16_000, 44_099, 22_050, 44_100])
TO = torch.tensor([22_050, 22_050, 22_050, 44_101, 22_050, 22_050])


@pytest.mark.parametrize("channels", [1, 2])
def test_rows_have_their_own_ratio(channels: int) -> None:
    x = torch.randn(6, channels, 1500)
    y, lengths = resample_rows(x, FROM, TO)
    assert lengths.tolist() == [output_length(1500, int(a), int(b)) for a, b in zip(FROM, TO)]
    assert y.shape == (6, channels, max(lengths.tolist()))
    for row in range(6):
        alone = resample(x[row], int(FROM[row]), int(TO[row]))
        assert torch.equal(y[row, :, : lengths[row]], alone) and (y[row, :, lengths[row] :] == 0).all()
    cut, short = resample_rows(x, FROM, TO, out_length=700)
    assert torch.equal(cut, y[..., :700]) and short.tolist() == [700 if n > 700 else n for n in lengths.tolist()]
    longer, same = resample_rows(x, FROM, TO, out_length=4000)
    assert torch.equal(longer[..., : y.shape[-1]], y) and not longer[..., y.shape[-1] :].any()
    assert torch.equal(same, lengths)


def test_rows_with_one_number() -> None:
    x = torch.randn(3, 1, 500)
    to = torch.tensor([8_000, 16_000, 11_025], dtype=torch.int32)
    y, lengths = F.resample(x, 16_000, to)
    assert lengths.tolist() == [250, 500, 345] and y.shape == (3, 1, 500)
    back, _ = F.resample(x.double(), to, 16_000, out_length=100)
    assert back.dtype == torch.float64 and back.shape == (3, 1, 100)
    check_rows(lambda x, rows, _: resample_rows(x, FROM[:4][rows], TO[:4][rows], out_length=900)[0],
               torch.randn(4, 2, 900), same_shape=False)  # fmt: skip


def test_bad_rates_of_rows_raise() -> None:
    x = torch.randn(2, 1, 50)
    with pytest.raises(ValueError, match="positive"):
        resample_rows(x, torch.tensor([8000, 0]), 8000)
    with pytest.raises(TypeError, match="to_rate must be whole Hz"):
        resample_rows(x, 8000, torch.tensor([8000.0, 1.0]))
    with pytest.raises(ValueError, match="shape"):
        resample_rows(x, torch.tensor([8000, 1, 1]), 8000)
    with pytest.raises(ValueError, match="quality"):
        resample_rows(x, 8000, 1, "superb")
    empty, lengths = resample_rows(torch.zeros(0, 1, 50), torch.zeros(0, dtype=torch.int64), 8000)
    assert empty.shape == (0, 1, 0) and lengths.shape == (0,)
    assert resample_rows(torch.zeros(2, 1, 0), torch.tensor([1, 2]), 8000)[0].shape == (2, 1, 0)


def test_op_of_rows() -> None:
    x = torch.randn(6, 1, 300, requires_grad=True)
    torch.library.opcheck(torch.ops.fastaug.resample_rows.default, (x, FROM, TO, 400, "high"))
    compiled = torch.compile(lambda x, a, b: resample_rows(x, a, b, out_length=400), fullgraph=True, backend="eager")
    y, lengths = compiled(x, FROM, TO)
    expected, same = resample_rows(x, FROM, TO, out_length=400)
    assert torch.equal(y, expected) and torch.equal(lengths, same)


def test_the_gradient_of_rows_ends_where_they_end() -> None:
    x = torch.randn(6, 1, 300, requires_grad=True)
    g = torch.randn(6, 1, 500)
    y, lengths = resample_rows(x, FROM, TO, out_length=500)
    (gradient,) = torch.autograd.grad(y, x, g)
    for row in range(6):
        part = x[row].detach().requires_grad_()
        alone = resample(part, int(FROM[row]), int(TO[row]))
        (expected,) = torch.autograd.grad(alone, part, g[row, :, : lengths[row]])
        assert agreement_db(gradient[row], expected) > 110


DEVICE_RATES = [
    ((44_100, 22_050), "fa_decimate_kernel"),
    ((48_000, 16_000), "fa_decimate_kernel"),
    ((48_000, 8_000), "fa_decimate_kernel"),
    ((96_000, 8_000), "fa_polyphase_kernel"),
    ((48_000, 22_050), "fa_polyphase_kernel"),
    ((22_050, 44_100), "fa_polyphase_kernel"),
    ((44_100, 8_000), "fa_polyphase_kernel"),
    ((192_000, 8_000), "fa_resample_kernel"),
    ((44_099, 22_051), "fa_resample_kernel"),
]


@pytest.mark.parametrize("start", [0, 77])
@pytest.mark.parametrize(("rates", "kernel"), DEVICE_RATES)
def test_kernels_agree_with_the_cpu(
    rates: tuple[int, int], kernel: str, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    total, quality = 2100 * max(1, rates[0] // rates[1]), "high"
    whole, length = torch.randn(2, total), min(output_length(2100, *rates), 130) + 900
    length = min(length, output_length(total, *rates) - start)
    low, high = (max(0, min(bound, total)) for bound in source_range(*rates, start, length, quality))
    x = whole[..., low:high].contiguous()
    expected = resample_range(x, low, *rates, start, length, total, quality)
    plan = ops._plan(*ops.reduced(*rates), quality)
    y = torch.full_like(expected, float("nan"))
    names: list[str] = []
    reports = emulate_launches(monkeypatch, count=True)
    counted = _cuda.launch
    monkeypatch.setattr(_cuda, "launch", lambda file, name, *rest: (names.append(name), counted(file, name, *rest)))
    ops._launch(x, y, (2, x.shape[-1], x.shape[-1], low, start, length, plan.up, plan.down), plan)
    assert names == [kernel]
    if plan.interpolated:
        assert torch.equal(y, expected)  # the same sums in the same order
    assert agreement_db(y, expected) > 110
    # The sixteen lanes of fa_resample_kernel read unaligned runs of 64 bytes: up to 3 sectors where 2 could do.
    assert reports[0].ratio < (1.6 if kernel == "fa_resample_kernel" else 1.3)


@pytest.mark.parametrize("quality", QUALITIES)
def test_the_kernel_of_rows_agrees_with_the_cpu(quality: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(7, 2, 1500)  # more than a chunk
    from_rates, to_rates = torch.cat([FROM, torch.tensor([96_000])]), torch.cat([TO, torch.tensor([8_000])])
    expected, _ = resample_rows(x, from_rates, to_rates, quality, out_length=1100)
    reports = emulate_launches(monkeypatch, count=True)
    y = rows_ops._cuda(x, from_rates, to_rates, 1100, quality)
    for row in range(7):
        assert agreement_db(y[row], expected[row]) > 110
        end = output_length(1500, int(from_rates[row]), int(to_rates[row]))
        assert (y[row, :, end:] == 0).all()
    assert reports[0].ratio < 1.3
    odd = torch.tensor([0] + [8000] * 6)
    y = rows_ops._cuda(x, odd, to_rates, 300, quality)
    assert y[0].isnan().all() and y[1:].isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize(("rates", "kernel"), DEVICE_RATES)
def test_cuda_agrees_with_the_cpu(rates: tuple[int, int], kernel: str) -> None:
    x = torch.randn(4, 2, 30_000)
    assert agreement_db(resample(x.cuda(), *rates).cpu(), resample(x, *rates)) > 110
    rows, lengths = resample_rows(x.cuda(), rates[0], torch.full((4,), rates[1]))
    assert agreement_db(rows.cpu(), resample(x, *rates)) > 110 and lengths.device.type == "cuda"


def test_a_small_call_is_cheap() -> None:
    x = torch.randn(1, 64)
    best = math.inf
    for _ in range(300):
        before = time.perf_counter()
        resample(x, 44_100, 22_050, threads=1)
        best = min(best, time.perf_counter() - before)
    assert best < 100e-6  # 38 us on an idle core: one block of 824 outputs
