"""Looking at a model while it trains, for a stated share of the time, and where the time goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastaug.ssl.data import Dataset, cache_crops
from fastaug.ssl.metrics import is_multi, knn_scores, labelled, score, view_metrics
from fastaug.ssl.training.precision import autocast

T = TypeVar("T")


class Budget:
    """Runs work only while its measured cost stays below ``share`` of the time since the start."""

    def __init__(self, share: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.share = share
        self._clock, self._start = clock, clock()
        self.spent = 0.0
        self._last: float | None = None

    def run(self, work: Callable[[], T], estimate: float = 0.0) -> T | None:
        """``work()`` if what it cost the last time (the first time: ``estimate`` seconds) fits in, else None."""
        cost = estimate if self._last is None else self._last
        begin = self._clock()
        if self.spent + cost > self.share * (begin - self._start):
            return None
        result = work()
        self._last = self._clock() - begin
        self.spent += self._last
        return result


class Stopwatch:
    """Seconds by name, in wall time: ``with watch("loading"): ...``; ``shares()`` since the last call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def shares(self) -> tuple[float, dict[str, float]]:
        """(seconds since the last call, each name's share of them); starts anew."""
        now = time.perf_counter()
        total = max(now - self._begin, 1e-9)
        result = {f"time_{name}": round(s / total, 4) for name, s in self.seconds.items()}
        self.seconds, self._begin = {}, now
        return total, result


class CollapseWatch:
    """Warns once when the embeddings stay (almost) the same for all inputs: relative std below 0.1 three times running.

    The first ``after`` steps are forgiven: an untrained encoder maps everything to nearly one direction.
    """

    def __init__(self, after: int = 100, threshold: float = 0.1, patience: int = 3) -> None:
        self.after, self.threshold, self.patience = after, threshold, patience
        self._low = 0
        self._warned = False

    def update(self, step: int, std: float) -> str | None:
        """The warning, once; None otherwise. ``std`` is ``metrics.relative_std``."""
        self._low = self._low + 1 if step > self.after and not std >= self.threshold else 0
        if self._warned or self._low < self.patience:
            return None
        self._warned = True
        return (
            f"warning: the embeddings are collapsing (relative std {std:.3f} at step {step}, 1 is evenly spread): "
            "all inputs get nearly the same embedding. Try a lower learning rate, a larger batch, or other data."
        )


@torch.no_grad()
def encode(
    encoder: nn.Module, inputs: Tensor, device: torch.device, chunk: int = 64, dtype: torch.dtype | None = None
) -> Tensor:
    """h (N, D) float32 on the CPU for inputs (N, ...), in eval mode, ``chunk`` at a time; training mode is restored.

    ``dtype``: of autocast, None for none.
    """
    was_training = encoder.training
    encoder.eval()
    try:
        with autocast(device, dtype):
            return torch.cat([encoder(part.to(device)).float().cpu() for part in inputs.split(chunk)])
    finally:
        encoder.train(was_training)


