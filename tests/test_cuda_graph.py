"""`apply` on CUDA reads nothing back and copies nothing from the host, so it can be captured in a CUDA graph.

Without a GPU the CUDA code of the whole chain runs on fake CUDA tensors: shapes and devices are real, nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastaug.ops import reverb, wsola
from fastaug.random import Keys
from fastaug.transforms import (
    Compose,
    Delay,
    Gain,
    HighLowPass,
    LowPass,
    MixDown,
    Noise,
    OneOf,
    PitchShift,
    PolarityInversion,
    RandomCrop,
    Reverb,
    SomeOf,
    SpecAugment,
    Transform,
    clmr_book,
    clmr_thesis,
    clmr_v1,
    clmr_v2,
)

RATE = 22_050
CHAINS: dict[str, Callable[[], Transform]] = {
    "clmr_v2": lambda: clmr_v2(RATE, 5000),
    "clmr_v1": lambda: clmr_v1(RATE),
    "clmr_thesis": lambda: clmr_thesis(RATE),
    "clmr_book": lambda: clmr_book(RATE),
    "some of": lambda: SomeOf([Gain(), Noise(), OneOf([PolarityInversion(), Delay()])], n=2, sample_rate=RATE),
    "each": lambda: Compose(
        [
            RandomCrop(seconds=0.2),
            PolarityInversion(p=0.5),
            Noise(std_ratio=(0.1, 0.5), clip=True),
            Noise(p=0.5),
            Gain(clip=True),
            HighLowPass(),
            LowPass(order=2),
            Delay(),
            PitchShift(),
            Reverb(),
        ],
        sample_rate=RATE,
    ),
    "mixed down": lambda: Compose([MixDown(), Gain()]),
    "spectra": lambda: SpecAugment(),
}
INDEXED = {"mixed down", "spectra"}  # a torch built without CUDA cannot take x[:, :1] of a fake CUDA tensor
every = pytest.mark.parametrize("name", CHAINS)


def shape_of(transform: Transform) -> tuple[int, ...]:
    return (4, 2, 40, 60) if transform.batch_dim == 4 else (4, 2, 8000)


def mapped(params: dict[str, Any], function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {k: mapped(v, function) if isinstance(v, dict) else function(v) for k, v in params.items()}


class OnPaper(TorchDispatchMode):
    """Runs the CUDA code of our ops on fake tensors, and raises where a stream would have to be waited for."""

    reads = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "unique_dim")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.split(".")[0]
        if func.namespace == "fastaug":
            with self:
                return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *args, **kwargs)
        if name in self.reads:
            raise AssertionError(f"{func} reads the device")
        out = func(*args, **kwargs)
        given = {t.device.type for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        if name in ("_to_copy", "copy_", "_pin_memory") and isinstance(out, Tensor) and given - {out.device.type}:
            raise AssertionError(f"{func} copies from {given} to {out.device}")
        return out


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The kernels that were launched, in order; none runs."""
    names: list[str] = []

    def launch(file: str, name: str, grid: Any, block: Any, args: Any, shared_bytes: int = 0) -> None:
        tensors = [value for value in args if isinstance(value, Tensor)]
        assert tensors and all(t.device == torch.device("cuda:0") and t.is_contiguous() for t in tensors), name
        assert all(type(size) is int and size > 0 for size in (*grid, *block)), name
        names.append(name)

    monkeypatch.setattr("fastaug.ops._cuda.launch", launch)
    monkeypatch.setattr(reverb, "_shared_bytes", lambda device: 99 * 1024)
    # tables that the first call, before any capture, puts on the device
    monkeypatch.setattr(wsola, "_filter_on", lambda device: torch.empty(80, device=device))
    yield names


@every
def test_apply_neither_reads_back_nor_copies(name: str, launches: list[str]) -> None:
    if name in INDEXED and not torch.backends.cuda.is_built():
        pytest.skip("torch is built without CUDA")
    transform = CHAINS[name]()
    drawn = transform.draw(Keys.of(0, range(4)))
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        x = torch.empty(shape_of(transform), device="cuda:0")
        params = mapped(drawn, lambda t: mode.from_tensor(t).to("cuda:0"))
        with OnPaper():
            out = transform.apply(x, params)
    assert out.device.type == "cuda" and out.dtype == torch.float32
    if name == "clmr_v2":
        assert launches[:4] == [
            "fa_noise_sums_kernel",
            "fa_pointwise_kernel",  # crop, polarity, noise and gain
            "fa_windowed_sinc_kernel",
            "fa_echo_kernel",
        ]
    assert launches or name == "spectra"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_are_converted_at_the_ends_alone(dtype: torch.dtype, launches: list[str]) -> None:
    transform = CHAINS["clmr_v2"]()
    drawn = transform.draw(Keys.of(0, range(4)))
    casts: list[Any] = []

    class Casts(OnPaper):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.__name__.startswith("_to_copy") and args[0].dim() == 3:
                casts.append((args[0].dtype, (kwargs or {}).get("dtype")))
            return super().__torch_dispatch__(func, types, args, kwargs)

    with FakeTensorMode() as mode:
        x = torch.empty(4, 1, 8000, device="cuda:0", dtype=dtype)
        params = mapped(drawn, lambda t: mode.from_tensor(t).to("cuda:0"))
        with Casts():
            out = transform.apply(x, params)
    assert out.dtype == dtype
    assert casts == [(dtype, torch.float32), (torch.float32, dtype)]


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x * float(x.sum()),
        lambda x: x if x[0, 0, 0] > 0 else -x,
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x * torch.ones(1).to(x.device),
    ],
)
def test_the_watch_sees_what_it_is_there_to_see(fault: Callable[[Tensor], Tensor]) -> None:
    with FakeTensorMode(), OnPaper():
        x = torch.empty(2, 1, 5, device="cuda:0")
        with pytest.raises((AssertionError, RuntimeError)):
            fault(x)


# --- on a GPU ---


def filled(transform: Transform, seed: int) -> tuple[Tensor, dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    x = 0.2 * torch.randn(shape_of(transform), generator=generator)
    return x.cuda(), mapped(transform.draw(Keys.of(seed, range(4))), Tensor.cuda)


@pytest.mark.gpu
@every
def test_apply_is_captured_and_replayed_with_equal_bits(name: str) -> None:
    transform = CHAINS[name]()
    x, params = filled(transform, 0)
    transform.apply(x, params)  # compiles the kernels and fills their tables
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = transform.apply(x, params)
    for seed in range(3):
        other, drawn = filled(transform, seed)
        expected = transform.apply(other, drawn)
        x.copy_(other)

        def refresh(old: dict[str, Any], new: dict[str, Any]) -> None:
            for key, value in old.items():
                refresh(value, new[key]) if isinstance(value, dict) else value.copy_(new[key])

        refresh(params, drawn)
        out.zero_()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, expected), seed


@pytest.mark.gpu
@every
def test_apply_never_waits(name: str) -> None:
    transform = CHAINS[name]()
    x, params = filled(transform, 0)
    transform.apply(x, params)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        transform.apply(x, params)
    finally:
        torch.cuda.set_sync_debug_mode("default")
