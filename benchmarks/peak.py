"""The most memory that the CLMR chain holds beside its input, as JSON: {"batches": …}; of a process of its own, so that
nobody's earlier garbage is there to be used again.

python benchmarks/peak.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from materials import RATE, batch

from fastaug import clmr
from fastaug.random import Keys


def kibibytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    x, transform = batch(), clmr(sample_rate=RATE)
    transform(x[:4], keys=Keys.of(0, range(4)))  # code, tables and stacks of threads come with the first call
    before = kibibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    y = transform(x, keys=Keys.of(0, range(len(x))))
    extra = 1024 * (kibibytes("VmHWM") - before)
    assert y.shape == x.shape
    print(json.dumps({"batches": extra / x.nbytes, "batch_bytes": x.nbytes, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
