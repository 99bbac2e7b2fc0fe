"""Compose, OneOf and SomeOf: the choice is per example, nested, masked, and never shifts another draw."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastaug.random import Keys, stream_id
from fastaug.transforms import (
    Compose,
    Delay,
    Gain,
    LowPass,
    MixDown,
    Noise,
    OneOf,
    PolarityInversion,
    RandomCrop,
    Resample,
    SomeOf,
    SpecAugment,
    clmr,
)

MANY = Keys.of(2, range(6000))


def close(measured: torch.Tensor, p: float, n: int = 6000) -> bool:
    return abs(float(measured.double().mean()) - p) <= 4.5 * (p * (1 - p) / n) ** 0.5


def test_params_nest_by_index_and_streams_are_paths() -> None:
    chain = Compose([Gain(), Compose([Delay(), LowPass(cutoff_hz=(100.0, 200.0))])])
    params = chain.draw(MANY)
    assert set(params) == {"active", "0", "1"} and set(params["1"]) == {"active", "0", "1"}
    alone = Keys(MANY.rows, "transform/1/1").uniform("cutoff_hz", 100.0, 200.0)
    assert torch.equal(params["1"]["1"]["cutoff_hz"], alone)
    assert Keys(MANY.rows).child(4).child(0).stream("cutoff_hz") == stream_id("transform/4/0:cutoff_hz")


def test_p_or_nesting_never_shift_another_draw() -> None:
    first = Compose([Noise(p=0.1), Gain(gain_db=(-9.0, 0.0))]).draw(MANY)
    second = Compose([OneOf([Noise(), PolarityInversion()], p=0.9), Gain(gain_db=(-9.0, 0.0), p=0.3)], p=0.2).draw(MANY)
    assert torch.equal(first["1"]["gain_db"], second["1"]["gain_db"])


def test_parent_masks_children() -> None:
    params = Compose([Gain(p=0.5), Compose([PolarityInversion()], p=0.5)], p=0.6).draw(MANY)
    assert close(params["active"], 0.6) and close(params["0"]["active"], 0.3)
    assert close(params["1"]["active"], 0.3) and torch.equal(params["1"]["0"]["active"], params["1"]["active"])
    assert not (params["0"]["active"] & ~params["active"]).any()


def test_masking_the_parent_alone_stops_the_children() -> None:
    chain, x = Compose([Compose([PolarityInversion()]), Gain(gain_db=-6.0)]), torch.ones(4, 1, 8)
    params = chain.draw(Keys.of(0, range(4)))
    params["active"] = torch.tensor([True, False, True, False])
    out = chain.apply(x, params)
    assert (out[1::2] == 1).all() and (out[::2] < 0).all()


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 3.0]])
def test_one_of_takes_exactly_one(weights: list[float] | None) -> None:
    params = OneOf([Gain(), PolarityInversion(), Noise()], weights=weights).draw(MANY)
    chosen = torch.stack([params[str(i)]["active"] for i in range(3)])
    assert (chosen.sum(0) == 1).all()
    for row, p in zip(chosen, [1 / 3] * 3 if weights is None else [0.25, 0.0, 0.75]):
        assert close(row, p)


def test_one_of_applies_what_it_chose() -> None:
    transform = OneOf([Gain(gain_db=-20.0), PolarityInversion(p=0.5)])
    params = transform.draw(MANY)
    out = transform.apply(torch.ones(6000, 1, 1), params).flatten()
    expected = torch.where(params["0"]["active"], 0.1, torch.where(params["1"]["active"], -1.0, 1.0))
    assert torch.equal(out, expected)
    assert close(out == 1.0, 0.25)


@pytest.mark.parametrize("n", [0, 2, 4, (1, 3), (0, 4)])
def test_some_of_takes_so_many(n: int | tuple[int, int]) -> None:
    params = SomeOf([Gain(), PolarityInversion(), Noise(), Delay()], n=n).draw(MANY)
    chosen = torch.stack([params[str(i)]["active"] for i in range(4)])
    low, high = n if isinstance(n, tuple) else (n, n)
    count = chosen.sum(0)
    for size in range(low, high + 1):
        assert close(count == size, 1 / (high - low + 1))
    mean = (low + high) / 2 / 4
    assert all(close(row, mean) for row in chosen), "every member is equally likely"
    assert int(count.min()) >= low and int(count.max()) <= high


def test_plain_modules() -> None:
    x = torch.randn(5, 2, 30)
    assert torch.equal(Compose([nn.Tanh()])(x), x.tanh())
    params = Compose([nn.Tanh()], p=0.5).draw(Keys.of(0, range(5)))
    out = Compose([nn.Tanh()], p=0.5).apply(x, params)
    assert torch.equal(out, torch.where(params["active"][:, None, None], x.tanh(), x))
    with pytest.raises(ValueError, match=r"Flatten turned \(5, 2, 30\) into \(5, 60\)"):
        Compose([nn.Flatten()])(x)
    with pytest.raises(TypeError, match="member 1 must be"):
        Compose([nn.Tanh(), torch.tanh])
    with pytest.raises(TypeError, match="Sequential hides a Transform"):
        Compose([nn.Sequential(nn.Tanh(), Gain())])
    assert len(list(Compose([nn.Linear(3, 3)]).parameters())) == 2, "members are registered"


def test_nests_in_sequential() -> None:
    x = torch.randn(4, 1, 100)
    line = nn.Sequential(PolarityInversion(), Compose([PolarityInversion()]))
    assert torch.equal(line(x), x)


def test_rate_and_lengths_follow_the_steps() -> None:
    seen = []

    class Spy(Gain):
        def process(self, samples, active, sample_rate, lengths, **params):  # type: ignore[no-untyped-def]
            seen.append((samples.shape[-1], sample_rate, None if lengths is None else lengths.tolist()))
            return samples

    chain = Compose([Spy(), Resample(to_rate=4000), Spy(), RandomCrop(seconds=0.1), Spy(), MixDown(), Spy()])
    lengths = torch.tensor([8000, 801, 5])
    out = chain(torch.randn(3, 2, 8000), 8000, lengths)
    assert out.shape == (3, 1, 400)
    assert seen == [
        (8000, 8000, [8000, 801, 5]),
        (4000, 4000, [4000, 401, 3]),
        (400, 4000, [400, 400, 3]),
        (400, 4000, [400, 400, 3]),
    ]


def test_bind_reaches_children_with_the_rate_they_see() -> None:
    chain = Compose([LowPass(), Resample(to_rate=4000), LowPass(cutoff_hz=500.0, sample_rate=4000)])
    chain.bind(8000)
    assert chain.apply(torch.randn(1, 1, 800), chain.draw(Keys.of(0, [1]))).shape == (1, 1, 400)
    with pytest.raises(ValueError, match="LowPass was built for sample_rate=16000, bound to 8000"):
        Compose([LowPass(sample_rate=16_000)], sample_rate=8000)
    with pytest.raises(ValueError, match="LowPass needs a sample rate"):
        Compose([Gain(), LowPass()])(torch.randn(1, 1, 9))


def test_eval_keeps_only_deterministic_steps() -> None:
    x = torch.randn(3, 2, 800)
    chain = Compose([Gain(), Compose([MixDown(), Noise()]), Resample(to_rate=4000), OneOf([Gain()])], sample_rate=8000)
    expected = Resample(to_rate=4000, sample_rate=8000)(MixDown()(x))
    assert torch.equal(chain.eval()(x), expected)
    assert torch.equal(chain.views(x, 2), torch.stack([expected] * 2))
    assert not torch.equal(chain.train()(x), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OneOf([]), "at least one"),
        (lambda: OneOf([Gain()], weights=[1.0, 2.0]), "2 weights for 1"),
        (lambda: OneOf([Gain(), Noise()], weights=[0.0, 0.0]), "positive sum"),
        (lambda: OneOf([RandomCrop(samples=5), Gain()]), "changes the shape"),
        (lambda: SomeOf([Gain()], n=2), "n=2 of 1"),
        (lambda: SomeOf([Gain()], n=(1, 0)), "of 1"),
        (lambda: Compose([RandomCrop(samples=5)], p=0.5), "p must be 1"),
        (lambda: MixDown(p=0.5), "p must be 1"),
        (lambda: Compose([Gain(), SpecAugment()]), "cannot share"),
        (lambda: Compose([Gain()]).apply(torch.zeros(1, 1, 3), {"active": torch.ones(1, dtype=torch.bool)}), "'0'"),
    ],
)
def test_mistakes_are_named(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()


def one_graph(backend: str, chain: Compose, lengths: torch.Tensor | None = None) -> None:
    torch._dynamo.reset()
    x, params = 0.1 * torch.randn(4, 1, 3000), chain.draw(Keys.of(0, range(4)))
    compiled = torch.compile(lambda x, p: chain.apply(x, p, 8000, lengths), fullgraph=True, backend=backend)
    assert torch.equal(compiled(x, params), chain.apply(x, params, 8000, lengths))


@pytest.mark.parametrize("name", ["clmr", "some of"])
def test_apply_compiles_to_one_graph(name: str) -> None:
    some = SomeOf([Gain(), Noise(), OneOf([PolarityInversion(), Delay()])], n=2)
    one_graph("aot_eager", clmr(8000, 1500) if name == "clmr" else some)
    one_graph("aot_eager", clmr(8000, 1500) if name == "clmr" else some, torch.tensor([3000, 20, 1600, 0]))


@pytest.mark.slow
def test_the_whole_chain_compiles_with_inductor() -> None:
    one_graph("inductor", clmr(8000, 1500))
