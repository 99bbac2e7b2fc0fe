"""Shares of labels: true, nested, seeded, and refused when they miss a class."""

from __future__ import annotations

import re

import pytest
import torch

from fastaug.ssl.probe.label_shares import choose_share, choose_shots, share_of_label_sets

CLASSES = ("a", "b", "c")
KEYS = [f"clip{i:03}" for i in range(200)]
ONE = torch.tensor([i % 10 % 3 for i in range(200)])  # 80 of class 0, 60 of 1, 60 of 2
TAGS = torch.stack([torch.ones(200), (torch.arange(200) % 4 == 0).float(), (torch.arange(200) % 20 == 0).float()], 1)


@pytest.mark.parametrize("labels", [ONE, TAGS], ids=["one", "several"])
def test_shares_are_true_nested_seeded_and_of_the_keys_alone(labels: torch.Tensor) -> None:
    chosen = {share: choose_share(labels, KEYS, CLASSES, share, seed=3) for share in (0.25, 0.5, 1.0)}
    assert [len(c) for c in chosen.values()] == [50, 100, 200]
    assert set(chosen[0.25].tolist()) < set(chosen[0.5].tolist()) < set(chosen[1.0].tolist())
    assert choose_share(labels, KEYS, CLASSES, 0.25, seed=3).equal(chosen[0.25])
    assert not choose_share(labels, KEYS, CLASSES, 0.25, seed=4).equal(chosen[0.25])
    moved = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    again = choose_share(labels[moved], [KEYS[i] for i in moved], CLASSES, 0.25, seed=3)
    assert {KEYS[i] for i in chosen[0.25].tolist()} == {KEYS[moved[i]] for i in again.tolist()}


def test_classes_keep_their_proportions() -> None:
    chosen = choose_share(ONE, KEYS, CLASSES, 0.1)
    assert ONE[chosen].bincount().tolist() == [8, 6, 6]


def test_a_share_is_rounded_to_the_nearest_clip() -> None:
    labels, keys = torch.tensor([0, 1] * 5), [str(i) for i in range(10)]
    assert [len(choose_share(labels, keys, "ab", share)) for share in (0.2, 0.24, 0.25, 0.26, 1.0)] == [2, 2, 3, 3, 10]


def test_unlabelled_clips_count_for_nothing() -> None:
    labels = ONE.clone()
    labels[100:] = -1
    chosen = choose_share(labels, KEYS, CLASSES, 0.5)
    assert len(chosen) == 50 and int(chosen.max()) < 100
    tags = TAGS.clone()
    tags[100:] = torch.nan
    assert int(choose_share(tags, KEYS, CLASSES, 1.0).max()) < 100
    assert int(choose_shots(tags, KEYS, CLASSES, 4).max()) < 100


@pytest.mark.parametrize("labels", [ONE, TAGS], ids=["one", "several"])
def test_a_share_that_misses_a_class_is_refused_and_the_least_share_is_the_least(labels: torch.Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"0.5 % of 200 labelled clips is 1, without any of class '.'.*seed 1"
    ) as error:
        choose_share(labels, KEYS, CLASSES, 0.005, seed=1)
    found = re.search(r"every class is ([0-9.]+)", str(error.value))
    assert found is not None
    least = float(found[1])
    choose_share(labels, KEYS, CLASSES, least, seed=1)
    with pytest.raises(ValueError, match="least share"):
        choose_share(labels, KEYS, CLASSES, least - 1 / 200, seed=1)
    for share in (0.0, 1.5, -1):
        with pytest.raises(ValueError, match="must lie in"):
            choose_share(labels, KEYS, CLASSES, share)


def test_a_rare_class_has_its_turn_in_the_middle_of_its_share() -> None:
    """One of twenty clips stands for a fortieth of its class: a share below rounds to none of it."""
    labels = torch.tensor([0] * 80 + [1] * 20)
    with pytest.raises(ValueError, match=r"2 % of 100 labelled clips is 2, .*'b'.* every class is 0.03$"):
        choose_share(labels, KEYS[:100], "ab", 0.02)
    assert labels[choose_share(labels, KEYS[:100], "ab", 0.05)].bincount().tolist() == [4, 1]


def test_the_least_share_is_enough_in_large_sets() -> None:
    labels = torch.zeros(30_011, dtype=torch.int64)
    labels[7] = 1
    keys = [str(i) for i in range(len(labels))]
    with pytest.raises(ValueError) as error:
        choose_share(labels, keys, "ab", 0.1)
    assert 7 in choose_share(labels, keys, "ab", float(str(error.value).rpartition(" ")[2])).tolist()


def test_any_key_and_seed_will_do() -> None:
    """Names of files need not be UTF-8."""
    keys = [f"{key}\udce9" for key in KEYS]
    assert len(choose_share(ONE, keys, CLASSES, 0.1, seed=-1)) == len(choose_shots(ONE, keys, CLASSES, 1, -2)) + 17


def test_a_class_that_no_clip_has_is_not_missed() -> None:
    assert len(choose_share(ONE, KEYS, (*CLASSES, "never"), 0.1)) == 20


@pytest.mark.parametrize("labels", [ONE, TAGS], ids=["one", "several"])
def test_shots_are_of_each_class_and_nested(labels: torch.Tensor) -> None:
    chosen = {shots: choose_shots(labels, KEYS, CLASSES, shots, seed=2) for shots in (1, 5, 8)}
    assert set(chosen[1].tolist()) < set(chosen[5].tolist()) < set(chosen[8].tolist())
    for shots, clips in chosen.items():
        if labels.ndim == 1:
            assert labels[clips].bincount().tolist() == [shots] * 3
        else:
            assert bool((labels[clips].sum(0) >= shots).all()) and len(clips) <= 3 * shots
    assert not choose_shots(labels, KEYS, CLASSES, 5, seed=9).equal(chosen[5])
    with pytest.raises(ValueError, match="shots must be at least 1"):
        choose_shots(labels, KEYS, CLASSES, 0)


def test_too_many_shots_name_the_class() -> None:
    with pytest.raises(ValueError, match="11 shots: class 'c' has 10 labelled training clips"):
        choose_shots(TAGS, KEYS, CLASSES, 11)


def test_the_published_share_keeps_a_segment_of_every_set_of_labels() -> None:
    """As in recipes.md: at least one segment of each distinct label vector, so 1 % becomes much more."""
    labels = torch.tensor([[i >> b & 1 for b in range(3)] for i in range(8)]).float()
    clip = torch.arange(8).repeat_interleave(10)
    chosen = share_of_label_sets(labels, clip, 0.01)
    assert len(chosen) == 8 and clip[chosen].tolist() == list(range(8))  # 10 % of the segments, all of the clips
    assert len(share_of_label_sets(labels, clip, 0.35)) == 8 * 3
    assert not share_of_label_sets(labels, clip, 0.01, seed=1).equal(chosen)
    same = torch.zeros(8, dtype=torch.int64)
    same[0] = -1  # unlabelled
    chosen = share_of_label_sets(same, clip, 0.5)
    assert len(chosen) == 35 and int(chosen.min()) >= 10
