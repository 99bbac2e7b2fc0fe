"""What every transform promises, whatever its effect. A public Transform that is missing from CASES fails here."""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fastaug.transforms
from fastaug.random import Keys
from fastaug.transforms import (
    Compose,
    Delay,
    FrequencyMask,
    Gain,
    HighLowPass,
    HighPass,
    LowPass,
    MixDown,
    Noise,
    OneOf,
    PitchShift,
    PolarityInversion,
    RandomCrop,
    RandomLinearFader,
    RandomResizeCrop,
    Resample,
    Reverb,
    SomeOf,
    SpecAugment,
    SpecMixup,
    SpecNoise,
    Speed,
    TimeMask,
    TimeWarp,
    Transform,
    clmr_book,
    clmr_thesis,
    clmr_v1,
    clmr_v2,
)

RATE = 8000
NAMES = ["a", "b", "c", "d", "e", "f"]


def with_bank(mixup: SpecMixup) -> SpecMixup:
    mixup.remember(torch.randn(7, 1, 40, 40, generator=torch.Generator().manual_seed(3)))
    return mixup


CASES: dict[str, Transform] = {
    "PolarityInversion": PolarityInversion(),
    "Gain": Gain(gain_db=(-12.0, 6.0), clip=True),
    "Noise": Noise(),
    "Noise-std": Noise(std_ratio=(0.1, 0.5), clip=True),
    "LowPass": LowPass(cutoff_hz=[500.0, 1000.0, 2000.0]),
    "HighPass": HighPass(cutoff_hz=range(300, 900, 100)),
    "HighLowPass": HighLowPass(),
    "HighLowPass-recursive": HighLowPass(order=2),
    "LowPass-first-order": LowPass(cutoff_hz=range(300, 3000), order=1),
    "Delay": Delay(delay_ms=(10.0, 100.0), factor=(0.2, 0.8), halve=False),
    "PitchShift": PitchShift(),
    "PitchShift-cents": PitchShift(semitones=(-3.0, 5.0), whole_cents=True),
    "Speed": Speed(percent=range(80, 121)),
    "Speed-range": Speed(percent=(50.0, 200.0)),
    "Reverb": Reverb(reverberance=range(100), pre_delay_ms=(0.0, 20.0)),
    "RandomCrop": RandomCrop(samples=1500),
    "RandomCrop-seconds": RandomCrop(seconds=0.25),
    "Resample": Resample(to_rate=5500),
    "MixDown": MixDown(),
    "Compose": Compose([Gain(p=0.5), Compose([PolarityInversion(p=0.5), Noise(p=0.5)], p=0.7)], p=0.8),
    "OneOf": OneOf([Gain(), PolarityInversion(), Noise(p=0.5)], weights=[1.0, 2.0, 1.0]),
    "SomeOf": SomeOf([Gain(), PolarityInversion(), Noise(), Delay(delay_ms=20.0)], n=(1, 3)),
    "plain-module": Compose([nn.Tanh(), OneOf([nn.Hardtanh(-0.1, 0.1), Gain()])]),
    "resampled-chain": Compose([Resample(to_rate=6000), RandomCrop(seconds=0.2), LowPass(cutoff_hz=900.0)]),
    "clmr_v2": clmr_v2(crop_samples=3000),
    "clmr_v1": clmr_v1(),
    "clmr_thesis": clmr_thesis(),
    "clmr_book": clmr_book(),
    "SpecAugment": SpecAugment(freq_masks=3),
    "SpecAugment-bins": SpecAugment(freq_width=9, time_width=12, fill=-3.0, time_masks=1),
    "SpecAugment-warp": SpecAugment(time_warp=4, freq_masks=[0, 1, 3], time_masks=range(1, 3), fill=0.0),
    "SpecAugment-units": SpecAugment(
        freq_width_hz=900.0, bin_hz=[100.0 * 1.1**k for k in range(40)], time_width_seconds=0.1, hop_length=100
    ),
    "FrequencyMask": FrequencyMask(width=8),
    "TimeMask": TimeMask(masks=2, fill=1.0),
    "TimeWarp": TimeWarp(width=0.2),
    "RandomResizeCrop": RandomResizeCrop(),
    "RandomLinearFader": RandomLinearFader(),
    "SpecMixup": with_bank(SpecMixup(size=5)),
    "SpecNoise": SpecNoise(std_ratio=(0.1, 0.3)),
    "Compose-spec": Compose([SpecAugment(p=0.5), SpecAugment(fill=0.0)]),
}
DETERMINISTIC = {"Resample", "MixDown", "resampled-chain"}  # also act in eval

