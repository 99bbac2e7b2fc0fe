"""fastaug.ops.iir against scipy, the analogue filters it comes from, closed forms, and the emulated kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor

from fastaug import functional as F
from fastaug.ops import iir as ops
from fastaug.ops.iir import BIQUADS, biquad, butterworth, sos_filter
from oracles import agreement_db, check_rows, emulate_launches

ORDERS = [1, 2, 3, 4, 5, 8, 16]


def mixed(cutoffs: list[float]) -> tuple[Tensor, Tensor]:
    """Every cutoff as a low-pass, then as a high-pass."""
    both = torch.tensor(cutoffs * 2, dtype=torch.float64)
    return both, torch.arange(len(both)) >= len(cutoffs)


def noise(*shape: int) -> Tensor:
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("rate", [8_000, 48_000, 96_000])
@pytest.mark.parametrize("order", ORDERS[:6])
def test_equals_scipy(order: int, rate: int) -> None:
    """Above 150 dB: what float32 holds. 20 Hz at 96 kHz has its poles within 0.0013 of the unit circle."""
    cutoff, high = mixed([hz / rate for hz in (20.0, 300.0, rate * 0.25, rate * 0.49, rate * 0.4999)])
    x = noise(len(cutoff), 2, 10_007)
    y = sos_filter(x, butterworth(cutoff, high, order))
    for row, result, f, is_high in zip(x, y, cutoff.tolist(), high.tolist()):
        sos = signal.butter(order, 2 * f, "highpass" if is_high else "lowpass", output="sos")
        assert agreement_db(result, torch.from_numpy(signal.sosfilt(sos, row.double().numpy()))) > 145, (f, is_high)


def response(sos: Tensor, at: np.ndarray) -> np.ndarray:
    """Of one row's cascade, at fractions of the sample rate."""
    z = np.exp(-2j * np.pi * at)
    powers = np.stack([np.ones_like(z), z, z * z])
    sections = sos.numpy()
    return np.prod((sections[:, :3] @ powers) / (sections[:, 3:] @ powers), axis=0)


@pytest.mark.parametrize("order", ORDERS)
def test_butterworth_has_the_magnitude_of_its_definition(order: int) -> None:
    """|H|^2 = 1 / (1 + (K / Kc)^(2 order)) with K = tan(pi f): S. Butterworth 1930 under the bilinear transform."""
    cutoff, high = mixed([1e-5, 0.0004, 0.03, 0.25, 0.4, 0.4999])
    at = np.array([1e-4, 0.001, 0.02, 0.11, 0.25, 0.37, 0.49])
    for sos, fc, is_high in zip(butterworth(cutoff, high, order), cutoff.tolist(), high.tolist()):
        ratio = np.tan(np.pi * at) / np.tan(np.pi * fc)
        expected = 1 / np.sqrt(1 + np.exp(2 * order * np.log(1 / ratio if is_high else ratio).clip(-300 / order)))
        np.testing.assert_allclose(np.abs(response(sos, at)), expected, rtol=1e-6)
        np.testing.assert_allclose(abs(response(sos, np.array([fc])))[0], 0.5**0.5, rtol=1e-6)


