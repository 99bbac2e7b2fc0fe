"""The order of an epoch: exact cover, balance, purity, locality."""

from __future__ import annotations

import collections
import tracemalloc

import numpy as np
import pytest

from fastaug.plan import Plan
from fastaug.shards.order import Order, epoch_order


@pytest.mark.parametrize("sizes", [[1], [5], [3, 4, 5], [0, 7, 0, 2], [10] * 7])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_without_shuffle_ranks_cover_everything_exactly_once(sizes: list[int], world: int) -> None:
    parts = [epoch_order(sizes, 0, 0, rank=rank, world_size=world) for rank in range(world)]
    together = np.concatenate([part.records for part in parts])
    assert sorted(together) == list(range(sum(sizes)))
    assert all((part.occurrences == 0).all() for part in parts)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shuffled_ranks_are_equally_long_and_repeats_are_counted(world: int) -> None:
    sizes = [10, 3, 12]
    parts = [epoch_order(sizes, 1, 2, shuffle=8, rank=rank, world_size=world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    deliveries = [pair for part in parts for pair in zip(part.records.tolist(), part.occurrences.tolist(), strict=True)]
    assert len(set(deliveries)) == len(deliveries)
    assert {record for record, _ in deliveries} == set(range(25))
    assert sum(occurrence for _, occurrence in deliveries) == len(deliveries) - 25


def test_epochs_and_seeds_differ_and_the_order_is_pure() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return epoch_order([50, 50, 50], seed, epoch, shuffle=64).records.tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_no_record_moves_further_than_the_window() -> None:
    sizes, window = [100] * 20, 150
    shuffled = epoch_order(sizes, 0, 0, shuffle=window).records
    shards_in_order = epoch_order(sizes, 0, 0, shuffle=1).records
    place = {record: i for i, record in enumerate(shards_in_order)}
    moved = np.array([i - place[record] for i, record in enumerate(shuffled)])
    assert np.abs(moved).max() <= window
    assert np.abs(moved).mean() > window / 10


def test_shards_are_permuted_uniformly() -> None:
    first = collections.Counter(int(epoch_order([1, 1, 1, 1], 0, epoch, shuffle=1).records[0]) for epoch in range(2000))
    assert set(first) == {0, 1, 2, 3} and max(first.values()) < 600 and min(first.values()) > 400


def test_epoch_size_wraps_with_occurrences_or_takes_the_head() -> None:
    wrapped = epoch_order([4], 0, 0, shuffle=4, epoch_size=10)
    assert len(wrapped) == 10
    assert sorted(collections.Counter(wrapped.records.tolist()).values()) == [2, 2, 3, 3]
    assert wrapped.occurrences.tolist() == [0] * 4 + [1] * 4 + [2] * 2
    head = epoch_order([4], 0, 0, shuffle=4, epoch_size=2)
    assert head.records.tolist() == wrapped.records.tolist()[:2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"rank": 2, "world_size": 2}, "rank"), ({"shuffle": -1}, "shuffle"), ({"epoch_size": 0}, "epoch_size")],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epoch_order([3], 0, 0, **arguments)


