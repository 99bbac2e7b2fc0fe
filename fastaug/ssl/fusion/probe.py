"""What fused encoders know: heads on each format, on both side by side, and on both heads' probabilities.

All rows of a table share clips, segments, head, number of steps, and batch (the whole training set).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastaug.ssl.checkpoint import load_encoder, write_json
from fastaug.ssl.data import Dataset
from fastaug.ssl.fusion.encoders import AUDIO, SPECTROGRAM
from fastaug.ssl.metrics import is_multi, score
from fastaug.ssl.probe.features import Features, extract
from fastaug.ssl.probe.heads import Head
from fastaug.ssl.probe.representations import PARTS, frozen, pipeline, random_init, three_parts
from fastaug.ssl.probe.scoring import report
from fastaug.ssl.probe.table import labelled_data

BOTH, DECISION, RANDOM = "audio + spectrogram", "decision level", "random init"
Rows = dict[str, dict[str, list[float]]]  # row -> metric -> one value a seed
Splits = list[Features]  # train, valid, test, all labelled


def fusion_rows(
    data: Dataset,
    encoder: nn.Module,
    card: dict[str, Any],
    kind: str = "linear",
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 500,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> Rows:
    """Heads on the frozen representations of a fused encoder and of one that was never trained.

    Args:
        data: labelled; splits that are missing are taken as by ``representations.three_parts``.
        encoder, card: as ``load_encoder`` gives them.
        kind: "linear" or "mlp". steps: of every head; the weights of the lowest validation loss are kept.
        seeds: of the heads, and of the untrained encoders.

    Returns:
        Row -> metric -> one value a seed. Rows: "audio", "spectrogram", "audio + spectrogram" (side by side), "decision
        level" (the heads' probabilities, averaged with a weight found on the validation clips), as far as the encoder
        has them; "random init" of the whole. Metrics: ``valid_map``; of test clips those of ``scoring.report``;
        ``segment_accuracy`` of single segments; ``weight`` of the audio head.

    Raises:
        ValueError: no label tells clips apart.
    """
    data, device = labelled_data(data), torch.device(device)
    sources = three_parts(data)

    def batches() -> Any:
        return pipeline(data, card, device, batch_size, sources["train"], crop="random", shuffle=4096)

    untrained = {f"{seed} ": random_init(card, seed, None, batches, "", device).make() for seed in seeds}
    dims = _dims(encoder, card)
    frozen_ones = {"": frozen(encoder.eval().to(device)), **untrained}
    parts = [extract(pipeline(data, card, device, batch_size, sources[name]), frozen_ones) for name in PARTS]
    trained = {name: _formats([features[name] for features in parts], dims) for name in frozen_ones}
    rows: Rows = {}
    for seed in seeds:
        found: dict[str, tuple[Tensor, ...]] = {}
        for name, splits in {**trained[""], RANDOM: _whole(trained[f"{seed} "])}.items():
            found[name] = _probabilities(splits, len(data.classes), kind, seed, steps)
            _add(rows, name, _metrics(found[name], splits))
        if AUDIO in found and SPECTROGRAM in found:
            splits = trained[""][AUDIO]
            weight = decision_weight(found[AUDIO][0], found[SPECTROGRAM][0], splits[1].labels)
            mixed = tuple(weight * a + (1 - weight) * s for a, s in zip(found[AUDIO], found[SPECTROGRAM]))
            _add(rows, DECISION, {**_metrics(mixed, splits), "weight": weight})
    return rows


def probe_checkpoint(
    folder: Path, data: Dataset, fusion: str, head: str, seeds: Sequence[int], steps: int, device: torch.device
) -> Rows:
    """`fusion_rows` of the checkpoint in ``folder``, printed, and written to fusion.json there."""
    rows = fusion_rows(data, *load_encoder(folder), head, seeds, steps, device)
    about = f"{data.name}, {head} head, fusion {fusion}, split: {data.protocol}"
    write_json(folder / "fusion.json", {"about": about, "seeds": list(seeds), "rows": rows})
    print(f"\n{about}\n{row_lines(rows, fusion)}")
    return rows


def decision_weight(first: Tensor, second: Tensor, labels: Tensor) -> float:
    """The weight w in [0, 1], to a twentieth, for which w · first + (1 − w) · second are the likeliest probabilities.

    Args:
        first, second: probabilities (N, n) of the validation clips. labels: as in ``Batch.labels``.
    """
    weights = torch.linspace(0, 1, 21, dtype=torch.float64)
    mixed = weights[:, None, None] * first.double() + (1 - weights[:, None, None]) * second.double()
    if is_multi(labels):
        likelihood = torch.where(labels > 0.5, mixed, 1 - mixed).clamp(min=1e-12).log().mean((1, 2))
    else:
        likelihood = mixed[:, torch.arange(len(labels)), labels].clamp(min=1e-12).log().mean(1)
    return float(weights[likelihood.argmax()])


def _dims(encoder: nn.Module, card: dict[str, Any]) -> dict[str, int]:
    """The dimension of each format, in the order in which the encoder puts them side by side."""
    with torch.no_grad():
        example = torch.zeros(1, 1, card["crop_samples"])
        return {name: h.shape[1] for name, h in encoder.cpu().eval().formats(example).items()}  # type: ignore[operator]


def _formats(splits: Splits, dims: dict[str, int]) -> dict[str, Splits]:
    """Format -> features of train, valid and test; "audio + spectrogram" where there are both."""
    whole = [features.drop_unlabelled() for features in splits]
    found: dict[str, Splits] = {}
    begin = 0
    for part, dim in dims.items():
        columns = slice(begin, begin + dim)
        found[part] = [replace(f, values=f.values[:, columns]) for f in whole]
        begin += dim
    return {**found, BOTH: whole} if len(dims) > 1 else found


def _whole(formats: dict[str, Splits]) -> Splits:
    """The representation of all formats together."""
    return list(formats.values())[-1]


def _probabilities(splits: Splits, classes: int, kind: str, seed: int, steps: int) -> tuple[Tensor, ...]:
    """Of the valid clips, the test clips and the test segments, from one head."""
    train, valid, test = splits
    head = Head(kind, seed=seed).fit(train, valid, classes, batch_size=None, epochs=steps, patience=None)
    keys = [test.keys[i] for i in test.clip.tolist()]
    segments = Features(test.values, torch.arange(len(test.values)), test.labels[test.clip], keys)
    return tuple(head.predict(features).probabilities for features in (valid, test, segments))


def _metrics(probabilities: tuple[Tensor, ...], splits: Splits) -> dict[str, float]:
    valid, clips, segments = probabilities
    _, validation, test = splits
    found = {
        "valid_map": report(valid, validation.labels, valid).values["map"],
        **report(clips, test.labels, clips).values,
    }
    if not is_multi(test.labels):
        found["segment_accuracy"] = score(segments, test.labels[test.clip])["accuracy"]
    return found


def _add(rows: Rows, name: str, metrics: dict[str, float]) -> None:
    for metric, value in metrics.items():
        rows.setdefault(name, {}).setdefault(metric, []).append(value)


def join_seeds(runs: Sequence[Rows]) -> Rows:
    """Rows of several pre-training seeds: one value each, the mean over its heads; a single run stays as it is."""
    if len(runs) == 1:
        return runs[0]
    rows: Rows = {}
    for found in runs:
        for row, metrics in found.items():
            _add(rows, row, {name: float(np.mean(values)) for name, values in metrics.items()})
    return rows


def row_lines(rows: Rows, fusion: str = "") -> str:
    """``fusion_rows`` as text; "separate" and "decision" leave out the other's row."""
    left_out = {"separate": DECISION, "decision": BOTH}.get(fusion)
    shown = {name: metrics for name, metrics in rows.items() if name != left_out}
    names = [m for m in ("valid_map", "accuracy", "segment_accuracy", "map", "roc_auc", "weight")
             if any(m in metrics for metrics in shown.values())]  # fmt: skip
    lines = [f"{'':22}" + "".join(f"{name:>18}" for name in names)]
    for row, metrics in shown.items():
        lines.append(f"{row:22}" + "".join(f"{cell(metrics, name, 1.0, '-'):>18}" for name in names))
    return "\n".join(lines)


def cell(metrics: dict[str, list[float]] | None, name: str, scale: float, missing: str = "not measured") -> str:
    """Mean ± standard deviation over seeds of a metric, times ``scale``, as text."""
    if not metrics or name not in metrics:
        return missing
    values, digits = scale * np.array(metrics[name]), 3 if scale == 1.0 else 1
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"
