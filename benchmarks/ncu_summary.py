"""One line for each kernel of ncu's raw CSV page: python benchmarks/ncu_summary.py ncu.csv"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

#: Column of ncu → what the table calls it.
COLUMNS = {
    "gpu__time_duration.sum": "time",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory %",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "arithmetic %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy %",
    "launch__registers_per_thread": "registers",
}


def summary(text: str) -> list[str]:
    """Lines of a table; what ncu says before its table is left out, and the units come from its second line."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    units, *rows = list(csv.DictReader(lines))
    shown = [f"{'kernel':44}" + "".join(f"{name:>16}" for name in COLUMNS.values())]
    for row in rows:
        cells = [row.get(column) or "" for column in COLUMNS]
        cells[0] = f"{cells[0]} {units['gpu__time_duration.sum']}"
        shown.append(f"{row['Kernel Name'][:44]:44}" + "".join(f"{cell:>16}" for cell in cells))
    return shown


if __name__ == "__main__":
    print(*summary(Path(sys.argv[1]).read_text(encoding="utf-8")), sep="\n")
