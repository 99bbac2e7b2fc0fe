"""Merge the suites' JSON into results/<machine>-<date>.json and render RESULTS.md, one section per machine.

python benchmarks/render.py merge PART.json … --results DIR     # prints the merged file's path
python benchmarks/render.py table --results DIR --out RESULTS.md
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
from pathlib import Path
from typing import Any

INTRO = """# Results

Made by `make bench` (`benchmarks/render.py`); do not edit. Ratio: the peer's time over fastaug's, per item, with the
same data, threads and process, taking turns; above 1 fastaug is faster. Time: median [lower quartile, upper quartile].
Agreement: signal-to-error ratio of the peer's output against ours in the same run; where they cannot agree, why not.
"""
PREFIXES = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def merge(parts: list[Path], results: Path, date: str, quick: bool) -> Path:
    """One file per machine and day; a quick run gets a name of its own, so that it never replaces a full one."""
    loaded = [json.loads(part.read_text(encoding="utf-8")) for part in parts]
    if not loaded:
        raise SystemExit("no suite left a result to merge")
    machine = loaded[0]["machine"]
    merged = {
        "format": "fastaug-bench-1",
        "date": date,
        "quick": quick,
        "machine": machine,
        "cases": [case for part in loaded for case in part["cases"]],
    }
    path = results / f"{machine_name(machine)}-{date}{'-quick' if quick else ''}.json"
    results.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def machine_name(machine: dict[str, Any]) -> str:
    words = machine["gpu"]["name"] if "gpu" in machine else f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower().replace("(r)", "").replace("(tm)", "")).strip("-")


def render(results: Path) -> str:
    """One section per machine: its newest full result, or its newest quick one if there is no full one."""
    best: dict[str, dict[str, Any]] = {}
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        known = best.setdefault(machine_name(result["machine"]), result)
        if (not result["quick"], result["date"]) > (not known["quick"], known["date"]):
            best[machine_name(result["machine"])] = result
    return "\n".join([INTRO, *(section(result) for result in best.values())])


def section(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f", {machine['gpu']['name']} (CUDA {machine['gpu']['cuda']})" if "gpu" in machine else ""
    quick = " Quick run: few rounds, small batches of files." if result["quick"] else ""
    busy = machine["load_before"] > machine["cores"] / 4
    load = f"Load average before the run: {machine['load_before']}" + (" (**busy**: repeat it)." if busy else ".")
    lines = [
        f"## {machine['cpu']}, {machine['cores']} cores{gpu}, {result['date']}",
        "",
        f"Python {machine['python']}, {versions}. {load}{quick}",
        "",
        "| case | threads | contender | time per item | ratio | agreement |",
        "|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        lines += case_rows(case)
    return "\n".join(lines) + "\n"


def case_rows(case: dict[str, Any]) -> list[str]:
    name = f"{case['suite']}: {case['case']}"
    ours = yardstick(case)
    time = time_cell(case["ours"], case["unit"])
    if "maximum" in case["ours"]:
        time += f" (target {case['ours']['maximum'] * 1e3:g} ms: {'met' if case['ours']['met'] else 'not met'})"
    rows = [f"| {escape(name)} | {case['threads']} | **fastaug** | {time} | 1 | {ours} |"]
    for peer in case["peers"]:
        contender = f"{peer['name']}" + (f" ({peer['note']})" if peer["note"] else "")
        if peer["error"]:
            rows.append(f"| | | {escape(contender)} | not timed | – | {escape(peer['error'])} |")
            continue
        agreement = peer["agreement"] or f"differs: {peer['differs']}"
        time = time_cell(peer, case["unit"])
        wanted = f" (target {peer['minimum']:g}: {'met' if peer['met'] else 'not met'})" if "minimum" in peer else ""
        rows.append(f"| | | {escape(contender)} | {time} | {ratio(peer['ratio'])}{wanted} | {escape(agreement)} |")
    return rows


def yardstick(case: dict[str, Any]) -> str:
    """How our time compares with what the machine can do: nanoseconds a sample and core, share of the limit."""
    if case.get("copy_share") is not None:
        multiple = f", {case['floor_multiple']:.1f} x the floor" if "floor_multiple" in case else ""
        return f"{case['copy_share']:.0%} of copy bandwidth{multiple}"
    if "samples" not in case:
        return ""
    core_seconds = case["ours"]["median"] * case["threads"]
    words = f"{core_seconds / case['samples'] * 1e9:.2g} ns a sample and core"
    for kind, name in (("bytes", "copy bandwidth"), ("flops", "matrix-product rate")):
        if case["work"][kind]:
            share = case["work"][kind] / case["limits"][f"{kind}_per_second"] / core_seconds
            words += f"; {share:.0%} of a core's {name}"
    return words


def time_cell(measured: dict[str, Any], unit: str) -> str:
    scale, prefix = next((s, p) for s, p in (*PREFIXES, (0.0, "s")) if measured["median"] >= s)
    scale = scale or 1
    low, median, high = (f"{measured[key] / scale:.3g}" for key in ("low", "median", "high"))
    return f"{median} [{low}, {high}] {prefix}/{unit}" + (" (one call)" if measured.get("rounds") == 1 else "")


def ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.3g}"


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    merging = verbs.add_parser("merge")
    merging.add_argument("parts", nargs="+", type=Path)
    merging.add_argument("--results", type=Path, required=True)
    merging.add_argument("--date", default=datetime.date.today().isoformat())
    merging.add_argument("--quick", action="store_true")
    table = verbs.add_parser("table")
    table.add_argument("--results", type=Path, required=True)
    table.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    if asked.verb == "merge":
        print(merge(asked.parts, asked.results, asked.date, asked.quick))
    else:
        asked.out.write_text(render(asked.results), encoding="utf-8")


if __name__ == "__main__":
    main()
