"""fastaug.ops.fir against julius, its definition, and the emulated kernel."""

from __future__ import annotations

import pytest
import torch

import reference
from fastaug.ops import fir as ops
from fastaug.ops.fir import windowed_sinc
from oracles import agreement_db, check_rows, emulate_launches


@pytest.mark.parametrize("rate", [8_000, 22_050, 96_000])
@pytest.mark.parametrize("hz", [200.0, 440.0, 1200.0, 2200.0, 4000.0])
def test_equals_julius(rate: int, hz: float) -> None:
    julius = pytest.importorskip("julius")
    x, cutoff = torch.rand(1, 2, 8000) - 0.5, min(hz / rate, 0.5)
    assert (windowed_sinc(x, cutoff) - julius.lowpass_filter(x, cutoff)).abs().max() < 1e-6
    assert (windowed_sinc(x, cutoff, True) - julius.highpass_filter(x, cutoff)).abs().max() < 1e-6
    longer = julius.lowpass_filter(x, cutoff, zeros=51)
    assert (windowed_sinc(x, cutoff, zeros=51) - longer).abs().max() < 1e-6


@pytest.mark.parametrize("rate", [22_050, 44_100])
def test_a_long_full_scale_clip_equals_julius(rate: int) -> None:
    """Direct form and transforms of every size, with full and half groups of blocks and a last block cut short."""
    julius = pytest.importorskip("julius")
    x = torch.rand(1, 1, 59_049) * 2 - 1
    for hz in (100.0, 200.0, 290.0, 440.0, 700.0, 1200.0, 1800.0, 2200.0, 3000.0, 4000.0, 9000.0):
        for high, peer in ((False, julius.lowpass_filter), (True, julius.highpass_filter)):
            error = (windowed_sinc(x, hz / rate, high) - peer(x, hz / rate)).abs().max()
            assert error < 1e-6, (hz, high)


@pytest.mark.parametrize("length", [300, 3000, 9001, 59_049, 140_000])
@pytest.mark.parametrize("half", [5, 27, 31, 90, 441, 1000, 2500])
def test_any_length_and_filter(length: int, half: int) -> None:
    x = torch.rand(1, 1, length) * 2 - 1
    f = 4 / (half + 0.5)
    x = torch.cat([x, x.flip(1)], 1)
    y = windowed_sinc(x, min(f, 0.5), True)
    expected = torch.from_numpy(reference.windowed_sinc(x[0, :1].numpy(), min(f, 0.5), True))
    torch.testing.assert_close(y[0, :1].double(), expected, rtol=0, atol=1e-6)
    other = windowed_sinc(x[:, 1:], min(f, 0.5), True)
    assert torch.equal(y[:, 1:], other)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 64, 65, 500])
