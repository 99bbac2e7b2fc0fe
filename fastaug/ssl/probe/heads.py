"""How good is a representation? Freeze it, train a small head on it, test on held-out clips.

A clip's prediction is the mean over its segments. The same features, settings and stopping rule (a `Protocol`) serve
every representation compared. ``predict`` gives the predictions, ``evaluate`` their scores.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaug.ssl.metrics import is_multi, knn_scores, score
from fastaug.ssl.probe.features import Features
from fastaug.ssl.probe.protocols import DEFAULT, Fit, Protocol

HEADS = ("linear", "mlp")


@dataclass
class Predictions:
    """What a classifier says of some clips.

    Attributes:
        logits: (clips, n), the mean of a clip's segments' logits.
        probabilities: (clips, n), softmax or (several labels) sigmoid, averaged as the protocol says.
        average: "logits" or "probabilities": which of the two the protocol scores.
    """

    logits: Tensor
    probabilities: Tensor
    average: str = "logits"

    @property
    def scores(self) -> Tensor:
        return self.logits if self.average == "logits" else self.probabilities


def clip_logits(logits: Tensor, clip: Tensor, clips: int) -> Tensor:
    """Mean of the segments' logits: (N, n), (N,) -> (clips, n)."""
    sums = torch.zeros(clips, logits.shape[1], dtype=logits.dtype, device=logits.device).index_add_(0, clip, logits)
    return sums / torch.bincount(clip, minlength=clips).clamp(min=1)[:, None]


def predictions(logits: Tensor, clip: Tensor, clips: int, multi: bool, average: str) -> Predictions:
    """Segments' logits (N, n) as predictions of clips; ``average`` as in `Protocol`."""
    mean = clip_logits(logits, clip, clips)
    if average == "logits":
        probabilities = mean.sigmoid() if multi else mean.softmax(1)
    else:
        probabilities = clip_logits(logits.sigmoid() if multi else logits.softmax(1), clip, clips)
    return Predictions(mean.cpu(), probabilities.cpu(), average)


class Head:
    """A linear or one-hidden-layer head; ``fit`` it, then call it on Features: clip logits (clips, n).

    Args:
        kind: "linear" or "mlp". seed: of its weights, of dropout and of the order.
        protocol: hidden width, dropout, standardisation, pooling; and how it is fitted.
    """

    def __init__(
        self, kind: str = "linear", seed: int = 0, protocol: Protocol = DEFAULT, device: torch.device | None = None
    ) -> None:
        if kind not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {kind!r}")
        self.kind, self.seed, self.protocol = kind, seed, protocol
        self.device = device or torch.device("cpu")

    def fit(self, train: Features, valid: Features, classes: int, **changes: Any) -> Head:
        """Train on ``train``, stop on ``valid`` as the protocol's ``head`` says; ``changes`` replace fields of it.

        Deterministic given the seed, on the CPU bit for bit. Global random state is left alone.
        """
        fit = dataclasses.replace(self.protocol.head, **changes)
        train, valid = self._pooled(train.drop_unlabelled()), self._pooled(valid.drop_unlabelled())
        if not len(train.keys) or not len(valid.keys):
            raise ValueError(
                f"a probe needs labelled clips: {len(train.keys)} for training, {len(valid.keys)} for validation"
            )
        self.mean, self.scale = _standard(train.values, self.protocol.standardise)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.net = self._build(train.values.shape[1], classes).to(self.device)
            optimiser = build_optimiser(self.net, fit)
            x, y = self._standardise(train), train.labels[train.clip].to(self.device)
            x_valid, y_valid = self._standardise(valid), valid.labels.to(self.device)
            best = Best(fit)
            self.net.train()
            for epoch in range(1, fit.epochs + 1):
                for rows in _batches(train, epoch - 1, fit, self.seed):
                    step(self.net, optimiser, classification_loss(self.net(x[rows]), y[rows]), fit)
                best.after_epoch(optimiser)
                if epoch % fit.every:
                    continue
                current = float(classification_loss(self._clips(x_valid, valid), y_valid))
                if best.look(epoch, current, self.net, optimiser):
                    break
        self.epochs = epoch
        best.restore(self.net)
        self.net.eval()
        return self

    def predict(self, features: Features) -> Predictions:
        """Logits and probabilities of clips."""
        features = self._pooled(features)
        logits = self._logits(self._standardise(features))
        clip = features.clip.to(self.device)
        return predictions(logits, clip, len(features.keys), is_multi(features.labels), self.protocol.average)

    def __call__(self, features: Features) -> Tensor:
        return self.predict(features).logits

    def _build(self, dim: int, classes: int) -> nn.Module:
        first = [nn.Dropout(self.protocol.dropout)] if self.protocol.input_dropout else []
        if self.kind == "linear":
            return nn.Sequential(*first, nn.Linear(dim, classes))
        hidden, last = self.protocol.hidden, [nn.Dropout(self.protocol.dropout)] if self.protocol.dropout else []
        return nn.Sequential(*first, nn.Linear(dim, hidden), nn.ReLU(), *last, nn.Linear(hidden, classes))

    def _pooled(self, features: Features) -> Features:
        return features.pooled() if self.protocol.pool else features

    def _standardise(self, features: Features) -> Tensor:
        return ((features.values - self.mean) * self.scale).to(self.device)

    @torch.no_grad()
    def _logits(self, x: Tensor) -> Tensor:
        self.net.eval()
        return torch.cat([self.net(part) for part in x.split(16_384)])

    def _clips(self, x: Tensor, features: Features) -> Tensor:
        logits = self._logits(x)
        self.net.train()
        return clip_logits(logits, features.clip.to(self.device), len(features.keys))


