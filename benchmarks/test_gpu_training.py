"""SampleCNN trained on a CUDA device from tar shards: its rate, and how much of the time the device is idle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness import Peer, Run, compare, synchronised
from materials import RATE, SAMPLES, tracks, write_shards

from fastaug import Pipeline, clmr
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.losses import nt_xent

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cuda", "in_time")]
IDLE = 0.05  # of the time, at most


class Training:
    """SampleCNN and its projector on pairs of views, a batch at a time, in bfloat16."""

    def __init__(self) -> None:
        encoder = SampleCNN(RATE)
        self.model = Contrastive(encoder, Projector(encoder.out_dim)).cuda().train()
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=3e-4)

    def step(self, audio: torch.Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            _, z = self.model(audio.flatten(0, 1))
        loss = nt_xent(*z.float().chunk(2))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


def idle_share(run: Run) -> tuple[float, float]:
    """The share of the time between the first and the last kernel or copy in which none ran; and that time."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    on_device = torch.autograd.DeviceType.CUDA
    spans = sorted((e.time_range.start, e.time_range.end) for e in profile.events() if e.device_type == on_device)
    return idle_of(spans)


def idle_of(spans: list[tuple[float, float]]) -> tuple[float, float]:
    """Of sorted spans in microseconds, which may overlap: the share that is gaps, and seconds from end to end."""
    begin, busy, until = spans[0][0], 0.0, spans[0][0]
    for start, end in spans:
        busy += max(end - max(start, until), 0.0)
        until = max(until, end)
    return 1 - busy / (until - begin), (until - begin) / 1e6


@pytest.mark.parametrize("codec", ["mp3-128", "flac"])
def test_idle_share_while_training(benchmark: Any, tmp_path: Any, codec: str) -> None:
    """From shards to steps of SampleCNN at batch 256: read, decoded on the device and augmented beside training."""
    size, steps, distinct = 256, 12, 64
    name, _, kbps = codec.partition("-")
    shards = write_shards(tmp_path, tracks(distinct, 30.0, name, kbps=int(kbps) if kbps else None), name, 16)
    pipe = Pipeline(
        [str(path) for path in shards], sample_rate=RATE, crop_samples=SAMPLES, views=2, batch_size=size,
        transform=clmr(), seed=0, shuffle=64, epoch_size=size * steps, device="cuda",
    )  # fmt: skip
    training = Training()
    resident = next(iter(pipe)).audio

    def epoch() -> None:
        for item in pipe:
            training.step(item.audio)

    def training_alone() -> Run:
        return lambda: [training.step(resident) for _ in range(steps)]

    peers = [Peer("training alone, on one batch", "torch", training_alone, differs="loads and augments nothing")]
    record = compare(benchmark, epoch, peers, items=steps, unit="step", threads=pipe.num_threads, timer=synchronised)
    idle, seconds = idle_share(epoch)
    alone, _ = idle_share(training_alone())
    benchmark.extra_info.update(idle_percent=100 * idle, idle_percent_training_alone=100 * alone)
    took = record["ours"]["best"]
    print(f"\n  idle {idle:.1%} of {seconds:.2f} s (training alone: {alone:.1%}), {size / took:,.0f} examples/s")
    assert idle <= IDLE, f"the device is idle for {idle:.1%} of the time, at most {IDLE:.0%} asked"
