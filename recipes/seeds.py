"""Does pre-training beat an untrained encoder? Several seeds from start to end, on held-out tracks nobody trained on.

    python recipes/seeds.py                                     preset demo, synthetic corpus, three seeds
    python recipes/seeds.py --data gtzan/ --preset gtzan --steps 20000 --seeds 0 1 2 3 4

For each seed: pre-train (recipes/clmr.py), freeze, train a head; beside it untrained encoders with calibrated batch
norm and log-mel statistics under the same head. Seeds that were interrupted go on where they stopped.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import clmr

from fastaug.ssl.checkpoint import read_card
from fastaug.ssl.config import load_preset, parse
from fastaug.ssl.data import demo_corpus
from fastaug.ssl.probe.table import LOGMEL, PRETRAINED, RANDOM, ProbeTable, probe_table
from fastaug.ssl.training.distributed import start
from fastaug.ssl.training.run import guarded


@dataclass(frozen=True)
class Config:
    """Every field is a flag."""

    preset: str = "demo"  # of recipes/clmr.py
    data: str = ""  # labelled data; empty: a synthetic corpus of 480 tracks
    label: str | None = None  # default: the dataset's own, or the parent folder's name
    steps: int | None = None  # default: the preset's
    seeds: tuple[int, ...] = (0, 1, 2)
    head: Literal["linear", "mlp"] = "linear"
    out: str = "runs/seeds"
    device: str = "auto"  # auto, cpu, cuda, cuda:1


def main(cfg: Config) -> ProbeTable:
    data = cfg.data or str(demo_corpus(tracks=480))
    preset = load_preset(clmr.Config, cfg.preset, clmr.CONFIGS)
    checkpoints = []
    for seed in cfg.seeds:
        out = f"{cfg.out}/{Path(cfg.preset).stem}-{seed}"
        run = dataclasses.replace(preset, data=data, label=cfg.label, seed=seed, out=out, device=cfg.device)
        run = dataclasses.replace(run, steps=cfg.steps or preset.steps)
        checkpoints.append(clmr.main(run))
        if read_card(out)[1]["step"] < run.steps:  # Ctrl-C; how to go on has been printed
            sys.exit(1)
    table = probe_table(data, checkpoints, cfg.label, cfg.head, cfg.seeds, device=start(cfg.device).device)
    Path(cfg.out, f"table-{cfg.head}.json").write_text(json.dumps(table.to_dict(), indent=2) + "\n")
    print(table)
    metric = table.metrics[0]
    gain = 100 * (table.row(PRETRAINED).mean(metric) - table.row(RANDOM).mean(metric))
    beside = 100 * (table.row(PRETRAINED).mean(metric) - table.row(LOGMEL).mean(metric))
    print(f"pre-training: {gain:+.1f} points over random initialisation, {beside:+.1f} over log-mel statistics")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"CPU time of this process: {sum(u.ru_utime + u.ru_stime for u in used) / 60:.1f} minutes")
    return table


if __name__ == "__main__":
    guarded(lambda: main(parse(Config)))
