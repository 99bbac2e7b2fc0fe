"""fastaug.ops.reverb against sox, its definition, and the emulated kernel."""

from __future__ import annotations

import pytest
import torch

import reference
from fastaug.ops import reverb as ops
from fastaug.ops.reverb import reverb
from oracles import agreement_db, check_rows, emulate_launches, needs_sox, sox

NAMES = ("reverberance", "hf_damping", "room_scale", "stereo_depth", "pre_delay_ms", "wet_gain_db")
SETTINGS = [
    (50.0, 50.0, 100.0, 100.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 100.0, 0.0, 0.0),
    (99.0, 99.0, 99.0, 100.0, 0.0, 0.0),
    (100.0, 0.0, 50.0, 50.0, 20.0, -3.0),
    (25.0, 75.0, 10.0, 0.0, 7.0, 2.0),
    (70.0, 100.0, 0.0, 30.0, 0.0, 0.0),
]


def noise(*shape: int, level: float = 0.3) -> torch.Tensor:
    return (torch.rand(*shape) - 0.5) * level


def test_golden_impulse() -> None:
    """Values of sox 14.4.2 for `reverb 50 50 100 channels 1`; the delays are 558, 564, 588 ... samples."""
    x = torch.zeros(1, 1, 4000)
    x[..., 0] = 0.5
    y = reverb(x, 22_050)[0, 0]
    golden = {558: 0.00375003, 564: 0.00375003, 588: 0.00375003, 671: -0.00375003, 707: -0.007499993,
              1000: -0.00562501, 2000: -0.002279639, 3999: 0.0003186464}  # fmt: skip
    assert float(y[0]) == 0.5 and not y[1:558].any() and not y[559:564].any()
    for at, value in golden.items():
        assert abs(float(y[at]) - value) < 5e-8, at
    assert abs(float(y.double().sum()) - 0.5781986) < 2e-6


@needs_sox
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000])
@pytest.mark.parametrize("setting", SETTINGS)
def test_equals_sox(rate: int, setting: tuple[float, ...]) -> None:
    mono, stereo = noise(1, rate), noise(2, rate)
    effect = ("reverb", *setting)
    for x, args in ((mono, (*effect, "channels", 1)), (8 * mono, (*effect, "channels", 1)), (stereo, effect)):
        assert (reverb(x[None], rate, *setting)[0] - sox(x, rate, *args)).abs().max() < 1e-6
    wet = sox(stereo, rate, "reverb", "-w", *setting)
    assert (reverb(stereo[None], rate, *setting, wet_only=True)[0] - wet).abs().max() < 1e-6


@pytest.mark.parametrize("rate", [1000, 4_000, 11_025])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_equals_the_definition(rate: int, channels: int) -> None:
    x = noise(len(SETTINGS), channels, 1500, level=3.0)
    for clip in (True, False):
        y = reverb(x, rate, *torch.tensor(SETTINGS).T, clip=clip)
        for row, result, setting in zip(x, y, SETTINGS):
            expected = reference.reverb(row.numpy(), rate, clip=clip, **dict(zip(NAMES, setting)))
            assert agreement_db(result, torch.from_numpy(expected)) > 115


@pytest.mark.parametrize("channels", [1, 2])
def test_rows_are_independent(channels: int) -> None:
    settings = torch.tensor(SETTINGS)[:5]
    check_rows(lambda x, rows, on: reverb(x, 16_000, *settings[rows].T, active=on), noise(5, channels, 3000))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 63, 65])
def test_tiny(length: int) -> None:
    x = noise(2, 1, length)
    assert torch.equal(reverb(x, 22_050), x)  # shorter than the shortest comb
    low = reverb(x, 1000, 50, 50, 0)
    expected = [reference.reverb(row.numpy(), 1000, room_scale=0.0) for row in x]
    assert all((a - torch.from_numpy(b)).abs().max() < 1e-6 for a, b in zip(low, expected) if length)
    assert reverb(noise(0, 2, length), 22_050).shape == (0, 2, length)


