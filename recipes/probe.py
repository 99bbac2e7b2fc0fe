"""What has a pre-trained encoder learnt? Frozen features, a small head, held-out clips; beside it, no training at all.

    python recipes/probe.py                                          the run of `python recipes/clmr.py`, if any
    python recipes/probe.py --checkpoint runs/clmr-gtzan --data gtzan/
    python recipes/probe.py --checkpoint runs/a runs/b runs/c --head mlp     seeds of pre-training: ± covers them

Every clip is cut into segments, a clip's prediction is the mean of its segments' logits. One label a clip: accuracy;
several: macro ROC-AUC and average precision. Writes probe-<head>.json beside the (first) checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastaug.ssl.config import parse
from fastaug.ssl.data import demo_corpus
from fastaug.ssl.distributed import start
from fastaug.ssl.run import guarded
from fastaug.ssl.table import ProbeTable, probe_table

DEMO_RUN = Path("runs/clmr-demo")
# The encoder of preset demo, for a table without any checkpoint.
DEMO_CARD = {
    "encoder": "SampleCNN",
    "encoder_kwargs": {"sample_rate": 8000, "width": 0.25},
    "sample_rate": 8000,
    "crop_samples": 20_736,
    "logmel": None,
}


@dataclass(frozen=True)
class Config:
    """Every field is a flag."""

    checkpoint: tuple[str, ...] = ()  # run folders or model.safetensors files; default: runs/clmr-demo if it exists
    data: str = ""  # audio folder with one sub-folder a class, or folder of shards; empty: the synthetic corpus
    label: str | None = None  # default: the dataset's own, or the parent folder's name
    head: Literal["linear", "mlp"] = "linear"  # mlp: one hidden layer of 512
    seeds: tuple[int, ...] = (0, 1, 2)  # of the heads and of the random encoders
    batch_size: int = 32
    device: str = "auto"  # auto, cpu, cuda, cuda:1


def main(cfg: Config) -> ProbeTable:
    checkpoints = [Path(c) for c in cfg.checkpoint]
    if not checkpoints and (DEMO_RUN / "model.safetensors").is_file():
        checkpoints = [DEMO_RUN]
    table = probe_table(
        cfg.data or str(demo_corpus()), checkpoints, cfg.label, cfg.head, cfg.seeds,
        card=DEMO_CARD, device=start(cfg.device).device, batch_size=cfg.batch_size,
    )  # fmt: skip
    print(table)
    if checkpoints:
        folder = checkpoints[0] if checkpoints[0].is_dir() else checkpoints[0].parent
        (folder / f"probe-{cfg.head}.json").write_text(json.dumps(table.to_dict(), indent=2) + "\n")
    else:
        print(f"nothing pre-trained here yet: python {Path(__file__).with_name('clmr.py')}")
    return table


if __name__ == "__main__":
    guarded(lambda: main(parse(Config)))
