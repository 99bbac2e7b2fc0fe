"""Merge the suites' JSON into results/<machine>-<date>.json, render RESULTS.md from it, hold two runs side by side.

python benchmarks/render.py merge PART.json … --results DIR     # prints the merged file's path
python benchmarks/render.py table --results DIR --out RESULTS.md [--beside BEFORE.json]
python benchmarks/render.py compare BEFORE.json AFTER.json      # exits with 1 unless all rows are within --within
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
from pathlib import Path
from typing import Any

import feed
import growth
import repeat
import targets
from rows import case_rows, case_table, peer_table, roofline_table

__all__ = ["case_rows", "main", "merge", "render"]

INTRO = """# Results

Made by `make bench` (`benchmarks/render.py`); do not edit. Ratio: the peer's time over fastaug's, per item, with the
same data, threads and process, taking turns; above 1 fastaug is faster. It is that of the two fastest turns of the
peer and of as many of ours, ± half of what the visits of each case, minutes apart, differ; where the quotient of
the medians is more than 10 % away, that follows in brackets. Time: that of the fastest turns, which is what the machine
can do when others leave it alone; then, of all turns, median [lower quartile, upper quartile].
Agreement: signal-to-error ratio of the peer's output against ours in the same run; where they cannot agree, why not.
"""
PACE = ("kept", "lost", "slow")  # seconds of turns that were kept, of others, of those kept though the machine was slow
PICTURES = {
    "ratios": "How many times as fast as the fastest other way each operation is",
    "scaling": "Throughput against batch size, clip length, threads and shards",
    "roofline": "Operations a second of each kernel below the limits of a core",
}


def merge(parts: list[Path], results: Path, date: str, quick: bool) -> Path:
    """One file per machine and day; a quick run gets a name of its own, so that it never replaces a full one."""
    loaded = [read(part) for part in parts]
    if not loaded:
        raise SystemExit("no suite left a result to merge")
    machine = loaded[0]["machine"]
    merged = {
        "format": "fastaug-bench-1",
        "date": date,
        "quick": quick,
        "machine": machine,
        "pace": {name: sum(part.get("pace", {}).get(name, 0.0) for part in loaded) for name in PACE},
        "cases": [case for part in loaded for case in part["cases"]],
    }
    path = results / f"{machine_name(machine)}-{date}{'-quick' if quick else ''}.json"
    results.mkdir(parents=True, exist_ok=True)
    merged["cases"] += long_run(results, machine)
    write(path, merged)
    return path


def long_run(results: Path, machine: dict[str, Any]) -> list[dict[str, Any]]:
    """The latest outcome of `memory.py` on this machine, which no `make bench` repeats, with its date."""
    known = [read(path) for path in results.glob("*.json")]
    found = [
        {"date": result["date"], **case}
        for result in known
        if "format" in result and machine_name(result["machine"]) == machine_name(machine)
        for case in result["cases"]
        if case["suite"] == "memory"
    ]
    return sorted(found, key=lambda case: str(case["date"]))[-1:]


def read(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def write(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def machine_name(machine: dict[str, Any]) -> str:
    words = machine["gpu"]["name"] if "gpu" in machine else f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower().replace("(r)", "").replace("(tm)", "")).strip("-")


def newest(results: Path) -> dict[Path, dict[str, Any]]:
    """Of each machine its newest full result, or its newest quick one if there is no full one."""
    best: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(results.glob("*.json")):
        result = read(path)
        _, known = best.setdefault(machine_name(result["machine"]), (path, result))
        if (not result["quick"], result["date"]) > (not known["quick"], known["date"]):
            best[machine_name(result["machine"])] = (path, result)
    return dict(best.values())


def render(results: Path) -> str:
    """The targets, over the newest result of a CPU and of a GPU, then one section per machine."""
    found = newest(results)
    by_age = sorted(found.values(), key=lambda result: (not result["quick"], result["date"]))
    kinds = {"gpu" in result["machine"]: result for result in by_age}  # the last of each kind stays
    return "\n".join([INTRO, targets_section(list(kinds.values())), *(section(*item) for item in found.items())])


def targets_section(results: list[dict[str, Any]]) -> str:
    cases = [case for result in results for case in result["cases"]]
    lines = ["## Targets", "", f"What fastaug is asked to reach. {targets.tally(cases)}", ""]
    if not any("gpu" in result["machine"] for result in results):
        lines[2] += " **The GPU report: not yet measured.** `benchmarks/gpu.sh` makes it."
    return "\n".join([*lines, *targets.table(cases)]) + "\n"


def section(path: Path, result: dict[str, Any]) -> str:
    machine, cases = result["machine"], result["cases"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f", {machine['gpu']['name']} (CUDA {machine['gpu']['cuda']})" if "gpu" in machine else ""
    quick = " Quick run: few rounds, small batches of files." if result["quick"] else ""
    busy = machine["load_before"] > machine["cores"] / 4
    load = f"Load average before the run: {machine['load_before']}" + (" (**busy**: repeat it)." if busy else ".")
    again = repeat.section(result["agreement"]) if "agreement" in result else ["Not compared with a second run."]
    lines = [
        f"## {machine['cpu']}, {machine['cores']} cores{gpu}, {result['date']}",
        "",
        f"Python {machine['python']}, {versions}. {load}{quick}{'' if quick else calm(result.get('pace'))}",
        "",
        *titled("Whether two runs agree", again),
        *titled("From tar shards to training steps", feed.lines(cases)),
        *titled("How many times as fast", picture(path, "ratios")),
        *titled("Peers", [] if "gpu" in machine else peer_table(cases, machine["versions"])),
        *titled("How far from the machine's limits", [*picture(path, "roofline"), *roofline_table(cases)]),
        *titled("How cost grows", [*picture(path, "scaling"), *growth.statements(curves(cases))]),
        *titled("All comparisons", case_table(cases)),
    ]
    return "\n".join(lines)


def calm(pace: dict[str, float] | None) -> str:
    """How much of the machine's time others took, as far as its pace shows."""
    if not pace or not pace["kept"]:
        return ""
    kept, lost, slow = (pace[name] for name in PACE)
    return (
        f" Turns took {kept:.0f} s; waiting for the machine's own pace and turns taken again cost {lost:.0f} s more; "
        f"{slow / kept:.0%} of them were slow nonetheless."
    )


