"""The pictures of RESULTS.md, drawn from one result: how many times faster, how cost grows, how far from the limits.

python benchmarks/plots.py RESULT.json …    # writes RESULT-ratios.png, RESULT-scaling.png, RESULT-roofline.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from growth import costs
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator
from rows import PARTS, roofline, short_name

OURS, PEERS, QUIET, LIMIT = "#0b6e4f", "#9aa5b1", "#52606d", "#c2410c"
LINES = ("#0b6e4f", "#2563eb", "#c2410c", "#7c3aed", "#b45309", "#0891b2")
AXES = ("batch size", "clip length", "threads", "shards")
plt.rcParams.update({
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": QUIET,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "figure.dpi": 110,
    "savefig.bbox": "tight", "savefig.pad_inches": 0.15, "axes.axisbelow": True,
})  # fmt: skip


def ratios(cases: list[dict[str, Any]], to: Path) -> bool:
    """A bar as long as the fastest peer's ratio, a dot for each slower peer; cases of one thread, or of all cores."""
    single = [case for case in cases if "peers" in case and (case["threads"] == 1 or alone(case, cases))]
    shown = [(case, rows) for case in single if (rows := timed_peers(case))]
    if not shown:
        return False
    figure, axes = plt.subplots(figsize=(6.5, 0.8 + 0.23 * len(shown)))
    low = min(0.85, *(row["ratio"] * 0.85 for _, rows in shown for row in rows))
    high = max(row["ratio"] for _, rows in shown for row in rows) * 1.15
    for place, (_, (best, *slower)) in enumerate(shown):
        axes.barh(place, best["ratio"] - 1, left=1, height=0.6, color=OURS if best["ratio"] >= 1 else LIMIT)
        axes.plot(
            [row["ratio"] for row in slower], [place] * len(slower), "o", ms=4.5, color=PEERS, mec="white", mew=0.6
        )
        words = f"{best['ratio']:.3g} x  {best['name']}"
        axes.text(1.01, place, words, va="center", fontsize=8, color=QUIET, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(shown)), [f"{case['suite']}: {short_name(case)}" for case, _ in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    plain_ticks(axes.xaxis, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), low, high)
    axes.axvline(1, color=QUIET, lw=0.8)
    axes.grid(axis="x", color="#e4e7eb")
    axes.set_title("Times as fast as the fastest other way (bar, named) and the others (dots)")
    return save(figure, to)


def plain_ticks(axis: Any, places: tuple[float, ...], low: float, high: float) -> None:
    """Marks of a logarithmic axis as ordinary numbers."""
    inside = [place for place in places if low <= place <= high]
    axis.set_ticks(inside, [f"{place:g}" for place in inside])
    axis.set_minor_locator(NullLocator())


