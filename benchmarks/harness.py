"""One fair comparison: prove that the outputs agree, then time ours and every peer, interleaved.

A case calls :func:`compare` once. Each peer either *agrees* (a check on its output passes) or *differs* for a stated
reason (another algorithm, random draws); a peer that cannot be imported or run keeps its row, with the error in it.
All contenders get the same data, the same threads and the same process, and take turns round by round, so a busy
moment of the machine hits all of them (`turns.py`).
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from agreement import agrees, agrees_below
from cores import go, places
from memory_pages import settle
from pace import Pace
from quietness import undisturbed
from turns import (
    BUDGET,
    PAUSE,
    QUICK,
    WARM,
    Contender,
    Run,
    Timer,
    calls_a_turn,
    ratio,
    spread,
    take_turns,
    wall_clock,
)  # fmt: skip

__all__ = [
    "QUICK", "Peer", "Run", "agrees", "agrees_below", "compare", "equal_threads", "synchronised", "visit_later",
    "wall_clock",
]  # fmt: skip


@dataclass
class Peer:
    """Another library's way to do the same work.

    Args:
        name: what the row says, library first ("julius LowPassFilter").
        package: the distribution whose version is reported, None for a command-line tool.
        build: imports the library, prepares everything outside the timing, returns the function to time. Whatever it
            raises becomes the row's error.
        differs: why the output is not ours ("other algorithm: …"). Exactly one of ``differs`` and ``check`` is given.
        check: ``check(ours_output, peer_output) -> str`` raises AssertionError when they disagree, else says how well
            they agree ("112 dB").
        agree_build: builds the function whose output ``check`` sees, where the timed one is arranged differently (sox
            timed on one long file, checked clip by clip). Default: the timed function.
        items: how many items one call handles, where a slow peer gets fewer than ours. Times are compared per item.
        baseline: builds what the timed function also does but is not the work itself (a program that starts, reads and
            writes). It runs in the same turns and its time is taken off.
        note: shown in the row.
    """

    name: str
    package: str | None
    build: Callable[[], Run]
    differs: str | None = None
    check: Callable[[Any, Any], str] | None = None
    agree_build: Callable[[], Run] | None = None
    items: int | None = None
    baseline: Callable[[], Run] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if (self.differs is None) == (self.check is None):
            raise TypeError(f"{self.name}: give either check= (it agrees) or differs= (why it does not)")


def compare(
    benchmark: Any,
    ours: Run,
    peers: Sequence[Peer],
    *,
    items: int,
    unit: str,
    threads: int = 1,
    minimum_ratio: dict[str, float] | None = None,
    maximum_seconds: float | None = None,
    timer: Timer | None = None,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Check, time and record one case; returns what it put into ``benchmark.extra_info``.

    Args:
        benchmark: the pytest-benchmark fixture. Its rounds are the first of ours; the peers run between them.
        ours: fastaug's function, fully prepared. ``items`` of ``unit`` per call.
        minimum_ratio: {peer name: least accepted peer time / our time}; asserted after recording, of a case that is
            visited twice by whoever calls `visit_again`.
        maximum_seconds: longest accepted time of ours, per item, for a target that is no ratio; asserted likewise.
        timer: ``timer(run) -> seconds``; wall clock by default, CUDA events on a GPU.
        facts: further entries for the record (shape, bytes moved, …); see `limits.work` for what the table shows.

    Raises:
        ValueError: ``minimum_ratio`` names no peer of the case.
        AssertionError: a peer that should agree does not, or (but for a quick run) a target is not reached. The
            measurements are recorded first; a peer that disagrees is not timed.
    """
    names = [peer.name for peer in peers]
    if strange := set(minimum_ratio or {}) - set(names):
        raise ValueError(f"no such peer: {', '.join(sorted(strange))}; known: {', '.join(names)}")
    with equal_threads(threads, pin=timer is None):
        clock = timer or wall_clock
        expected, first = timed(ours, clock)
        rows, contenders = _prepare(expected, peers, items, clock)
        us = Contender(ours, items, first)
        for contender in (us, *contenders.values()):
            # The first call warmed caches, lazy imports and thread pools up; a slow one is a good enough estimate.
            if contender.first < BUDGET:
                contender.first = clock(contender.run)
            if timer is None:
                contender.calls = calls_a_turn(contender.first)
                contender.warm = contender.first < WARM
                contender.pause = PAUSE if threads > 1 else 0.0
                contender.pace = PACE
        others = visit(benchmark, us, contenders, clock)

    def report() -> dict[str, Any]:
        record = summarise(
            rows, us, contenders, unit=unit, threads=threads, minimum_ratio=minimum_ratio or {}, facts=facts or {}
        )
        if maximum_seconds is not None:
            record["ours"].update(maximum=maximum_seconds, met=record["ours"]["best"] <= maximum_seconds)
        benchmark.extra_info.update(record, others=others)
        return record

    def again() -> None:
        nonlocal others
        with equal_threads(threads):
            found = visit(None, us, contenders, clock)
        others = None if others is None or found is None else max(others, found)
        report()

    record = report()
    problems = [f"{row['name']}: {row['error']}" for row in record["peers"] if row["disagrees"]]
    slow = missed(record)
    if timer is None and not QUICK:  # judged after that
        visit_later(again, benchmark, lambda: all(one.calm for one in (us, *contenders.values())))
        slow = []
    if QUICK:  # too few turns to fail for
        print(f"\n  {'; '.join(slow)}" if slow else "", end="")
        slow = []
    assert not problems + slow, "; ".join(problems + slow)
    return record


PACE = Pace()
MOST_VISITS = 3  # of a case
_visits: list[Visit] = []  # to come