def test_long_pre_delay_leaves_the_dry_signal() -> None:
    x = noise(1, 1, 2000)
    assert torch.equal(reverb(x, 8_000, pre_delay_ms=500.0), x)


def test_bad_arguments_raise() -> None:
    x = torch.zeros(2, 1, 100)
    with pytest.raises(ValueError, match=r"reverberance must lie in \[0, 100\], got 101"):
        reverb(x, 22_050, 101)
    with pytest.raises(ValueError, match="room_scale must lie"):
        reverb(x, 22_050, room_scale=torch.tensor([50.0, float("nan")]))
    with pytest.raises(ValueError, match="pre_delay_ms must lie"):
        reverb(x, 22_050, pre_delay_ms=-1.0)
    with pytest.raises(ValueError, match="at least 1000"):
        reverb(x, 999)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_gradient(channels: int) -> None:
    """<A x, g> = <x, A* g> for rows with and without stereo depth, and through an inactive row."""
    x, g = noise(3, channels, 900), noise(3, channels, 900)
    setting = {"stereo_depth": torch.tensor([100.0, 0.0, 40.0]), "pre_delay_ms": 3.0, "clip": False}
    active = torch.tensor([True, True, False])
    leaf = x.clone().requires_grad_()
    y = reverb(leaf, 8_000, **setting, active=active)
    y.backward(g)
    forward, adjoint = (y * g).double().sum((1, 2)), (leaf.grad * x).double().sum((1, 2))
    torch.testing.assert_close(forward.detach(), adjoint, rtol=1e-4, atol=1e-6)
    other = noise(3, channels, 900)  # also in a direction that did not make y
    y2 = reverb(other, 8_000, **setting, active=active)
    torch.testing.assert_close(
        (y2 * g).double().sum((1, 2)), (leaf.grad * other).double().sum((1, 2)), rtol=1e-4, atol=1e-6
    )


def test_missing_gradients_raise() -> None:
    x = noise(1, 1, 700).requires_grad_()
    with pytest.raises(RuntimeError, match="clip=False"):
        reverb(x, 8_000).sum().backward()
    with pytest.raises(RuntimeError, match="settings"):
        reverb(x, 8_000, torch.tensor([50.0], requires_grad=True), clip=False).sum().backward()


def test_op() -> None:
    x, settings = noise(2, 2, 600).requires_grad_(), torch.tensor(SETTINGS[:2])
    arguments = (x, settings, 8000.0, False, False, False, torch.tensor([True, False]))
    torch.library.opcheck(torch.ops.fastaug.reverb.default, arguments)
    compiled = torch.compile(
        lambda x: reverb(x, 8_000, settings[:, 0], pre_delay_ms=2.0), fullgraph=True, backend="eager"
    )
    assert torch.equal(compiled(x.detach()), reverb(x.detach(), 8_000, settings[:, 0], pre_delay_ms=2.0))


@pytest.mark.parametrize(
    ("rate", "channels", "length", "shared_bytes"),
    [(8_000.0, 1, 300, 1 << 20), (8_000.0, 2, 200, 0), (2_000.0, 3, 90, 1 << 20), (1_000.0, 2, 40, 1 << 20)],
)
def test_kernel_equals_the_cpu(
    rate: float, channels: int, length: int, shared_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the delay lines in shared memory and not; low rates have short lines and short steps."""
    x, settings = noise(4, channels, length, level=2.0), torch.tensor(SETTINGS)[[1, 4, 5, 3]]
    active = torch.tensor([True, True, channels < 3, False])
    emulate_launches(monkeypatch)
    monkeypatch.setattr(ops, "_shared_bytes", lambda device: shared_bytes)
    adjoint = channels == 2
    expected = ops._cpu(x, settings, rate, False, not adjoint, adjoint, active)
    y = ops._cuda(x, settings, rate, False, not adjoint, adjoint, active)
    assert agreement_db(y, expected) > 125
    assert torch.equal(y[3], x[3])
    assert not torch.equal(y[0], x[0])
