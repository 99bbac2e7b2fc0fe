"""How well two runs on one machine agree, row by row: times, and the ratios that the claims are made of."""

from __future__ import annotations

import statistics
from typing import Any

Rows = dict[str, float]
STATED = 0.15  # the spread that two consecutive runs are to keep within


def times(result: dict[str, Any]) -> Rows:
    """Seconds per item of everybody in every comparison, and of every point of every curve."""
    rows: Rows = {}
    for case in result["cases"]:
        name = f"{case['suite']}: {case['case']}"
        if "peers" in case:
            rows[f"{name}, fastaug"] = case["ours"]["median"]
            rows |= {f"{name}, {peer['name']}": peer["median"] for peer in case["peers"] if "median" in peer}
        for point in case["curve"]["points"] if "curve" in case else ():
            rows[f"{name} at {point['x']:g}"] = point["median"] / point["work"]
    return rows


def ratios(result: dict[str, Any]) -> Rows:
    return {
        f"{case['suite']}: {case['case']}, {peer['name']}": peer["ratio"]
        for case in result["cases"]
        for peer in case.get("peers", [])
        if "ratio" in peer
    }


KINDS = (("time per item", times), ("ratio", ratios))


def apart(before: float, after: float) -> float:
    """How much the larger exceeds the smaller: 0.25 for 5 and 4, whichever came first."""
    return max(before, after) / min(before, after) - 1


def agreement(before: dict[str, Any], after: dict[str, Any], within: float = STATED) -> dict[str, Any]:
    """How far apart the rows of two runs are: {"within", "kinds": [{"what", "count", "median", "rows": the worst first,
    each {"row", "before", "after", "apart"}}], "missing": rows of one run only}."""
    kinds, missing = [], []
    for what, read in KINDS:
        first, second = read(before), read(after)
        rows = [
            {"row": name, "before": first[name], "after": second[name], "apart": apart(first[name], second[name])}
            for name in first.keys() & second.keys()
        ]
        rows.sort(key=lambda row: (-row["apart"], row["row"]))
        missing += [f"{what}: {name}" for name in sorted(first.keys() ^ second.keys())]
        if rows:
            median = statistics.median(row["apart"] for row in rows)
            kinds.append({"what": what, "count": len(rows), "median": median, "rows": rows})
    return {"within": within, "kinds": kinds, "missing": missing}


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """For a result file: of the rows that agree only the worst."""
    kept = [{**kind, "rows": kind["rows"][: max(1, len(beyond(kind, found["within"])))]} for kind in found["kinds"]]
    return {**found, "kinds": kept}


def beyond(kind: dict[str, Any], within: float) -> list[dict[str, Any]]:
    return [row for row in kind["rows"] if row["apart"] > within]


def good(found: dict[str, Any]) -> bool:
    """Whether there is something to compare, both runs have every row, and all of them are near enough."""
    far = any(beyond(kind, found["within"]) for kind in found["kinds"])
    return bool(found["kinds"]) and not found["missing"] and not far


def tally(kind: dict[str, Any], within: float) -> str:
    count, far = kind["count"], len(beyond(kind, within))
    return (
        f"{count - far} of {count} rows ({(count - far) / count:.0%}) within {within:.0%}; half of them within "
        f"{kind['median']:.1%}, the worst {kind['rows'][0]['apart']:.1%} apart"
    )


def report(found: dict[str, Any], shown: int = 0) -> str:
    """In words: each kind of row, which of them disagree and by how much; at least ``shown``, the worst first."""
    lines = []
    for kind in found["kinds"]:
        lines.append(f"{kind['what']}: {tally(kind, found['within'])}")
        for row in kind["rows"][: max(shown, len(beyond(kind, found["within"])))]:
            lines.append(f"  {row['apart']:6.1%}  {row['row']}: {row['before']:.3g}, then {row['after']:.3g}")
    if found["missing"]:
        lines += ["in one run only:", *(f"  {name}" for name in found["missing"])]
    return "\n".join(lines)


def section(found: dict[str, Any]) -> list[str]:
    """The same for RESULTS.md."""
    within = found["within"]
    lines = [f"Each row beside that of the run before; {within:.0%} is what they are to agree within.", ""]
    lines += [f"- {kind['what']}: {tally(kind, within)}." for kind in found["kinds"]]
    if found["missing"]:
        lines.append(f"- in one run only: {'; '.join(found['missing'])}.")
    far = [(kind["what"], row) for kind in found["kinds"] for row in beyond(kind, within)]
    if far:
        lines += ["", "| further apart | of | run before | this run | apart |", "|---|---|---|---|---|"]
        lines += [
            f"| {row['row']} | {what} | {row['before']:.3g} | {row['after']:.3g} | {row['apart']:.0%} |"
            for what, row in far
        ]
    return lines
