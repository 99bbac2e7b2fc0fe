"""Representations side by side: random initialisation, pre-trained, log-mel statistics; same data, protocol, head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastaug.ssl.data import Dataset, discover
from fastaug.ssl.probe import representations as reps
from fastaug.ssl.probe.cache import FeatureCache
from fastaug.ssl.probe.features import Features
from fastaug.ssl.probe.heads import predict
from fastaug.ssl.probe.label_shares import choose_share, choose_shots, share_of_label_sets
from fastaug.ssl.probe.projectors import load_projector
from fastaug.ssl.probe.protocols import DEFAULT, Protocol
from fastaug.ssl.probe.rows import LOGMEL, PRETRAINED, RANDOM, ProbeTable, Row
from fastaug.ssl.probe.scoring import report

__all__ = ["LOGMEL", "PRETRAINED", "RANDOM", "ProbeTable", "Row", "Share", "labelled_data", "probe_table"]


@dataclass(frozen=True)
class Share:
    """Which training clips keep their labels: a share of them, or so many shots of each class. Of validation, all."""

    share: float = 1.0
    shots: int | None = None

    def __str__(self) -> str:
        if self.shots is not None:
            return f"{self.shots} {'shot' if self.shots == 1 else 'shots'}"
        return "" if self.share == 1 else f"{100 * self.share:g} % of labels"

    def choose(self, labels: torch.Tensor, keys: Sequence[str], classes: Sequence[str], seed: int) -> torch.Tensor:
        """Indices of the clips; see `label_shares` for the errors."""
        if self.shots is not None:
            return choose_shots(labels, keys, classes, self.shots, seed)
        return choose_share(labels, keys, classes, self.share, seed)

    def of(self, train: Features, classes: Sequence[str], seed: int, protocol: Protocol) -> Features:
        """The training features that keep their labels."""
        if self.shots is None and protocol.share == "label sets" and self.share < 1:
            return train.segments(share_of_label_sets(train.labels, train.clip, self.share, seed))
        return train.select(self.choose(train.labels, train.keys, classes, seed))


ALL_LABELS = (Share(),)


def labelled_data(data: str | Dataset, label: str | None = None) -> Dataset:
    """The dataset at ``data``.

    Raises:
        ValueError: nothing labels its clips.
    """
    data = data if isinstance(data, Dataset) else discover(data, label)
    if data.label is None:
        raise ValueError(
            f"a probe needs labels, and {data.source} has none that tell clips apart. Sort the files into one folder "
            "per class, or list them in a CSV with the columns path,label and pack it with `fastaug shard`."
        )
    return data


def probe_table(
    data: str | Dataset,
    checkpoints: Sequence[str | Path] = (),
    label: str | None = None,
    head: str = "linear",
    seeds: Sequence[int] = (0, 1, 2),
    card: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    protocol: Protocol = DEFAULT,
    shares: Sequence[Share] = ALL_LABELS,
    projected: bool = False,
    neighbours: int = 10,
    cache: str | Path | None = None,
) -> ProbeTable:
    """Compare a random encoder, pre-trained checkpoints and log-mel statistics on held-out clips.

    Args:
        data: what ``Pipeline`` accepts as a source. Test clips come from split "test" (or "valid"); unsplit data is
            split 60/20/20 by a hash of the keys.
        checkpoints: of the same sample rate, crop and frontend. With several, seed k uses checkpoint k (in turn), so
            that ± covers pre-training; with one it covers the head (and the choice of labels) alone.
        label: default: the dataset's own, or the parent folder.
        head: "linear", "mlp", or "knn" for ``neighbours`` nearest neighbours.
        seeds: of the heads, of the choice of labels, and of the random encoders.
        card: describes the encoder when there is no checkpoint.
        protocol: `fastaug.ssl.probe.protocols`.
        shares: of the labels; each gets its own rows.
        projected: what the projector makes of it (z) instead of the encoder's output (h).
        cache: folder that keeps features; None for none.

    Raises:
        ValueError: the data has no usable label, the checkpoints do not fit together, a share misses a class.
    """
    device = torch.device(device)
    data, card = data_and_card(data, label, protocol, checkpoints, card)
    extractor = reps.Extractor(data, card, device, batch_size, FeatureCache(Path(cache) if cache else None))
    encoders = _representations(extractor, checkpoints, seeds, projected)
    parts = extractor.features(encoders, protocol)

    names = [RANDOM, *([PRETRAINED] if checkpoints else []), LOGMEL]
    rows = [Row(name, labels=str(share)) for share in shares for name in names]
    several = [s for s in shares for _ in names]
    for turn, seed in enumerate(seeds):
        chosen = {RANDOM: f"{RANDOM} {seed}", PRETRAINED: f"{PRETRAINED} {turn % max(len(checkpoints), 1)}"}
        for row, share in zip(rows, several, strict=True):
            found = parts[chosen.get(row.name, row.name)]
            train = share.of(found["train"].drop_unlabelled(), data.classes, seed, protocol)
            said = predict(
                head, train, (found["valid"], found["test"]), len(data.classes), seed, protocol, neighbours, device
            )[1]
            row.add_report(report(said.scores, found["test"].labels, said.probabilities))
    clips = {part: len(f.drop_unlabelled().keys) for part, f in parts[LOGMEL].items()}
    kind = f"{neighbours} nearest neighbours" if head == "knn" else f"{head} head"
    return finished_table(rows, data, clips, f"{kind} on {'z' if projected else 'h'}", protocol, head)


def data_and_card(
    data: str | Dataset, label: str | None, protocol: Protocol, checkpoints: Sequence[str | Path],
    card: dict[str, Any] | None,
) -> tuple[Dataset, dict[str, Any]]:  # fmt: skip
    """The labelled data as the protocol splits it, and what all checkpoints, or ``card`` without any, take as input."""
    found = labelled_data(data, label)
    if protocol.split != "own":
        found = replace(found, splits=(), protocol="at random, as published")
    return found, reps.common_card([reps.input_card(path) for path in checkpoints] or [card or {}])


def finished_table(
    rows: list[Row], data: Dataset, clips: dict[str, int], kind: str, protocol: Protocol, mode: str
) -> ProbeTable:
    """Rows with everything that must stand beside their numbers."""
    split = f"{data.name} {data.protocol}" if data.splits else f"{data.name} 60/20/20 by key"
    about = f"{data.name}, label {data.label} ({len(data.classes)} classes), {kind}, split: {data.protocol}"
    if not data.splits:
        about += " (60/20/20 by key; pre-training may have heard the test clips, without labels)"
    words, settings = protocol.describe(mode), protocol.to_dict()
    return ProbeTable(rows, clips, about, data.multi, split, data.classes, words, settings, data.name)


def _representations(
    extractor: reps.Extractor, checkpoints: Sequence[str | Path], seeds: Sequence[int], projected: bool
) -> dict[str, reps.Representation]:
    """Random encoders, checkpoints, log-mel statistics."""
    data, card, device, train = extractor.data, extractor.card, extractor.device, extractor.parts["train"]
    projector: nn.Module | None = None
    if projected:
        if not checkpoints:
            raise ValueError("--representation z needs a checkpoint, with its projector")
        projector = load_projector(checkpoints[0], card)

    def batches() -> Any:
        return reps.pipeline(data, card, device, extractor.batch_size, train, crop="random", shuffle=4096)

    found = {
        f"{RANDOM} {seed}": reps.random_init(card, seed, projector, batches, extractor.stamp + train.digest, device)
        for seed in seeds
    }
    for index, path in enumerate(checkpoints):
        found[f"{PRETRAINED} {index}"] = reps.checkpoint(path, projected, device)
    found[LOGMEL] = reps.statistics(card, device)
    return found
