"""LARS against its definition in float64, groups, and the schedule."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from fastaug.ssl.optim import LARS, contrastive_optimiser, parameter_groups, warmup_cosine


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3, bias=False))


def gradients(net: nn.Module, step: int) -> None:
    for i, p in enumerate(net.parameters()):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + i))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_is_its_definition(decay: float, nesterov: bool) -> None:
    net, rates = model(), (0.5, 0.4, 0.1)
    optimiser = LARS(parameter_groups(net, decay), lr=1.0, momentum=0.9, trust=0.02, nesterov=nesterov)
    weights = [p.detach().double().numpy().copy() for p in net.parameters()]
    velocities = [np.zeros_like(w) for w in weights]
    for step, lr in enumerate(rates):
        gradients(net, step)
        for group in optimiser.param_groups:
            group["lr"] = lr
        optimiser.step()
        for i, p in enumerate(net.parameters()):
            g = p.grad.double().numpy()
            scale = 1.0
            if p.ndim > 1:
                g = g + decay * weights[i]
                scale = 0.02 * np.linalg.norm(weights[i]) / np.linalg.norm(g)
            velocities[i] = 0.9 * velocities[i] + lr * scale * g
            weights[i] = weights[i] - (0.9 * velocities[i] + lr * scale * g if nesterov else velocities[i])
    for p, w in zip(net.parameters(), weights, strict=True):
        assert np.abs(p.detach().numpy() - w).max() < 1e-6


def test_lars_with_weights_of_zero_and_without_gradients() -> None:
    zero, unused = nn.Parameter(torch.zeros(3, 3)), nn.Parameter(torch.ones(2, 2))
    optimiser = LARS([zero, unused], lr=0.5)
    zero.grad = torch.ones(3, 3)
    assert optimiser.step(lambda: 4.0) == 4.0
    assert torch.equal(zero, torch.full((3, 3), -0.5)) and torch.equal(unused, torch.ones(2, 2))


def test_a_resumed_lars_goes_on_as_if_never_stopped() -> None:
    def run(stop: int | None) -> list[torch.Tensor]:
        net = model()
        optimiser = LARS(parameter_groups(net, 1e-4), lr=0.3)
        for step in range(6):
            if step == stop:
                state, weights = optimiser.state_dict(), net.state_dict()
                net = model()
                net.load_state_dict(weights)
                optimiser = LARS(parameter_groups(net, 1e-4), lr=0.3)
                optimiser.load_state_dict(state)
            gradients(net, step)
            optimiser.step()
        return list(net.parameters())

    assert all(torch.equal(a, b) for a, b in zip(run(None), run(3), strict=True))


def test_vectors_have_no_decay() -> None:
    many, flat = parameter_groups(model(), 0.1)
    assert {tuple(p.shape) for p in many["params"]} == {(5, 7), (3, 5)} and many["weight_decay"] == 0.1
    assert all(p.ndim == 1 for p in flat["params"]) and flat["weight_decay"] == 0 and not flat["adapt"]
    assert len(many["params"]) + len(flat["params"]) == len(list(model().parameters()))


@pytest.mark.parametrize(
    ("kind", "batch", "expected", "lr"),
    [
        ("auto", 95, torch.optim.Adam, 3e-4),
        ("auto", 96, LARS, 0.075 * math.sqrt(96)),  # 0.735 in the thesis
        ("lars", 456, LARS, 1.6015),
        ("sgd", 256, torch.optim.SGD, 0.03),
        ("adam", 1000, torch.optim.Adam, 3e-4),
    ],
)
def test_the_optimiser_of_a_run(kind: str, batch: int, expected: type, lr: float) -> None:
    optimiser = contrastive_optimiser(model(), kind, batch)
    assert type(optimiser) is expected
    assert optimiser.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-4)
    assert contrastive_optimiser(model(), kind, batch, lr=0.7).param_groups[0]["lr"] == 0.7


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="optimiser must be"):
        contrastive_optimiser(model(), "adamw2", 8)
    with pytest.raises(ValueError, match="momentum"):
        LARS(model().parameters(), lr=0.1, momentum=1.0)
    with pytest.raises(ValueError, match="warmup"):
        warmup_cosine(0, 10, 11)
    assert warmup_cosine(5, 10, 12, floor=1.0) == 0.5 and warmup_cosine(50, 10, 12, floor=1.0) == 1.0


def test_the_schedule() -> None:
    factors = [warmup_cosine(step, 110, 10, floor=0.1) for step in range(111)]
    assert factors[0] == 0.1 and factors[9] == 1.0 and factors[10] == 1.0
    assert factors[60] == pytest.approx(0.55) and factors[110] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert warmup_cosine(0, 0) == 1.0 and warmup_cosine(999, 10) == 0.0
