"""Whether a Pipeline's memory is flat over a long run: anonymous memory against clips delivered, and its slope.

    python benchmarks/memory.py [clips] [threads] [RESULT.json]     # minutes; adds its case to a result of `make bench`

Shards of short clips (wav, flac, mp3, ogg; one per cent of them bad) are read over and over, two CLMR views each. After
a tenth of the run as warm-up a line is fitted; the slope is told with its standard error, and the run fails where the
growth that it means over the rest exceeds 2 % of the memory.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from materials import encode, music, write_shards

from fastaug import Pipeline, clmr

RATE, CROP, DISTINCT, PER_SHARD = 16_000, 4_000, 400, 100
LARGEST_GROWTH = 0.02


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon in /proc/self/status: this needs Linux")


def shards(folder: Path) -> list[str]:
    paths = []
    clips = music(DISTINCT // 4, RATE // 2, RATE, seed=1)
    for codec in ("wav", "flac", "mp3", "ogg"):
        encoded = [b"bad" if i == 7 else encode(clip, RATE, codec) for i, clip in enumerate(clips)]
        (folder / codec).mkdir()
        paths += write_shards(folder / codec, encoded, codec, PER_SHARD)
    return [str(path) for path in paths]


def main() -> int:
    clips = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    with tempfile.TemporaryDirectory() as folder:
        pipe = Pipeline(
            shards(Path(folder)), sample_rate=RATE, crop_samples=CROP, views=2, batch_size=64, transform=clmr(),
            shuffle=200, epoch_size=8_000, on_error="replace", device="cpu", num_threads=threads,
        )  # fmt: skip
        points, begin = [], time.perf_counter()
        while pipe.stats.delivered < clips:
            for i, _ in enumerate(pipe):
                if i % 25 == 0:
                    points.append((pipe.stats.delivered, anonymous_bytes()))
    seen, used = np.array(points, float)[len(points) // 10 :].T
    matrix = np.stack([np.ones_like(seen), seen], 1)
    (level, slope), residual, *_ = np.linalg.lstsq(matrix, used, rcond=None)
    error = np.sqrt(residual[0] / (len(seen) - 2) / ((seen - seen.mean()) ** 2).sum())
    grown = slope * (seen[-1] - seen[0])
    print(
        f"{pipe.stats.delivered:,} clips ({pipe.stats.bad_count:,} bad ones replaced) in "
        f"{time.perf_counter() - begin:.0f} s: {used.mean() / 2**20:.1f} MiB anonymous, "
        f"from {used.min() / 2**20:.1f} to {used.max() / 2**20:.1f}; "
        f"slope {slope * 1e5 / 2**20:+.3f} ± {error * 1e5 / 2**20:.3f} MiB per 100,000 clips"
    )
    if len(sys.argv) > 3:
        note(Path(sys.argv[3]), {"clips": pipe.stats.delivered, "growth_percent": float(100 * grown / level)})
    return int(grown > LARGEST_GROWTH * level)


def note(path: Path, facts: dict[str, float]) -> None:
    """Write the outcome into a result file, for RESULTS.md (`render.py table`)."""
    result = json.loads(path.read_text(encoding="utf-8"))
    result["cases"] = [case for case in result["cases"] if case["suite"] != "memory"]
    result["cases"].append({"suite": "memory", "case": "long_run", **facts})
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
