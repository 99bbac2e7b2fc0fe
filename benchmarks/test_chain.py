"""The whole CLMR chain (preset ``clmr``), two views of each of 64 clips, against the best pipelines built from peers.

Every pipeline applies the effects, probabilities and ranges of torchaudio-augmentations 0.2.4 (which no longer imports:
torchaudio removed sox_effects): polarity .8, noise .01, gain .3, high- or low-pass .8, delay .3, pitch .6, reverb .6.
Draws and algorithms differ, so outputs are not compared here; test_effects.py compares each effect.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sox
import torch
from clips import clip_by_clip
from harness import QUICK, Peer, compare
from limits import work
from materials import RATE, SAMPLES, batch

from fastaug import Compose, Delay, Reverb, clmr

DRAWS = "random draws"
SOME = 16 if QUICK else 64  # views for those who take one at a time, of 128


def sox_chain(row: np.ndarray) -> np.ndarray:
    """One clip through one sox process, with the effects that the coins chose; noise by NumPy."""
    coin = lambda p: random.random() < p  # noqa: E731
    effects: list[str] = []
    if coin(0.8):
        effects += ["vol", "-1"]
    if coin(0.01):
        row = row + row.std() * random.uniform(1e-4, 1e-2) * np.random.standard_normal(row.shape)
    if coin(0.3):
        effects += ["gain", f"{random.uniform(-20, -1):.2f}"]
    if coin(0.8):
        low = ["lowpass", str(random.randint(2200, 4000))]
        effects += low if coin(0.5) else ["highpass", str(random.randint(200, 1200))]
    if coin(0.3):
        effects += ["echo", "0.5", "1", str(random.randrange(200, 500, 50)), "0.5"]
    if coin(0.6):
        effects += ["pitch", str(random.randint(-700, 700)), "rate", str(RATE)]
    if coin(0.6):
        effects += ["reverb", *(str(random.randint(0, 99)) for _ in range(3)), "100", "channels", "1"]
    return sox.one_clip(row[0], RATE, effects) if effects else row[0]


def single_clip_chain() -> Callable[[np.ndarray], np.ndarray]:
    """audiomentations for what it has, pedalboard for delay and reverb; the faster of the two for pitch."""
    import audiomentations as am
    import pedalboard as pb

    first = am.Compose(
        [
            am.PolarityInversion(p=0.8),
            am.AddGaussianSNR(40.0, 80.0, p=0.01),
            am.Gain(-20.0, -1.0, p=0.3),
            am.OneOf([am.LowPassFilter(2200.0, 4000.0, p=1.0), am.HighPassFilter(200.0, 1200.0, p=1.0)], p=0.8),
        ]
    )
    pitch = am.PitchShift(-7.0, 7.0, p=0.6)

    def chain(row: np.ndarray) -> np.ndarray:
        row = first(row, sample_rate=RATE)
        if random.random() < 0.3:
            row = pb.Delay(random.randrange(200, 500, 50) / 1000, 0.0, 1 / 3)(row, RATE)
        row = pitch(row, sample_rate=RATE)
        if random.random() < 0.6:
            row = pb.Reverb(room_size=random.random(), damping=random.random())(row, RATE)
        return row

    return chain


def strongest_chain(x: torch.Tensor, threads: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The work with pedalboard for everything but pitch, and sox's ``pitch`` over one long file of the clips that get
    it: (the work, what sox spends on reading and writing). No process is started for a single clip."""
    import pedalboard as pb

    shifted = x.numpy()[: round(0.6 * len(x))]
    chains = [["pitch", str(100 * (i % 4) - 350), "rate", str(RATE)] for i in range(len(shifted))]
    long = sox.LongFiles(shifted, RATE, chains, threads, seconds=0)

    def others(row: np.ndarray) -> np.ndarray:
        coin = lambda p: random.random() < p  # noqa: E731
        if coin(0.8):
            row = -row
        if coin(0.3):
            row = row * np.float32(10 ** (random.uniform(-20, -1) / 20))
        plugins: list[Any] = []
        if coin(0.8):
            low = coin(0.5)
            plugins.append(
                pb.LowpassFilter(random.uniform(2200, 4000)) if low else pb.HighpassFilter(random.uniform(200, 1200))
            )
        if coin(0.3):
            plugins.append(pb.Delay(random.randrange(200, 500, 50) / 1000, 0.0, 1 / 3))
        if coin(0.6):
            plugins.append(pb.Reverb(room_size=random.random(), damping=random.random()))
        for plugin in plugins:
            row = plugin(row, RATE)
        return row

    rest = clip_by_clip(others, list(x.numpy()), threads=threads)
    return lambda: (rest(), long.run()), long.no_effect


