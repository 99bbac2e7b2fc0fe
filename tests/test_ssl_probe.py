"""Frozen features, heads and the table, on tensors whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastaug.ssl.probe.features import Features, calibrate_batch_norm, extract, logmel_statistics
from fastaug.ssl.probe.heads import Head, clip_logits, evaluate, predict
from fastaug.ssl.probe.scoring import report
from fastaug.ssl.probe.table import ProbeTable, Row


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(clips: int, seed: int, noise: float = 1.0, classes: int = 3) -> Features:
    """Clips of one to four segments; the class is the direction of the segments' mean."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(clips) % classes
    counts = torch.randint(1, 5, (clips,), generator=g)
    clip = torch.repeat_interleave(torch.arange(clips), counts)
    values = 2 * torch.eye(classes, 6)[labels[clip]] + noise * torch.randn(len(clip), 6, generator=g)
    # Dimensions of very different scale and a constant one: standardisation has to cope.
    values = values * torch.tensor([1e-3, 1.0, 1e3, 1.0, 1.0, 0.0]) + 5
    return Features(values, clip, labels, [f"{seed}/{i}" for i in range(clips)])


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_separate_blobs(kind: str) -> None:
    found = evaluate(blobs(60, 0), blobs(30, 1), blobs(60, 2), 3, kind)
    assert found["accuracy"] > 0.9


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_find_nothing_in_noise(kind: str) -> None:
    train, valid, test = (blobs(90, s) for s in range(3))
    for part in (train, valid, test):
        part.values = torch.randn(part.values.shape, generator=torch.Generator().manual_seed(len(part.values)))
    assert evaluate(train, valid, test, 3, kind)["accuracy"] == pytest.approx(1 / 3, abs=0.17)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_are_deterministic_and_leave_global_randomness_alone(kind: str) -> None:
    train, valid, test = (blobs(30, s) for s in range(3))
    before = torch.get_rng_state()
    first = Head(kind, seed=4).fit(train, valid, 3)(test)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(Head(kind, seed=4).fit(train, valid, 3)(test), first)
    assert not torch.equal(Head(kind, seed=5).fit(train, valid, 3)(test), first)


def test_standardisation_is_over_the_training_segments_alone() -> None:
    train, valid = blobs(30, 0), blobs(30, 1)
    valid.values = valid.values * 3 + 7
    head = Head().fit(train, valid, 3, epochs=5)
    values = train.values.double().numpy()
    np.testing.assert_allclose(head.mean, values.mean(0), rtol=1e-4)
    deviation = values.std(0)  # of all segments: divided by n
    np.testing.assert_allclose(head.scale[:5].numpy() * deviation[:5], np.ones(5), rtol=1e-4)
    assert head.scale[5] == 0  # a constant carries nothing


@pytest.mark.parametrize("kind", ["linear", "mlp", "knn"])
def test_test_clips_decide_nothing(kind: str) -> None:
    """Neither when to stop nor how features are scaled, and a clip's prediction is its own."""
    train, valid, test, other = (blobs(24, s, noise=3.0) for s in range(4))
    other.values = other.values * 5 - 9
    said, again = predict(kind, train, (valid, test), 3), predict(kind, train, (valid, other), 3)
    assert torch.equal(said[0].logits, again[0].logits)
    few = predict(kind, train, (valid, test.select(torch.arange(5))), 3)[1]
    torch.testing.assert_close(few.logits, said[1].logits[:5])
    if kind != "knn":
        assert torch.equal(said[1].logits, Head(kind).fit(train, valid, 3)(test))
        assert not torch.equal(said[1].logits, Head(kind).fit(train, test, 3)(test))


def test_early_stopping_restores_the_best_weights() -> None:
    train, valid = blobs(12, 0, noise=3.0), blobs(60, 1, noise=3.0)

    def loss(steps: int) -> float:
        head = Head("mlp").fit(train, valid, 3, epochs=steps, patience=10**6)
        return float(nn.functional.cross_entropy(head(valid), valid.labels))

    assert loss(400) == loss(200) <= loss(5)  # over-fitted long before 200 steps, so 200 more change nothing


def test_multi_label_head() -> None:
    parts = [blobs(60, s) for s in range(3)]
    for part in parts:
        part.labels = torch.eye(3)[part.labels]
        part.labels[0] = torch.nan  # unlabelled
    assert evaluate(*parts, 3)["roc_auc"] > 0.95


def test_unlabelled_training_is_an_error() -> None:
    train, valid = blobs(6, 0), blobs(6, 1)
    train.labels[:] = -1
    with pytest.raises(ValueError, match="0 for training, 6 for validation"):
        Head().fit(train, valid, 3)
    with pytest.raises(ValueError, match="head must be one of"):
        Head("deep")