def test_first_order_is_the_allpass_form_of_essentia() -> None:
    """y = (x ± A x) / 2, A(z) = (c + z^-1) / (1 + c z^-1), c = (tan(pi f) - 1) / (tan(pi f) + 1); impulse response."""
    for f in (0.01, 0.1, 0.2499, 0.45):
        c = (np.tan(np.pi * f) - 1) / (np.tan(np.pi * f) + 1)
        n = np.arange(199)
        allpass = np.concatenate([[c], (1 - c * c) * (-c) ** n])
        impulse = torch.zeros(2, 1, 200)
        impulse[:, :, 0] = 1.0
        y = sos_filter(impulse, butterworth(*mixed([f]), 1)).numpy()
        unit = impulse[0, 0].numpy()
        np.testing.assert_allclose(y[0, 0], (unit + allpass) / 2, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(y[1, 0], (unit - allpass) / 2, rtol=1e-6, atol=1e-9)


def analogue(kind: str, s: np.ndarray, q: float, gain_db: float) -> np.ndarray:
    """The prototypes of the Audio EQ Cookbook, s = j K / K0."""
    a = 10 ** (gain_db / 40)
    edge = np.sqrt(a) / q * s
    return {
        "band_pass": (s / q) / (s * s + s / q + 1),
        "notch": (s * s + 1) / (s * s + s / q + 1),
        "peaking": (s * s + s * a / q + 1) / (s * s + s / (a * q) + 1),
        "low_shelf": a * (s * s + edge + a) / (a * s * s + edge + 1),
        "high_shelf": a * (a * s * s + edge + 1) / (s * s + edge + a),
    }[kind]


@pytest.mark.parametrize("kind", BIQUADS)
def test_biquads_have_the_response_of_their_prototypes(kind: str) -> None:
    frequency = torch.tensor([0.001, 0.01, 0.2, 0.3, 0.49], dtype=torch.float64)
    q, gain_db = torch.tensor([0.5, 2**-0.5, 1.0, 4.0, 20.0]), torch.tensor([-18.0, 3.0, 0.0, 12.0, -1.0])
    at = np.array([1e-5, 0.001, 0.0123, 0.1, 0.2, 0.31, 0.45, 0.4999])
    for i, sos in enumerate(biquad(kind, frequency, q, gain_db)):
        s = 1j * np.tan(np.pi * at) / np.tan(np.pi * frequency[i].item())
        expected = analogue(kind, s, q[i].item(), gain_db[i].item())
        np.testing.assert_allclose(response(sos, at), expected, rtol=1e-6, atol=1e-8)


def test_biquads_run_as_functions() -> None:
    """Tones: kept, cut, raised."""
    rate, t = 8000, torch.arange(16_000, dtype=torch.float64) / 8000

    def level(run: object, hz: float, *arguments: float) -> float:
        x = torch.sin(2 * torch.pi * hz * t).float()
        y = run(x, rate, *arguments)  # type: ignore[operator]
        return float(20 * torch.log10(y[8000:].std() / x[8000:].std()))

    assert level(F.band_pass, 1000.0, 1000.0) == pytest.approx(0, abs=0.01)
    assert level(F.band_pass, 100.0, 1000.0, 2.0) < -20
    assert level(F.notch, 1000.0, 1000.0) < -80 and level(F.notch, 100.0, 1000.0) == pytest.approx(0, abs=0.1)
    assert level(F.peaking_eq, 1000.0, 1000.0, 6.0) == pytest.approx(6, abs=0.01)
    assert level(F.low_shelf, 1000.0, 1000.0, 6.0) == pytest.approx(3, abs=0.01)
    assert level(F.low_shelf, 20.0, 1000.0, 6.0) == pytest.approx(6, abs=0.01)
    assert level(F.high_shelf, 20.0, 1000.0, 6.0) == pytest.approx(0, abs=0.01)
    assert level(F.low_pass, 1000.0, 1000.0, 8, 3) == pytest.approx(-3.01, abs=0.01)
    assert level(F.high_pass, 1000.0, 1000.0, 8, 1) == pytest.approx(-3.01, abs=0.01)


def test_edges() -> None:
    """A filter at 0 or at half the rate keeps all or nothing, and neither T = 0 nor B = 0 is a special case."""
    x = noise(4, 2, 100)
    cutoff, high = mixed([0.0, 0.5])
    for order in ORDERS:
        y = sos_filter(x, butterworth(cutoff, high, order))
        assert torch.equal(y[1:3], x[1:3]) and not y[0].any() and not y[3].any()
        assert sos_filter(x[..., :0], butterworth(cutoff, high, order)).shape == (4, 2, 0)
        assert sos_filter(x[:0], butterworth(cutoff[:0], high[:0], order)).shape == (0, 2, 100)
    edge = torch.tensor([0.0, 0.5], dtype=torch.float64)
    for kind, wanted in (
        ("band_pass", [0.0, 0.0]), ("notch", [1.0, 1.0]), ("peaking", [1.0, 1.0]),
        ("low_shelf", [1.0, 2.0]), ("high_shelf", [2.0, 1.0]),
    ):  # fmt: skip
        y = sos_filter(x[:2], biquad(kind, edge, gain_db=20 * np.log10(2.0)))
        torch.testing.assert_close(y, x[:2] * torch.tensor(wanted)[:, None, None])


def sections_of_all_kinds(rows: int) -> Tensor:
    """(rows, 3, 6): every mixture of first and second order, and a0 other than 1."""
    f = torch.linspace(0.001, 0.45, rows, dtype=torch.float64)
    high = torch.arange(rows) % 2 == 0
    first, second = butterworth(f, high, 1), butterworth(f, ~high, 2)
    picks = [torch.where((torch.arange(rows) >> bit & 1 == 1)[:, None, None], first, second) for bit in range(3)]
    return torch.cat(picks, dim=1) * torch.tensor([1.0, -0.5, 3.0], dtype=torch.float64)[:, None]


def test_own_sections_equal_scipy() -> None:
    x, sos = noise(19, 1, 2_000), sections_of_all_kinds(19)
    y = sos_filter(x, sos)
    for row, result, mine in zip(x, y, (sos / sos[..., 3:4]).numpy()):
        assert agreement_db(result, torch.from_numpy(signal.sosfilt(mine, row.double().numpy()))) > 140
    assert torch.equal(sos_filter(x, sos[3]), sos_filter(x, sos[3].expand(19, 3, 6)))
    assert torch.equal(F.sos_filter(x[0, 0], sos[0]), y[0, 0])


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 3, 63, 64, 65, 700])
def test_rows_are_independent(order: int, length: int) -> None:
    """10 channels: a group of eight and a rest on one thread; the rows alone run one by one."""
    cutoff, high = torch.linspace(0.01, 0.4, 5, dtype=torch.float64), torch.tensor([True, False, True, False, False])
    check_rows(lambda x, rows, on: sos_filter(x, butterworth(cutoff[rows], high[rows], order), on), noise(5, 2, length))


