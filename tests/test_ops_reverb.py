"""fastaug.ops.reverb against sox, its definition, and the emulated kernel."""

from __future__ import annotations

import math

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


def test_low_frequencies() -> None:
    """Nearly constant signals in the longest reverberation, where feedback 0.98 adds up every rounding's bias."""
    t = torch.arange(4 * 8_000) / 8_000
    for x in (torch.full_like(t, 0.05), 0.1 * torch.sin(2 * math.pi * 39.5 * t)):
        exact = torch.from_numpy(reference.reverb(x[None].numpy(), 8_000, reverberance=100.0, hf_damping=50.0))
        assert (reverb(x[None, None], 8_000, 100, 50)[0] - exact).abs().max() < 1e-6  # sox: 0.6e-6
        assert exact.abs().max() > 0.3


def test_dc_gain() -> None:
    """Each comb settles at 1 / (1 - feedback) an allpass passes a constant: the wet gain is 0.12 / (1 - feedback)."""
    for reverberance, feedback in ((0.0, 0.3), (25.0, 0.712206), (50.0, 0.881678)):
        wet = reverb(torch.full((1, 1, 100_000), 0.01), 8_000, reverberance, room_scale=20.0, wet_only=True)
        assert abs(float(wet[0, 0, -1]) / 0.01 * (1 - feedback) / 0.12 - 1) < 1e-5


@pytest.mark.parametrize(("reverberance", "room"), [(50.0, 100.0), (75.0, 100.0), (50.0, 30.0), (90.0, 60.0)])
def test_decay_time(reverberance: float, room: float) -> None:
    """Below 200 Hz, where damping is nothing, a comb of N samples falls by its feedback every N samples."""
    rate, feedback = 22_050, 1 - 0.7 * (0.02 / 0.7) ** (reverberance / 100)
    shortest, longest = (length * (0.1 + 0.9 * room / 100) / 44_100 for length in (1116, 1617))
    seconds = [-60 / (20 * math.log10(feedback)) * delay for delay in (shortest, longest)]
    x = torch.zeros(1, 1, int(rate * (2 * seconds[1] + 0.3)))
    x[..., 0] = 1.0
    spectrum = torch.fft.rfft(reverb(x, rate, reverberance, room_scale=room, wet_only=True)[0, 0].double())
    spectrum[int(200 / rate * x.shape[-1]) :] = 0
    left = torch.fft.irfft(spectrum, x.shape[-1]).square().flip(0).cumsum(0).flip(0).log10() * 10  # Schroeder 1965
    times = [int((left < left[0] - level).nonzero()[0]) / rate for level in (5, 25)]
    assert 0.97 * seconds[0] < 3 * (times[1] - times[0]) < 1.03 * seconds[1]


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


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("late", [0.0, 30.0])
def test_in_place(channels: int, late: float) -> None:
    x, settings = noise(4, channels, 2500), torch.tensor(SETTINGS)[[0, 3, 4, 5]]
    settings[:, 4] = late
    active = torch.tensor([True, True, False, True])
    expected = reverb(x, 16_000, *settings.T, active=active)
    written = reverb(x, 16_000, *settings.T, active=active, inplace=True)
    assert written is x and torch.equal(x, expected)
    leaf = noise(1, channels, 100).requires_grad_()
    kept = leaf.detach().clone()
    reverb(leaf, 16_000, clip=False, inplace=True)
    assert torch.equal(leaf, kept)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 63, 65])
def test_tiny(length: int) -> None:
    x = noise(2, 1, length)
    assert torch.equal(reverb(x, 22_050), x)  # shorter than the shortest comb
    low = reverb(x, 1000, 50, 50, 0)
    expected = [reference.reverb(row.numpy(), 1000, room_scale=0.0) for row in x]
    assert all((a - torch.from_numpy(b)).abs().max() < 1e-6 for a, b in zip(low, expected) if length)
    assert reverb(noise(0, 2, length), 22_050).shape == (0, 2, length)


