"""What this machine can do at most, on one core: the yardsticks for "share of the limit" in the results."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch
from harness import equal_threads


@cache
def multiply_add_rate() -> float:
    """Floating-point operations a second of one core in torch's float32 matrix product: the peak as met in practice."""
    size = 768
    a, b = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / _best(lambda: torch.mm(a, b))


@cache
def copy_rate() -> float:
    """Bytes a second, read plus written, of one core copying what fits in no cache."""
    source = torch.zeros(1 << 25)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / _best(lambda: target.copy_(source))


def _best(run: Any, times: int = 7) -> float:
    with equal_threads(1):
        found = []
        for _ in range(times):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    return min(found)


def work(samples: int, passes: float = 0, flops: float = 0) -> dict[str, Any]:
    """For ``facts``: what one item costs at least.

    Args:
        samples: of one item.
        passes: reads plus writes of float32 samples that no implementation can avoid, per sample.
        flops: multiplications plus additions per sample of the algorithm as fastaug runs it.
    """
    return {
        "samples": samples,
        "work": {"bytes": 4 * passes * samples, "flops": flops * samples},
        "limits": {"bytes_per_second": copy_rate(), "flops_per_second": multiply_add_rate()},
    }