def test_equals_the_definition_at_any_length(length: int) -> None:
    x = torch.rand(3, 2, length) - 0.5
    cutoff, highpass = torch.tensor([0.013, 0.2, 0.5], dtype=torch.float64), torch.tensor([False, True, False])
    y = windowed_sinc(x, cutoff, highpass)
    for row, result, f, high in zip(x, y, cutoff.tolist(), highpass.tolist()):
        expected = reference.windowed_sinc(row.numpy(), f, high)
        torch.testing.assert_close(result.double(), torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_a_float32_cutoff_does_not_lose_a_tap() -> None:
    """200 Hz at 22,050 Hz is 4 / 441 = 8 / 2 / 441: int() of the quotient hangs on the last bit."""
    x = torch.rand(1, 1, 3000) - 0.5
    exact, rounded = windowed_sinc(x, 200 / 22_050), windowed_sinc(x, torch.tensor([200 / 22_050]))
    assert (exact - rounded).abs().max() < 1e-6


def test_edges() -> None:
    x = torch.rand(2, 1, 300) + 1
    constant = torch.full((1, 1, 300), 0.25)
    torch.testing.assert_close(windowed_sinc(constant, 0.01), constant, rtol=0, atol=1e-7)
    assert windowed_sinc(constant, 0.01, True).abs().max() < 1e-7
    assert not windowed_sinc(x, 0.0).any() and torch.equal(windowed_sinc(x, 0.0, True), x)
    assert windowed_sinc(x[..., :0], 0.1).shape == (2, 1, 0)
    assert windowed_sinc(x[:0], 0.1).shape == (0, 1, 300)


def test_rows_are_independent() -> None:
    cutoff, high = torch.tensor([0.01, 0.05, 0.3, 0.11, 0.02]), torch.tensor([True, False, True, False, False])
    check_rows(lambda x, rows, on: windowed_sinc(x, cutoff[rows], high[rows], active=on), torch.randn(5, 2, 700))


def test_long_rows_are_independent() -> None:
    cutoff, high = torch.tensor([0.01, 0.05, 0.1, 0.02]), torch.tensor([True, False, True, False])
    check_rows(lambda x, rows, on: windowed_sinc(x, cutoff[rows], high[rows], active=on), torch.randn(4, 2, 9000))


@pytest.mark.parametrize("high", [False, True])
def test_in_place(high: bool) -> None:
    cutoff, active = torch.tensor([0.01, 0.05, 0.3, 0.0, 0.02]), torch.tensor([True, True, True, True, False])
    x = torch.randn(5, 2, 9001)
    expected = windowed_sinc(x, cutoff, high, active=active)
    y = windowed_sinc(x, cutoff, high, active=active, inplace=True)
    assert y.data_ptr() == x.data_ptr() and torch.equal(x, expected)
    with_gradient = torch.randn(5, 2, 90, requires_grad=True)
    kept = with_gradient.detach().clone()
    windowed_sinc(with_gradient, cutoff, high, inplace=True)
    assert torch.equal(with_gradient.detach(), kept)


@pytest.mark.parametrize("high", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_bad_sample_reaches_no_further_than_the_filter(bad: float, high: bool) -> None:
    """441 taps on each side go through transforms of 2048 samples, which would spread it over a whole block, and over
    the one that shares its lane."""
    x = torch.rand(1, 2, 59_049) - 0.5
    clean = windowed_sinc(x, 4 / 441.5, high)
    sick = x.clone()
    sick[0, 0, 30_000] = bad
    y = windowed_sinc(sick, 4 / 441.5, high)
    assert torch.equal(y[0, 1], clean[0, 1])
    outside = torch.ones(59_049, dtype=torch.bool)
    outside[30_000 - 441 : 30_000 + 442] = False
    assert (y - clean)[0, 0, outside].abs().max() < 1e-6
    inside = y[0, 0, 30_000 - 440 : 30_000 + 441]  # the outermost taps are zero
    assert not inside.isfinite().any() if bad != 1e30 else inside[440] > 1e27


def test_bad_arguments_raise() -> None:
    x = torch.zeros(2, 1, 100)
    for bad in (-0.1, 0.6, torch.tensor([0.1, float("nan")])):
        with pytest.raises(ValueError, match=r"cutoff must be a fraction of the sample rate in \[0, 0.5\]"):
            windowed_sinc(x, bad)
    with pytest.raises(ValueError, match="more than 2\\^21 taps"):
        windowed_sinc(x, 1e-7)
    with pytest.raises(ValueError, match="zeros"):
        windowed_sinc(x, 0.1, zeros=0)
    with pytest.raises(TypeError, match="highpass must be bool"):
        windowed_sinc(x, 0.1, torch.ones(2))


def test_gradient() -> None:
    x = torch.randn(4, 2, 90, requires_grad=True)
    cutoff, high = torch.tensor([0.05, 0.2, 0.0, 0.1]), torch.tensor([False, True, False, False])
    active = torch.tensor([True, True, True, False])
    y = windowed_sinc(x, cutoff, high, active=active)
    g = torch.randn_like(y)
    y.backward(g)
    other = torch.randn_like(x)
    forward = (windowed_sinc(other, cutoff, high, active=active) * g).double().sum((1, 2))
    torch.testing.assert_close(forward, (x.grad * other).double().sum((1, 2)), rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="cutoff"):
        windowed_sinc(x, torch.full((4,), 0.1, requires_grad=True)).sum().backward()


def test_op() -> None:
    x = torch.randn(2, 1, 200, requires_grad=True)
    arguments = (x, torch.tensor([0.1, 0.2], dtype=torch.float64), torch.tensor([True, False]), 8, None)
    torch.library.opcheck(torch.ops.fastaug.windowed_sinc.default, arguments)
    compiled = torch.compile(lambda x: windowed_sinc(x, arguments[1], arguments[2]), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x.detach()), windowed_sinc(x.detach(), arguments[1], arguments[2]))


@pytest.mark.parametrize("length", [1, 300, 2310])
def test_kernel_equals_the_cpu(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(6, 2, length) - 0.5
    cutoff = torch.tensor([0.005, 0.3, 0.01, 0.0, 0.0, 0.1], dtype=torch.float64)  # 0.005: more than one chunk of taps
    high = torch.tensor([False, False, True, False, True, True])
    active = torch.tensor([True, True, True, True, True, False])
    expected = ops._cpu(x, cutoff, high, 8, active)
    reports = emulate_launches(monkeypatch, count=True)
    y = ops._cuda(x, cutoff, high, 8, active)
    for row, wanted, on in zip(y, expected, active.tolist()):
        silent = (row - wanted).abs().max() < 1e-7  # the high-pass of a constant
        assert torch.equal(row, wanted) or (on and (silent or agreement_db(row, wanted) > 120))
    assert length < 1000 or reports[0].ratio < 1.5