every = pytest.mark.parametrize("name", CASES)
shape_keeping = pytest.mark.parametrize("name", [n for n, t in CASES.items() if t.keeps_shape])


def build(name: str) -> Transform:
    made = copy.deepcopy(CASES[name])
    made.bind(RATE)
    return made


def example(transform: Transform, rows: int = 6, length: int = 4000) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if transform.batch_dim == 4:
        return torch.randn(rows, 2, 40, max(1, length // 100), generator=generator)
    return 0.2 * torch.randn(rows, 2, length, generator=generator)


def leaves(params: dict[str, Any], path: str = "") -> dict[str, Tensor]:
    found = {}
    for name, value in params.items():
        found.update(leaves(value, f"{path}{name}/") if isinstance(value, dict) else {path + name: value})
    return found


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5))


def test_every_public_transform_has_a_case() -> None:
    public = {getattr(fastaug.transforms, name) for name in fastaug.transforms.__all__}
    classes = {c for c in public if inspect.isclass(c) and issubclass(c, Transform)} - {Transform}
    assert len(classes) >= 14
    missing = classes - {type(t) for t in CASES.values()}
    assert not missing, f"add a case for {missing}"


@every
def test_input_is_never_written(name: str) -> None:
    transform = build(name)
    x = example(transform)
    before, version = x.clone(), x._version
    out = transform(x)
    assert same(x, before) and x._version == version
    assert out.data_ptr() != x.data_ptr(), "the output must not alias the input of a training-mode call"


@every
def test_row_does_not_depend_on_batch(name: str) -> None:
    transform = build(name)
    x = example(transform)
    full = transform(x, keys=NAMES)
    for rows in ([0], [3], [5, 2, 0, 1, 4, 3], [1, 4]):
        part = transform(x[rows], keys=[NAMES[r] for r in rows])
        assert same(part, full[rows])


@every
def test_row_does_not_depend_on_threads(name: str) -> None:
    transform = build(name)
    x = example(transform)
    torch.set_num_threads(2)
    two = transform(x, keys=NAMES)
    torch.set_num_threads(1)
    assert same(transform(x, keys=NAMES), two)


@every
def test_draws_do_not_depend_on_batch_order_or_length(name: str) -> None:
    transform = build(name)
    order = [4, 0, 2]
    many = leaves(transform.draw(Keys.of(3, NAMES)))
    few = leaves(transform.draw(Keys.of(3, [NAMES[i] for i in order])))
    assert many.keys() == few.keys()
    for path, value in many.items():
        assert torch.equal(value[order], few[path]), path
        assert value.device.type == "cpu" and len(value) == len(NAMES), path


@every
def test_replay_is_exact(name: str) -> None:
    transform = build(name)
    x = example(transform)
    params = transform.draw(Keys.of(1, NAMES))
    first = transform.apply(x, params)
    assert same(transform.apply(x, params), first)
    buffer = io.BytesIO()
    torch.save(params, buffer)
    buffer.seek(0)
    assert same(transform.apply(x, torch.load(buffer, weights_only=True)), first)
    assert same(transform.apply(x, pickle.loads(pickle.dumps(params))), first)


@shape_keeping
def test_inactive_rows_come_back_unchanged(name: str) -> None:
    transform = build(name)
    x = example(transform)
    params = transform.draw(Keys.of(1, NAMES))
    full = transform.apply(x, params)
    active = params["active"].clone()
    active[[1, 4]] = False
    out = transform.apply(x, {**params, "active": active})
    for row in range(len(x)):
        assert same(out[row], x[row] if row in (1, 4) else full[row])


@every
def test_nan_and_infinity_stay_in_their_row(name: str) -> None:
    transform = build(name)
    x = example(transform)
    clean = transform(x, keys=NAMES)
    bad = x.clone()
    bad[1, 0, ..., 7] = float("nan")
    bad[4, 1, ..., 11] = float("inf")
    out = transform(bad, keys=NAMES)
    for row in (0, 2, 3, 5):
        assert same(out[row], clean[row])