def test_clip_logits_are_means_over_segments() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    assert clip_logits(logits, torch.tensor([1, 1, 0]), 2).tolist() == [[10, 20], [2, 3]]


def batch(audio: Tensor, keys: list[str], labels: list[int]) -> SimpleNamespace:
    return SimpleNamespace(audio=audio, spectrograms=None, keys=keys, labels=torch.tensor(labels))


def test_extract_groups_segments_of_a_clip_across_batches() -> None:
    audio = torch.arange(10.0).view(5, 1, 2)
    batches = [batch(audio[:3], ["a", "a", "b"], [0, 0, 1]), batch(audio[3:], ["b", "c"], [1, 2])]
    found = extract(batches, {"flat": lambda b: b.audio.flatten(1), "mean": lambda b: b.audio.mean(-1)})
    assert found["flat"].values.equal(audio.flatten(1)) and found["mean"].values.shape == (5, 1)
    assert found["mean"].clip.tolist() == [0, 0, 1, 1, 2]
    assert found["mean"].labels.tolist() == [0, 1, 2] and found["mean"].keys == ["a", "b", "c"]
    chosen = found["flat"].select(torch.tensor([2, 0]))
    assert chosen.keys == ["c", "a"] and chosen.clip.tolist() == [1, 1, 0] and chosen.labels.tolist() == [2, 0]
    assert chosen.values.equal(audio.flatten(1)[[0, 1, 4]])
    with pytest.raises(ValueError, match="no batch"):
        extract([], {"flat": lambda b: b.audio})


def test_batch_norm_calibration_sets_the_average_statistics_only() -> None:
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    encoder(100 + torch.randn(8, 3))  # statistics of something else, to be forgotten
    weights = [p.clone() for p in encoder.parameters()]
    x = 5 + 2 * torch.randn(4, 64, 3)
    calibrated = calibrate_batch_norm(encoder, x)
    assert not calibrated.training and encoder[1].momentum == 0.1
    assert all(torch.equal(p, w) for p, w in zip(encoder.parameters(), weights, strict=True))
    hidden = encoder[0](x).detach()
    assert torch.allclose(encoder[1].running_mean, hidden.mean((0, 1)), atol=1e-5)
    assert torch.allclose(encoder[1].running_var, hidden.var(1).mean(0), rtol=1e-4)
    assert calibrated(x.flatten(0, 1)).std(0).tolist() == pytest.approx([1.0] * 4, abs=0.05)


def test_logmel_statistics_are_mean_std_and_change() -> None:
    spectrogram = torch.randn(2, 1, 5, 9)
    found = logmel_statistics(spectrogram)
    assert found.shape == (2, 15)
    assert torch.allclose(found[:, :5], spectrogram[:, 0].mean(-1))
    assert torch.allclose(found[0, 10], (spectrogram[0, 0, 0, 1:] - spectrogram[0, 0, 0, :-1]).std(correction=0))


def test_table_shows_means_deviations_and_the_sampling_error() -> None:
    row = Row("pre-trained")
    for value in (0.5, 0.6, 0.7):
        row.add({"accuracy": value})
    text = str(ProbeTable([row], {"test": 100}, "about", multi=False))
    assert "60.0 ± 10.0" in text and "100 clips alone mean a standard error of 4.9 points" in text
    single = Row("log-mel statistics", {"accuracy": [0.5]})
    assert "±" not in str(ProbeTable([single], {"test": 100}, "about", multi=False)).splitlines()[3]


def test_seeds_add_up_in_a_row() -> None:
    row, labels = Row("pre-trained"), torch.tensor([0, 0, 0, 1])
    for said in ([0, 0, 1, 1], [0, 1, 1, 0]):
        row.add_report(report(torch.eye(2)[said], labels))
    assert row.confusion is not None and row.confusion.tolist() == [[3, 3], [1, 1]]  # truth down
    assert row.values["accuracy"] == [0.75, 0.25] and len(row.per_class["f1"]) == 2


def test_confusion_matrix_in_text() -> None:
    row = Row("pre-trained", {"accuracy": [0.5]}, "1 shot", torch.tensor([[3, 1], [0, 4]]))
    table = ProbeTable([row], {"test": 8}, "about", multi=False, split="by folder", classes=("high", "low"))
    title, head, high, low = table.confusion(row).splitlines()
    assert "pre-trained, 1 shot: by folder" in title and head.split() == ["0", "1"]
    assert high.split() == ["0", "high", "3", "1"] and low.split() == ["1", "low", "0", "4"]
    row.confusion, table.multi = torch.tensor([[[5, 1], [2, 3]], [[4, 0], [0, 7]]]), True
    _, head, high, low = table.confusion(row).splitlines()
    assert head.split() == ["missed", "found", "false"]
    assert high.split() == ["high", "2", "3", "1"] and low.split() == ["low", "0", "7", "0"]
