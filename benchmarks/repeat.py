"""How well two runs on one machine agree, row by row: times, and the ratios that the claims are made of.

Two measures, both told: whether a row's two numbers are within 15 % of each other, which is what is asked for; and
whether what was found in their visits overlaps, which says of a row that is not whether it knew how little it knew.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Value:
    """A number, and the least and the most that the visits of its run say; without these it is taken at its word."""

    number: float
    within: tuple[float, float]

    def overlaps(self, other: Value) -> bool:
        return self.within[0] <= other.within[1] and other.within[0] <= self.within[1]


Rows = dict[str, Value]
STATED = 0.15  # the spread that two consecutive runs are to keep within


def times(result: dict[str, Any]) -> Rows:
    """Seconds per item of everybody in every comparison, and of every point of every curve."""
    rows: Rows = {}
    for case in result["cases"]:
        name = name_of(case)
        if "peers" in case:
            rows[f"{name}, fastaug"] = time_of(case["ours"])
            rows |= {f"{name}, {peer['name']}": time_of(peer) for peer in case["peers"] if "best" in peer}
        for point in case["curve"]["points"] if "curve" in case else ():
            rows[f"{name} at {point['x']:g}"] = time_of(point, point["work"])
    return rows


def ratios(result: dict[str, Any]) -> Rows:
    return {f"{name_of(case)}, {peer['name']}": ratio_of(peer) for case, peer in peers_of(result) if "ratio" in peer}


def name_of(case: dict[str, Any]) -> str:
    return f"{case['suite']}: {case['case']}"


def peers_of(result: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(case, peer) for case in result["cases"] for peer in case.get("peers", [])]


def time_of(row: dict[str, Any], work: float = 1.0) -> Value:
    low, high = row.get("best_within", (row["best"],) * 2)
    return Value(row["best"] / work, (low / work, high / work))


def ratio_of(peer: dict[str, Any]) -> Value:
    return Value(peer["ratio"], (peer.get("ratio_low", peer["ratio"]), peer.get("ratio_high", peer["ratio"])))


def remember(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Write what the run before said into each comparison of ``after``, for the table: "before" beside a time, and
    "ratio_before" beside a ratio."""
    was, ratio_was = times(before), ratios(before)
    for case in after["cases"]:
        if "peers" not in case:
            continue
        for name, row in [("fastaug", case["ours"]), *((peer["name"], peer) for peer in case["peers"])]:
            key = f"{name_of(case)}, {name}"
            if key in was and "best" in row:
                row["before"] = was[key].number
            if key in ratio_was and "ratio" in row:
                row["ratio_before"] = ratio_was[key].number


KINDS = (("time per item", times), ("ratio", ratios))


def apart(before: float, after: float) -> float:
    """How much the larger exceeds the smaller: 0.25 for 5 and 4, whichever came first."""
    return max(before, after) / min(before, after) - 1


def agreement(before: dict[str, Any], after: dict[str, Any], within: float = STATED) -> dict[str, Any]:
    """How far apart the rows of two runs are: {"within", "kinds": [{"what", "count", "median", "rows": the worst first,
    each {"row", "before", "after", "apart", "overlap"}}], "missing": rows of one run only}."""
    kinds, missing = [], []
    for what, read in KINDS:
        first, second = read(before), read(after)
        rows = [
            {
                "row": name,
                "before": (one := first[name]).number,
                "after": (two := second[name]).number,
                "apart": apart(one.number, two.number),
                "overlap": one.overlaps(two),
            }
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
    count, far = kind["count"], beyond(kind, within)
    near, doubted = count - len(far), sum(row.get("overlap", False) for row in far)
    return (
        f"{near} of {count} rows ({near / count:.0%}) within {within:.0%}; half of them within "
        f"{kind['median']:.1%}, the worst {kind['rows'][0]['apart']:.1%} apart"
        + (f"; of the {len(far)} others, {doubted} within the doubt that both runs state" if far else "")
    )


def report(found: dict[str, Any], shown: int = 0) -> str:
    """In words: each kind of row, which of them disagree and by how much; at least ``shown``, the worst first."""
    lines = []
    for kind in found["kinds"]:
        lines.append(f"{kind['what']}: {tally(kind, found['within'])}")
        for row in kind["rows"][: max(shown, len(beyond(kind, found["within"])))]:
            words = " (in doubt)" if row.get("overlap") and row["apart"] > found["within"] else ""
            lines.append(f"  {row['apart']:6.1%}  {row['row']}: {row['before']:.3g}, then {row['after']:.3g}{words}")
    if found["missing"]:
        lines += ["in one run only:", *(f"  {name}" for name in found["missing"])]
    return "\n".join(lines)


def section(found: dict[str, Any]) -> list[str]:
    """The same for RESULTS.md."""
    within = found["within"]
    lines = [
        f"Each row beside that of the run before; {within:.0%} is what they are to agree within. In doubt: what "
        "the visits of the two runs say overlaps.",
        "",
    ]
    lines += [f"- {kind['what']}: {tally(kind, within)}." for kind in found["kinds"]]
    if found["missing"]:
        lines.append(f"- in one run only: {'; '.join(found['missing'])}.")
    far = [(kind["what"], row) for kind in found["kinds"] for row in beyond(kind, within)]
    if far:
        lines += ["", "| further apart | of | run before | this run | apart | in doubt |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {row['row']} | {what} | {row['before']:.3g} | {row['after']:.3g} | {row['apart']:.0%} | "
            f"{'yes' if row.get('overlap') else 'no'} |"
            for what, row in far
        ]
    return lines