def curves(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [case["curve"] for case in cases if "curve" in case]


def titled(title: str, lines: list[str]) -> list[str]:
    return [f"### {title}", "", *lines, ""] if lines else []


def picture(path: Path, name: str) -> list[str]:
    """A link to a picture of this result, where it was drawn (`plots.py`)."""
    file = path.with_name(f"{path.stem}-{name}.png")
    return [f"![{PICTURES[name]}](results/{file.name})", ""] if file.is_file() else []


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
    table.add_argument("--beside", type=Path, help="a run before, beside which the newest of its machine is put")
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--within", type=float, default=repeat.STATED, help="largest accepted change, 0.15 = 15 %%")
    comparing.add_argument("--rows", type=int, default=0, help="show so many, the worst first, even if they agree")
    comparing.add_argument("--note", action="store_true", help="write the outcome into AFTER, for RESULTS.md")
    asked = parser.parse_args()
    if asked.verb == "merge":
        print(merge(asked.parts, asked.results, asked.date, asked.quick))
    elif asked.verb == "table":
        if asked.beside:
            put_beside(asked.beside, asked.results)
        asked.out.write_text(render(asked.results), encoding="utf-8")
    else:
        raise SystemExit(compare(asked.before, asked.after, asked.within, asked.rows, asked.note))


def put_beside(before: Path, results: Path) -> None:
    """Compare the newest result of the machine of ``before`` with it."""
    name = machine_name(read(before)["machine"])
    (after,) = [path for path, result in newest(results).items() if machine_name(result["machine"]) == name]
    compare(before, after, repeat.STATED, shown=0, note=True)


def compare(before: Path, after: Path, within: float, shown: int, note: bool) -> int:
    result = read(after)
    found = repeat.agreement(read(before), result, within)
    print(repeat.report(found, shown))
    if note:
        repeat.remember(read(before), result)
        write(after, {**result, "agreement": repeat.brief(found)})
    return 0 if repeat.good(found) else 1


if __name__ == "__main__":
    main()
