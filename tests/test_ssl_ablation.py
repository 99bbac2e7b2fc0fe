"""Ablations of the augmentation chain, and the presets of CLMR against the facts they stand for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import fastaug.transforms as T
from fastaug.random import Keys
from fastaug.ssl.config import load_preset
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.optim import LARS, contrastive_optimiser
from fastaug.ssl.training.ablation import ablation
from fastaug.ssl.training.distributed import World
from test_recipes import RECIPES, recipe


def probabilities(chain: Any) -> dict[str, float]:
    return {type(step).__name__: step.p for step in chain.transforms}


def test_nothing_asked_for_changes_nothing() -> None:
    chain = T.clmr()
    assert ablation(chain) is chain and ablation(None) is None


def test_ablate_leaves_one_view_alone_and_gives_the_other_everything() -> None:
    plain, full = ablation(T.clmr(), ablate=True)
    assert plain is None and set(probabilities(full).values()) == {1.0}
    for changed, step in zip(full.transforms, T.clmr().transforms, strict=True):
        assert dataclasses.replace(changed, p=step.p) == step


@pytest.mark.parametrize("name", [type(step).__name__ for step in T.clmr().transforms])
def test_each_step_alone(name: str) -> None:
    _, alone = ablation(T.clmr(), ablate=True, only=name)
    assert {k for k, p in probabilities(alone).items() if p} == {name} and probabilities(alone)[name] == 1.0
    symmetric = ablation(T.clmr(), only=name)
    assert probabilities(symmetric)[name] == probabilities(T.clmr())[name]
    x, keys = 0.1 * torch.randn(4, 1, 6000), Keys.of(0, range(4))
    chain = T.clmr(22_050)
    _, alone = ablation(chain, ablate=True, only=name)
    _, whole = ablation(chain, ablate=True)
    drawn, in_chain = alone.draw(keys), whole.draw(keys)
    number = str(list(probabilities(chain)).index(name))
    for key, value in in_chain[number].items():  # the draws of the whole chain
        assert torch.equal(drawn[number][key], value)
    step = alone.transforms[int(number)]
    assert torch.equal(alone.apply(x, drawn), step.apply(x, drawn[number], sample_rate=22_050))
    assert not torch.equal(alone.apply(x, drawn), x)


def test_probabilities_are_swept() -> None:
    chain = ablation(T.clmr(), p=("Delay=0.4", "Gain=0"))
    assert probabilities(chain) == {**probabilities(T.clmr()), "Delay": 0.4, "Gain": 0.0}
    assert probabilities(ablation(T.clmr(), ablate=True, p=("Delay=0.4",))[1])["Delay"] == 0.4
    share = chain.draw(Keys.of(0, range(5000)))["4"]["active"].float().mean()
    assert abs(share - 0.4) < 0.03
    assert ablation(T.Gain(gain_db=-6.0), p=("Gain=0.25",)).p == 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"only": "Wah"}, "no step 'Wah' in the chain; steps are PolarityInversion, Noise"),
        ({"p": ("Wah=0.5",)}, "no step 'Wah'"),
        ({"p": ("Gain",)}, r"--p takes NAME=probability in \[0, 1\], got 'Gain'"),
        ({"p": ("Gain=1.5",)}, "--p takes"),
        ({"p": ("Gain=often",)}, "--p takes"),
    ],
)
def test_wrong_names_and_probabilities(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ablation(T.clmr(), **changes)
    with pytest.raises(ValueError, match="there is none"):
        ablation(None, ablate=True)


# Presets: what the thesis, the two releases of its code and the book say.

ADAM, STEPS = (torch.optim.Adam, 3e-4, 0.0), 400_000
FACTS: dict[str, dict[str, Any]] = {
    # thesis: batch 96 takes LARS at 0.075 sqrt(96) with decay 1e-6, warm-up and cosine; 10,000 epochs of 40 steps, 30
    # of them warm-up (v1). The projector's width is not stated: v1's.
    "clmr-thesis": {"batch": 96, "optimiser": (LARS, 0.7348, 1e-6), "warmup": 1200, "cosine": True, "steps": STEPS,
                    "kaiming": True, "projection": 128, "transform": T.clmr_thesis},
    # v1: Adam without decay, 512 -> 512 -> 128, Kaiming; its configuration has 2,000 epochs of 3,923 // 48 steps.
    "clmr-v1": {"batch": 48, "optimiser": ADAM, "warmup": 0, "cosine": False, "steps": 2000 * (3923 // 48),
                "kaiming": True, "projection": 128, "transform": T.clmr_v1},
    # v2: Adam at 3e-4 hard-coded, no decay, 512 -> 512 -> 64, PyTorch's own initialisation.
    "clmr-v2": {"batch": 48, "optimiser": ADAM, "warmup": 0, "cosine": False, "steps": STEPS,
                "kaiming": False, "projection": 64, "transform": T.clmr_v2},
    "clmr-book": {"batch": 48, "optimiser": ADAM, "warmup": 0, "cosine": False, "steps": STEPS,
                  "kaiming": False, "projection": 64, "transform": T.clmr_book},
}  # fmt: skip


@pytest.mark.parametrize("preset", FACTS)
def test_a_preset_resolves_to_its_facts(preset: str) -> None:
    clmr, facts = recipe("clmr"), FACTS[preset]
    cfg = load_preset(clmr.Config, preset, RECIPES / "configs")
    model, _ = clmr.build_model(cfg, clmr.Dataset("", (), None, "", ""))
    optimiser = contrastive_optimiser(model, cfg.optimiser, cfg.batch_size, cfg.lr, cfg.weight_decay)
    decayed = optimiser.param_groups[0]
    assert (type(optimiser), round(decayed["lr"], 4), decayed["weight_decay"]) == facts["optimiser"]
    assert (cfg.batch_size, cfg.steps, cfg.warmup_steps, cfg.cosine) == (
        facts["batch"], facts["steps"], facts["warmup"], facts["cosine"],
    )  # fmt: skip
    assert (cfg.sample_rate, cfg.crop_samples, cfg.temperature, cfg.kaiming) == (22_050, 59_049, 0.5, facts["kaiming"])
    encoder = model.encoder
    assert isinstance(encoder, SampleCNN) and encoder.strides == (3,) * 9
    assert sum(p.numel() for p in encoder.parameters()) == 2_368_512
    shapes = [tuple(p.shape) for p in model.projector.parameters()]
    assert shapes == [(512, 512), (facts["projection"], 512)]  # two matrices, no biases
    assert repr(clmr.transform(cfg)) == repr(facts["transform"]()) and cfg.frontend == "none"
    bound = (6 / (3 * 128)) ** 0.5 if facts["kaiming"] else (1 / (3 * 128)) ** 0.5  # uniform, of the second block
    assert 0.99 * bound < encoder.sequential[1][0].weight.abs().max() <= bound
    assert (cfg.ablate, cfg.only, cfg.p, cfg.accumulate, cfg.mask_group) == (False, "", (), 1, "")


@pytest.mark.parametrize(("rate", "crop"), [(22_050, 59_049), (16_000, 43_740), (8_000, 20_736)])
def test_a_crop_of_each_rate_ends_as_one_frame(rate: int, crop: int) -> None:
    encoder = SampleCNN(rate, width=0.0625).eval()
    frames = encoder.sequential(torch.zeros(1, 1, 1, crop)).shape[-1]
    assert frames == 1 and encoder(torch.zeros(2, 1, crop)).shape == (2, 32)


def test_batch_norm_is_over_all_processes_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped: list[Any] = []
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", lambda model, **more: wrapped.append((model, more)))
    model = Contrastive(SampleCNN(8000, width=0.0625), Projector(32, 8))
    before, names = list(model.parameters()), list(model.state_dict())
    World(0, 2, torch.device("cuda:1")).wrap(model)
    norms = [m for m in wrapped[0][0].modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 11 and all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert wrapped[0][1] == {"device_ids": [1]} and list(model.state_dict()) == names
    assert all(a is b for a, b in zip(before, wrapped[0][0].parameters(), strict=True))  # what the optimiser holds


def test_compiled_models_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    inner = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: inner(self, backend=backend))
    model = Contrastive(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), Projector(3, 2))
    names, x = list(model.state_dict()), torch.randn(5, 4)
    expected = model(x)[1]
    parallel = World(0, 1, torch.device("cpu")).wrap(model, compiled=True)
    assert torch.equal(parallel(x)[1], expected) and graphs and list(model.state_dict()) == names