class KnnMonitor:
    """k-nearest-neighbour score of an encoder on cached, un-augmented crops: how well its space separates the labels.

    Args:
        bank, queries: (inputs, labels, keys): tensors (N, ...), labels as in ``Batch.labels``, N keys. A query never
            uses neighbours of its own key. Unlabelled rows are dropped.
        classes: number of classes.
        dtype: of autocast, as in training; None for none.
    """

    def __init__(
        self,
        bank: tuple[Tensor, Tensor, list[str]],
        queries: tuple[Tensor, Tensor, list[str]],
        classes: int,
        device: torch.device,
        k: int = 10,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._bank, bank_labels, bank_keys = _drop_unlabelled(*bank)
        self._queries, self._labels, query_keys = _drop_unlabelled(*queries)
        self._targets = bank_labels if is_multi(bank_labels) else torch.eye(classes)[bank_labels]
        self._forbidden = torch.tensor([[b == q for b in bank_keys] for q in query_keys]).view(len(query_keys), -1)
        self._device, self.k, self._dtype = device, k, dtype
        self.name = "knn_roc_auc" if is_multi(self._labels) else "knn"

    def __len__(self) -> int:
        return len(self._bank) + len(self._queries)

    def estimate(self, encoder: nn.Module) -> float:
        """Seconds that one ``measure`` will take, from encoding some crops; the first time is warm-up."""
        some, seconds = self._queries[:32], []
        for _ in range(3):
            begin = time.perf_counter()
            self._encode(encoder, some)
            seconds.append(time.perf_counter() - begin)
        return min(seconds) * len(self) / len(some)

    def measure(self, encoder: nn.Module) -> float:
        """Accuracy (one label) or macro ROC-AUC (several), 0 to 1."""
        bank, queries = self._encode(encoder, self._bank), self._encode(encoder, self._queries)
        scores = knn_scores(bank, self._targets, queries, self.k, self._forbidden)
        return score(scores, self._labels)["accuracy" if self.name == "knn" else "roc_auc"]

    def _encode(self, encoder: nn.Module, inputs: Tensor) -> Tensor:
        return encode(encoder, inputs, self._device, dtype=self._dtype)


def knn_monitor(
    data: Dataset, crops: int, device: torch.device, dtype: torch.dtype | None = None, **settings: Any
) -> KnnMonitor:
    """On ``crops`` un-augmented centre crops a side, decoded once: neighbours from train, queries from valid.

    Queries are from train where there is no valid. ``settings``: the other arguments of both pipelines.
    """
    from fastaug import Pipeline

    pipes = [
        Pipeline(
            data.source, split=data.split(split), labels=data.label, crop="center", batch_size=32, shuffle=4096,
            on_error="skip", device=device, rank=0, world_size=1, **settings,
        )
        for split in ("train", "valid" if "valid" in data.splits else "train")
    ]  # fmt: skip
    bank, queries = (cache_crops(pipe, crops) for pipe in pipes)
    return KnnMonitor(bank, queries, len(pipes[0].classes or ()), device, dtype=dtype)


def _drop_unlabelled(inputs: Tensor, labels: Tensor, keys: list[str]) -> tuple[Tensor, Tensor, list[str]]:
    keep = labelled(labels)
    return inputs[keep], labels[keep].cpu(), [k for k, kept in zip(keys, keep.tolist()) if kept]


class Monitor:
    """Everything that is logged while pre-training, for at most ``share`` of the time.

    At most half of it goes to what a training batch tells (``metrics.view_metrics``), the rest to nearest neighbours on
    cached crops; what does not fit in at a log step is left out there. ``watch`` times the parts of the loop.

    Args:
        knn: None without labels.
        share: a little below the 2 % promised, because a cost is only known from the time before.
    """

    def __init__(self, encoder: nn.Module, knn: KnnMonitor | None, share: float = 0.018) -> None:
        self.watch = Stopwatch()
        self._encoder, self._knn = encoder, knn
        self._collapse = CollapseWatch()
        self._knn_cost = knn.estimate(encoder) if knn else 0.0
        self._views, self._all = Budget(share / 2), Budget(share)
        self._step: int | None = None

    def look(self, step: int, examples: int, loss: Tensor, z_i: Tensor, z_j: Tensor) -> dict[str, Any]:
        """Numbers for the log at ``step``; ``examples`` a step, (B, D) projections of its two views.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        values: dict[str, Any] = {"loss": loss.item()}  # waits for the device, so that only evaluation is timed below
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(
                f"the loss is {values['loss']} at step {step}: lower the learning rate, check the data"
            )
        with self.watch("eval"):
            before = self._views.spent
            values |= self._views.run(lambda: view_metrics(z_i, z_j)) or {}
            self._all.spent += self._views.spent - before
            if self._knn:
                knn = self._knn
                measured = self._all.run(lambda: knn.measure(self._encoder), self._knn_cost)
                values |= {knn.name: measured} if measured is not None else {}
        if "std" in values and (warning := self._collapse.update(step, values["std"])):
            values["warning"] = warning
        seconds, shares = self.watch.shares()
        if self._step is not None:
            values |= {"examples_per_second": round(examples * (step - self._step) / seconds, 1), **shares}
        self._step = step
        return values
