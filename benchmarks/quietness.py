"""Whether anybody else used the machine while a case was timed, and another try if so.

On a machine of two cores, a job beside the benchmark that takes one of them makes each parallel region last as long as
a time slice of the kernel: eight milliseconds in place of one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from turns import QUICK

ALLOWED = 0.1  # of a core, used by others or taken by the hypervisor, up to which a case is believed at once
TRIES = 1 if QUICK else 2
SECONDS = 30.0  # of the whole process, for further tries
_left = [SECONDS]
PROC = Path("/proc")


def undisturbed(timing: Callable[[int], None]) -> float | None:
    """Call ``timing(try number)`` until nobody disturbs it, or time or tries are up; what the others used in the last
    try, in cores. None where the system does not say (Linux does)."""
    others: float | None = None
    for number in range(TRIES):
        start, all_before, own_before = time.monotonic(), used_by_all(), used_by_us()
        timing(number)
        took, all_after, own_after = time.monotonic() - start, used_by_all(), used_by_us()
        if all_before is None or all_after is None:
            return None
        others = max(0.0, (all_after - all_before) - (own_after - own_before)) / max(took, 1e-9)
        if others <= ALLOWED or took > _left[0]:
            break
        _left[0] -= took
    return others


def used_by_all() -> float | None:
    """Seconds that all cores together have been busy since the start, with what the hypervisor gave to others."""
    try:
        first = (PROC / "stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def used_by_us() -> float:
    """Seconds of this process, and of all that it started, whether they live or not."""
    times: dict[int, tuple[int, float]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            try:  # the name, in brackets, may hold blanks
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            times[int(entry.name)] = int(fields[1]), sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return sum(spent for pid, (_, spent) in times.items() if descends(pid, times))


def descends(pid: int, times: dict[int, tuple[int, float]]) -> bool:
    """Whether it is this process, or was started by one that is."""
    while pid in times:
        if pid == os.getpid():
            return True
        pid = times[pid][0]
    return False