class Visit(NamedTuple):
    """``again`` adds the turns of one more to what ``benchmark`` keeps; whether the machine was ``calm`` in enough."""

    again: Run
    benchmark: Any
    calm: Callable[[], bool]


def visit_later(again: Run, benchmark: Any, calm: Callable[[], bool]) -> None:
    """Have `visit_again` come back to a case. Not in a quick run."""
    if not QUICK:
        _visits.append(Visit(again, benchmark, calm))


def visit_again() -> list[str]:
    """Go to every case for a second time, when all have been timed: a machine may be slow for a minute, and not be so
    some minutes later. Then to those that were not calm in enough turns, up to `MOST_VISITS` times in all. What is
    reported is of all visits; returns which targets it misses."""
    cases = list(_visits)
    for number in range(2, MOST_VISITS + 1):
        for case in list(_visits):
            try:
                if number == 2 or not case.calm():
                    case.again()
            except Exception as error:  # the visits before stand
                print(f"\n  not visited again: {type(error).__name__}: {shorten(error)}", end="")
                _visits.remove(case)
    _visits.clear()
    return [f"{case.benchmark.name}: {words}" for case in cases for words in missed(case.benchmark.extra_info)]


def missed(record: dict[str, Any]) -> list[str]:
    """The targets that a case was given and does not reach. A curve has none."""
    ours = record.get("ours", {})
    slow = [
        f"{row['name']}: {row['ratio']:.2f}x, at least {row['minimum']}x asked"
        for row in record.get("peers", [])
        if row.get("met") is False
    ]
    if ours.get("met") is False:
        slow.append(f"fastaug: {ours['best']:.3g} s, at most {ours['maximum']:g} s asked")
    return slow


def visit(benchmark: Any, us: Contender, contenders: dict[str, Contender], clock: Timer) -> float | None:
    """Turns of everybody, again if others used the machine meanwhile; how many cores those did."""
    everybody = (us, *contenders.values())
    for contender in everybody:
        contender.begin()

    def timing(number: int) -> None:
        for contender in everybody:
            contender.forget()
        if not QUICK:  # a tenth of a second
            settle()
        take_turns(benchmark if number == 0 else None, us, list(contenders.values()), clock)

    return undisturbed(timing)


def _prepare(
    expected: Any, peers: Sequence[Peer], items: int, timer: Timer
) -> tuple[list[dict[str, Any]], dict[str, Contender]]:
    """Build every peer and hold its output against ours: one row each, and those that can be timed."""
    rows: list[dict[str, Any]] = []
    contenders: dict[str, Contender] = {}
    for peer in peers:
        row = {"name": peer.name, "version": version_of(peer.package), "note": peer.note, "agreement": None}
        row |= {"differs": peer.differs, "error": None, "disagrees": False}
        rows.append(row)
        try:
            run = peer.build()
            output, first = timed(run, timer)
            if peer.agree_build is not None:
                output = peer.agree_build()()
        except Exception as error:  # any failure of a peer is a result to report
            row["error"] = f"{type(error).__name__}: {shorten(error)}"
            continue
        if peer.check is not None:
            try:
                row["agreement"] = peer.check(expected, output)
            except AssertionError as error:
                row.update(disagrees=True, error=f"disagrees: {shorten(error)}")
                continue
        baseline = peer.baseline() if peer.baseline is not None else None
        contenders[peer.name] = Contender(run, peer.items or items, first, baseline=baseline)
    return rows, contenders


def timed(run: Run, timer: Timer) -> tuple[Any, float]:
    """What ``run`` returns, and its time."""
    output: list[Any] = []
    seconds = timer(lambda: output.append(run()))
    return output[0], seconds


def shorten(error: Exception) -> str:
    """The beginning of what it says, without the traceback that some libraries put into it: paths of a machine."""
    said = str(error).partition("with the following traceback")[0]
    return " ".join(said.replace(os.getcwd(), ".").split())[:200]


def summarise(
    rows: list[dict[str, Any]],
    ours: Contender,
    contenders: dict[str, Contender],
    *,
    unit: str,
    threads: int,
    minimum_ratio: dict[str, float],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Seconds per item of everyone, and each peer's time over ours."""
    for row in rows:
        name = row["name"]
        if name in contenders:
            row.update(spread(contenders[name]), **ratio(ours, contenders[name]))
            if name in minimum_ratio:
                row.update(minimum=minimum_ratio[name], met=row["ratio"] >= minimum_ratio[name])
    return {"unit": unit, "threads": threads, "ours": spread(ours), "peers": rows, **facts}


def synchronised(run: Run) -> float:
    """A timer by the host's clock, to the end of all work on the CUDA device."""
    import torch

    torch.cuda.synchronize()
    return wall_clock(lambda: (run(), torch.cuda.synchronize()))


@contextmanager
def equal_threads(threads: int, pin: bool = True) -> Iterator[None]:
    """torch, OpenMP and BLAS limited to ``threads``, and this process with all it starts to as many cores (Linux); to
    which ones is up to `PACE`."""
    import torch

    before = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if pin and hasattr(os, "sched_setaffinity") else None
    with ExitStack() as undo:
        if cores is not None:
            undo.callback(os.sched_setaffinity, 0, cores)
            undo.callback(PACE.stay, PACE.places)
            PACE.stay(places(cores, threads))
            go(PACE.places[0])
        with suppress(ImportError):  # on a bare machine torch's own setting is all there is
            from threadpoolctl import threadpool_limits

            undo.enter_context(threadpool_limits(threads))
        undo.callback(torch.set_num_threads, before)
        torch.set_num_threads(threads)
        yield


def version_of(package: str | None) -> str | None:
    if package is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