class Best:
    """The lowest validation loss so far, where it was, and when to give up."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.loss, self.epoch = float("inf"), 0
        self.weights: dict[str, Tensor] | None = None
        self.idle = 0  # looks since the plateau's last progress
        self.plateau_loss = float("inf")

    def look(self, epoch: int, loss: float, model: nn.Module, optimiser: torch.optim.Optimizer) -> bool:
        """Note the validation loss after an epoch (from 1); True when it is time to stop."""
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            self.weights = copy.deepcopy(model.state_dict())
        if self.fit.plateau is not None:
            self._plateau(loss, optimiser)
        return self.fit.patience is not None and epoch - self.epoch >= self.fit.patience

    def after_epoch(self, optimiser: torch.optim.Optimizer) -> None:
        _scale_rate(optimiser, self.fit.decay)

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back, where the settings keep those."""
        if self.fit.keep == "best" and self.weights is not None:
            model.load_state_dict(self.weights)

    def _plateau(self, loss: float, optimiser: torch.optim.Optimizer) -> None:
        """torch's ReduceLROnPlateau with its defaults: progress is a loss lower by a relative 1e-4."""
        factor, patience = self.fit.plateau or (1.0, 0)
        if loss < self.plateau_loss * (1 - 1e-4):
            self.plateau_loss, self.idle = loss, 0
        else:
            self.idle += 1
        if self.idle > patience:
            _scale_rate(optimiser, factor)
            self.idle = 0

    def state_dict(self) -> dict[str, Any]:
        names = ("loss", "epoch", "weights", "idle", "plateau_loss")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _scale_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    if factor != 1.0:
        for group in optimiser.param_groups:
            group["lr"] *= factor


def build_optimiser(model: nn.Module, fit: Fit) -> torch.optim.Optimizer:
    """The optimiser of a `Fit` over all of a model's weights."""
    if fit.optimiser == "adam":
        return torch.optim.Adam(model.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
    if fit.optimiser == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
    if fit.optimiser == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=fit.lr, weight_decay=fit.weight_decay, momentum=0.9, nesterov=True
        )
    raise ValueError(f"optimiser must be adam, adamw or sgd, got {fit.optimiser!r}")


def step(model: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, fit: Fit) -> None:
    """One update."""
    optimiser.zero_grad()
    loss.backward()
    if fit.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), fit.clip)
    optimiser.step()


def _batches(train: Features, epoch: int, fit: Fit, seed: int) -> Iterator[Tensor | slice]:
    """Rows of one epoch's steps: of the epoch's turn where clips have several random crops."""
    turns = int(train.turn.max()) + 1
    rows = (train.turn == epoch % turns).nonzero()[:, 0] if turns > 1 else torch.arange(len(train.values))
    if fit.batch_size is None:
        yield rows if turns > 1 else slice(None)
        return
    if fit.shuffle:
        g = torch.Generator().manual_seed((seed << 20) + epoch)
        rows = rows[torch.randperm(len(rows), generator=g)]
    yield from rows.split(fit.batch_size)


def _standard(values: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation of the columns; 0 and 1 where not ``wanted``."""
    if not wanted:
        return torch.zeros(values.shape[1]), torch.ones(values.shape[1])
    mean, std = values.mean(0), values.std(0, correction=0)
    return mean, torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), 1 / std, 0.0)  # constants carry nothing


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, or for several labels binary cross-entropy, the mean over rows (and tags)."""
    if is_multi(labels):
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels)


def nearest(train: Features, clips: Features, classes: int, k: int = 10) -> Predictions:
    """Mean label of the k training clips most similar (cosine of the clips' mean features, standardised on train)."""
    bank, queries = train.drop_unlabelled().pooled(), clips.pooled()
    if not len(bank.keys):
        raise ValueError("nearest neighbours need labelled training clips, there are none")
    mean, scale = _standard(bank.values, True)
    targets = bank.labels if is_multi(bank.labels) else torch.eye(classes)[bank.labels]
    found = knn_scores((bank.values - mean) * scale, targets, (queries.values - mean) * scale, k)
    return Predictions(found.clamp(min=1e-6).log(), found, "probabilities")


def predict(
    kind: str, train: Features, others: tuple[Features, ...], classes: int, seed: int = 0, protocol: Protocol = DEFAULT,
    neighbours: int = 10, device: torch.device | None = None,
) -> list[Predictions]:  # fmt: skip
    """Learn from ``train`` and predict the clips of each of ``others``, the first of which is the validation set.

    Args:
        kind: "linear", "mlp" or "knn".
    """
    if kind == "knn":
        return [nearest(train, other, classes, neighbours) for other in others]
    head = Head(kind, seed, protocol, device).fit(train, others[0], classes)
    return [head.predict(other) for other in others]


def evaluate(
    train: Features, valid: Features, test: Features, classes: int, kind: str = "linear", seed: int = 0, **fit: Any
) -> dict[str, float]:
    """Train a head (settings ``fit`` replace those of the default protocol) and score it on the test clips.

    See ``metrics.score`` for the names; ``predict`` gives the predictions themselves.
    """
    head = Head(kind, seed=seed).fit(train, valid, classes, **fit)
    return score(head(test), test.labels)
