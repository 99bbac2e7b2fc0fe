"""Settings of a Pipeline: what is checked, and what stands in for what was not given."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["check_choice", "check_least", "crop_width", "default_device", "default_threads", "ranks", "this_worker"]

_said_device = False


def crop_width(crop: str, samples: int | None, seconds: float | None, rate: int) -> int | None:
    if crop == "whole":
        if samples is not None or seconds is not None:
            raise ValueError('crop="whole" takes neither crop_samples nor crop_seconds')
        return None
    if (samples is None) == (seconds is None):
        raise ValueError("give crop_samples or crop_seconds, one of them")
    # floor(x + 0.5), not round(): ties must not go to even
    count = samples if samples is not None else int(np.floor(float(seconds or 0) * rate + 0.5))
    if count < 1:
        raise ValueError(f"the crop must have at least one sample, got {count}")
    return count


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def this_worker() -> tuple[int, int] | None:
    """(id, number) of the DataLoader worker that this is."""
    info = torch.utils.data.get_worker_info()
    return (info.id, info.num_workers) if info is not None else None


def ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is not None or world_size is not None:
        if rank is None or world_size is None:
            raise ValueError("give rank and world_size together")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, world_size={world_size}), got {rank}")
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def default_threads(device: torch.device) -> int:
    """On the CPU alone, threads of our own would only compete with torch's: at batches of 32, two cores, CLMR's views
    come a quarter slower."""
    return torch.get_num_threads() if device.type == "cuda" or torch.cuda.is_available() else 0


def default_device() -> torch.device:
    """CUDA if usable, else the CPU; says which, once a process."""
    global _said_device
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not _said_device and this_worker() is None:
        print(f"fastaug: batches are delivered on {device} (device= chooses)", file=sys.stderr)
        _said_device = True
    return device
