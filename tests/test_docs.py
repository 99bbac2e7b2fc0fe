"""The blocks of the docs run, top to bottom of a page each in a namespace of its own, on a tiny corpus in music/."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from corpus import encoded, tone, write_tar
from fastaug import Pipeline, Record
from fastaug.datasets.synthetic import synth

ROOT = Path(__file__).parents[1]
# transforms.md and presets.md have their own test; recipes.md and data.md need a trained run or speak of files.
PAGES = ("index.md", "architecture.md", "pipeline.md", "randomness.md", "resampling.md", "frontends.md")


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    synth(folder / "music", tracks=20, seconds=2.5, codec="ogg", seed=0, progress=False)
    return folder


@pytest.mark.parametrize(("page", "number"), [(page, i) for page in PAGES for i in range(len(blocks(page)))])
def test_block_runs(page: str, number: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    exec(compile(blocks(page)[number], f"{page}, block {number + 1}", "exec"), {"__name__": "docs"})


def test_every_page_has_blocks_and_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert blocks(page), page
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "index.md" or f"({path.name})" in index, path.name


@pytest.mark.parametrize("page", [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_name_real_things() -> None:
    """Files named in the architecture table exist, and options named in pipeline.md are Pipeline's."""
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"\| `((?:fastaug|tests|recipes|csrc)[\w/.]*)`", table):
        assert (ROOT / name).exists(), name
    arguments = Pipeline.__init__.__annotations__
    for name in re.findall(r"`(\w+)=", (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")):
        assert name in arguments, name


def bad_inputs(folder: Path) -> dict[str, tuple[Any, dict[str, Any], int, int]]:
    """Row of the table in pipeline.md -> (source, Pipeline arguments, rows with "skip", rows with "replace")."""
    good = encoded(tone(2.0, 0), "wav")
    fine, whole = (write_tar(folder / f"{n}.tar", [(f"{i}.wav", good) for i in range(n)]) for n in (1, 2))
    none, nothing, cut = write_tar(folder / "none.tar", []), folder / "nothing.tar", folder / "cut.tar"
    nothing.write_bytes(b"")
    cut.write_bytes(whole.read_bytes()[: len(good) + 4_096])
    nan = io.BytesIO()
    soundfile.write(nan, np.full(40_000, np.nan, np.float32), 16_000, format="WAV", subtype="FLOAT")

    def beside(other: bytes, **fields: str) -> list[Record]:
        return [Record("good", good), Record("other", other, dict(fields))]

    return {
        "a tar without records": ([str(fine), str(none)], {}, 1, 1),
        "a shard file of 0 bytes": ([str(fine), str(nothing)], {}, 1, 1),
        "nothing but empty": ([str(none)], {}, 0, 0),
        "a truncated tar": ([str(cut)], {}, 1, 1),
        "a missing shard": ([str(fine), str(folder / "absent.tar")], {}, 0, 0),
        "a zero-byte mp3": (beside(b""), {}, 1, 2),
        "a text file": (beside(b"la la la " * 50), {}, 1, 2),
        "a crop with NaN": (beside(nan.getvalue()), {}, 1, 2),
        "a label": (beside(good, mood="loud"), {"labels": "mood", "classes": ["soft"]}, 1, 2),
        "a clip shorter": (beside(encoded(tone(0.1, 1), "wav")), {}, 2, 2),
        "`sample_rate=0`": (beside(good), {"sample_rate": 0}, 0, 0),
    }


def bad_input_table() -> list[list[str]]:
    text = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8").partition("## Bad input")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return rows[1:]


@pytest.mark.parametrize("row", bad_input_table(), ids=lambda row: row[0])
def test_the_table_of_bad_input_is_true(row: list[str], tmp_path: Path) -> None:
    inputs = bad_inputs(tmp_path)
    source, arguments, skipped, replaced = next(value for name, value in inputs.items() if row[0].startswith(name))
    for mode, says, delivered in (("raise", row[1], skipped), ("skip", row[2], skipped), ("replace", row[2], replaced)):
        says = row[1] if says.startswith("the same") else says
        given = {"sample_rate": 16_000, "crop_samples": 16_000, "device": "cpu", "on_error": mode, **arguments}
        try:
            pipe = Pipeline(source, **given)
            rows = sum(len(batch) for batch in pipe)
        except Exception as error:
            assert says.startswith(type(error).__name__), f"on_error={mode}: {error!r}"
        else:
            assert says.startswith("nothing") == (not pipe.stats.bad) and rows == delivered, f"on_error={mode}"


def test_the_table_of_bad_input_is_complete(tmp_path: Path) -> None:
    assert len(bad_input_table()) == len(bad_inputs(tmp_path))
