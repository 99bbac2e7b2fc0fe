"""Representations side by side: random initialisation, pre-trained, log-mel statistics; same data, same head."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastaug.ssl.checkpoint import build_encoder, load_encoder
from fastaug.ssl.data import Dataset, discover, model_input
from fastaug.ssl.features import Features, calibrate_batch_norm, extract, logmel_statistics
from fastaug.ssl.probe import evaluate

RANDOM, PRETRAINED, LOGMEL = "random init (BN calibrated)", "pre-trained", "log-mel statistics"
CALIBRATION_BATCHES = 8


@dataclass
class Row:
    """One representation in a table: metric name -> one value per seed."""

    name: str
    values: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value)

    def mean(self, metric: str) -> float:
        return float(torch.tensor(self.values[metric], dtype=torch.float64).mean())

    def std(self, metric: str) -> float:
        """Standard deviation over seeds (n - 1), NaN for a single one."""
        values = torch.tensor(self.values[metric], dtype=torch.float64)
        return float(values.std()) if len(values) > 1 else float("nan")


@dataclass
class ProbeTable:
    """What ``probe_table`` found; ``print`` it, or take ``to_dict()``.

    Attributes:
        rows: one per representation.
        clips: number of clips in train, valid and test.
        about: one line on data, split protocol, label and head.
        multi: several labels a clip.
    """

    rows: list[Row]
    clips: dict[str, int]
    about: str
    multi: bool

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("roc_auc", "pr_auc", "roc_auc_clip", "pr_auc_clip") if self.multi else ("accuracy",)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def to_dict(self) -> dict[str, Any]:
        rows = {row.name: row.values for row in self.rows}
        return {"about": self.about, "clips": self.clips, "rows": rows}

    def __str__(self) -> str:
        lines = [self.about, "", f"{'':28}" + "".join(f"{name:>18}" for name in self.metrics)]
        for row in self.rows:
            cells = (f"{100 * row.mean(m):.1f}" + _plus_minus(row.std(m)) for m in self.metrics)
            lines.append(f"{row.name:28}" + "".join(f"{cell:>18}" for cell in cells))
        count = self.clips["test"]
        lines += ["", f"percent on {count} test clips, ± standard deviation over seeds"]
        if not self.multi:
            middle = sum(row.mean("accuracy") for row in self.rows) / len(self.rows)
            error = 100 * math.sqrt(middle * (1 - middle) / count)
            lines[-1] += f"; {count} clips alone mean a standard error of {error:.1f} points"
        elif skipped := max(row.values["skipped_tags"][0] for row in self.rows):
            lines[-1] += f"; {skipped:.0f} tags without both values in test are skipped"
        return "\n".join(lines)


def _plus_minus(std: float) -> str:
    return "" if math.isnan(std) else f" ± {100 * std:.1f}"


def probe_table(
    data: str | Dataset,
    checkpoints: Sequence[str | Path] = (),
    label: str | None = None,
    head: str = "linear",
    seeds: Sequence[int] = (0, 1, 2),
    card: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> ProbeTable:
    """Compare a random encoder, pre-trained checkpoints and log-mel statistics on held-out clips.

    Args:
        data: what ``Pipeline`` accepts as a source. Test clips come from split "test" (or "valid"); unsplit data is
            split 60/20/20 by a hash of the keys.
        checkpoints: of the same sample rate, crop and frontend. With several, seed k uses checkpoint k (in turn), so
            that ± covers pre-training; with one it covers the head alone.
        label: default: the dataset's own, or the parent folder.
        head: "linear" or "mlp".
        seeds: of the heads, and of the random encoders.
        card: describes the encoder when there is no checkpoint.

    Raises:
        ValueError: the data has no usable label, or the checkpoints do not fit together.
    """
    device = torch.device(device)
    data = data if isinstance(data, Dataset) else discover(data, label)
    if data.label is None:
        raise ValueError(
            f"a probe needs labels, and {data.source} has none that tell clips apart. Sort the files into one folder "
            "per class, or list them in a CSV with the columns path,label and pack it with `fastaug shard`."
        )
    loaded = [load_encoder(path) for path in checkpoints]
    card = _common_card([c for _, c in loaded] or [card or {}])
    pipeline = _pipelines(data, card, device, batch_size)
    encoders: dict[str, Callable[[Any], Tensor]] = {}
    for seed in seeds:
        encoders[f"{RANDOM} {seed}"] = _frozen(_random_encoder(card, seed, pipeline(crop="random"), device))
    for index, (encoder, _) in enumerate(loaded):
        encoders[f"{PRETRAINED} {index}"] = _frozen(encoder.to(device))
    encoders[LOGMEL] = _logmel(card, device)
    found = _extract_splits(data, pipeline, encoders)
    parts = {name: _three_way(splits) for name, splits in found.items()}

    rows = [Row(RANDOM), *([Row(PRETRAINED)] if loaded else []), Row(LOGMEL)]
    for turn, seed in enumerate(seeds):
        chosen = {RANDOM: f"{RANDOM} {seed}", PRETRAINED: f"{PRETRAINED} {turn % max(len(loaded), 1)}", LOGMEL: LOGMEL}
        for row in rows:
            row.add(evaluate(*parts[chosen[row.name]], len(data.classes), head, seed))
    clips = {n: len(f.drop_unlabelled().keys) for n, f in zip(("train", "valid", "test"), parts[LOGMEL])}
    about = f"{data.name}, label {data.label} ({len(data.classes)} classes), {head} head, split: {data.protocol}"
    if not data.splits:
        about += " (60/20/20 by key; pre-training may have heard the test clips, without labels)"
    return ProbeTable(rows, clips, about, data.multi)


def _common_card(cards: list[dict[str, Any]]) -> dict[str, Any]:
    for key in ("sample_rate", "crop_samples", "logmel"):
        values = {str(card[key]) for card in cards}
        if len(values) > 1:
            raise ValueError(f"checkpoints of one table must agree in {key}, got {', '.join(sorted(values))}")
    return cards[0]


def _pipelines(data: Dataset, card: dict[str, Any], device: torch.device, batch_size: int) -> Callable[..., Any]:
    from fastaug import LogMel, Pipeline

    def build(split: str | None = None, crop: str = "segments") -> Any:
        return Pipeline(
            data.source, split=split or data.split("train"), labels=data.label, sample_rate=card["sample_rate"],
            crop_samples=card["crop_samples"], crop=crop, batch_size=batch_size, on_error="skip", device=device,
            frontend=LogMel(**card["logmel"]) if card["logmel"] else None, shuffle=4096 if crop == "random" else 0,
        )  # fmt: skip

    return build


def _random_encoder(card: dict[str, Any], seed: int, batches: Iterable[Any], device: torch.device) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build_encoder(card).to(device)
    return calibrate_batch_norm(encoder, (model_input(b) for b in islice(batches, CALIBRATION_BATCHES)))


def _frozen(encoder: nn.Module) -> Callable[[Any], Tensor]:
    return lambda batch: encoder(model_input(batch))


def _logmel(card: dict[str, Any], device: torch.device) -> Callable[[Any], Tensor]:
    """Statistics of the same crops at the same rate; windows of about 64 ms whatever the rate."""
    from fastaug import LogMel

    n_fft = 2 ** round(math.log2(0.064 * card["sample_rate"]))
    frontend = LogMel(n_fft=n_fft, hop_length=n_fft // 2, n_mels=64, sample_rate=card["sample_rate"]).to(device)
    return lambda batch: logmel_statistics(frontend(batch.audio))


def _extract_splits(
    data: Dataset, pipeline: Callable[..., Any], encoders: dict[str, Callable[[Any], Tensor]]
) -> dict[str, dict[str, Features]]:
    """encoder name -> split name ("all" for unsplit data) -> features."""
    splits = data.splits or (None,)
    found = {split or "all": extract(pipeline(split), encoders) for split in splits}
    return {name: {split: features[name] for split, features in found.items()} for name in encoders}


def _three_way(parts: dict[str, Features]) -> tuple[Features, Features, Features]:
    """Train, valid, test; what is missing is taken from train by a hash of the keys, so it never changes."""
    if len(parts) == 1:
        (everything,) = parts.values()
        rest, test = _divide(everything, 0.2)
        return (*_divide(rest, 0.25), test)
    if len(parts) == 3:
        return parts["train"], parts["valid"], parts["test"]
    test = parts.get("test") or parts["valid"]
    return (*_divide(parts.get("train") or parts["valid"], 0.2), test)


def _divide(features: Features, share: float) -> tuple[Features, Features]:
    """(rest, ``share`` of the clips): those whose hashed key comes first."""
    order = sorted(range(len(features.keys)), key=lambda i: hashlib.blake2b(features.keys[i].encode()).digest())
    cut = max(1, round(share * len(order)))
    if cut >= len(order):
        raise ValueError(f"{len(order)} clips are too few to split")
    return features.select(torch.tensor(sorted(order[cut:]))), features.select(torch.tensor(sorted(order[:cut])))
