"""How throughput changes with batch size, clip length, threads and shards. No peers: only our own cost."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import PACE, QUICK, Run, equal_threads, visit_later, wall_clock
from materials import RATE, SAMPLES, batch, encode, music, tracks, write_shards
from memory_pages import settle
from turns import PAUSE, WARM, Contender, calls_a_turn, spread

from fastaug import LogMel, Pipeline, clmr, codecs
from fastaug.random import Keys

SECONDS, FEWEST = (0.1, 3) if QUICK else (2.0, 4)  # of a visit: measuring time of a curve, rounds of all its points
KEPT = ("best", "best_within", "low", "median", "high", "rounds")
BATCHES = (1, 16, 64) if QUICK else (1, 2, 4, 8, 16, 32, 64, 128, 256)
LENGTHS = (0.5, 2.678, 10.0) if QUICK else (0.25, 0.5, 1.0, 2.678, 5.0, 10.0, 30.0, 120.0)  # seconds
SHARDS = (1, 8) if QUICK else (1, 2, 4, 8, 16, 32, 64)
CORES = os.cpu_count() or 1
THREADS = (*(n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < CORES), CORES)
SERIES = ("chain", "logmel", "decode mp3")


@dataclass
class Point:
    """One x of a curve: a function to time, and how much work a call does, in the curve's unit."""

    x: float
    work: float
    run: Run
    threads: int = 1


def record(benchmark: Any, series: str, axis: str, unit: str, points: list[Point]) -> None:
    """Time the points in turns, so that a busy moment of the machine bends no curve, and keep the curve."""
    timed = [Contender(point.run, 1, pause=PAUSE) for point in points]

    def round_of_turns(number: int) -> float:
        for one, point in zip(timed, points, strict=True):
            with equal_threads(point.threads):
                one.get_ready()
                one.take_turn(wall_clock, number)
        return sum(one.seconds[-1] * one.calls for one in timed)

    round_of_turns(0)  # warm-up
    round_of_turns(1)
    for one in timed:
        one.calls, one.warm = calls_a_turn(one.seconds[1]), one.seconds[1] < WARM
        one.pace = PACE
        one.forget()

    def visit() -> None:
        settle()
        for one in timed:
            one.begin()
        rounds, number = FEWEST, 0
        while number < rounds:
            took = round_of_turns(number)
            rounds = max(FEWEST, min(20, int(SECONDS / took)))
            number += 1
        kept = []
        for one, point in zip(timed, points, strict=True):
            kept.append({"x": point.x, "work": point.work, **{key: spread(one)[key] for key in KEPT}})
        benchmark.extra_info["curve"] = {"series": series, "axis": axis, "unit": unit, "points": kept}

    visit()
    benchmark.pedantic(lambda: None, rounds=1)
    visit_later(visit, benchmark, lambda: all(one.calm for one in timed))


def job(series: str, clips: int, seconds: float, together: int | None = None) -> Run:
    """The work of a series on ``clips`` clips of ``seconds`` each, in calls of ``together`` clips (default: one call).
    Keys and ranges are those of the clips, so that however they are divided the work is the same."""
    parts = [slice(i, i + (together or clips)) for i in range(0, clips, together or clips)]
    samples = round(seconds * RATE)
    if series == "decode mp3":
        data = [encoded()[i % 4] for i in range(clips)]
        begin = np.random.default_rng(2).integers(0, 30 * RATE - samples, clips)
        return lambda: [codecs.decode(data[p], begin[p], samples, RATE, channels=1, device="cpu") for p in parts]
    x = clips_of(clips, samples)
    if series == "logmel":
        front_end = LogMel(n_fft=1024, hop_length=512, n_mels=128, sample_rate=RATE)
        return lambda: [front_end(x[p]) for p in parts]
    transform = clmr(sample_rate=RATE)
    keys = [Keys.of(0, range(clips)[p]) for p in parts]
    return lambda: [transform(x[p], keys=k) for p, k in zip(parts, keys, strict=True)]


@cache
def encoded() -> list[bytes]:
    return tracks(4, 30.0, "mp3")


def clips_of(clips: int, samples: int) -> torch.Tensor:
    """(clips, 1, samples) of music: at most 16 different clips of half a minute, repeated."""
    several = batch(min(clips, 16), min(samples, 30 * RATE))
    return several.repeat(-(-clips // len(several)), 1, -(-samples // several.shape[-1]))[:clips, :, :samples]


@pytest.mark.parametrize("series", SERIES)
def test_batch_size(benchmark: Any, series: str) -> None:
    """The same 64 clips in calls of one, two, …; larger batches have more."""
    points = [Point(n, max(n, 64), job(series, max(n, 64), SAMPLES / RATE, n)) for n in BATCHES]
    record(benchmark, series, "batch size", "clip", points)


@pytest.mark.parametrize("series", SERIES)
def test_clip_length(benchmark: Any, series: str) -> None:
    """Cost a second of audio; batches of eight."""
    lengths = [length for length in LENGTHS if series != "decode mp3" or length <= 10]
    points = [Point(length, 8 * length, job(series, 8, length)) for length in lengths]
    record(benchmark, series, "clip length", "second of audio", points)


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.skipif(CORES < 2, reason="one core")
def test_threads(benchmark: Any, series: str) -> None:
    run = job(series, 64, SAMPLES / RATE)
    record(benchmark, series, "threads", "clip", [Point(n, 64, run, n) for n in THREADS])


def test_shards(benchmark: Any, tmp_path: Path) -> None:
    """The same records in few shards and in many, through a Pipeline that shuffles them and crops, in wav."""
    records = max(SHARDS) * (4 if QUICK else 16)
    clips = music(8, RATE // 4, RATE)
    data = [encode(clips[i % len(clips)], RATE, "wav") for i in range(records)]

    def reader(count: int) -> Callable[[], int]:
        folder = tmp_path / str(count)
        folder.mkdir()
        paths = [str(path) for path in write_shards(folder, data, "wav", records // count)]
        pipe = Pipeline(paths, sample_rate=RATE, crop_samples=RATE // 8, batch_size=32, seed=0, shuffle=256,
                        device="cpu", num_threads=0)  # fmt: skip
        return lambda: sum(len(batch.keys) for batch in pipe)

    record(benchmark, "records of 0.25 s", "shards", "record", [Point(n, records, reader(n)) for n in SHARDS])
