"""The functions behind the transforms: a number or (B,) tensor per argument, shape and dtype kept, one graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fastaug import functional as F
from fastaug.random import Keys

RATE = 8000
KEY = Keys.of(0, ["a", "b", "c"]).noise_key("noise")
COLD = torch.tensor([True, False, True])

# every effect that keeps the shape, as a function of the samples and of one (B,) quantity
EFFECTS: dict[str, tuple[Callable[..., Tensor], list[float]]] = {
    "invert_polarity": (lambda x, q, **k: F.invert_polarity(x, **k), [0.0, 0.0, 0.0]),
    "gain": (lambda x, q, **k: F.gain(x, q, **k), [-20.0, 0.0, 6.0]),
    "add_noise": (
        lambda x, q, **k: F.add_noise(x, KEY[: len(q) if isinstance(q, Tensor) else len(x)], snr_db=q, **k),
        [3.0, 20.0, 30.0],
    ),
    "low_pass": (lambda x, q, **k: F.low_pass(x, RATE, q, **k), [300.0, 1000.0, 3000.0]),
    "high_pass": (lambda x, q, **k: F.high_pass(x, RATE, q, **k), [300.0, 1000.0, 3000.0]),
    "butterworth": (lambda x, q, **k: F.butterworth(x, RATE, q, True, 3, **k), [300.0, 1000.0, 3000.0]),
    "band_pass": (lambda x, q, **k: F.band_pass(x, RATE, q, **k), [300.0, 1000.0, 3000.0]),
    "notch": (lambda x, q, **k: F.notch(x, RATE, q, **k), [300.0, 1000.0, 3000.0]),
    "peaking_eq": (lambda x, q, **k: F.peaking_eq(x, RATE, 900.0, q, **k), [-12.0, 0.5, 6.0]),
    "low_shelf": (lambda x, q, **k: F.low_shelf(x, RATE, 900.0, q, **k), [-12.0, 0.5, 6.0]),
    "high_shelf": (lambda x, q, **k: F.high_shelf(x, RATE, 900.0, q, **k), [-12.0, 0.5, 6.0]),
    "delay": (lambda x, q, **k: F.delay(x, RATE, q, **k), [5.0, 10.0, 100.0]),
    "pitch_shift": (lambda x, q, **k: F.pitch_shift(x, RATE, q, **k), [-7.0, 1.0, 5.0]),
    "reverb": (lambda x, q, **k: F.reverb(x, RATE, q, **k), [0.0, 50.0, 100.0]),
}
each = pytest.mark.parametrize("name", EFFECTS)


def audio(rows: int = 3, channels: int = 2, length: int = 3000) -> Tensor:
    return 0.2 * torch.randn(rows, channels, length, generator=torch.Generator().manual_seed(0))


def test_all_functions_are_exported_and_documented() -> None:
    for name in F.__all__:
        assert getattr(F, name).__doc__, name
    assert set(EFFECTS) <= set(F.__all__)


@each
def test_number_or_tensor(name: str) -> None:
    effect, values = EFFECTS[name]
    x = audio()
    together = effect(x, torch.tensor(values))
    assert together.shape == x.shape and together.dtype == x.dtype
    if name == "add_noise":  # its key is per row, too
        alone = [F.add_noise(x[i : i + 1], KEY[i : i + 1], snr_db=v) for i, v in enumerate(values)]
    else:
        alone = [effect(x[i : i + 1], v) for i, v in enumerate(values)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(effect(x, torch.tensor(values, dtype=torch.float64)), together)
    if name != "invert_polarity":
        with pytest.raises(ValueError, match=r"\(3,\)"):
            effect(x, torch.zeros(2) if name != "add_noise" else torch.zeros(2).repeat(2)[:4])


@each
def test_active(name: str) -> None:
    effect, values = EFFECTS[name]
    x, q = audio(), torch.tensor(values)
    out = effect(x, q, active=COLD)
    assert torch.equal(out[1], x[1]) and torch.equal(out[[0, 2]], effect(x, q)[[0, 2]])


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_shape_and_dtype(name: str, dtype: torch.dtype) -> None:
    effect, values = EFFECTS[name]
    x = audio(1, 1).to(dtype)
    q = torch.tensor(values[:1])
    out = effect(x, q)
    assert out.dtype == dtype
    assert torch.equal(effect(x[0], q), out[0]) and torch.equal(effect(x[0, 0], q), out[0, 0])
    with pytest.raises((ValueError, TypeError)):
        effect(x[None], q)
    with pytest.raises(TypeError, match="float tensor"):
        effect(x.int(), q)


@each
def test_compiles_to_one_graph(name: str) -> None:
    torch._dynamo.reset()  # all effects share the code of one lambda, which may only be compiled so often
    effect, values = EFFECTS[name]
    x, q = audio(), torch.tensor(values)
    compiled = torch.compile(lambda x, q, active: effect(x, q, active=active), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, q, COLD), effect(x, q, active=COLD))


@pytest.mark.parametrize(
    "name", ["invert_polarity", "gain", "delay", "low_pass", "high_pass", "butterworth", "notch", "reverb", "add_noise"]
)
def test_gradients_are_right_or_refused(name: str) -> None:
    effect, values = EFFECTS[name]
    x, q = audio(length=400).requires_grad_(), torch.tensor(values)
    out = effect(x, q)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    try:
        (grad,) = torch.autograd.grad((out * weight).sum(), x)
    except RuntimeError as error:
        assert "gradient" in str(error)
        return
    # against a central difference in a random direction; the effects are (nearly) linear in x
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    size = 1e-2
    with torch.no_grad():
        slope = ((effect(x + size * step, q) - effect(x - size * step, q)).double() * weight).sum() / (2 * size)
    assert abs((grad.double() * step).sum() - slope) < 2e-3 * slope.abs() + 2e-2


def test_delay_against_a_loop() -> None:
    x, ms = audio(), [0.0, 3.3, 1000.0]
    out = F.delay(x, RATE, torch.tensor(ms), torch.tensor([0.5, 0.25, 0.9]), halve=False)
    for row, (one, factor) in enumerate(zip(ms, [0.5, 0.25, 0.9])):
        shift = int(one * RATE / 1000)
        expected = x[row].clone()
        expected[:, shift:] += np.float32(factor) * x[row][:, : x.shape[-1] - shift] if shift < x.shape[-1] else 0
        assert torch.equal(out[row], expected)


def test_crop() -> None:
    x = audio()
    out = F.crop(x, torch.tensor([0, 100, 2990]), 20)
    assert torch.equal(out[0], x[0, :, :20]) and torch.equal(out[1], x[1, :, 100:120])
    assert torch.equal(out[2, :, :10], x[2, :, 2990:]) and (out[2, :, 10:] == 0).all()
    assert torch.equal(F.crop(x[0, 0], 5, 7), x[0, 0, 5:12])


def test_mix_down_and_resample_shapes() -> None:
    x = audio()
    assert torch.allclose(F.mix_down(x), x.mean(1, keepdim=True), atol=1e-7)
    assert F.mix_down(x[0]).shape == (1, 3000) and F.mix_down(x[0, 0]).shape == (3000,)
    assert F.resample(x, 8000, 11_025).shape == (3, 2, -(-3000 * 11_025 // 8000))
    assert F.resample(x[0, 0].half(), 8000, 4000).dtype == torch.float16


def test_mask_spectrogram() -> None:
    x = torch.ones(2, 1, 6, 8)
    one = torch.tensor([[1], [0]])
    out = F.mask_spectrogram(x, one, 2 * one, 3 * one, 2 * one, -1.0)
    expected = torch.ones(6, 8)
    expected[1:3], expected[:, 3:5] = -1, -1
    assert torch.equal(out[0, 0], expected) and torch.equal(out[1], x[1])
