"""What the scaling curves say in words: up to where a fixed cost counts, whether cost grows linearly.

A curve is {"series", "axis", "unit", "points": [{"x", "best" (seconds a call), "work"}]} with points
in rising order of x; "work" is what a call handles, in ``unit``.
"""

from __future__ import annotations

import math
from typing import Any

Curve = dict[str, Any]
WITHIN = 1.15  # a cost per item this close to the best counts as the best


def costs(curve: Curve) -> list[tuple[float, float]]:
    """(x, seconds per unit of work) of every point."""
    return [(point["x"], point["best"] / point["work"]) for point in curve["points"]]


def exponent(curve: Curve) -> float:
    """b of (time of a call of size x) ~ x ** b, fitted by least squares to the points from the first whose cost is near
    the best."""
    points = costs(curve)[_first_near_best(curve) :]
    if len(points) < 2:
        return math.nan
    x, y = [math.log(size) for size, _ in points], [math.log(size * cost) for size, cost in points]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - middle_x) ** 2 for a in x)


def _first_near_best(curve: Curve) -> int:
    found = [cost for _, cost in costs(curve)]
    return next(i for i, cost in enumerate(found) if cost <= WITHIN * min(found))


def statement(curve: Curve) -> str:
    """One line: the costs at the ends, and where they bend."""
    found = costs(curve)
    if curve["axis"] == "threads":
        return threads_statement(curve)
    (first, at_first), (last, at_last) = found[0], found[-1]
    best = min(cost for _, cost in found)
    near = found[_first_near_best(curve)][0]
    words = f"{money(at_first)} a {curve['unit']} at {first:g}, {money(at_last)} at {last:g}"
    if curve["axis"] == "shards":
        spread = max(cost for _, cost in found) / best - 1
        return f"{words}: " + ("flat" if spread < WITHIN - 1 else f"up to {spread:.0%} above the best") + "."
    words += "; " + (f"a fixed cost counts below {near:g}" if near > first else "no fixed cost shows")
    power = exponent(curve)
    if not math.isnan(power):
        words += f", from there time grows as the size to the {power:.2f}"
    bend = next((x for x, cost in found if x > near and cost > WITHIN * best), None)
    return words + (f" and bends upwards at {bend:g}." if bend is not None else ": linear, no bend.")


def threads_statement(curve: Curve) -> str:
    (_, alone), *rest = costs(curve)
    return "; ".join(f"{alone / cost:.2f} times as fast on {x:g}" for x, cost in rest) + "." if rest else "one core."


def money(seconds: float) -> str:
    scale, prefix = next((s, p) for s, p in ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")) if seconds >= s)
    return f"{seconds / scale:.3g} {prefix}"


def statements(curves: list[Curve]) -> list[str]:
    lines = ["| what grows | of | cost |", "|---|---|---|"]
    lines += [f"| {curve['axis']} | {curve['series']} | {statement(curve)} |" for curve in curves]
    return lines if len(lines) > 2 else []
