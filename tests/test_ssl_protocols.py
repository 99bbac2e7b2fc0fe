"""Every protocol against the table of its source, written out again; and what the fields do to a head."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from fastaug.ssl.metrics import score
from fastaug.ssl.probe import protocols
from fastaug.ssl.probe.features import Features
from fastaug.ssl.probe.heads import Best, Head, nearest, predict, predictions
from fastaug.ssl.probe.protocols import DEFAULT, PROTOCOLS, Fit, Protocol, choose_protocol

# name: optimiser, rate, decay, batch, epochs, patience, keep | train crops, passes, test crops, average | labels
SOURCES = {
    "default": ("adamw", 1e-2, 1e-2, None, 1000, 100, "best", "segments", 1, "segments", "logits", 1.0),
    "thesis": ("adam", 3e-4, 1e-6, 2048, 50, 3, "best", "segments", 1, "segments", "logits", 1.0),
    "clmr-v1": ("adam", 1e-3, 1e-4, 2048, 50, 5, "best", "segments", 1, "segments", "logits", 1.0),
    "clmr-v2": ("adam", 1e-3, 1e-6, 48, 200, 10, "best", "random", 1, "segments", "probabilities", 1.0),
    "book": ("adam", 1e-4, 1e-6, 16, 15, None, "last", "random", 15, "first", "logits", 1.0),
    "internship": ("adam", 1e-3, 1e-6, 48, 50, None, "best", "segments", 1, "segments", "logits", 0.1),
    "cola": ("adam", 1e-3, 0.0, 64, 100, None, "best", "segments", 1, "segments", "logits", 1.0),
    "marble": ("adam", 1e-3, 0.0, 64, 100, 20, "best", "segments", 1, "segments", "logits", 1.0),
    "jukemir": ("adam", 1e-3, 0.0, 64, 2000, 200, "best", "segments", 1, "segments", "logits", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", PROTOCOLS)
def test_resolved_settings_equal_the_table(name: str) -> None:
    p = choose_protocol(name)
    f = p.head
    found = (f.optimiser, f.lr, f.weight_decay, f.batch_size, f.epochs, f.patience, f.keep)
    assert (*found, p.train_crops, p.passes, p.test_crops, p.average, p.labels) == SOURCES[name]
    assert p.name == name and not p.mistakes and f.shuffle and p.hidden == 512
    assert p.standardise == (name in ("default", "jukemir")) and p.pool == (name in ("marble", "jukemir"))
    assert p.dropout == {"marble": 0.2, "jukemir": 0.5}.get(name, 0.0) and p.input_dropout == (name == "jukemir")
    assert f.plateau == ((0.1, 5) if name == "clmr-v2" else None)


def test_networks_of_the_sources_that_train_one() -> None:
    cola, v2 = PROTOCOLS["cola"].network, PROTOCOLS["clmr-v2"].network
    assert (cola.lr, cola.batch_size, cola.epochs, cola.decay, cola.clip) == (1e-4, 64, 64, 0.97, 1.0)
    assert PROTOCOLS["cola"].network_hidden == (512, 256) and PROTOCOLS["cola"].network_tanh
    assert not any(p.network_tanh for name, p in PROTOCOLS.items() if name != "cola")
    assert (v2.optimiser, v2.lr, v2.weight_decay, v2.plateau) == ("sgd", 3e-4, 1e-6, (0.2, 5))
    assert all(p.network.keep == "best" for p in PROTOCOLS.values())


def test_mistakes_are_offered_on_request_only_and_said() -> None:
    for name, p in protocols.PUBLISHED.items():
        assert p.mistakes and choose_protocol(name, as_published=True) is p
        assert p != PROTOCOLS[name] and p.mistakes[0] in p.describe("linear")
        assert "as published" not in PROTOCOLS[name].describe("linear")
    v1, v2 = (choose_protocol(n, True) for n in ("clmr-v1", "clmr-v2"))
    assert v1.head.keep == v2.head.keep == "last" and not v1.head.shuffle and v2.network.patience is None
    assert choose_protocol("thesis", True).share == "label sets"
    cola = choose_protocol("cola", True)
    assert (cola.test_crops, cola.split, PROTOCOLS["cola"].split) == ("random", "random", "own")
    with pytest.raises(ValueError, match="only thesis, clmr-v1, clmr-v2, cola have mistakes to repeat, not marble"):
        choose_protocol("marble", True)
    with pytest.raises(ValueError, match="protocol must be one of default, thesis, .*got 'thesus'"):
        choose_protocol("thesus")


def test_descriptions_name_the_numbers() -> None:
    text = PROTOCOLS["clmr-v2"].describe("linear")
    assert "adam 0.001, decay 1e-06, batch 48, at most 200 epochs, patience 10, best weights" in text
    assert "trained on a random crop, tested on the mean of the probabilities of all segments" in text
    assert "sgd 0.0003" in PROTOCOLS["clmr-v2"].describe("finetune") and "neighbours" in DEFAULT.describe("knn")


def blobs(clips: int, seed: int, noise: float = 1.0) -> Features:
    """Three classes; clips of two segments."""
    g = torch.Generator().manual_seed(seed)
    labels, clip = torch.arange(clips) % 3, torch.arange(clips).repeat_interleave(2)
    values = 2 * torch.eye(3, 4)[labels[clip]] + noise * torch.randn(2 * clips, 4, generator=g)
    return Features(values, clip, labels, [f"{seed}/{i}" for i in range(clips)])


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_every_protocol_learns_and_repeats_itself(name: str, kind: str) -> None:
    protocol = PROTOCOLS[name]
    fit = dataclasses.replace(protocol.head, epochs=min(protocol.head.epochs, 60), lr=max(protocol.head.lr, 3e-3))
    protocol = dataclasses.replace(protocol, head=fit)
    train, valid, test = (blobs(n, i) for i, n in enumerate((48, 24, 48)))
    first, again = (predict(kind, train, (valid, test), 3, 1, protocol)[1] for _ in range(2))
    assert torch.equal(first.logits, again.logits)
    assert score(first.scores, test.labels)["accuracy"] > 0.8


def test_last_weights_are_not_the_best() -> None:
    train, valid = blobs(12, 0, noise=3.0), blobs(60, 1, noise=3.0)

    def loss(keep: str) -> float:
        head = Head("mlp").fit(train, valid, 3, epochs=200, patience=None, keep=keep)
        return float(nn.functional.cross_entropy(head(valid), valid.labels))

    assert loss("last") > loss("best") + 0.1


def test_patience_counts_epochs_since_the_best() -> None:
    best = Best(Fit(patience=3))
    net = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0)
    stops = [best.look(epoch, loss, net, optimiser) for epoch, loss in enumerate([3.0, 1, 2, 2, 2], 1)]
    assert stops == [False, False, False, False, True] and best.epoch == 2


def test_plateau_follows_torch() -> None:
    losses = [3.0, 2.0, 2.0, 2.1, 2.0, 1.99995, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    nets = [nn.Linear(1, 1) for _ in range(2)]
    mine, theirs = (torch.optim.SGD(net.parameters(), lr=1.0) for net in nets)
    best = Best(Fit(patience=None, plateau=(0.1, 2)))
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.1, patience=2)
    for epoch, loss in enumerate(losses, 1):
        best.look(epoch, loss, nets[0], mine)
        scheduler.step(loss)
        assert mine.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
    assert mine.param_groups[0]["lr"] < 0.02


def test_mean_of_probabilities_is_not_that_of_logits() -> None:
    logits, clip = torch.tensor([[9.0, 0.0], [-1.0, 0.5], [-1.0, 0.5]]), torch.zeros(3, dtype=torch.int64)
    of_logits, of_probabilities = (predictions(logits, clip, 1, False, a) for a in ("logits", "probabilities"))
    assert of_logits.scores.equal(logits.mean(0, keepdim=True)) and of_logits.scores.argmax() == 0
    assert of_probabilities.scores.argmax() == 1
    assert of_probabilities.scores.tolist()[0] == pytest.approx(logits.softmax(1).mean(0).tolist())
    multi = predictions(logits, clip, 1, True, "probabilities").scores
    assert multi.tolist()[0] == pytest.approx(logits.sigmoid().mean(0).tolist())


class Seen(nn.Module):
    """Notes the rows of every training step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.rows = nn.Linear(4, 3), list[list[int]]()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.rows.append(x[:, 3].long().tolist())
        out: Tensor = self.layer(x)
        return out


