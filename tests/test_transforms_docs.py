"""docs/transforms.md and docs/presets.md say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fastaug.transforms as T
from fastaug.random import Keys

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["transforms.md", "presets.md"])
def test_code_blocks_run(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_table_names_every_transform_and_every_draw() -> None:
    rows = [line.split("|")[1:] for line in (DOCS / "transforms.md").read_text(encoding="utf-8").splitlines()]
    table = {name: cells for cells in rows if len(cells) == 7 for name in re.findall(r"`(\w+)\(", cells[0])}
    public = {n for n in T.__all__ if isinstance(getattr(T, n), type) and issubclass(getattr(T, n), T.Transform)}
    assert public - {"Transform"} <= set(table)
    for name in public - {"Transform", "Compose", "OneOf", "SomeOf", "RandomCrop"}:
        for drawn in set(getattr(T, name)().draw(Keys.of(0, [0]))) - {"active"}:
            cell = table[name][1]
            assert f"`{drawn}`" in cell or "each of these" in cell, f"{name} draws {drawn}, the table says {cell}"
