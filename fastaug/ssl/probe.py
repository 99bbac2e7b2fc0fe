"""How good is a representation? Freeze it, train a small head on it, test on held-out clips.

Every clip is cut into segments; a head sees single segments of the training clips; a clip's prediction is the mean of
its segments' logits. The same features, standardisation, head and stopping rule serve every representation compared.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaug.ssl.features import Features
from fastaug.ssl.metrics import is_multi, score

HEADS = ("linear", "mlp")


def clip_logits(logits: Tensor, clip: Tensor, clips: int) -> Tensor:
    """Mean of the segments' logits: (N, n), (N,) -> (clips, n)."""
    sums = torch.zeros(clips, logits.shape[1], dtype=logits.dtype, device=logits.device).index_add_(0, clip, logits)
    return sums / torch.bincount(clip, minlength=clips).clamp(min=1)[:, None]


class Head:
    """A standardising linear or one-hidden-layer head; ``fit`` it, then call it on Features: clip logits (clips, n)."""

    def __init__(
        self, kind: str = "linear", hidden: int = 512, seed: int = 0, device: torch.device | None = None
    ) -> None:
        if kind not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {kind!r}")
        self.kind, self.hidden, self.seed = kind, hidden, seed
        self.device = device or torch.device("cpu")

    def fit(
        self,
        train: Features,
        valid: Features,
        classes: int,
        rate: float = 1e-2,
        weight_decay: float = 1e-2,
        steps: int = 1000,
        patience: int = 100,
        every: int = 5,
    ) -> Head:
        """Full-batch AdamW; looks at the validation loss ``every`` few steps, keeps the weights where it was lowest and
        stops ``patience`` steps after that.

        Deterministic given the seed, on the CPU bit for bit. Global random state is left alone.
        """
        train, valid = train.drop_unlabelled(), valid.drop_unlabelled()
        if not len(train.keys) or not len(valid.keys):
            raise ValueError(
                f"a probe needs labelled clips: {len(train.keys)} for training, {len(valid.keys)} for validation"
            )
        self.mean, std = train.values.mean(0), train.values.std(0, correction=0)
        self.scale = torch.where(std > 1e-6 * self.mean.abs().clamp(min=1e-6), 1 / std, 0.0)  # constants carry nothing
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.net = self._build(train.values.shape[1], classes).to(self.device)
            optimiser = torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=weight_decay)
            x, y = self._standardise(train), train.labels[train.clip].to(self.device)
            x_valid, y_valid = self._standardise(valid), valid.labels.to(self.device)
            best, best_step, best_weights = float("inf"), 0, copy.deepcopy(self.net.state_dict())
            for step in range(1, steps + 1):
                loss = _loss(self.net(x), y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                if step % every:
                    continue
                current = float(_loss(self._clips(x_valid, valid), y_valid))
                if current < best:
                    best, best_step, best_weights = current, step, copy.deepcopy(self.net.state_dict())
                elif step - best_step >= patience:
                    break
        self.net.load_state_dict(best_weights)
        return self

    def __call__(self, features: Features) -> Tensor:
        return self._clips(self._standardise(features), features).cpu()

    def _build(self, dim: int, classes: int) -> nn.Module:
        if self.kind == "linear":
            return nn.Linear(dim, classes)
        return nn.Sequential(nn.Linear(dim, self.hidden), nn.ReLU(), nn.Linear(self.hidden, classes))

    def _standardise(self, features: Features) -> Tensor:
        return ((features.values - self.mean) * self.scale).to(self.device)

    @torch.no_grad()
    def _clips(self, x: Tensor, features: Features) -> Tensor:
        return clip_logits(self.net(x), features.clip.to(self.device), len(features.keys))


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    if is_multi(labels):
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels)


def evaluate(
    train: Features, valid: Features, test: Features, classes: int, kind: str = "linear", seed: int = 0, **fit: Any
) -> dict[str, float]:
    """Train a head and score it on the test clips: see ``metrics.score`` for the names."""
    head = Head(kind, seed=seed).fit(train, valid, classes, **fit)
    return score(head(test), test.labels)
