"""SampleCNN trained on a CUDA device from tar shards of MP3: its rate, and how much of the time the device is idle."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from materials import RATE, SAMPLES, tracks, write_shards

from fastaug import Pipeline, clmr
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.losses import nt_xent

pytestmark = pytest.mark.gpu
DEADLINE = time.monotonic() + float(os.environ.get("FASTAUG_BENCH_SECONDS", "inf"))


@pytest.fixture(scope="module", autouse=True)
def cuda() -> None:
    if not torch.cuda.is_available():
        if os.environ.get("FASTAUG_REQUIRE_CUDA") == "1":
            pytest.fail("FASTAUG_REQUIRE_CUDA=1, but torch sees no CUDA device")
        pytest.skip("needs a CUDA device")
    if time.monotonic() > DEADLINE:
        pytest.skip("out of time (FASTAUG_BENCH_SECONDS)")


def busy_share(intervals: list[tuple[float, float]]) -> float:
    """How much of the time from the first start to the last end at least one interval covers."""
    covered, until = 0.0, -float("inf")
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered / (until - min(start for start, _ in intervals))


TRAINING_BATCH, STEPS = 256, 6


def test_training_step(benchmark: Any, tmp_path: Path) -> None:
    """MP3 tracks in tar shards to two augmented views to SampleCNN on the device: tracks a second, and how much of the
    time no kernel and no copy runs."""
    data = tracks(64, 30.0, "mp3", kbps=128)
    paths = [str(path) for path in write_shards(tmp_path, data, "mp3", 16)]
    pipe = Pipeline(
        paths, sample_rate=RATE, crop_samples=SAMPLES, views=2, batch_size=TRAINING_BATCH, transform=clmr(), seed=0,
        epoch_size=TRAINING_BATCH * 100, device="cuda", num_threads=os.cpu_count() or 1,
    )  # fmt: skip
    encoder = SampleCNN(RATE)
    model = Contrastive(encoder, Projector(encoder.out_dim)).cuda()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-4)
    batches = iter(pipe)

    def steps(count: int) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            with torch.autocast("cuda", torch.bfloat16):
                _, z = model(next(batches).audio.flatten(0, 1))
            loss = nt_xent(*z.float().chunk(2), 0.5)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        torch.cuda.synchronize()
        return (time.perf_counter() - begin) / count

    steps(4)
    alone = sorted(steps(STEPS) for _ in range(3))[1]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        steps(STEPS)
    on_device = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    idle = 100 * (1 - busy_share([(event.time_range.start, event.time_range.end) for event in on_device]))
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(idle_percent=idle, seconds_a_step=alone, tracks_a_second=TRAINING_BATCH / alone)
    print(f"\n  {TRAINING_BATCH / alone:,.0f} tracks/s, {alone * 1e3:.1f} ms a step, {idle:.1f} % idle")