def timed_peers(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The peers that have a ratio, the fastest first."""
    others = [peer for peer in case.get("peers", []) if "ratio" in peer and not peer["name"].startswith(PARTS)]
    return sorted(others, key=lambda peer: peer["ratio"])


def alone(case: dict[str, Any], cases: list[dict[str, Any]]) -> bool:
    """Whether no case of one thread does the same."""
    same = (case["suite"], short_name(case))
    others = [other for other in cases if "peers" in other and other["threads"] == 1]
    return not any((other["suite"], short_name(other)) == same for other in others)


def scaling(curves: list[dict[str, Any]], to: Path) -> bool:
    """Work a second against what grows, one panel for each; grey: a throughput that does not change (threads: that
    grows with them)."""
    panels = [axis for axis in AXES if any(curve["axis"] == axis for curve in curves)]
    if not panels:
        return False
    names = sorted({curve["series"] for curve in curves})
    colours = dict(zip(names, LINES * 2, strict=False))
    figure, grid = plt.subplots(1, len(panels), figsize=(3.3 * len(panels), 3.2), squeeze=False)
    for axes, axis in zip(grid[0], panels, strict=True):
        ticks: set[float] = set()
        for curve in (curve for curve in curves if curve["axis"] == axis):
            points = costs(curve)
            x = [place for place, _ in points]
            relative = throughput(curve)
            axes.plot(x, relative, "o-", ms=4, lw=1.6, color=colours[curve["series"]], label=curve["series"])
            ticks |= set(x)
        axes.set_xscale("log", base=2 if axis != "clip length" else 10)
        marks = sorted(ticks)
        axes.set_xticks(marks, [f"{mark:.2g}" if mark < 10 else f"{mark:g}" for mark in marks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(axis + (", s" if axis == "clip length" else ""))
        axes.grid(color="#e4e7eb")
        if axis == "threads":
            axes.plot(marks, marks, "--", color=PEERS, lw=1, label="ideal")
            axes.set_ylim(0, max(marks) * 1.1)
            axes.set_title("times as fast as on one")
        else:
            axes.set_ylim(0, 1.08)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
            axes.set_title("share of the best throughput")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.tight_layout()
    return save(figure, to)


def throughput(curve: dict[str, Any]) -> list[float]:
    """Of every point: over the best one's, or, for threads, over that of one."""
    found = [1 / cost for _, cost in costs(curve)]
    over = found[0] if curve["axis"] == "threads" else max(found)
    return [value / over for value in found]


def roof(cases: list[dict[str, Any]], to: Path) -> bool:
    """Operations a second against operations a byte, one core, below the two limits measured in the same run."""
    shown = [case for case in cases if (found := roofline(case)) and found["flops"]]
    if not shown:
        return False
    bandwidth = max(case["limits"]["bytes_per_second"] for case in shown) / 1e9
    peak = max(case["limits"]["flops_per_second"] for case in shown) / 1e9
    figure, axes = plt.subplots(figsize=(8, 5))
    points = []
    for case in shown:
        seconds, work = case["ours"]["best"], case["work"]
        points.append((work["flops"] / work["bytes"], work["flops"] / seconds / 1e9, short_name(case)))
    corner = peak / bandwidth
    left, right = min(corner / 4, min(x for x, _, _ in points) / 1.6), max(corner * 4, max(x for x, _, _ in points) * 4)
    low, high = min(y for _, y, _ in points) / 2, max(peak, max(y for _, y, _ in points)) * 1.8
    axes.plot([left, corner, right], [left * bandwidth, peak, peak], color=LIMIT, lw=1.6)
    words = {"fontsize": 8, "color": LIMIT, "ha": "right", "va": "bottom"}
    axes.text(corner, peak * 1.05, f"torch's matrix product, {peak:.0f} Gflop/s", **words)
    at = (max(left, low / bandwidth) * corner) ** 0.5
    axes.text(at, at * bandwidth * 1.15, f"copy, {bandwidth:.0f} GB/s", **words)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left / 1.5, right)
    axes.set_ylim(low, high)
    marks = tuple(digit * 10.0**power for power in range(-2, 5) for digit in (1, 2, 5))
    plain_ticks(axes.xaxis, marks, left / 1.5, right)
    plain_ticks(axes.yaxis, marks, low, high)
    leader = {"arrowstyle": "-", "color": PEERS, "lw": 0.7, "shrinkA": 0, "shrinkB": 4}
    for (x, y, name), height in zip(points, label_heights(points), strict=True):
        axes.plot(x, y, "o", ms=6, color=OURS)
        axes.annotate(
            name,
            (x, y),
            (x * (1.25 if height == y else 2), height),
            fontsize=8,
            va="center",
            color=QUIET,
            arrowprops=leader,
            bbox={"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.8},
        )
    axes.set_xlabel("operations a byte (every sample read once and written once)")
    axes.set_ylabel("10⁹ operations a second, one core")
    axes.grid(color="#e4e7eb")
    axes.set_title("How far from the machine's limits")
    return save(figure, to)


def label_heights(points: list[tuple[float, float, str]], apart: float = 1.2) -> list[float]:
    """Heights for the labels, from the lowest point up; those with others to the side are pushed apart."""
    heights: dict[int, float] = {}
    for i in sorted(range(len(points)), key=lambda i: points[i][1]):
        beside = [heights[j] for j in heights if 0.08 < points[j][0] / points[i][0] < 12]
        heights[i] = max([points[i][1], *(apart * height for height in beside if height > points[i][1] / apart)])
    return [heights[i] for i in range(len(points))]


def save(figure: Any, to: Path) -> bool:
    figure.savefig(to)
    plt.close(figure)
    return True


def draw(result: Path) -> list[Path]:
    """The pictures of one result, beside it; those without anything to show are left out."""
    cases = json.loads(result.read_text(encoding="utf-8"))["cases"]
    curves = [case["curve"] for case in cases if "curve" in case]
    drawn = []
    for name, make, what in (("ratios", ratios, cases), ("scaling", scaling, curves), ("roofline", roof, cases)):
        to = result.with_name(f"{result.stem}-{name}.png")
        if make(what, to):
            drawn.append(to)
    return drawn


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(*draw(Path(argument)), sep="\n")
