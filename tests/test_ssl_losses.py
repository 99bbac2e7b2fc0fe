"""NT-Xent against its definition written out in float64, and two and four processes against one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from fastaug.ssl import losses
from fastaug.ssl.losses import group_ids, nt_xent


def reference(z_i: np.ndarray, z_j: np.ndarray, temperature: float) -> float:
    """Equation 1 of the SimCLR paper, sum by sum."""
    z = np.concatenate([z_i, z_j]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, terms = len(z_i), []
    for a in range(2 * n):
        partner = (a + n) % (2 * n)
        denominator = sum(math.exp(z[a] @ z[k] / temperature) for k in range(2 * n) if k != a)
        terms.append(-math.log(math.exp(z[a] @ z[partner] / temperature) / denominator))
    return sum(terms) / len(terms)


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


def test_float64_stays_float64() -> None:
    z_i, z_j = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(nt_xent(z_i, z_j, 0.1)) == pytest.approx(reference(z_i.numpy(), z_j.numpy(), 0.1), rel=1e-14)


# Groups.


def masked_reference(z_i: np.ndarray, z_j: np.ndarray, temperature: float, groups: list[int]) -> float:
    z = np.concatenate([z_i, z_j]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, terms = len(z_i), []
    for a in range(2 * n):
        partner = (a + n) % (2 * n)
        others = [
            k for k in range(2 * n)
            if k == partner or (k != a and not (groups[a % n] >= 0 and groups[k % n] == groups[a % n]))
        ]  # fmt: skip
        denominator = sum(math.exp(z[a] @ z[k] / temperature) for k in others)
        terms.append(-math.log(math.exp(z[a] @ z[partner] / temperature) / denominator))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(
    "groups",
    [[0, 1, 2, 3, 4, 5], [7, 7, 3, 3, 3, 1], [-1, -1, -1, 2, 2, -1], [5] * 6],
    ids=["alone", "some", "-1", "all"],
)
def test_one_groups_examples_are_no_negatives(groups: list[int]) -> None:
    z_i, z_j = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = nt_xent(z_i, z_j, 0.3, groups=torch.tensor(groups))
    assert float(found) == pytest.approx(masked_reference(z_i.numpy(), z_j.numpy(), 0.3, groups), rel=1e-13, abs=1e-14)
    if groups == [0, 1, 2, 3, 4, 5]:
        assert torch.equal(found, nt_xent(z_i, z_j, 0.3))


def test_ids_that_differ_in_their_last_bit_are_two_groups() -> None:
    z_i, z_j = torch.randn(2, 4, 3)
    ids = (1 << 62) + torch.arange(4)
    assert torch.equal(nt_xent(z_i, z_j, groups=ids), nt_xent(z_i, z_j))


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"groups must be \(4,\), got \(8,\)"):
        nt_xent(torch.randn(4, 3), torch.randn(4, 3), groups=torch.zeros(8, dtype=torch.int64))


def test_ids_of_groups_are_equal_where_the_values_are() -> None:
    ids = group_ids(["bach", None, "bach", "1", 1, "satie"])
    assert ids[0] == ids[2] and ids[1] == -1 and len(set(ids.tolist())) == 5
    assert all(i >= 0 for i in ids[[0, 2, 3, 4, 5]].tolist())
    assert ids[0] == 449132318274387765  # in every process, whatever its hash seed


# Across processes: the loss and gradient of one process, and the published variants that miss it.


class _LocalGather(torch.autograd.Function):
    """Gathers, but hands back only what this process's own loss says."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].chunk(dist.get_world_size())[dist.get_rank()]


def ours(z_i: Tensor, z_j: Tensor) -> Tensor:
    return nt_xent(z_i, z_j, 0.2)


def ours_with_groups(z_i: Tensor, z_j: Tensor) -> Tensor:
    rank, world = dist.get_rank(), dist.get_world_size()
    return nt_xent(z_i, z_j, 0.2, groups=GROUPS[rank::world])


def without_gathering(z_i: Tensor, z_j: Tensor) -> Tensor:
    """CLMR v2: world_size = 1 hard-coded."""
    return nt_xent(z_i, z_j, 0.2, across_processes=False)


