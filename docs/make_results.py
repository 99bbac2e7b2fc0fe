"""Writes docs/results.md from recipes/results.csv.

python docs/make_results.py
"""

from __future__ import annotations

from pathlib import Path

from fastaug.ssl.probe.results import markdown, read

ROOT = Path(__file__).parents[1]
HEAD = """# Measured results

Written by `docs/make_results.py` from [recipes/results.csv](../recipes/results.csv), to which `recipes/probe.py
--record recipes/results.csv` appends. Percent, mean ± standard deviation over seeds; what is not listed has not been
measured.

"""


def page() -> str:
    return HEAD + markdown(read(ROOT / "recipes" / "results.csv"))


if __name__ == "__main__":
    (ROOT / "docs" / "results.md").write_text(page(), encoding="utf-8")
