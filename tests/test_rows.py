"""Rows that go through a chain one by one (fastaug/ops/rows.py): the bits of one step after another over the batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastaug import Compose, Delay, Gain, HighLowPass, MixDown, PitchShift, PolarityInversion, Reverb, clmr, clmr_v1
from fastaug.ops import rows
from fastaug.ops._library import native

RATE = 8000


@pytest.fixture(params=[1, 2], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches wait too."""
    monkeypatch.setattr(rows, "LEAST", 0)


def sound(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.3


def apart(monkeypatch: pytest.MonkeyPatch, run: Any) -> Tensor:
    """What `run` gives with every step over the whole batch before the next."""
    with monkeypatch.context() as patch:
        patch.setattr(rows, "possible", lambda *_: False)
        found: Tensor = run()
    return found


def both_ways(monkeypatch: pytest.MonkeyPatch, chain: Compose, x: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    kept = x.clone()

    def run() -> Tensor:
        chain.reset(5)
        return chain.views(x, copies)

    found = run(), apart(monkeypatch, run)
    assert torch.equal(x, kept)
    return found


@pytest.mark.parametrize("preset", [clmr, clmr_v1])
@pytest.mark.parametrize("shape", [(6, 1, 9001), (5, 2, 4000), (3, 3, 1)])
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_the_bits_of_step_after_step(
    monkeypatch: pytest.MonkeyPatch, preset: Any, shape: tuple[int, ...], copies: int
) -> None:
    together, steps = both_ways(monkeypatch, preset(sample_rate=RATE), sound(*shape), copies)
    assert torch.equal(together, steps)


def test_ops_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run over the rows for the whole chain, from the copies to the reverberation."""
    counts: list[int] = []
    run_rows = native().run_rows
    monkeypatch.setattr(native(), "run_rows", lambda n, t, *steps: (counts.append(len(steps)), run_rows(n, t, *steps)))
    clmr(sample_rate=RATE).views(sound(4, 1, 2000), 2)
    assert counts == [6]  # copies, levels, filter, echo, pitch, reverberation


class Louder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Hollow(Reverb):
    """A subclass that looks at samples in Python."""

    def process(self, samples: Tensor, active: Tensor, *_: Any, **__: Any) -> Tensor:
        return samples - samples.mean(-1, keepdim=True)


@pytest.mark.parametrize("middle", [Louder(), Hollow(), MixDown(), Gain(gain_db=-3.0)])
def test_steps_that_look_at_samples_see_finished_ones(monkeypatch: pytest.MonkeyPatch, middle: nn.Module) -> None:
    steps = [PolarityInversion(), Delay(delay_ms=3.0), middle, PitchShift(), Compose([HighLowPass()]), Reverb()]
    together, apart = both_ways(monkeypatch, Compose(steps, sample_rate=RATE), sound(4, 2, 4000), 2)
    assert torch.equal(together, apart)


def test_gradients_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Compose([Delay(delay_ms=3.0), HighLowPass(), Reverb(clip=False)], sample_rate=RATE, seed=3)
    gradients = []
    for _ in range(2):
        x = sound(3, 1, 2000).requires_grad_()
        chain.reset(3)
        chain(x).square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
        monkeypatch.setattr(rows, "possible", lambda *_: False)
    assert torch.equal(*gradients)


def test_a_failure_leaves_nothing_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sound(4, 1, 2000)
    chain = Compose([Delay(delay_ms=3.0), Reverb()], sample_rate=RATE)
    params = chain.draw(chain._keys(4, None))
    good = chain.apply(x, params)
    bad = {**params, "1": {**params["1"], "room_scale": torch.full((4,), 200.0)}}
    with pytest.raises(ValueError, match="room_scale"):
        chain.apply(x, bad)
    assert not rows._waiting.steps and rows._waiting.depth == 0 and not rows._waiting.collects
    assert torch.equal(chain.apply(x, params), good)


def test_run_rows_refuses_nonsense() -> None:
    with pytest.raises(TypeError, match="run_rows"):
        native().run_rows(1)
    with pytest.raises((TypeError, ValueError)):
        native().run_rows(1, 1, 7)
    with pytest.raises(TypeError, match="fa_echo"):
        native().fa_echo_later(1)