def steps_of(protocol: Protocol, train: Features, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    net = Seen()
    monkeypatch.setattr(Head, "_build", lambda self, dim, classes: net)
    Head("linear", 0, protocol).fit(train, blobs(6, 1), 3)
    return net.rows


def test_order_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    train = blobs(6, 0)
    train.values[:, 3] = torch.arange(12)
    still = dataclasses.replace(DEFAULT, standardise=False, head=Fit(batch_size=5, epochs=2, shuffle=False))
    assert steps_of(still, train, monkeypatch) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]] * 2
    first, second = [], []
    shuffled = steps_of(dataclasses.replace(still, head=Fit(batch_size=12, epochs=2)), train, monkeypatch)
    first, second = shuffled
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    train.turn = torch.tensor([0, 1] * 6)  # two random crops of each clip, one an epoch
    turns = steps_of(dataclasses.replace(still, head=Fit(batch_size=12, epochs=3)), train, monkeypatch)
    assert [sorted(rows) for rows in turns] == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11], [0, 2, 4, 6, 8, 10]]
    pooled = steps_of(dataclasses.replace(still, pool=True, head=Fit(batch_size=12, epochs=1)), train, monkeypatch)
    assert len(pooled[0]) == 6


def test_pooling_takes_the_mean_of_a_clip() -> None:
    features = blobs(3, 0)
    pooled = features.pooled()
    assert pooled.values.allclose(features.values.view(3, 2, 4).mean(1)) and pooled.clip.tolist() == [0, 1, 2]


def test_nearest_neighbours() -> None:
    train, test = blobs(60, 0), blobs(30, 1)
    found = nearest(train, test, 3, k=5)
    assert score(found.scores, test.labels)["accuracy"] > 0.9 and found.probabilities.sum(1).allclose(torch.ones(30))
    for part in (train, test):
        part.labels = torch.eye(3)[part.labels]
    assert score(nearest(train, test, 3, k=5).scores, test.labels)["roc_auc"] > 0.95
    train.labels[:] = torch.nan
    with pytest.raises(ValueError, match="need labelled training clips"):
        nearest(train, test, 3)