@pytest.mark.parametrize("late", [0, 9])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_first_comb_answers_after_its_delay(channels: int, late: int) -> None:
    """In the smallest room at 8 kHz that is 20 samples: up to there a clip is only clipped."""
    x = noise(1, channels, 40, level=3.0)
    for length in (19 + late, 20 + late, 21 + late):
        for wet_only in (False, True):
            setting = {"room_scale": 0.0, "pre_delay_ms": late / 8, "wet_only": wet_only}
            y = reverb(x[..., :length], 8_000, **setting)[0]
            expected = reference.reverb(x[0, :, :length].numpy(), 8_000, **setting)
            assert (y - torch.from_numpy(expected)).abs().max() < 1e-6
            assert bool(y.any() if wet_only else (y != x[0, :, :length].clamp(-1, 1)).any()) == (length > 20 + late)


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
    for bad in (-1.0, 101.0, float("nan")):
        with pytest.raises(ValueError, match=r"hf_damping must lie in \[0, 100\]"):
            reverb(x, 22_050, hf_damping=torch.full((len(x),), bad))
    reverb(x, 22_050, pre_delay_ms=torch.full((len(x),), 101.0))
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


@pytest.mark.parametrize("rate", [1000.0, 8_000.0, 22_050.0, 44_100.0, 96_000.0])
def test_room_for_the_delay_lines_of_the_kernel(rate: float) -> None:
    """Whatever the settings: a comb of N samples takes 4 (N // 4 + 2) numbers, or 1 (N + 2), an allpass N."""
    for depth in (0.0, 0.3, 0.5, 1.0):
        signs = [0.0] * 12 + [depth, -depth] * 6
        delays = [int(rate / 44_100 * (n + 12 * o) + 0.5) for n, o in zip(ops._LENGTHS * 2, signs)]
        numbers = sum(4 * (n // 4 + 2) if i % 12 < 8 else n for i, n in enumerate(delays))
        assert numbers <= ops._line_floats(rate)
    assert (int(0.1 * ops._QUADS_FROM / 44_100 * 1116 + 0.5)) == 4


@pytest.mark.parametrize(
    ("rate", "channels", "length", "shared_bytes"),
    [
        (8_000.0, 1, 300, 1 << 20),
        (8_000.0, 2, 200, 0),
        (2_000.0, 3, 90, 1 << 20),
        (1_000.0, 2, 40, 1 << 20),
        (22_050.0, 1, 1500, 1 << 20),
        (22_050.0, 2, 900, 1 << 20),
        (96_000.0, 1, 700, 0),
    ],
)
def test_kernel_equals_the_cpu(
    rate: float, channels: int, length: int, shared_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the delay lines in shared memory and not; low rates have short lines and short steps."""
    x, settings = noise(4, channels, length, level=2.0), torch.tensor(SETTINGS)[[1, 4, 5, 3]]
    active = torch.tensor([True, True, channels < 3, False])
    reports = emulate_launches(monkeypatch, count=True)
    monkeypatch.setattr(ops, "_shared_bytes", lambda device: shared_bytes)
    adjoint = channels == 2
    expected = ops._cpu(x, settings, rate, False, not adjoint, adjoint, active)
    y = ops._cuda(x, settings, rate, False, not adjoint, adjoint, active)
    assert agreement_db(y, expected) > 125
    assert (y - expected).abs().max() < 1e-6
    assert torch.equal(y[3], x[3])
    assert not torch.equal(y[0], x[0])
    assert reports[0].ratio <= 1.5, reports[0]


def test_kernel_takes_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rooms whose shortest delay allows steps of 64, 32 and 16 samples, long enough to come round several times."""
    x = noise(3, 1, 1600, level=2.0)
    settings = torch.tensor([[80.0, 30.0, room, depth, 1.0, 0.0] for room, depth in ((100, 100), (0, 100), (0, 0))])
    emulate_launches(monkeypatch)
    monkeypatch.setattr(ops, "_shared_bytes", lambda device: 1 << 20)
    for rate in (8_000.0, 16_000.0, 24_000.0):
        expected = ops._cpu(x, settings, rate, True, True, False, None)
        y = ops._cuda(x, settings, rate, True, True, False, None)
        assert (y - expected).abs().max() < 1e-6 and agreement_db(y, expected) > 110, rate


@pytest.mark.parametrize("shape", [(72, 1, 59_049), (48, 2, 44_103)])
def test_a_large_batch_has_the_bits_of_its_rows(shape: tuple[int, int, int]) -> None:
    """More than 2^22 samples are written past the caches, in whole cache lines wherever a row begins."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(*shape, generator=generator) - 0.5
    assert x.numel() > 1 << 22
    room = torch.linspace(0, 100, len(x))
    whole = reverb(x, 22_050, room_scale=room)
    for row in (0, 1, 2, 13, len(x) - 1):
        assert torch.equal(whole[row : row + 1], reverb(x[row : row + 1], 22_050, room_scale=room[row : row + 1]))
