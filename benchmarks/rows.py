"""The rows of RESULTS.md: one table of all comparisons of a machine, one of its peers, one of its limits."""

from __future__ import annotations

import re
from typing import Any

from repeat import STATED, apart

Case = dict[str, Any]
PREFIXES = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
#: Everybody who is to be timed beside us, and how their rows' names begin.
PEERS = {
    "torch-audiomentations": "torch-audiomentations", "torchaudio": "torchaudio", "audiomentations": "audiomentations",
    "pedalboard": "pedalboard", "sox": "sox", "julius": "julius", "librosa": "librosa", "nnAudio": "nnAudio",
    "soundfile": "soundfile", "torchcodec": "torchcodec", "miniaudio": "miniaudio", "webdataset": "webdataset",
    "DALI": "DALI",
}  # fmt: skip


#: How the names of rows begin that are no peers but fastaug's own parts, timed beside the whole.
PARTS = ("fastaug", "decode + augment alone", "the FFTs of LogMel alone")


DISTURBED = 0.1  #: cores, used by others, from which the table says so


def case_table(cases: list[Case]) -> list[str]:
    lines = ["| case | threads | contender | time per item | ratio | agreement |", "|---|---|---|---|---|---|"]
    for case in cases:
        if "peers" in case:
            lines += case_rows(case)
    return lines


def case_rows(case: Case) -> list[str]:
    name = f"{case['suite']}: {case['case']}"
    ours = yardstick(case)
    time = time_cell(case["ours"], case["unit"])
    if "maximum" in case["ours"]:
        time += f" (target {case['ours']['maximum'] * 1e3:g} ms: {'met' if case['ours']['met'] else 'not met'})"
    if (case.get("others") or 0) > DISTURBED:
        name += f" (others used {case['others']:.1f} cores meanwhile)"
    rows = [f"| {escape(name)} | {case['threads']} | **fastaug** | {time} | 1 | {ours} |"]
    for peer in case["peers"]:
        contender = f"{peer['name']}" + (f" ({peer['note']})" if peer["note"] else "")
        if peer["error"]:
            rows.append(f"| | | {escape(contender)} | not timed | – | {escape(peer['error'])} |")
            continue
        agreement = peer["agreement"] or f"differs: {peer['differs']}"
        time = time_cell(peer, case["unit"])
        wanted = f" (floor {peer['minimum']:g}: {'held' if peer['met'] else 'not held'})" if "minimum" in peer else ""
        rows.append(
            f"| | | {escape(contender)} | {time} | {ratio(peer)}{quotient(case, peer)}{wanted} | {escape(agreement)} |"
        )
    return rows


def yardstick(case: Case) -> str:
    """How our time compares with what the machine can do: nanoseconds a sample and core, share of the limit."""
    if case.get("copy_share") is not None:
        multiple = f", {case['floor_multiple']:.1f} x the floor" if "floor_multiple" in case else ""
        return f"{case['copy_share']:.0%} of copy bandwidth{multiple}"
    if "samples" not in case:
        return ""
    core_seconds = case["ours"]["best"] * case["threads"]
    return f"{core_seconds / case['samples'] * 1e9:.2g} ns a sample and core"


def roofline(case: Case) -> dict[str, float] | None:
    """A case beside the limits of a core, of one thread: seconds it takes, seconds that its bytes and its operations
    take at least. None where its work was not counted."""
    if "work" not in case or case["threads"] != 1:
        return None
    return {
        "seconds": case["ours"]["best"],
        "bytes": case["work"]["bytes"] / case["limits"]["bytes_per_second"],
        "flops": case["work"]["flops"] / case["limits"]["flops_per_second"],
    }


def roofline_table(cases: list[Case]) -> list[str]:
    """Each kernel on one core as a multiple of the time that its bytes or its operations need at least."""
    lines = [
        "| one core | ns a sample | bytes at copy rate | operations at the matrix product's rate | times the floor |",
        "|---|---|---|---|---|",
    ]
    for case in cases:
        found = roofline(case)
        if found is None:
            continue
        took, floor = found["seconds"], max(found["bytes"], found["flops"])
        flops = f"{found['flops'] / took:.0%}" if found["flops"] else "not counted"
        lines.append(
            f"| {short_name(case)} | {took / case['samples'] * 1e9:.2g} | {found['bytes'] / took:.0%} | {flops} "
            f"| {took / floor:.2g} |"
        )
    note = (
        "The copy is one of 128 MiB, in no cache; a batch of 8 MB finds its samples in the last one, so that "
        "a light operation can come out above it. Of the search of a pitch shift only what the bounds "
        "leave is counted, as found on these clips."
    )
    return [*lines, "", note] if len(lines) > 2 else []


def short_name(case: Case) -> str:
    """The case's name without its threads: "resample, 44100-22050"."""
    name, _, inside = case["case"].rstrip("]").partition("[")
    rest = re.sub(r"^\d+threads?-?", "", inside)
    return name.replace("_", " ") + (f", {rest}" if rest else "")


def peer_table(cases: list[Case], versions: dict[str, str]) -> list[str]:
    """Everybody that fastaug is to be held against: in how many cases each was timed, and what stopped it in others."""
    lines = ["| peer | version | timed in | not timed in |", "|---|---|---|---|"]
    rows = [(case, peer) for case in cases for peer in case.get("peers", [])]
    for peer, begins in PEERS.items():
        own = [(case, row) for case, row in rows if begins in re.split(r"[ ,]+", row["name"])]
        timed, failed = (sum(bool(row["error"]) == wanted for _, row in own) for wanted in (False, True))
        errors = sorted({row["error"] for _, row in own if row["error"]})
        version = (
            versions.get({"DALI": "nvidia-dali-cuda130"}.get(peer, peer))
            or next((row["version"] for _, row in own if row["version"]), None)
            or "–"
        )
        stopped = f"{failed}: {escape('; '.join(errors)[:300])}" if failed else "–"
        lines.append(f"| {peer} | {version} | {f'{timed} cases' if timed else 'no case'} | {stopped} |")
    return lines


def time_cell(measured: dict[str, Any], unit: str) -> str:
    scale, prefix = next((s, p) for s, p in (*PREFIXES, (0.0, "s")) if measured["best"] >= s)
    scale = scale or 1
    best, low, median, high = (f"{measured[key] / scale:.3g}" for key in ("best", "low", "median", "high"))
    told = f"{best} {prefix}/{unit}" + (" (one call)" if measured.get("rounds") == 1 else "")
    return f"{told}{before(measured['best'], measured.get('before'), scale)}; {median} [{low}, {high}]"


def before(now: float, then: float | None, scale: float = 1.0) -> str:
    """What the run before said, where there was one; bold where that is further away than two runs should be."""
    if then is None:
        return ""
    words = f"{then / scale:.0f}" if then / scale >= 100 else f"{then / scale:.3g}"
    return f" (before: **{words}**)" if apart(then, now) > STATED else f" (before: {words})"


def ratio(peer: dict[str, Any]) -> str:
    """The ratio, and half of what the case's visits differ, as a share of it."""
    value = peer["ratio"]
    words = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    words += f" ± {(peer['ratio_high'] - peer['ratio_low']) / 2 / value:.0%}" if "ratio_low" in peer else ""
    return words + before(value, peer.get("ratio_before"))


def quotient(case: Case, peer: dict[str, Any]) -> str:
    """The quotient of the two medians, where it is not near the ratio: the machine was slow in many turns of theirs."""
    found = peer["median"] / case["ours"]["median"]
    return "" if abs(found / peer["ratio"] - 1) <= 0.1 else f" (medians: {found:.3g})"


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