def test_more_threads_than_channels_change_nothing() -> None:
    x, sos = noise(6, 1, 40_000), sections_of_all_kinds(6)
    whole = sos_filter(x, sos)
    for count in (1, 4, 16):
        torch.set_num_threads(count)
        assert torch.equal(sos_filter(x, sos), whole)
        assert torch.equal(sos_filter(x[2:3], sos[2:3]), whole[2:3])


def test_an_infinite_row_does_not_show_its_company() -> None:
    """0 * Inf: a section of first order run as one of second order would turn Inf to NaN."""
    low = torch.full((9,), 0.1, dtype=torch.float64), torch.zeros(9, dtype=torch.bool)
    first = torch.arange(9) % 3 == 1
    sos = torch.where(first[:, None, None], butterworth(*low, 1), butterworth(*low, 2))
    x = noise(9, 1, 200)
    x[:, :, 50] = float("inf")
    whole = sos_filter(x, sos)
    assert (whole[first][..., 50:] == float("inf")).all() and whole[~first][..., 60:].isnan().all()
    for row in range(9):
        alone = sos_filter(x[row : row + 1], sos[row : row + 1])[0]
        torch.testing.assert_close(alone, whole[row], rtol=0, atol=0, equal_nan=True)


def test_in_place() -> None:
    sos, active = sections_of_all_kinds(11), torch.arange(11) % 3 != 0
    for length in (1, 64, 500):
        x = noise(11, 2, length)
        expected = sos_filter(x, sos, active)
        kept = x.clone()
        assert sos_filter(kept, sos, active, inplace=True) is kept and torch.equal(kept, expected)
        for row in (1, 2):
            one = x[row : row + 1].clone()
            assert torch.equal(sos_filter(one, sos[row : row + 1], inplace=True), expected[row : row + 1])
            assert torch.equal(one, expected[row : row + 1])
    x = noise(11, 2, 50).requires_grad_()
    before = x.detach().clone()
    sos_filter(x, sos, inplace=True)
    assert torch.equal(x, before), "autograd needs the input"
    y = noise(3, 1, 80)
    assert F.high_pass(y, 8000, 100.0, order=2, inplace=True).data_ptr() == y.data_ptr()


def test_nothing_rings_for_ever() -> None:
    """Neither limit cycles nor subnormal numbers: a loud start dies away to zero, a constant settles."""
    x = torch.zeros(2, 1, 40_000)
    x[:, :, :100] = noise(2, 1, 100)
    assert not sos_filter(x, butterworth(*mixed([0.2]), 4))[..., -1000:].any()
    magnified = torch.tensor([[1.0, 0, 0, 1, -0.9, 0], [1e300, 0, 0, 1, 0, 0]], dtype=torch.float64)
    assert not sos_filter(1e-30 * x, magnified)[..., -1000:].any(), "0.9 * 5 * 2^-1074 rounds to itself"
    steady = sos_filter(torch.full((2, 1, 400_000), 0.7), butterworth(*mixed([20 / 48_000]), 4))[..., -1000:]
    assert (steady[0] == 0.7).all() and steady[1].abs().max() < 1e-9


