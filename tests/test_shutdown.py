"""Leaving a Pipeline in every way there is: no thread stays, nothing hangs, nothing is printed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from corpus import RATE, encoded, tone, write_tar
from fastaug import Pipeline, Record

COMMON: dict[str, Any] = {
    "sample_rate": RATE,
    "crop_samples": 4_000,
    "device": "cpu",
    "num_threads": 2,
    "batch_size": 8,
}


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastaug-decode")]


@pytest.fixture
def records() -> list[Record]:
    audio = encoded(tone(1.0, 0), "flac")
    return [Record(str(i), audio) for i in range(200)]


def test_the_end_break_and_forgetting_stop_the_threads(records: list[Record]) -> None:
    pipe = Pipeline(records, **COMMON)
    assert sum(map(len, pipe)) == 200 and threads() == []
    for batch in pipe:
        assert len(batch) == 8 and threads() != []
        break
    gc.collect()
    assert threads() == []
    iterator = iter(pipe)
    next(iterator)
    del iterator
    gc.collect()
    assert threads() == []
    assert sum(map(len, pipe)) == 200, "and the Pipeline goes on"


@pytest.mark.parametrize("where", ["caller", "transform", "thread"])
def test_exceptions_stop_the_threads(records: list[Record], where: str) -> None:
    def fail(samples: Any) -> Any:
        raise ZeroDivisionError(where)

    if where == "thread":
        records[20] = Record("20", b"")
    pipe = Pipeline(records, transform=fail if where == "transform" else None, **COMMON)
    with pytest.raises((ZeroDivisionError, ValueError), match="empty" if where == "thread" else where):
        for _ in pipe:
            if where == "caller":
                raise ZeroDivisionError(where)
    gc.collect()
    assert threads() == []


def test_two_iterators_at_once(records: list[Record]) -> None:
    one, two = Pipeline(records, **COMMON), Pipeline(records, **COMMON)
    for a, b in zip(one, two, strict=True):
        assert a.keys == b.keys
    assert threads() == []


def test_an_iterator_that_came_through_a_fork_says_so(records: list[Record]) -> None:
    """Its threads have not come along: waiting for them would last for ever. A new iterator works there."""
    pipe = Pipeline(records, **COMMON)
    iterator = iter(pipe)
    next(iterator)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(30)
            try:
                next(iterator)
            except RuntimeError as error:
                code = 0 if "begun in another process" in str(error) else 2
            if sum(map(len, Pipeline(records, **COMMON))) != 200:
                code = 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(next(iterator)) == 8, "the parent's goes on"
    iterator.close()  # type: ignore[attr-defined]
    assert threads() == []


SCRIPT = """
import signal, sys, time
from fastaug import Pipeline, clmr
signal.signal(signal.SIGINT, signal.default_int_handler)
pipe = Pipeline(sys.argv[1], sample_rate={rate}, crop_samples=40_000, views=2, batch_size=32, epoch_size=100_000,
                transform=clmr(), shuffle=8, device="cpu", num_threads=2, prefetch=4)
iterator = iter(pipe)
next(iterator)
print("ready", flush=True)
{rest}
"""


@pytest.mark.parametrize("way", ["exit", "interrupt", "error"])
def test_the_process_ends(tmp_path: Path, way: str) -> None:
    path = write_tar(tmp_path / "s.tar", [(f"{i}.flac", encoded(tone(3.0, i), "flac")) for i in range(8)])
    rest = {"exit": "sys.exit(3)", "interrupt": "for _ in iterator: pass", "error": "raise ZeroDivisionError"}[way]
    command = [sys.executable, "-c", SCRIPT.format(rate=RATE, rest=rest), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        if way == "interrupt":
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == {"exit": 3, "interrupt": -signal.SIGINT, "error": 1}[way], said
    last = {"exit": "", "interrupt": "KeyboardInterrupt", "error": "ZeroDivisionError"}[way]
    assert said.strip().endswith(last) and said.count("Traceback") == (way != "exit"), said
