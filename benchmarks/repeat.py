"""How well two runs on one machine agree, row by row: times, and the ratios that the claims are made of."""

from __future__ import annotations

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
            rows[f"{name} at {point['x']:g}"] = point["median"]
    return rows


def ratios(result: dict[str, Any]) -> Rows:
    return {
        f"{case['suite']}: {case['case']}, {peer['name']}": peer["ratio"]
        for case in result["cases"]
        for peer in case.get("peers", [])
        if "ratio" in peer
    }


def changes(before: Rows, after: Rows) -> Rows:
    """After over before, of each row that both have."""
    return {name: after[name] / before[name] for name in before.keys() & after.keys()}


def apart(change: float) -> float:
    """How much the larger exceeds the smaller: 0.25 for 5 and 4, whichever came first."""
    return max(change, 1 / change) - 1


def compare(before: dict[str, Any], after: dict[str, Any], within: float = STATED, shown: int = 0) -> tuple[str, bool]:
    """A report in words, and whether every ratio and time of ours and theirs stayed ``within``.

    shown: print only so many rows of each kind, the worst first; 0: all.
    """
    lines, good = [], True
    for title, read in (("time per item", times), ("ratio", ratios)):
        first, second = read(before), read(after)
        change = changes(first, second)
        worst_first = sorted(change, key=lambda name: -apart(change[name]))
        lines.append(f"{title}: {len(change)} rows")
        lines += [f"  x {change[name]:<6.3f} {name}" for name in worst_first[: shown or None]]
        missing = sorted(first.keys() ^ second.keys())
        if missing:
            lines.append(f"  in one run only: {len(missing)} rows")
            lines += [f"           {name}" for name in missing] if not shown else []
        if change:
            inside = sum(apart(value) <= within for value in change.values())
            good = good and inside == len(change)
            middle = sorted(map(apart, change.values()))[len(change) // 2]
            worst = worst_first[0]
            lines.append(
                f"  {inside} of {len(change)} rows ({inside / len(change):.0%}) within {within:.0%}; median change "
                f"{middle:.1%}, worst {apart(change[worst]):.1%}: {worst}"
            )
    return "\n".join(lines), good


def summary(before: dict[str, Any], after: dict[str, Any], within: float = STATED) -> str:
    """One sentence for RESULTS.md."""
    said = []
    for title, read in (("times", times), ("ratios", ratios)):
        change = changes(read(before), read(after))
        if change:
            worst = max(change, key=lambda name: apart(change[name]))
            inside = sum(apart(value) <= within for value in change.values())
            said.append(
                f"{inside} of {len(change)} {title} within {within:.0%}, the worst {apart(change[worst]):.0%} apart "
                f"({worst})"
            )
    return "; ".join(said)
