"""A batch in parts against the whole batch, in float64; recomputed activations against kept ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from fastaug.ssl.encoders import EfficientNetB0, ResNet18, SampleCNN
from fastaug.ssl.losses import nt_xent
from fastaug.ssl.training.accumulate import backward, split
from fastaug.ssl.training.precision import Precision
from fastaug.ssl.training.recompute import recompute

PLAIN = Precision("float32", torch.device("cpu"))


def net(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *between, nn.Tanh(), nn.Linear(8, 4)).double()


def views(rows: int = 10) -> Tensor:
    return torch.randn(2, rows, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def project(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: model(x.flatten(0, 1)).unflatten(0, (2, -1))


def contrast(z: Tensor) -> Tensor:
    return nt_xent(z[0], z[1], 0.2)


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def whole(x: Tensor) -> tuple[Tensor, Tensor]:
    model = net()
    loss = contrast(project(model)(x))
    loss.backward()
    return loss.detach(), gradient(model)


@pytest.mark.parametrize("parts", [1, 2, 3, 10])
def test_parts_have_the_gradient_of_the_whole(parts: int) -> None:
    x, model = views(), net()
    expected_loss, expected = whole(x)
    loss, z = backward(model, project(model), split(x, parts), contrast, PLAIN)
    assert z.shape == (2, 10, 4) and torch.allclose(z, project(model)(x), rtol=1e-13)
    assert abs(float(loss - expected_loss)) < 1e-13
    assert float((gradient(model) - expected).norm() / expected.norm()) < 1e-13


def test_the_mean_of_the_parts_losses_is_something_else() -> None:
    """What accumulation usually means; so the test above can fail."""
    x, model = views(), net()
    for part in split(x, 2):
        (contrast(project(model)(part)) / 2).backward()
    expected = whole(x)[1]
    assert float((gradient(model) - expected).norm() / expected.norm()) > 0.05


def test_dropout_repeats_its_masks_and_batch_norm_counts_each_part_once() -> None:
    x = views()
    one, two = net(nn.BatchNorm1d(8), nn.Dropout(0.5)), net(nn.BatchNorm1d(8), nn.Dropout(0.5))
    torch.manual_seed(5)
    contrast(torch.cat([project(one)(part) for part in split(x, 3)], dim=1)).backward()  # all graphs at once
    after = torch.get_rng_state()
    torch.manual_seed(5)
    backward(two, project(two), split(x, 3), contrast, PLAIN)
    assert torch.equal(torch.get_rng_state(), after)
    torch.testing.assert_close(gradient(two), gradient(one), rtol=1e-12, atol=1e-14)
    for a, b in zip(two.buffers(), one.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=0)


def test_float16_parts_carry_the_scale() -> None:
    x = views().float()
    expected = whole(views())[1]
    model, half = net().float(), Precision("float16", torch.device("cpu"))
    half.load_state_dict({**half.state_dict(), "scale": 256.0})  # at the usual 65,536 the first steps overflow
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    before = copy.deepcopy(model)
    loss, z = backward(model, project(model), split(x, 3), contrast, half)
    assert loss.dtype == z.dtype == torch.float32
    half.step(optimiser)
    moved = torch.cat(
        [(a - b).detach().flatten() for a, b in zip(before.parameters(), model.parameters(), strict=True)]
    )
    assert float((moved - expected).norm() / expected.norm()) < 5e-3


def test_one_part_carries_the_scale_too_and_both_passes_compute_in_half_precision() -> None:
    half = Precision("float16", torch.device("cpu"))
    half.load_state_dict({**half.state_dict(), "scale": 256.0})
    for parts in (1, 3):
        model, kinds = net().float(), []

        def forward(x: Tensor, model: nn.Module = model, kinds: list[torch.dtype] = kinds) -> Tensor:
            z = project(model)(x)
            kinds.append(z.dtype)
            return z

        backward(model, forward, split(views().float(), parts), contrast, half)
        expected = 256 * whole(views())[1]
        assert float((gradient(model) - expected).norm() / expected.norm()) < 5e-3
        assert kinds == [torch.float16] * (1 if parts == 1 else 6)


def test_there_are_as_many_parts_as_wanted() -> None:
    assert [part.shape[1] for part in split(views(), 6)] == [2, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("parts", [0, 11])
def test_impossible_parts_are_refused(parts: int) -> None:
    with pytest.raises(ValueError, match=r"accumulate must lie in \[1, 10\]"):
        split(views(), parts)
    with pytest.raises(ValueError, match="at least one part"):
        backward(net(), len, [], contrast, PLAIN)


def _step_in_parts(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = net()
    parallel = nn.parallel.DistributedDataParallel(model)
    for _ in range(2):  # the second step begins from a clean slate
        model.zero_grad()
        backward(parallel, project(parallel), split(views(12)[:, rank::2], 3), contrast, PLAIN)
    torch.save(gradient(model), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_parts_of_two_processes_have_the_gradient_of_the_whole(tmp_path: Path) -> None:
    mp.spawn(_step_in_parts, args=(str(tmp_path),), nprocs=2)
    expected = whole(views(12))[1]
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert float((found - expected).norm() / expected.norm()) < 1e-12


ENCODERS = {
    "SampleCNN": (lambda: SampleCNN(8000, width=0.0625), torch.randn(3, 1, 20_736)),
    "ResNet18": (ResNet18, torch.randn(2, 1, 32, 24)),
    "EfficientNetB0": (EfficientNetB0, torch.randn(2, 1, 32, 32)),
}


def kept_bytes(encoder: nn.Module, x: Tensor) -> int:
    """Of the tensors that the graph of one forward pass holds, weights left out; also runs the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    seen: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in weights:
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = encoder(x).square().sum()
    total = sum(seen.values())
    loss.backward()
    return total


@pytest.mark.parametrize("name", ENCODERS)
def test_recomputed_activations_change_nothing_but_memory(name: str) -> None:
    build, x = ENCODERS[name]
    torch.manual_seed(0)
    plain = build()
    again = recompute(copy.deepcopy(plain))
    assert list(again.state_dict()) == list(plain.state_dict())
    memory = [kept_bytes(encoder, x) for encoder in (plain, again)]
    settings = [[(m.momentum, m.training) for m in e.modules() if hasattr(m, "momentum")] for e in (plain, again)]
    assert settings[0] == settings[1]
    assert torch.equal(gradient(plain), gradient(again))
    for (key, a), b in zip(plain.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), key  # running statistics move once
    assert memory[1] < 0.6 * memory[0], memory
    twin = copy.deepcopy(again)  # owns its blocks
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert not torch.equal(twin.eval()(x), again.eval()(x))


def test_an_encoder_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear holds no nn.Sequential"):
        recompute(nn.Linear(3, 3))
