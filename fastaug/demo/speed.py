"""One line about speed, measured now, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from fastaug.demo.clips import CROP, RATE
from fastaug.pipeline import Pipeline
from fastaug.transforms import clmr

__all__ = ["speed_line"]

_BATCH = 32


def speed_line(data: str, device: torch.device, seconds: float = 2.0) -> str:
    """Clips a second through the CLMR chain, alone and from the encoded files on. Takes about 3 · ``seconds``.

    Args:
        data: as for ``Pipeline``. seconds: of each measurement, after one batch to warm up.
    """
    pipe = Pipeline(
        data, sample_rate=RATE, crop_samples=CROP, crop="random", views=2, batch_size=_BATCH, transform=clmr(),
        epoch_size=100_000, shuffle=4096, on_error="replace", device=device,
    )  # fmt: skip
    batches = iter(pipe)
    x = next(batches).audio[0]
    chain = clmr(sample_rate=RATE, crop_samples=None)
    alone = _rate(lambda: chain.views(x, 2).shape[1], device, seconds)
    whole = _rate(lambda: len(next(batches)), device, seconds)
    batches.close()  # type: ignore[attr-defined]
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return (
        f"{alone:,.0f} clips/s through the full CLMR chain, {whole:,.0f} from encoded files on; each a {CROP / RATE:.1f} s "
        f"crop at {RATE / 1000:g} kHz in two views, batches of {len(x)}, {where}, measured now"
    )


def _rate(step: Callable[[], int], device: torch.device, seconds: float) -> float:
    """Clips a second of ``step``, which returns how many it did."""
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
