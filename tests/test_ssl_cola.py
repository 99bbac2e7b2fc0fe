"""COLA's losses against their definitions written out in float64, and across processes against one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from fastaug.ssl.cola import Cola
from fastaug.ssl.losses import pair_cross_entropy, triplet


def pairs(rows: int, dim: int = 5) -> tuple[Tensor, Tensor]:
    made = torch.randn(2, rows, dim, generator=torch.Generator().manual_seed(rows))
    return made[0], made[0] + 0.7 * made[1]


def others(i: int, groups: list[int]) -> list[int]:
    """The negatives of a query."""
    return [j for j in range(len(groups)) if j != i and not (groups[i] >= 0 and groups[i] == groups[j])]


def entropy(
    queries: np.ndarray, keys: np.ndarray, temperature: float | None, groups: list[int] | None = None
) -> tuple[float, float]:
    """Sum by sum: one softmax a query, over its own key and its negatives."""
    q, k = queries.astype(np.float64), keys.astype(np.float64)
    if temperature is not None:
        q, k = q / np.linalg.norm(q, axis=1, keepdims=True), k / np.linalg.norm(k, axis=1, keepdims=True)
    losses, found = [], 0
    for i in range(len(q)):
        asked = [i, *others(i, groups or [-1] * len(q))]
        scores = [float(q[i] @ k[j]) / (temperature or 1.0) for j in asked]
        losses.append(math.log(sum(math.exp(s) for s in scores)) - scores[0])
        found += int(np.argmax(scores)) == 0
    return sum(losses) / len(q), found / len(q)


@pytest.mark.parametrize("temperature", [None, 0.2, 1.0])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_cross_entropy_is_its_definition(rows: int, temperature: float | None) -> None:
    queries, keys = pairs(rows)
    loss, found = pair_cross_entropy(queries, keys, temperature)
    expected, share = entropy(queries.numpy(), keys.numpy(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6) and found.item() == pytest.approx(share)


def test_it_asks_in_one_direction() -> None:
    queries, keys = pairs(6)
    assert not torch.isclose(pair_cross_entropy(queries, keys)[0], pair_cross_entropy(keys, queries)[0])


GROUPS = pytest.mark.parametrize(
    "groups",
    [[0, 1, 2, 3, 4, 5], [7, 7, 3, 3, 3, 1], [-1, -1, -1, 2, 2, -1], [5] * 6],
    ids=["alone", "some", "-1", "all"],
)


@GROUPS
def test_keys_of_the_own_group_are_no_negatives(groups: list[int]) -> None:
    queries, keys = pairs(6)
    for temperature in (None, 0.2):
        loss, found = pair_cross_entropy(queries, keys, temperature, groups=torch.tensor(groups))
        expected, share = entropy(queries.numpy(), keys.numpy(), temperature, groups)
        assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6) and found.item() == pytest.approx(share)


@GROUPS
def test_triplet_leaves_keys_of_the_own_group_out(groups: list[int]) -> None:
    queries, keys = pairs(6)
    q, k = (torch.nn.functional.normalize(t.double(), dim=1) for t in (queries, keys))
    d = ((q[:, None] - k[None]) ** 2).sum(2).tolist()
    terms, found = [], 0
    for i in range(6):
        hinges = [max(0.0, 0.5 + d[i][i] - d[i][j]) for j in others(i, groups)]
        terms.append(sum(hinges) / max(len(hinges), 1))
        found += all(d[i][i] < d[i][j] for j in others(i, groups))
    loss, share = triplet(queries, keys, 0.5, groups=torch.tensor(groups))
    assert loss.item() == pytest.approx(sum(terms) / 6, rel=1e-5, abs=1e-7) and share.item() == pytest.approx(found / 6)
    if groups == [0, 1, 2, 3, 4, 5]:
        assert torch.equal(loss, triplet(queries, keys, 0.5)[0])


def test_a_closer_key_of_the_own_group_is_no_miss() -> None:
    keys = torch.eye(4)
    for loss in (lambda g: pair_cross_entropy(keys.roll(1, 0), keys, groups=g)[1],
                 lambda g: triplet(keys.roll(1, 0), keys, groups=g)[1]):  # fmt: skip
        assert loss(torch.tensor([0, 0, 0, 0])) == 1 and loss(torch.tensor([0, 1, 2, 3])) == 0
        assert loss(torch.tensor([0, 0, 1, 2])) == 0.25  # the closest to the second query is the first's key


@pytest.mark.parametrize("margin", [0.1, 0.5, 2.0])
def test_triplet_is_its_definition(margin: float) -> None:
    queries, keys = pairs(6)
    q = queries.double().numpy() / np.linalg.norm(queries.double().numpy(), axis=1, keepdims=True)
    k = keys.double().numpy() / np.linalg.norm(keys.double().numpy(), axis=1, keepdims=True)
    terms = [
        max(0.0, margin + ((q[i] - k[i]) ** 2).sum() - ((q[i] - k[j]) ** 2).sum())
        for i in range(6) for j in range(6) if i != j
    ]  # fmt: skip
    assert triplet(queries, keys, margin)[0].item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_a_perfect_match_is_found_and_a_shifted_one_never() -> None:
    keys = torch.eye(4)
    for loss in (lambda q, k: pair_cross_entropy(q, k, 0.2), lambda q, k: triplet(q, k, 0.5)):
        assert loss(keys, keys)[1] == 1 and loss(keys.roll(1, 0), keys)[1] == 0
        assert loss(keys, keys)[0] < loss(keys.roll(1, 0), keys)[0]


def test_first_crops_ask_with_z_w_and_second_crops_are_z() -> None:
    model = Cola(nn.Identity(), 3, projection_dim=4).eval()
    crops = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    asked, before, found = model(crops)
    linear, norm = model.projector[1], model.projector[2]
    first, second = (torch.tanh(nn.functional.layer_norm(linear(c), (4,), norm.weight, norm.bias)) for c in crops)
    torch.testing.assert_close(found, second)
    torch.testing.assert_close(before, first)
    assert model.similarity is not None
    w = model.similarity.weight.T
    torch.testing.assert_close(asked @ found.T, torch.einsum("id,de,je->ij", first, w, second))
    plain = Cola(nn.Identity(), 3, 4, bilinear=False)
    assert plain.similarity is None and torch.equal(*plain(crops)[:2])


def test_half_precision_is_computed_in_float32() -> None:
    queries, keys = (t.bfloat16() for t in pairs(6))
    for loss in (pair_cross_entropy, triplet):
        assert loss(queries, keys)[0].dtype == torch.float32
        assert torch.equal(loss(queries, keys)[0], loss(queries.float(), keys.float())[0])


def test_wrong_arguments_are_named() -> None:
    for loss in (pair_cross_entropy, triplet):
        with pytest.raises(ValueError, match="queries and keys must both be"):
            loss(torch.zeros(3, 2), torch.zeros(4, 2))
        with pytest.raises(ValueError, match=r"groups must be \(3,\), got \(4,\)"):
            loss(*pairs(3), groups=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="temperature must be > 0"):
        pair_cross_entropy(*pairs(3), temperature=0.0)
    with pytest.raises(ValueError, match="margin must be > 0"):
        triplet(*pairs(3), margin=0.0)
    with pytest.raises(ValueError, match="a single pair"):
        triplet(*pairs(1))


WORLD = 2


def _model_and_views() -> tuple[Cola, Tensor]:
    torch.manual_seed(0)
    return Cola(nn.Linear(6, 8), 8, projection_dim=4), torch.randn(2, 8, 6)


#: Of the eight examples; two groups have members in both processes.
IN_GROUPS = torch.tensor([4, 4, 9, -1, 4, 9, -1, 1])


def _losses(model: nn.Module, views: Tensor, groups: Tensor) -> Tensor:
    asked, _, found = model(views)
    plain = pair_cross_entropy(asked, found)[0] + pair_cross_entropy(asked, found, 0.2)[0] + triplet(asked, found)[0]
    masked = pair_cross_entropy(asked, found, groups=groups)[0] + triplet(asked, found, groups=groups)[0]
    return plain + masked + pair_cross_entropy(asked, found, 0.2, groups=groups)[0]


def _train_step(rank: int, folder: str) -> None:
    """One process: its part of the batch, gradient averaged by DistributedDataParallel."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    model, views = _model_and_views()
    parallel = torch.nn.parallel.DistributedDataParallel(model)  # its hooks end with it
    loss = _losses(parallel, views[:, rank::WORLD], IN_GROUPS[rank::WORLD])
    loss.backward()
    torch.save({"loss": loss.detach(), "grads": [p.grad for p in model.parameters()]}, f"{folder}/{rank}.pt")
    dist.barrier()  # a process that leaves first takes gloo's connections with it and aborts the other
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    model, views = _model_and_views()
    loss = _losses(model, views, IN_GROUPS)
    plain = _losses(model, views, torch.full((8,), -1))
    assert not torch.isclose(loss, plain)
    loss.backward()
    mp.spawn(_train_step, args=(str(tmp_path),), nprocs=WORLD)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    assert float(sum(f["loss"] for f in found)) / WORLD == pytest.approx(loss.item(), rel=1e-5)
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    for result in found:
        gradient = torch.cat([g.flatten() for g in result["grads"]])
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6)
