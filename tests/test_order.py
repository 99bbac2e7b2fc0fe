"""The order of an epoch: exact cover, balance, purity, locality."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from fastaug.shards.order import epoch_order


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
