"""One line about speed, measured now, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from fastaug.demo.clips import CROP, RATE
from fastaug.pipeline import Pipeline
from fastaug.transforms import clmr

__all__ = ["speed_line"]

SECONDS = 2.0  # of each measurement
BATCH = 32


def speed_line(data: str, device: torch.device) -> str:
    """Clips a second through the CLMR chain, alone and from the encoded files (any Pipeline source) on."""
    crops: dict[str, Any] = {
        "sample_rate": RATE,
        "crop_samples": CROP,
        "crop": "random",
        "batch_size": BATCH,
        "device": device,
    }
    x = next(iter(Pipeline(data, **crops, prefetch=0, on_error="replace"))).audio
    chain = clmr(sample_rate=RATE)
    alone = _rate(lambda: chain.views(x, 2).shape[1], device, SECONDS)
    pipe = Pipeline(data, **crops, views=2, transform=clmr(), shuffle=4096, epoch_size=20_000, on_error="replace")
    batches = pipe.to_tuple("audio")
    # what was decoded ahead while warming up is not counted
    whole = _rate(lambda: next(batches)[0].shape[1], device, 2 * SECONDS, warm=2 + pipe.prefetch)
    batches.close()  # type: ignore[attr-defined]
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return (
        f"{alone:,.0f} clips/s through the full CLMR chain, {whole:,.0f} from encoded files on "
        f"(crops of {CROP / RATE:.1f} s at {RATE / 1000:g} kHz, two views each, {where}, measured now)"
    )


def _rate(step: Callable[[], int], device: torch.device, seconds: float, warm: int = 1) -> float:
    """Clips a second of ``step``, which returns how many it did."""
    for _ in range(warm):
        step()
    _wait(device)
    began, clips = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        clips += step()
        _wait(device)
    return clips / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
