"""NT-Xent against its definition written out in float64, and across two processes against one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fastaug.ssl.losses import nt_xent


def reference(z_i: np.ndarray, z_j: np.ndarray, temperature: float) -> float:
    """Equation 1 of the SimCLR paper, sum by sum."""
    z = np.concatenate([z_i, z_j]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, losses = len(z_i), []
    for a in range(2 * n):
        partner = (a + n) % (2 * n)
        denominator = sum(math.exp(z[a] @ z[k] / temperature) for k in range(2 * n) if k != a)
        losses.append(-math.log(math.exp(z[a] @ z[partner] / temperature) / denominator))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_equals_the_written_out_sum(temperature: float, rows: int) -> None:
    z_i, z_j = torch.randn(2, rows, 5, generator=torch.Generator().manual_seed(rows))
    expected = reference(z_i.numpy(), z_j.numpy(), temperature)
    assert float(nt_xent(z_i, z_j, temperature)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_scale_of_the_projections_does_not_matter() -> None:
    z_i, z_j = torch.randn(2, 6, 4)
    assert torch.allclose(nt_xent(z_i, z_j), nt_xent(100 * z_i, 0.01 * z_j))


def test_half_precision_is_computed_in_float32() -> None:
    z_i, z_j = torch.randn(2, 6, 4).bfloat16()
    loss = nt_xent(z_i, z_j, 0.05)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, nt_xent(z_i.float(), z_j.float(), 0.05))


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((4,), (4,)), ((2, 4, 3), (2, 4, 3))])
def test_wrong_shapes_are_named(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="z_i and z_j must both be"):
        nt_xent(torch.randn(shapes[0]), torch.randn(shapes[1]))


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match="temperature must be > 0"):
        nt_xent(torch.randn(2, 3), torch.randn(2, 3), 0.0)


WORLD = 2


def _model_and_views() -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)), torch.randn(2, 8, 6)


def _train_step(rank: int, folder: str) -> None:
    """One process: its half of the batch, gradient averaged by DistributedDataParallel."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    model, views = _model_and_views()
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    mine = views[:, rank::WORLD]
    loss = nt_xent(*parallel(mine.flatten(0, 1)).chunk(2), 0.2)
    loss.backward()
    torch.save({"loss": loss.detach(), "grads": [p.grad for p in model.parameters()]}, f"{folder}/{rank}.pt")
    dist.barrier()  # a process that leaves first takes gloo's connections with it and aborts the other
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    model, views = _model_and_views()
    loss = nt_xent(*model(views.flatten(0, 1)).chunk(2), 0.2)
    loss.backward()
    mp.spawn(_train_step, args=(str(tmp_path),), nprocs=WORLD)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]

    assert float(sum(f["loss"] for f in found)) / WORLD == pytest.approx(loss.item(), rel=1e-5)
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    for result in found:
        gradient = torch.cat([g.flatten() for g in result["grads"]])
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6)
