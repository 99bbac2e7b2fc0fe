"""Measured results in one CSV file, recipes/results.csv: what was run on what, over how many seeds, by which commit."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import fastaug
from fastaug.ssl.probe.rows import ProbeTable, Row

__all__ = ["Result", "append", "commit", "hardware", "markdown", "of_row", "of_table", "read", "where"]


@dataclass(frozen=True)
class Result:
    """One number over several seeds, and all that one must know to read it.

    Attributes:
        recipe, preset: what was run, e.g. "probe linear, thesis", and the preset of the pre-training.
        dataset, split: what was tested on.
        system: what was judged, e.g. "pre-trained". labels: which labels it had.
        metric, seeds, mean, sd: sd (n - 1) is NaN for one seed; fractions, not percent.
        commit, hardware, date: of the run.
    """

    recipe: str
    preset: str
    dataset: str
    split: str
    system: str
    labels: str
    metric: str
    seeds: int
    mean: float
    sd: float
    commit: str
    hardware: str
    date: str

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, str) and (not value or "\n" in value or "|" in value):
                raise ValueError(f"a result needs its {name} in one line without |, got {value!r}")
        if self.seeds < 1 or not -1e6 < self.mean < 1e6:
            raise ValueError(f"a result needs seeds and a mean, got {self.seeds} and {self.mean}")


COLUMNS = tuple(field.name for field in dataclasses.fields(Result))


def of_table(table: ProbeTable, recipe: str, preset: str, device: torch.device) -> list[Result]:
    """A result for every row and metric of a probe's table."""
    about = (recipe, preset, table.dataset or "unnamed", table.split.removeprefix(f"{table.dataset} "))
    run = where(device)
    return [result for row in table.rows for result in of_row(row, table.metrics, about, run)]


def of_row(row: Row, metrics: Iterable[str], about: tuple[str, str, str, str], run: dict[str, str]) -> list[Result]:
    """A result for each of ``metrics``; ``about``: recipe, preset, dataset and split, ``run``: as `where` gives it."""
    return [
        Result(*about, row.name, row.labels or "all", metric, len(row.values[metric]), row.mean(metric),
               row.std(metric), **run)
        for metric in metrics
    ]  # fmt: skip


def where(device: torch.device) -> dict[str, str]:
    """Commit, hardware and date of a run that ends now."""
    return {"commit": commit(), "hardware": hardware(device), "date": time.strftime("%Y-%m-%d")}


def append(path: Path, results: Iterable[Result]) -> None:
    """Add lines to ``path``, which is made with its header where it is missing.

    Raises:
        ValueError: it has other columns, or cannot be written.
    """
    if path.is_file() and path.stat().st_size:
        read(path)
        text = io.StringIO()
    else:
        text = io.StringIO(",".join(COLUMNS) + "\n")
        text.seek(0, io.SEEK_END)
    writer = csv.writer(text, lineterminator="\n")
    for result in results:
        values = dataclasses.asdict(result)
        writer.writerow([_text(values[name]) for name in COLUMNS])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())  # at once: two runs may end together
    except OSError as error:
        raise ValueError(f"{path}: results cannot be recorded: {error}") from error


def read(path: Path) -> list[Result]:
    """All results of a file.

    Raises:
        ValueError: other columns, or a line that is no result; names it.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise ValueError(f"{path}: its columns are not {','.join(COLUMNS)}")
    results = []
    for number, row in enumerate(rows[1:], 2):
        try:
            values: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
            numbers = {"seeds": int(values["seeds"]), "mean": float(values["mean"]), "sd": float(values["sd"] or "nan")}
            results.append(Result(**{**values, **numbers}))
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is no result: {error}") from None
    return results


def markdown(results: Iterable[Result]) -> str:
    """Tables in Markdown, one for each dataset and split, in the order of the file; percent, ± sd over seeds."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.dataset, result.split), []).append(result)
    lines: list[str] = []
    for (dataset, split), group in groups.items():
        metrics = list(dict.fromkeys(r.metric for r in group))
        head = ("recipe", "preset", "system", "labels", "seeds", *metrics, "commit", "hardware, date")
        lines += [f"## {dataset}", "", f"Split: {split}.", "", _line(head), "|---" * len(head) + "|"]
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        for r in group:
            about = (r.recipe, r.preset, r.system, r.labels, str(r.seeds), r.commit, f"{r.hardware}, {r.date}")
            spread = "" if r.sd != r.sd else f" ± {100 * r.sd:.1f}"
            rows.setdefault(about, {})[r.metric] = f"{100 * r.mean:.1f}{spread}"
        for cells, values in rows.items():
            lines.append(_line((*cells[:5], *(values.get(metric, "-") for metric in metrics), *cells[5:])))
        lines.append("")
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def commit() -> str:
    """The commit of this library, "-dirty" behind it where files differ; its version outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(fastaug.__file__).parent, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return f"fastaug {fastaug.__version__}"
    return found.stdout.strip() or f"fastaug {fastaug.__version__}"


def hardware(device: torch.device) -> str:
    """Name of the GPU, or of the CPU and the number of threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if os.path.isfile("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        name = models[0] if models else name
    return f"{name}, {(n := torch.get_num_threads())} thread{'s' * (n > 1)}"


def _text(value: Any) -> str:
    """Numbers with enough digits, NaN as nothing."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.5g}"
    return str(value)