def whole_loss_without_sum(z_i: Tensor, z_j: Tensor) -> Tensor:
    """SimCLR master: the loss of all anchors in every process, whose gradients nobody sums."""
    return nt_xent(_LocalGather.apply(z_i), _LocalGather.apply(z_j), 0.2, across_processes=False)


def pairs_mixed_up(z_i: Tensor, z_j: Tensor) -> Tensor:
    """CLMR v1: views joined before they are gathered, so that halves of the result are no partners."""
    first, second = _LocalGather.apply(torch.cat([z_i, z_j])).chunk(2)
    return nt_xent(first, second, 0.2, across_processes=False)


def keys_without_sum(z_i: Tensor, z_j: Tensor) -> Tensor:
    """lightly before #1531: own anchors, gathered keys, gradient of the keys not summed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "gather", _LocalGather.apply)
        return nt_xent(z_i, z_j, 0.2)


WRONG = (without_gathering, whole_loss_without_sum, pairs_mixed_up, keys_without_sum)
ROWS = 16
GROUPS = torch.tensor([0, 0, 1, 2, 1, 0, 3, 4, 4, 4, -1, -1, 5, 6, 0, 3])


def _model_and_views() -> tuple[torch.nn.Module, Tensor]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    return net, torch.randn(2, ROWS, 6)


def _gradient(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


WORLDS = (2, 4)


def _train_steps(rank: int, folder: str) -> None:
    """One process: its share of the batch, gradient averaged by DistributedDataParallel; once a world and variant."""
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank >= world:
            continue
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous-{world}", rank=rank, world_size=world)
        model, views = _model_and_views()
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        found = {}
        for variant in (ours, ours_with_groups, *WRONG):
            model.zero_grad()
            loss = variant(*parallel(views[:, rank::world].flatten(0, 1)).chunk(2))
            loss.backward()
            found[variant.__name__] = (loss.detach(), _gradient(model))
        torch.save(found, f"{folder}/{world}-{rank}.pt")
        dist.barrier()  # a process that leaves first takes gloo's connections with it and aborts the other
        dist.destroy_process_group()


def _agrees(found: Tensor, expected: Tensor) -> tuple[bool, str]:
    cosine = float(torch.nn.functional.cosine_similarity(found.double(), expected.double(), dim=0))
    ratio = float(found.double().norm() / expected.double().norm())
    return abs(cosine - 1) < 1e-6 and abs(ratio - 1) < 1e-3, f"cosine {cosine:.6f}, ratio {ratio:.3f}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_train_steps, args=(str(folder),), nprocs=max(WORLDS))
    return folder


@pytest.mark.parametrize("world", WORLDS)
def test_processes_together_have_the_gradient_of_one(trained: Path, world: int) -> None:
    expected = {}
    for groups, variant in ((None, ours), (GROUPS, ours_with_groups)):
        model, views = _model_and_views()
        loss = nt_xent(*model(views.flatten(0, 1)).chunk(2), 0.2, groups=groups)
        loss.backward()
        expected[variant.__name__] = (loss.detach(), _gradient(model))
    ranks = [torch.load(trained / f"{world}-{rank}.pt", weights_only=True) for rank in range(world)]

    for name, (loss, gradient) in expected.items():
        assert float(sum(found[name][0] for found in ranks)) / world == pytest.approx(float(loss), rel=1e-5)
        for found in ranks:
            agrees, how = _agrees(found[name][1], gradient)
            assert agrees, f"{name}: {how}"
    for variant in WRONG:
        agrees, how = _agrees(ranks[0][variant.__name__][1], expected["ours"][1])
        assert not agrees, f"{variant.__name__} passes the test: {how}"


def test_equals_lightlys_loss_and_gradient() -> None:
    module = pytest.importorskip("lightly.loss.ntx_ent_loss", reason="lightly is not installed")
    for temperature in (0.1, 0.5):
        both = [torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
        found, theirs = nt_xent(*both[0], temperature), module.NTXentLoss(temperature=temperature)(*both[1])
        torch.testing.assert_close(found, theirs)
        found.backward()
        theirs.backward()
        torch.testing.assert_close(both[0].grad, both[1].grad)