@every
def test_layouts_of_the_input(name: str) -> None:
    transform = build(name)
    x = example(transform)
    expected = transform(x, keys=NAMES)
    strided = torch.stack([x, x], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert same(transform(strided, keys=NAMES), expected)
    assert same(transform(x.transpose(0, 1).contiguous().transpose(0, 1), keys=NAMES), expected)
    expanded = x[:1].expand(6, *x.shape[1:])
    assert same(transform(expanded, keys=NAMES), transform(expanded.contiguous(), keys=NAMES))


@every
def test_requires_grad_gives_a_gradient_or_a_clear_error(name: str) -> None:
    transform = build(name)
    x = example(transform).requires_grad_()
    out = transform(x, keys=NAMES)
    assert same(out.detach(), transform(x.detach(), keys=NAMES))
    assert out.requires_grad, "silently detached"
    try:
        out.sum().backward()
    except RuntimeError as error:
        assert "gradient" in str(error)
    else:
        assert x.grad is not None and x.grad.shape == x.shape


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(name: str, dtype: torch.dtype) -> None:
    transform = build(name)
    x = example(transform).to(dtype)
    out = transform(x, keys=NAMES)
    assert out.dtype == dtype
    assert same(out, transform(x.float(), keys=NAMES).to(dtype))


@every
def test_integers_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="float tensor"):
        build(name)(example(CASES[name]).to(torch.int16))


@every
def test_fewer_dimensions(name: str) -> None:
    transform = build(name)
    x = example(transform, rows=1)
    batch = transform(x, keys=["k"])
    assert same(transform(x[0], keys=["k"]), batch[0])
    mono = transform(x[:, :1], keys=["k"])
    assert same(transform(x[0, 0], keys=["k"]), mono[0, 0])
    for wrong in (x[None], x.flatten()[0]):
        with pytest.raises(ValueError, match="shape"):
            transform(wrong)


@every
@pytest.mark.parametrize("length", [0, 1, 2, 3, 50])
def test_tiny_clips(name: str, length: int) -> None:
    if name == "SpecMixup":
        pytest.skip("what is in its bank has another length")
    transform = build(name)
    x = example(transform)[..., :length]
    out = transform(x, keys=NAMES)
    assert out.shape[0] == 6 and torch.isfinite(out).all()
    if transform.keeps_shape:
        assert out.shape == x.shape
    else:
        assert same(transform(x[2:3], keys=NAMES[2:3]), out[2:3])


@every
def test_empty_batch(name: str) -> None:
    transform = build(name)
    x = example(transform)
    assert transform(x[:0], keys=[]).shape == (0, *transform(x, keys=NAMES).shape[1:])


@every
def test_eval_is_identity_except_for_deterministic_steps(name: str) -> None:
    transform = build(name).eval()
    x = example(transform)
    if name in DETERMINISTIC:
        assert transform(x).shape != x.shape
        assert same(transform(x), transform(x))
    elif name == "plain-module":
        assert same(transform(x), torch.tanh(x))
    else:
        assert transform(x) is x
    assert same(transform.views(x, 2)[1], transform(x))


@shape_keeping
def test_p_is_per_example(name: str) -> None:
    transform = build(name)
    transform.p = 0.3
    active = transform.draw(Keys.of(5, range(4000)))["active"]
    assert abs(active.double().mean() - 0.3) < 4 * (0.21 / 4000) ** 0.5
    x = example(transform)
    transform.p = 0.0
    assert same(transform(x), x)
    transform.p = 1.0
    assert transform.draw(Keys.of(5, range(100)))["active"].all()


@every
def test_repr_evaluates_to_an_equal_transform(name: str) -> None:
    transform = CASES[name]
    space: dict[str, Any] = {}
    exec("from torch.nn import *\nfrom fastaug import *", space)
    again = eval(repr(transform), space)
    assert again == transform and type(again) is type(transform)
    assert repr(again) == repr(transform)


@every
def test_copies_behave_alike(name: str) -> None:
    transform = build(name)
    x = example(transform)
    expected = transform(x, keys=NAMES)
    for again in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert again == transform and again is not transform
        assert same(again(x, keys=NAMES), expected)
    assert json.loads(json.dumps(transform.to_dict()))["transform"] == type(transform).__name__


