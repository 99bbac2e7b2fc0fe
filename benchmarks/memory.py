"""Whether a Pipeline's memory is flat over a long run: anonymous memory against clips delivered, and its slope.

    python benchmarks/memory.py [clips] [threads] [warm-up in seconds of processor time] [RESULT.json]

RESULT.json, a result of `make bench`, gets the outcome as a case of its own.

Shards of short clips (wav, flac, mp3, ogg; one per cent of them bad) are read over and over, two CLMR views each. After
the warm-up (by default 240 s of processor time, two minutes of two cores) as many clips follow, and a line is fitted.
The slope is told with its standard error; the run fails where it is above two of them and means more than half a per
cent of growth, or where the error is too large to tell.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from materials import encode, music, write_shards

from fastaug import Pipeline, clmr

RATE, CROP, DISTINCT, PER_SHARD = 16_000, 4_000, 400, 100
GROWTH, DOUBT = 0.005, 0.05  # of the memory, over the clips of the run
MIB = 2**20


@dataclass(frozen=True)
class Line:
    """A line through memory in bytes against clips: its height in the middle, its slope, the slope's standard error."""

    level: float
    slope: float
    error: float
    clips: float

    @property
    def flat(self) -> bool:
        grown, doubt = self.slope * self.clips, 2 * self.error * self.clips
        return doubt < DOUBT * self.level and not (grown > doubt and grown > GROWTH * self.level)

    def __str__(self) -> str:
        per = 1e5 / MIB
        return (
            f"{self.level / MIB:.1f} MiB, slope {self.slope * per:+.3f} ± {self.error * per:.3f} MiB per 100,000 clips "
            f"over {self.clips:,.0f} clips: {'flat' if self.flat else 'NOT FLAT'}"
        )


def fit(clips: Any, used: Any) -> Line:
    """Least squares. What is next to each other is alike: the error is that of as many points as are independent."""
    x, y = np.asarray(clips, float), np.asarray(used, float)
    x0, y0 = x - x.mean(), y - y.mean()
    slope = float(x0 @ y0 / (x0 @ x0))
    rest = y0 - slope * x0
    alike = float(rest[1:] @ rest[:-1] / max(rest @ rest, 1e-300))
    wider = (1 + max(alike, 0.0)) / (1 - min(max(alike, 0.0), 0.99))  # of an autoregression of order one
    error = float(np.sqrt(rest @ rest / (len(x) - 2) / (x0 @ x0) * wider))
    return Line(float(y.mean()), slope, error, float(x[-1] - x[0]))


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon in /proc/self/status: this needs Linux")


def shards(folder: Path, distinct: int = DISTINCT) -> list[str]:
    paths = []
    clips = music(distinct // 4, RATE // 2, RATE, seed=1)
    for codec in ("wav", "flac", "mp3", "ogg"):
        encoded = [b"bad" if i == 7 else encode(clip, RATE, codec) for i, clip in enumerate(clips)]
        (folder / codec).mkdir()
        paths += write_shards(folder / codec, encoded, codec, PER_SHARD)
    return [str(path) for path in paths]


def run(
    paths: list[str], clips: int, threads: int, warm_seconds: float, transform: Any = None, every: int = 25
) -> tuple[Line, Pipeline]:
    """The line of ``clips`` clips after a warm-up, a point every ``every`` batches of 64."""
    pipe = Pipeline(
        paths, sample_rate=RATE, crop_samples=CROP, views=2, batch_size=64, transform=transform or clmr(),
        shuffle=200, epoch_size=8_000, on_error="replace", device="cpu", num_threads=threads,
    )  # fmt: skip
    points: list[tuple[int, int]] = []
    warm, batches = time.process_time() + warm_seconds, 0
    while True:
        for _ in pipe:
            batches += 1
            if batches % every == 0 and time.process_time() > warm:
                points.append((pipe.stats.delivered, anonymous_bytes()))
                if points[-1][0] - points[0][0] >= clips:
                    return fit(*zip(*points, strict=True)), pipe


def main() -> int:
    result = Path(sys.argv.pop()) if sys.argv[-1].endswith(".json") else None
    given = [float(text) for text in sys.argv[1:]]
    clips, threads, warm = (int(v) for v in (given + [200_000, 2, 240][len(given) :]))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        line, pipe = run(shards(Path(folder)), clips, threads, warm)
    print(f"{threads} threads, {time.monotonic() - begin:.0f} s, {pipe.stats.bad_count:,} bad clips replaced: {line}")
    if result:
        note(result, {"clips": line.clips, "growth_percent": 100 * line.slope * line.clips / line.level})
    return int(not line.flat)


def note(path: Path, facts: dict[str, float]) -> None:
    """Write the outcome into a result file, for RESULTS.md (`render.py table`)."""
    result = json.loads(path.read_text(encoding="utf-8"))
    result["cases"] = [case for case in result["cases"] if case["suite"] != "memory"]
    result["cases"].append({"suite": "memory", "case": "long_run", **facts})
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
