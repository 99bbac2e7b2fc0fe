"""Which precision a device gets, and the loss scale of float16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastaug.ssl.training.precision import Precision, fastest

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("native", "capability", "kind"),
    [(True, (8, 0), "bfloat16"), (False, (7, 5), "float16"), (False, (7, 0), "float16"), (False, (6, 1), "float32")],
)
def test_auto_is_what_the_gpu_is_fast_at(
    monkeypatch: pytest.MonkeyPatch, native: bool, capability: tuple[int, int], kind: str
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation  # torch emulates bfloat16 on a T4, slowly

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fastest(torch.device("cuda:0")) == kind


def test_auto_is_float32_on_the_cpu() -> None:
    precision = Precision("auto", CPU)
    assert precision.kind == "float32" and precision.dtype is None and precision.state_dict() == {}
    with precision.autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_the_forward_pass_computes_in_it(kind: str) -> None:
    with Precision(kind, CPU).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == getattr(torch, kind)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of auto, float32"):
        Precision("fp8", CPU)


def test_the_scale_keeps_small_gradients_and_comes_off_again() -> None:
    steps = {}
    for kind in ("float32", "float16"):
        precision, layer = Precision(kind, CPU), nn.Linear(4, 1, bias=False)
        nn.init.ones_(layer.weight)
        optimiser = torch.optim.SGD(layer.parameters(), lr=1e6)
        with precision.autocast():
            out = layer(torch.ones(1, 4))
        precision.scale(out.float().sum() * 1e-8).backward()  # 1e-8 is zero in float16
        precision.step(optimiser)
        steps[kind] = 1 - layer.weight.detach()
    torch.testing.assert_close(steps["float16"], steps["float32"], rtol=1e-3, atol=0)
    assert float(steps["float16"].min()) > 0.009


def test_an_overflow_leaves_the_step_out_and_lowers_the_scale() -> None:
    precision, weight = Precision("float16", CPU), nn.Parameter(torch.ones(2))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    scale = precision.scale(torch.ones(())).item()
    weight.grad = torch.tensor([1.0, float("inf")])
    precision.step(optimiser)
    assert torch.equal(weight, torch.ones(2)) and precision.scale(torch.ones(())).item() == scale / 2


def test_the_scale_is_part_of_the_state() -> None:
    one, two = Precision("float16", CPU), Precision("float16", CPU)
    one.scale(torch.ones(()))
    two.load_state_dict({**one.state_dict(), "scale": 8.0})
    assert two.scale(torch.ones(())).item() == 8.0
    two.load_state_dict({})  # of a float32 run
    assert two.scale(torch.ones(())).item() == 8.0
