"""Writes the measured table of the README from the newest result in benchmarks/results (full runs before quick ones).

python docs/make_table.py
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- measured: docs/make_table.py writes this -->\n", "<!-- end -->\n"
ROWS = {
    "clmr_two_views[1thread]": "the full CLMR chain, a view",
    "clmr_two_views[2threads]": "the same on two threads",
    "reverb[1thread]": "reverb",
    "pitch[1thread]": "pitch shift",
    "high_low_pass[1thread]": "high- or low-pass, windowed sinc",
    "butterworth[1thread-1]": "the same, first order",
    "resample[1thread-44100-22050]": "44.1 to 22.05 kHz, two seconds",
    "crop[1thread-mp3]": "a crop of an MP3, resampled",
    "crop[1thread-flac]": "a crop of a FLAC file, resampled",
    "two_views[2threads-clmr]": "two CLMR views from the file of a 30 s track, two threads",
    "two_views[2threads-clmr-256]": "two CLMR views from the file of a 30 s track, two threads",
    "batches": "the same on all cores, beside loaders with the fastest effects",
}


def main() -> None:
    readme = ROOT / "README.md"
    head, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    readme.write_text(head + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")


def table() -> str:
    """The table in Markdown, with a line that says where it comes from."""
    result = newest()
    cases = {case["case"]: case for case in result["cases"]}
    lines = ["| clips of 2.7 s at 22.05 kHz | fastaug | the fastest other | times faster |", "|---|---|---|---|"]
    lines += [row(cases[name], words) for name, words in ROWS.items() if name in cases]
    machine = result["machine"]
    load = f", load {machine['load_before']:g} before the run" if machine["load_before"] >= 1 else ""
    command = "make bench QUICK=1" if result["quick"] else "make bench"
    where = f"{machine['cpu']}, {machine['cores']} cores, one thread if not said otherwise{load}"
    text = (
        f"`{command}` of {result['date']} on {where}. Times are those of the two fastest turns; times faster: of "
        "turns that follow one another, ± half of what visits, minutes apart, differ, so that it need not be the "
        "quotient of the times to the last digit. [All results](benchmarks/RESULTS.md): peers, spread, agreement."
    )
    return "\n".join([*lines, "", *textwrap.wrap(text, 120, break_on_hyphens=False), ""])


def newest() -> dict[str, Any]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "benchmarks" / "results").glob("*.json")]
    on_cpu = [result for result in found if any(case["case"] in ROWS for case in result["cases"])]
    return max(on_cpu, key=lambda result: (not result["quick"], result["date"]))


def row(case: dict[str, Any], words: str) -> str:
    peers = [peer for peer in case["peers"] if not peer["error"] and not peer["disagrees"]]
    best = min(peers, key=lambda peer: peer["best"])
    times = f"{_time(case['ours']['best'])} | {_time(best['best'])}, {best['name']}"
    return f"| {words} | {times} | {best['ratio']:.2g}{_doubt(best)} |"


def _doubt(peer: dict[str, Any]) -> str:
    return f" ± {(peer['ratio_high'] - peer['ratio_low']) / 2 / peer['ratio']:.0%}" if "ratio_low" in peer else ""


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"


if __name__ == "__main__":
    main()
