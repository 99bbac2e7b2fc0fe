"""results.csv: lines go in and come back, what is no result is refused, and the page in docs shows the file."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path

import pytest
import torch

from fastaug.ssl.probe import results
from fastaug.ssl.probe.results import COLUMNS, Result, append, markdown, read
from fastaug.ssl.probe.rows import ProbeTable, Row

ROOT = Path(__file__).parents[1]
ONE = Result(
    "probe linear, thesis", "clmr-v2", "GTZAN", 'fault-filtered, "443/197/290"', "pre-trained", "10 % of labels",
    "accuracy", 3, 0.5517, 0.0123, "0123456789ab", "a CPU, 2 threads", "2026-11-21",
)  # fmt: skip


def test_lines_come_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.csv"
    single = dataclasses.replace(ONE, seeds=1, sd=math.nan)
    append(file, [ONE])
    append(file, [single])
    assert file.read_text().splitlines()[0] == ",".join(COLUMNS) and len(file.read_text().splitlines()) == 3
    first, second = read(file)
    assert (
        first == ONE
        and math.isnan(second.sd)
        and dataclasses.replace(second, sd=0.0) == dataclasses.replace(single, sd=0.0)
    )


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    for change in ({"split": ""}, {"system": "a|b"}, {"recipe": "a\nb"}, {"seeds": 0}, {"mean": math.nan}):
        with pytest.raises(ValueError, match="a result needs"):
            dataclasses.replace(ONE, **change)  # type: ignore[arg-type]
    file = tmp_path / "results.csv"
    file.write_text("recipe,score\n")
    with pytest.raises(ValueError, match="its columns are not recipe,preset"):
        append(file, [ONE])
    assert file.read_text() == "recipe,score\n"
    file.write_text(",".join(COLUMNS) + "\n" + "a,b,c\n")
    with pytest.raises(ValueError, match="line 2 is no result"):
        read(file)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be recorded"):
        append(tmp_path / "file" / "results.csv", [ONE])


def test_a_table_gives_a_result_for_each_row_and_metric() -> None:
    rows = [
        Row("pre-trained", {"accuracy": [0.5, 0.7], "map": [0.6, 0.6]}),
        Row("x", {"accuracy": [0.1], "map": [0.2]}),
    ]
    rows[1].labels = "1 shot"
    table = ProbeTable(rows, {"test": 4}, "about", False, split="corpus by folder", dataset="corpus")
    found = results.of_table(table, "probe linear", "demo", torch.device("cpu"))
    assert [(r.system, r.labels, r.metric, r.seeds) for r in found] == [
        ("pre-trained", "all", "accuracy", 2), ("pre-trained", "all", "map", 2), ("x", "1 shot", "accuracy", 1),
        ("x", "1 shot", "map", 1),
    ]  # fmt: skip
    assert found[0].mean == pytest.approx(0.6) and found[0].sd == pytest.approx(math.sqrt(0.02))
    assert (
        found[0].split == "by folder"
        and found[0].dataset == "corpus"
        and found[0].commit
        and "thread" in found[0].hardware
    )


def test_markdown_shows_percent_under_its_split() -> None:
    other = dataclasses.replace(ONE, split="artist-disjoint", seeds=1, sd=math.nan)
    second = dataclasses.replace(ONE, metric="map", mean=0.4, sd=0.02)
    random = dataclasses.replace(ONE, system="random init", mean=0.25, sd=0.01)
    text = markdown([ONE, second, other, random])
    assert text.count("## GTZAN") == 2 and "| 3 | 55.2 ± 1.2 | 40.0 ± 2.0 |" in text and "| 1 | 55.2 |" in text
    assert "| random init | 10 % of labels | 3 | 25.0 ± 1.0 | - |" in text  # this metric was not taken
    assert text.index("443/197/290") < text.index("artist-disjoint")


def test_the_page_in_docs_is_what_the_file_says() -> None:
    """Run docs/make_results.py after recording a result."""
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "docs" / "make_results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == module.page()