@every
def test_global_generators_are_left_alone(name: str) -> None:
    transform = build(name)
    x = example(transform)

    def state() -> tuple[Any, ...]:
        return random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().numpy().tobytes()

    before = state()
    transform(x)
    transform.views(x, 2)
    assert state() == before
    first = transform(x, keys=NAMES)
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    assert same(transform(x, keys=NAMES), first)


@every
def test_params_are_named_like_the_arguments_of_process(name: str) -> None:
    transform = CASES[name]
    accepted = set(inspect.signature(type(transform).process).parameters)
    for param in set(transform.draw(Keys.of(0, NAMES))) - {"active"}:
        assert param in accepted or (isinstance(transform, Compose) and param.isdigit()), param


@every
def test_views_are_draws_with_view_keys(name: str) -> None:
    transform = build(name)
    transform.reset(11)
    x = example(transform)
    views = transform.views(x, 3, keys=NAMES)
    assert len(views) == 3
    for view in range(3):
        params = transform.draw(Keys.of(11, NAMES, view=view))
        assert same(transform.apply(x, params), views[view])
    if name not in {"MixDown", "Resample", "PolarityInversion"}:
        assert not same(views[0], views[1])


@every
def test_reset_repeats_the_calls(name: str) -> None:
    transform = build(name)
    x = example(transform)
    transform.reset(4)
    first = [transform(x), transform(x)]
    transform.reset()
    assert same(transform(x), first[0]) and same(transform(x), first[1])
    if name not in {"MixDown", "Resample", "PolarityInversion"}:
        assert not same(first[0], first[1])


@every
def test_permission_to_write_changes_nothing_else(name: str) -> None:
    transform = build(name)
    x = example(transform)
    params = transform.draw(Keys.of(1, NAMES))
    expected = transform._run(x, params, RATE, None)
    assert same(transform._run(x.clone(), params, RATE, None, True), expected)
    assert same(transform._run(torch.stack([x, x], -1)[..., 0], params, RATE, None, True), expected)
    assert same(x, example(transform))


STEPS: list[Transform | nn.Module] = [
    PolarityInversion(p=0.6),
    Gain(gain_db=(-12.0, 6.0), p=0.6),
    Gain(gain_db=(0.0, 20.0), clip=True, p=0.6),
    Noise(p=0.6),
    Noise(std_ratio=(0.1, 0.5), clip=True, p=0.6),
    RandomCrop(samples=900),
    RandomCrop(seconds=0.11),
    Delay(delay_ms=(1.0, 50.0), p=0.6),
    LowPass(cutoff_hz=(500.0, 1500.0), p=0.6),
    OneOf([Gain(), PolarityInversion(), Noise(clip=True)]),
    Compose([PolarityInversion(), Gain(p=0.5)], p=0.7),
    MixDown(),
    nn.Hardtanh(-0.3, 0.3),
]


@pytest.mark.parametrize("padded", [False, True])
def test_a_chain_has_the_bits_of_its_steps_one_by_one(padded: bool) -> None:
    dice = random.Random(int(padded))
    for seed in range(60):
        steps = [copy.deepcopy(dice.choice(STEPS)) for _ in range(dice.randint(2, 6))]
        chain = Compose(steps, sample_rate=RATE)
        x = example(chain, length=1000)
        lengths = torch.tensor([1000, 700, 3, 0, 999, 1000]) if padded else None
        params = chain.draw(Keys.of(seed, NAMES))
        out, kept = chain.apply(x, params, lengths=lengths), x.clone()
        for index, step in enumerate(steps):
            if isinstance(step, Transform):
                before, x = x, step.apply(x, params[str(index)], RATE, lengths)
                _, lengths = step.after(RATE, lengths)
                assert torch.equal(before, kept) or index > 0
            else:
                x = step(x)
        assert torch.equal(out.view(torch.int32), x.contiguous().view(torch.int32)), chain


