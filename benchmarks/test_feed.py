"""The headline: from tar shards of MP3 tracks to two augmented CLMR views, and on to a SampleCNN training step, on all
cores, beside the loaders that people write from today's parts. One item is a track: two views of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from feed_peers import pedalboard_and_sox, sox_alone, through_a_dataset, through_webdataset
from harness import QUICK, Peer, Run, compare, equal_threads, wall_clock
from materials import RATE, SAMPLES, tracks, write_shards
from test_loading import first_epoch

from fastaug import Pipeline, clmr
from fastaug.codecs import decode
from fastaug.shards import open_source
from fastaug.ssl.encoders import Contrastive, Projector, SampleCNN
from fastaug.ssl.losses import nt_xent
from fastaug.ssl.training.run import keep_freed_memory

CORES = os.cpu_count() or 1
LOADED, TRAINED = (8, 2) if QUICK else (48, 12)  # tracks a batch; a step on a CPU takes a sixth of a second a track
WORKERS = max(2, CORES)  # a batch for each, so that every contender makes equal steps
SECONDS, SOURCE_RATE = 30.0, 44_100
DRAWS = "random draws"
Loader = Callable[..., Iterable[Any]]


def shards_of(folder: Path, batch: int) -> list[Path]:
    return write_shards(folder, tracks(batch * WORKERS, SECONDS, "mp3", SOURCE_RATE), "mp3", batch)


def pipeline(shards: list[Path], batch: int) -> Pipeline:
    return Pipeline(
        [str(path) for path in shards], sample_rate=RATE, crop_samples=SAMPLES, views=2, batch_size=batch,
        transform=clmr(), seed=0, shuffle=64, device="cpu", num_threads=CORES,
    )  # fmt: skip


class Step:
    """One training step of CLMR: SampleCNN, projector, NT-Xent, Adam; float32, which is fastest on CPUs."""

    def __init__(self) -> None:
        keep_freed_memory()
        encoder = SampleCNN(RATE)
        self.model = Contrastive(encoder, Projector(encoder.out_dim))
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=3e-4)

    def __call__(self, views: torch.Tensor) -> None:
        """views: (2, B, 1, T)."""
        _, z = self.model(views.flatten(0, 1))
        loss = nt_xent(*z.chunk(2), 0.5)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


def one_pass(batches: Callable[[], Iterable[torch.Tensor]], batch: int, use: Callable[[torch.Tensor], Any]) -> Run:
    """All tracks once; ``use`` gets (2, B, 1, T)."""

    def run() -> int:
        seen = 0
        for views in batches():
            assert views.shape[0] == 2 and views.shape[2:] == (1, SAMPLES)
            use(views)
            seen += views.shape[1]
        assert seen == batch * WORKERS, f"{seen} of {batch * WORKERS} tracks"
        return seen

    return run


def contenders(shards: list[Path], batch: int, use: Callable[[torch.Tensor], Any], also_sox: bool) -> list[Peer]:
    def peer(name: str, package: str, loader: Loader, augment: Any) -> Peer:
        def build() -> Run:
            batches = loader(shards, CORES, batch, augment)
            return one_pass(lambda: (torch.as_tensor(loaded).transpose(0, 1) for loaded in batches), batch, use)

        return Peer(name, package, build, differs=DRAWS)

    found = [
        peer("webdataset, pedalboard, sox for pitch", "webdataset", through_webdataset, pedalboard_and_sox),
        peer("torch Dataset, pedalboard, sox for pitch", "torch", through_a_dataset, pedalboard_and_sox),
    ]
    if also_sox:
        found.append(peer("torch Dataset, sox", "torch", through_a_dataset, sox_alone))
    return found


def test_batches(benchmark: Any, tmp_path: Path) -> None:
    """Loading and augmentation alone: what a device that trains faster than this CPU is fed with."""
    shards = shards_of(tmp_path, LOADED)
    pipe = pipeline(shards, LOADED)
    touch = lambda views: views[..., ::4096].sum()  # noqa: E731
    ours = one_pass(lambda: (batch.audio for batch in first_epoch(pipe)), LOADED, touch)
    peers = contenders(shards, LOADED, touch, True)
    compare(benchmark, ours, peers, items=LOADED * WORKERS, unit="track", threads=CORES)


def test_training_step(benchmark: Any, tmp_path: Path) -> None:
    shards, step = shards_of(tmp_path, TRAINED), Step()
    pipe = pipeline(shards, TRAINED)
    facts: dict[str, Any] = {"batch": TRAINED, "budget": budget(shards, step)}
    facts["budget_note"] = (
        f"Transfer: none, the model is on the CPU. Step: batches of {TRAINED}, "
        "float32. Where the whole takes less than the sum, stages overlap."
    )
    ours = one_pass(lambda: (batch.audio for batch in first_epoch(pipe)), TRAINED, step)
    peers = contenders(shards, TRAINED, step, False)
    compare(benchmark, ours, peers, items=TRAINED * WORKERS, unit="track", threads=CORES, facts=facts)


def budget(shards: list[Path], step: Step) -> dict[str, float]:
    """Seconds a track of each stage alone, with all cores: the fastest of three."""
    batch = TRAINED
    starts = np.random.default_rng(0).integers(0, int(SECONDS * RATE) - SAMPLES, (2, batch))
    chain = clmr(sample_rate=RATE)
    done: dict[str, Any] = {}

    def read() -> None:
        source = open_source([str(path) for path in shards[:1]])
        done["bytes"] = [bytes(source.read(i).audio) for i in range(batch)]

    def decoded() -> None:
        done["crops"], _ = decode(done["bytes"], starts, SAMPLES, RATE, channels=1, num_threads=CORES)

    def augmented() -> None:
        done["views"] = chain(done["crops"].flatten(0, 1))

    stages: dict[str, Run] = {"read": read, "decode": decoded, "augment": augmented}
    stages |= {"transfer": lambda: None, "step": lambda: step(done["views"].unflatten(0, (2, batch)))}
    with equal_threads(CORES):
        spent = {name: [wall_clock(run)] for name, run in stages.items()}
        for name, run in stages.items():
            spent[name] = [wall_clock(run) for _ in range(1 if name == "step" else 3)]
    times = {name: min(values) / batch for name, values in spent.items()}
    return {**times, "transfer": 0.0}
