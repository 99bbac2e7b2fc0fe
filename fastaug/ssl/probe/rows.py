"""The table that a probe prints: a row for each representation and share of labels, a value for each seed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastaug.ssl.probe.scoring import ONE_LABEL, SEVERAL_LABELS, Report, t_interval

RANDOM, PRETRAINED, LOGMEL = "random init (BN calibrated)", "pre-trained", "log-mel statistics"
FINETUNED, SUPERVISED = "fine-tuned", "supervised from scratch"


@dataclass
class Row:
    """One representation under one share of labels: metric name -> one value per seed.

    Attributes:
        labels: which training clips kept their labels, in words; empty for all.
        confusion: sum over seeds, see `scoring.Report`. per_class: metric -> seeds -> one value a class.
    """

    name: str
    values: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    labels: str = ""
    confusion: Tensor | None = None
    per_class: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value)

    def add_report(self, report: Report) -> None:
        self.add(report.values)
        self.confusion = report.confusion if self.confusion is None else self.confusion + report.confusion
        for name, values in report.per_class.items():
            self.per_class.setdefault(name, []).append(values)

    def mean(self, metric: str) -> float:
        return float(torch.tensor(self.values[metric], dtype=torch.float64).mean())

    def std(self, metric: str) -> float:
        """Standard deviation over seeds (n - 1), NaN for a single one."""
        values = torch.tensor(self.values[metric], dtype=torch.float64)
        return float(values.std()) if len(values) > 1 else float("nan")

    def interval(self, metric: str) -> tuple[float, float]:
        """95 % t interval of the mean over seeds, NaN for a single one."""
        return t_interval(torch.tensor(self.values[metric], dtype=torch.float64))


@dataclass
class ProbeTable:
    """What a probe found; ``print`` it, or take ``to_dict()``.

    Attributes:
        rows: one per representation (and share of labels).
        clips: number of clips in train, valid and test.
        about: one line on data, split protocol, label and head.
        multi: several labels a clip.
        split: name of the split, shown above the rows and with every confusion matrix.
        classes: names, for the confusion matrix.
        protocol: what was done, in words; settings: in numbers.
        dataset: its name.
    """

    rows: list[Row]
    clips: dict[str, int]
    about: str
    multi: bool
    split: str = ""
    classes: tuple[str, ...] = ()
    protocol: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    dataset: str = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        wanted = SEVERAL_LABELS if self.multi else ONE_LABEL
        return tuple(m for m in wanted if all(m in row.values for row in self.rows))

    def row(self, name: str, labels: str = "") -> Row:
        return next(row for row in self.rows if row.name == name and labels in ("", row.labels))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, NaN as None."""
        rows = [
            {
                "name": row.name, "labels": row.labels or "all", "split": self.split, "values": row.values,
                "mean": {m: row.mean(m) for m in row.values}, "std": {m: row.std(m) for m in row.values},
                "interval95": {m: row.interval(m) for m in row.values}, "per_class": row.per_class,
                "confusion": None if row.confusion is None else row.confusion.tolist(),
            }
            for row in self.rows
        ]  # fmt: skip
        whole = {
            "about": self.about,
            "dataset": self.dataset,
            "split": self.split,
            "clips": self.clips,
            "classes": self.classes,
        }
        found: dict[str, Any] = _plain({**whole, "protocol": self.settings, "rows": rows})
        return found

    def __str__(self) -> str:
        names = [row.name + (f", {row.labels}" if row.labels else "") for row in self.rows]
        wide = max(28, *map(len, names)) + 1
        lines = [self.about, *([self.protocol] if self.protocol else []), ""]
        lines += [" " * wide + "".join(f"{name:>28}" for name in self.metrics)]
        for name, row in zip(names, self.rows, strict=True):
            cells = "".join(f"{_cell(row, m):>28}" for m in self.metrics)
            lines.append(f"{name:{wide}}{cells}")
        return "\n".join([*lines, "", self._foot()])

    def _foot(self) -> str:
        count = self.clips["test"]
        foot = f"percent on {count} test clips, ± standard deviation over seeds (95 % t interval of the mean)"
        if not self.multi:
            middle = sum(row.mean("accuracy") for row in self.rows) / len(self.rows)
            error = 100 * math.sqrt(middle * (1 - middle) / count)
            return foot + f"; {count} clips alone mean a standard error of {error:.1f} points"
        if skipped := max(row.values["skipped_tags"][0] for row in self.rows):
            return foot + f"; {skipped:.0f} tags without both values in test are skipped"
        return foot

    def confusion(self, row: Row) -> str:
        """A row's confusion matrix in text: truth down, prediction across, counts summed over seeds."""
        if row.confusion is None:
            return ""
        names = list(self.classes) or [str(i) for i in range(len(row.confusion))]
        wide = max(map(len, names)) + 1
        if self.multi:
            lines = [f"{'':{wide}}{'missed':>8}{'found':>8}{'false':>8}"]
            for name, ((_, false), (missed, found)) in zip(names, row.confusion.tolist(), strict=True):
                lines.append(f"{name:{wide}}{missed:8}{found:8}{false:8}")
        else:
            lines = [f"{'':{wide + 4}}" + "".join(f"{i:6}" for i in range(len(names)))]
            for i, (name, counts) in enumerate(zip(names, row.confusion.tolist(), strict=True)):
                lines.append(f"{i:3} {name:{wide}}" + "".join(f"{count:6}" for count in counts))
        name = row.name + (f", {row.labels}" if row.labels else "")
        title = f"{name}: {self.split}, test clips by true class, over all seeds"
        return "\n".join([title, *lines])


def _cell(row: Row, metric: str) -> str:
    cell = f"{100 * row.mean(metric):.1f}"
    if math.isnan(row.std(metric)):
        return cell
    low, high = row.interval(metric)
    return f"{cell} ± {100 * row.std(metric):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _plain(value: Any) -> Any:
    """Lists, dicts, numbers: NaN as None, tuples as lists, so that what is read back is equal."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