@pytest.mark.parametrize("shards", range(1, 8))
@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("window", [0, 5, 1000])
def test_readers_cover_the_set_with_no_more_repeats_than_equal_steps_need(shards: int, world: int, window: int) -> None:
    rng = np.random.default_rng(shards * 10 + world)
    sizes = rng.integers(0, 12, shards).tolist()
    sizes[0] += 1
    total = sum(sizes)
    parts = [epoch_order(sizes, 3, 1, window, rank=rank, world_size=world) for rank in range(world)]
    pairs = [pair for p in parts for pair in zip(p.records.tolist(), p.occurrences.tolist(), strict=True)]
    assert len(set(pairs)) == len(pairs)  # a repeat counts as one, wherever it is delivered
    assert {record for record, _ in pairs} == set(range(total))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= (0 if window else 1)
    assert len(pairs) == (-(-total // world) * world if window else total)
    if not window:
        assert np.concatenate([part.records for part in parts]).tolist() == list(range(total))


def test_a_rank_opens_only_its_share_of_the_shards() -> None:
    sizes = [100] * 64
    parts = [epoch_order(sizes, 0, 0, shuffle=500, rank=rank, world_size=8) for rank in range(8)]
    opened = [set((part.records // 100).tolist()) for part in parts]
    assert all(len(shards) == 8 for shards in opened)
    later = [set((epoch_order(sizes, 0, 1, 500, rank=r, world_size=8).records // 100).tolist()) for r in range(8)]
    assert all(a != b for a, b in zip(opened, later, strict=True))  # other shards in the next epoch


def test_with_few_shards_every_rank_sees_all_of_each() -> None:
    parts = [epoch_order([400, 400], 0, 0, shuffle=4096, rank=rank, world_size=4).records for rank in range(4)]
    for part in parts:
        counts, _ = np.histogram(part, bins=8, range=(0, 800))
        assert counts.min() > 8


@pytest.mark.parametrize(("epoch_size", "deliveries"), [(10, 12), (100, 102), (26, 27)])
def test_epoch_size_over_ranks(epoch_size: int, deliveries: int) -> None:
    """Three ranks; 25 records in five shards: neighbours' parts are gone around apart, and counted."""
    parts = [epoch_order([5] * 5, 0, 0, 8, epoch_size, rank=rank, world_size=3) for rank in range(3)]
    pairs = [pair for p in parts for pair in zip(p.records.tolist(), p.occurrences.tolist(), strict=True)]
    assert len({len(part) for part in parts}) == 1 and len(pairs) == len(set(pairs)) == deliveries
    if epoch_size >= 25:
        assert {record for record, _ in pairs} == set(range(25))


def test_ten_thousand_shards_on_512_ranks_of_8_workers() -> None:
    """The whole cluster's epoch: exact cover and balance. A rank computes its own part only."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(80, 120, 10_000)
    total, world, workers, batch = int(sizes.sum()), 512, 8, 32
    delivered = np.zeros(total, np.int64)
    for rank in range(world):
        records = epoch_order(sizes, 0, 0, 4096, rank=rank, world_size=world).records
        assert len(records) == -(-total // world)
        batches = [records[i : i + batch] for i in range(0, len(records), batch)]
        by_worker = [batches[worker::workers] for worker in range(workers)]
        loads = [len(own) for own in by_worker]
        assert max(loads) - min(loads) <= 1
        for own in by_worker:
            delivered[np.concatenate(own)] += 1
    assert delivered.min() == 1 and delivered.sum() == -(-total // world) * world


def test_memory_grows_with_the_shards_and_a_ranks_own_records() -> None:
    def peak(shards: int, world: int) -> float:
        sizes = np.full(shards, 1_000)
        tracemalloc.start()
        own = len(epoch_order(sizes, 0, 0, 4096, rank=world // 2, world_size=world))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert own == -(-shards * 1_000 // world)
        return most / (own + shards)

    peak(10, 2)  # what is made once
    bytes_each = [peak(10_000, 512), peak(10_000, 64), peak(40_000, 512), peak(2_500, 512)]
    assert max(bytes_each) < 120 and max(bytes_each) < 2 * min(bytes_each), bytes_each


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixture": [(1, 1.0)]}, "as many shards"),
        ({"mixture": [(1, 1.0), (1, -1.0)]}, "positive weights"),
        ({"mixture": [(1, 1.0), (1, float("inf"))]}, "positive weights"),
        ({"mixture": [(1, 1.0), (1, 1.0)], "shard_sizes": [3, 0]}, "source 1 of the mixture holds no records"),
    ],
)
def test_mixtures_that_do_not_fit(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epoch_order(**({"shard_sizes": [3, 3], "seed": 0, "epoch": 0} | arguments))


def test_a_mixture_with_replacement() -> None:
    order = epoch_order([50, 50, 10], 0, 0, epoch_size=9_000, replacement=True, mixture=[(2, 1.0), (1, 2.0)])
    small = order.records >= 100
    assert abs(small.mean() - 2 / 3) < 0.02
    counts = np.bincount(order.records[small] - 100, minlength=10)
    assert counts.min() > 500 and counts.max() < 700
    assert order.occurrences.max() == counts.max() - 1


def test_without_shuffle_an_epoch_that_goes_around_counts_its_repeats() -> None:
    ranks = [epoch_order([2, 1], 0, 0, epoch_size=7, rank=rank, world_size=2) for rank in range(2)]
    assert [part.records.tolist() for part in ranks] == [[0, 1, 2], [0, 1, 2, 0]]
    assert [part.occurrences.tolist() for part in ranks] == [[0, 0, 0], [1, 1, 1, 2]]


@pytest.mark.parametrize(("shards", "strided"), [(3, True), (4, False)])
def test_fewer_shards_than_ranks_are_taken_record_by_record(shards: int, strided: bool) -> None:
    sizes = [8] * shards
    line = epoch_order(sizes, 0, 0, shuffle=4).records.tolist()
    for rank in range(4):
        part = epoch_order(sizes, 0, 0, shuffle=4, rank=rank, world_size=4).records.tolist()
        assert (part == line[rank::4]) is strided


@pytest.mark.parametrize("replacement", [False, True])
def test_sources_of_one_size_in_a_mixture_have_orders_of_their_own(replacement: bool) -> None:
    """Window 1 leaves the shards' permutation alone to tell them apart."""
    sizes = [2] * 16
    mixed = epoch_order(sizes * 2, 0, 0, shuffle=1, epoch_size=200, replacement=replacement, mixture=[(16, 1), (16, 1)])
    first, second = (mixed.records[mixed.records // 32 == source] % 32 for source in range(2))
    count = min(len(first), len(second))
    assert count > 60 and (first[:count] != second[:count]).mean() > 0.8


def test_a_record_drawn_twice_in_a_row_stays_two_deliveries() -> None:
    order = Order(np.array([5, 5, 2]), np.array([0, 1, 0]))
    alone = Plan.of(order, None, 3, drop_last=False).tasks(0)
    assert [(task.record, task.occurrence, task.segments) for task in alone] == [
        (5, 0, (0,)),
        (5, 1, (0,)),
        (2, 0, (0,)),
    ]
    cut = Plan.of(order, {5: 2, 2: 1}, 3, drop_last=False)
    found = [[(task.record, task.occurrence, task.position, task.segments) for task in cut.tasks(i)] for i in range(2)]
    assert found == [[(5, 0, 0, (0, 1)), (5, 1, 1, (0,))], [(5, 1, 1, (1,)), (2, 0, 2, (0,))]]
