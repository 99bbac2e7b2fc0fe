"""What the suite "feed" says in RESULTS.md: rates, the hours of a training run, where the time of a track goes."""

from __future__ import annotations

from typing import Any

STEPS, BATCH = 400_000, 48  # the run that the hours are told for
CASES = (("batches", "loaded and augmented"), ("training_step", "and one SampleCNN step"))


def hours(seconds_a_track: float) -> float:
    return seconds_a_track * BATCH * STEPS / 3600


def lines(cases: list[dict[str, Any]]) -> list[str]:
    found = {case["case"].partition("[")[0]: case for case in cases if case["suite"] == "feed" and "peers" in case}
    if not found:
        return []
    cores = next(iter(found.values()))["threads"]
    said = [
        f"MP3 tracks of 30 s (44.1 kHz, stereo) in tar shards to two augmented CLMR views of 2.68 s at 22.05 kHz, on "
        f"all {cores} cores. Hours: what {STEPS:,} steps of {BATCH} tracks would take at that rate.",
        "",
        "| | contender | tracks a second | hours | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, words in CASES:
        if name in found:
            said += rates(found[name], words)
    if "batches" in found:
        said += ["", fed(found["batches"])]
    if "budget" in found.get("training_step", {}):
        said += ["", *budget(found["training_step"])]
    return said


def rates(case: dict[str, Any], words: str) -> list[str]:
    rows = [("**fastaug**", case["ours"]["best"], "1")]
    for peer in case["peers"]:
        if "best" in peer:
            rows.append((peer["name"], peer["best"], f"{peer['ratio']:.3g}"))
    return [f"| {words} | {name} | {1 / time:.1f} | {hours(time):,.1f} | {ratio} |" for name, time, ratio in rows] + [
        f"| {words} | {peer['name']} | not timed: {peer['error']} | – | – |" for peer in case["peers"] if peer["error"]
    ]


def fed(case: dict[str, Any]) -> str:
    """How short a step may be before it waits for the loader."""
    ours = case["ours"]["best"] * BATCH * 1e3
    words = f"A device whose step of {BATCH} tracks takes {ours:.0f} ms or more never waits for fastaug on these cores"
    peers = [peer["best"] for peer in case["peers"] if "best" in peer]
    return words + (f"; for the fastest of the others that is {min(peers) * BATCH * 1e3:.0f} ms." if peers else ".")


def budget(case: dict[str, Any]) -> list[str]:
    """Each stage alone, on all cores, beside the whole with the stages overlapping."""
    stages, note = case["budget"], case.get("budget_note", "")
    total = sum(stages.values())
    said = ["| stage, alone on all cores | ms a track | share |", "|---|---|---|"]
    said += [f"| {name} | {seconds * 1e3:.3g} | {seconds / total:.1%} |" for name, seconds in stages.items()]
    together = case["ours"]["best"]
    return [*said, f"| **sum** | {total * 1e3:.3g} | 100% |", f"| **all of it, as timed** | {together * 1e3:.3g} | "
            f"{together / total:.0%} |", "", note]  # fmt: skip