def test_gradients_of_a_chain_are_those_of_its_steps() -> None:
    """Merged steps have no gradient of their own: where one is asked for, of samples or params, they run one by one."""
    chain = Compose([PolarityInversion(p=0.5), Noise(p=0.5), Gain(clip=True), Gain(gain_db=3.0)])
    x, params = example(chain, length=300), chain.draw(Keys.of(0, NAMES))
    db = params["2"]["gain_db"]
    found = []
    for together in (True, False):
        x, db = x.clone().detach().requires_grad_(), db.clone().detach().requires_grad_()
        params["2"]["gain_db"] = db
        out = chain.apply(x, params) if together else x
        for index, step in enumerate(chain.transforms if not together else []):
            assert isinstance(step, Transform)
            out = step.apply(out, params[str(index)])
        out.square().sum().backward()
        found.append((x.grad, db.grad))
        (alone,) = torch.autograd.grad(chain.apply(x.detach(), params).square().sum(), db)
        assert torch.equal(alone, db.grad)
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_what_a_step_hands_through_is_not_the_chains_to_write() -> None:
    class Same(Transform):
        def process(self, samples: Tensor, active: Tensor, *_: Any, **__: Any) -> Tensor:
            return samples

    class View(Transform):
        def process(self, samples: Tensor, active: Tensor, *_: Any, **__: Any) -> Tensor:
            return samples[:, :1]

    for step in (Same(), View(), Compose([Same(), View()]), Compose([])):
        for after in (Gain(), Delay(delay_ms=10.0), LowPass(cutoff_hz=900.0), PitchShift(), Reverb()):
            chain = Compose([step, after], sample_rate=RATE)
            x = example(chain, length=2000)
            before = x.clone()
            chain(x)
            assert torch.equal(x, before), chain


def test_a_subclass_with_a_process_of_its_own_is_not_merged() -> None:
    class Louder(Gain):
        def process(self, samples: Tensor, *_: Any, **__: Any) -> Tensor:
            return 2 * samples

    x = example(Gain())
    assert torch.equal(Compose([Louder()])(x), 2 * x)


PEAK = """
import torch
from fastaug import clmr, Keys

def kilobytes(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

torch.set_num_threads(2)
chain = clmr(22_050)
params = chain.draw(Keys.of(0, range(64)))
chain.apply(torch.zeros(64, 1, 3000), params)  # loads libraries, starts threads, fills tables
x = torch.randn(64, 1, 59_049, generator=torch.Generator().manual_seed(0))
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
before = kilobytes("VmRSS")
out = chain.apply(x, params)
print((kilobytes("VmHWM") - before) * 1024 / (x.numel() * 4))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc to reset the peak in")
def test_peak_memory_of_the_clmr_chain_is_below_three_batches() -> None:
    """Beyond the batch itself: its output, and what the steps need meanwhile."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, timeout=120, check=True)
    batches = float(done.stdout)
    assert 0.9 < batches < 3, batches


RATED = [
    "LowPass",
    "HighPass",
    "HighLowPass",
    "HighLowPass-recursive",
    "Delay",
    "PitchShift",
    "Reverb",
    "RandomCrop-seconds",
    "Resample",
]


@pytest.mark.parametrize("name", RATED)
def test_rate_may_be_given_three_ways(name: str) -> None:
    fields = {
        k: v for k, v in vars(CASES[name]).items() if k in CASES[name].to_dict() and k not in {"p", "sample_rate"}
    }
    kind = type(CASES[name])
    bare, built, bound = kind(**fields, seed=5), kind(**fields, sample_rate=RATE, seed=5), kind(**fields, seed=5)
    bound.bind(RATE)
    x = example(bare)
    expected = bare(x, RATE, keys=NAMES)
    assert same(built(x, keys=NAMES), expected) and same(bound(x, keys=NAMES), expected)
    with pytest.raises(ValueError, match=r"sample_rate=22050.*Pipeline.*transform\(x, 22050\)"):
        bare(x)
    with pytest.raises(ValueError, match=r"built for sample_rate=8000, bound to 16000"):
        built.bind(16_000)
    assert same(built(x, 16_000, keys=NAMES), bare(x, 16_000, keys=NAMES)), "the call wins"
    assert not same(built(x, 16_000, keys=NAMES), expected), (
        "the rate has no effect: the comparison above proves nothing"
    )
    for nonsense in (0, -1, 22_050.5):
        with pytest.raises(ValueError, match="positive whole number"):
            bare(x, nonsense)


@pytest.mark.gpu
@every
def test_cuda_agrees_with_cpu(name: str) -> None:
    transform = build(name)
    x = example(transform)
    here, there = transform(x, keys=NAMES), transform(x.cuda(), keys=NAMES).cpu()
    error = (here - there).double().square().mean().sqrt() / here.double().square().mean().sqrt()
    assert error < 10 ** (-100 / 20)