def test_bad_arguments_raise() -> None:
    x, sos = noise(2, 1, 100), sections_of_all_kinds(2)
    with pytest.raises(TypeError, match="float64"):
        sos_filter(x, sos.float())
    for wrong in (sos[:1], sos[..., :5], sos[0, 0], torch.cat([sos] * 3)):
        with pytest.raises(ValueError, match=r"sos must have shape \(2, S, 6\)"):
            sos_filter(x, wrong)
    for count in (0, 17):
        with pytest.raises(ValueError, match=f"1 to 16 sections, got {count}"):
            sos_filter(x, sos[:, :1].expand(2, count, 6))
    for bad in ([1.0, 0, 0, 1, -1, 0], [1, 0, 0, 1, 0, 1], [1, 0, 0, 1, -2.1, 1.05], [1, 0, 0, 0, 0, 0],
                [float("nan"), 0, 0, 1, 0, 0], [1, 0, 0, 1, float("nan"), 0]):  # fmt: skip
        sick = sos.clone()
        sick[1, 2] = torch.tensor(bad)
        with pytest.raises(ValueError, match="section 2 of row 1 is not a stable filter"):
            sos_filter(x, sick)
        y = sos_filter(x, sick, torch.tensor([True, False]))
        assert torch.equal(y[1], x[1]) and torch.equal(y[:1], sos_filter(x[:1], sos[:1]))
    one, low = torch.tensor([0.1], dtype=torch.float64), torch.tensor([False])
    for cutoff in (-0.1, 0.51, float("nan")):
        with pytest.raises(ValueError, match=r"cutoff must be a fraction of the sample rate in \[0, 0.5\]"):
            butterworth(torch.tensor([0.1, cutoff], dtype=torch.float64), torch.tensor([False, True]), 2)
        with pytest.raises(ValueError, match="a biquad needs a frequency in"):
            biquad("notch", torch.tensor([cutoff], dtype=torch.float64))
    for order in (0, 17):
        with pytest.raises(ValueError, match="order must lie in"):
            butterworth(one, low, order)
    with pytest.raises(TypeError, match="float64"):
        butterworth(one.float(), low, 2)
    with pytest.raises(ValueError, match="one cutoff and one highpass a row"):
        butterworth(one, torch.tensor([False, True]), 2)
    with pytest.raises(ValueError, match="q > 0"):
        biquad("notch", one, q=0.0)
    with pytest.raises(ValueError, match="kind must be one of"):
        biquad("comb", one)


def test_gradient() -> None:
    x, sos = noise(4, 2, 300).requires_grad_(), sections_of_all_kinds(4)
    active = torch.tensor([True, True, False, True])
    y = sos_filter(x, sos, active)
    g = torch.randn_like(y)
    y.backward(g)
    other = torch.randn_like(x)
    forward = (sos_filter(other, sos, active) * g).double().sum((1, 2))
    torch.testing.assert_close(forward, (x.grad * other).double().sum((1, 2)), rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="coefficients"):
        sos_filter(x, sos.clone().requires_grad_()).sum().backward()


def test_ops() -> None:
    x, sos = noise(2, 1, 200), sections_of_all_kinds(2)
    cutoff, high = mixed([0.1])
    torch.library.opcheck(torch.ops.fastaug.sos_filter.default, (x.requires_grad_(), sos, None))
    torch.library.opcheck(torch.ops.fastaug.butterworth.default, (cutoff, high, 3))
    torch.library.opcheck(torch.ops.fastaug.biquad.default, (cutoff, cutoff + 1, cutoff, 2))
    x = x.detach()

    def run(x: Tensor) -> Tensor:
        return sos_filter(sos_filter(x, butterworth(cutoff, high, 3)), biquad("peaking", cutoff, 1.0, 3.0))

    compiled = torch.compile(run, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), run(x))


@pytest.mark.parametrize("length", [1, 300, 2048, 6500])
def test_kernel_equals_the_cpu(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """6500 samples are three tiles and a piece; 2e-4 is 20 Hz at 96 kHz."""
    x = noise(4, 2, length)
    cutoff, high = torch.tensor([2e-4, 2e-4, 0.1, 0.45], dtype=torch.float64), torch.tensor([False, True, True, False])
    active = torch.tensor([True, True, False, True])
    reports = emulate_launches(monkeypatch, count=True)
    for order in (1, 4, 5):
        sos = butterworth(cutoff, high, order)
        expected, y = ops._cpu(x, sos, active), ops._cuda(x, sos, active)
        assert torch.equal(y[2], x[2])
        for row, wanted in zip(y, expected):
            assert agreement_db(row, wanted) > 140
        assert length < 1000 or reports[-1].ratio < 1.5


def test_design_kernels_equal_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = emulate_launches(monkeypatch, count=True)
    cutoff, high = mixed([0.0, 1e-5, 0.03, 0.25, 0.4999, 0.5] * 8)
    for order in ORDERS:
        expected = butterworth(cutoff, high, order)
        torch.testing.assert_close(ops._butterworth_cuda(cutoff, high, order), expected, rtol=1e-14, atol=0)
    q, gain_db = 0.5 + 10 * cutoff, 40 * cutoff - 10
    for kind, name in enumerate(BIQUADS):
        expected = biquad(name, cutoff, q, gain_db)
        torch.testing.assert_close(ops._biquad_cuda(cutoff, q, gain_db, kind), expected, rtol=1e-14, atol=0)
    assert all(site.sectors <= 1.5 * site.minimum for site in reports[-1].sites if site.store)