def first_call(transform: Compose) -> Compose:
    """Every turn draws the same."""
    transform.reset(0)
    return transform


def batched_chain(x: torch.Tensor) -> Callable[[], torch.Tensor]:
    import torch_audiomentations as ta

    settings = {"sample_rate": RATE, "output_type": "dict"}
    chain = ta.Compose(
        [
            ta.PolarityInversion(p=0.8, **settings),
            ta.AddColoredNoise(40.0, 80.0, 0.0, 0.0, p=0.01, **settings),
            ta.Gain(-20.0, -1.0, p=0.3, **settings),
            ta.OneOf(
                [
                    ta.LowPassFilter(2200.0, 4000.0, p=1.0, **settings),
                    ta.HighPassFilter(200.0, 1200.0, p=1.0, **settings),
                ],
                p=0.8,
                output_type="dict",
            ),
            ta.PitchShift(-7.0, 7.0, p=0.6, **settings),
        ],
        output_type="dict",
    )
    chain.train()
    return lambda: chain(x, sample_rate=RATE).samples


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return batch()


def test_clmr_two_views(benchmark: Any, threads: int, x: torch.Tensor) -> None:
    twice = torch.cat([x, x])
    rows = list(twice.numpy()[:SOME])
    transform = clmr(sample_rate=RATE)
    strong_rows = twice[: 32 if QUICK else None]
    strongest: list[Any] = []

    def strong() -> Callable[[], Any]:
        strongest.extend(strongest_chain(strong_rows, threads))
        return strongest[0]

    compare(
        benchmark,
        lambda: first_call(transform).views(x, 2),
        [
            Peer(
                "pedalboard, sox for pitch",
                "pedalboard",
                strong,
                baseline=lambda: strongest[1],
                items=len(strong_rows),
                differs=f"{DRAWS}; filters of first order",
                note="all shifted clips in one sox file, less reading and writing it",
            ),
            Peer(
                "sox, a process per clip",
                None,
                lambda: clip_by_clip(sox_chain, rows, threads=threads),
                items=SOME,
                differs=DRAWS,
            ),
            Peer(
                "audiomentations + pedalboard",
                "audiomentations",
                lambda: clip_by_clip(single_clip_chain(), rows, threads=threads),
                items=SOME,
                differs=DRAWS,
            ),
        ],
        items=len(twice),
        unit="view",
        threads=threads,
        minimum_ratio={"sox, a process per clip": 8},
        facts=work(SAMPLES, passes=2),
    )


def test_clmr_two_views_without_delay_and_reverb(benchmark: Any, threads: int, x: torch.Tensor) -> None:
    """The part of the chain that torch-audiomentations has."""
    whole = clmr(sample_rate=RATE)
    transform = Compose([step for step in whole.transforms if not isinstance(step, Delay | Reverb)], sample_rate=RATE)
    few = x[: SOME // 2]
    compare(
        benchmark,
        lambda: first_call(transform).views(x, 2),
        [
            Peer(
                "torch-audiomentations",
                "torch-audiomentations",
                lambda: batched_chain(torch.cat([few, few])),
                items=SOME,
                differs=DRAWS,
            ),
        ],
        items=2 * len(x),
        unit="view",
        threads=threads,
        minimum_ratio={"torch-audiomentations": 50},
        facts=work(SAMPLES, passes=2),
    )


def test_eight_transforms_of_one_sample(benchmark: Any, threads: int, x: torch.Tensor) -> None:
    """What a call costs before any sample is touched: draws, checks and set-up of eight transforms for 256 clips of one
    sample. One item is the whole call."""
    tiny = x[:, :, 1000:1001].repeat(4, 1, 1)
    transform = clmr(sample_rate=RATE, crop_samples=1)
    transform.reset(0)
    compare(
        benchmark,
        lambda: transform(tiny),
        [
            Peer(
                "torch-audiomentations, the five it has",
                "torch-audiomentations",
                lambda: batched_chain(tiny),
                differs=DRAWS,
            ),
        ],
        items=1,
        unit="call",
        threads=threads,
        maximum_seconds=1e-3 if threads == 1 else None,
    )


def test_peak_memory(benchmark: Any) -> None:
    """How much memory the chain takes beside its input at its worst, in batches: output, scratch of all threads."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process can be reset on Linux only")
    script = Path(__file__).with_name("peak.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(json.loads(done.stdout))
    assert benchmark.extra_info["batches"] <= 3
