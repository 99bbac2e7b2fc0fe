"""What has a pre-trained encoder learnt? Judged on held-out clips, under a published protocol, with few labels or all.

    python recipes/probe.py                                          the run of `python recipes/clmr.py`, if any
    python recipes/probe.py --checkpoint runs/clmr-gtzan --data gtzan/
    python recipes/probe.py --checkpoint runs/a runs/b runs/c --mode mlp     seeds of pre-training: ± covers them
    python recipes/probe.py --checkpoint runs/a --data fma/ --protocol clmr-v2 --labels 0.01,0.1,1
    python recipes/probe.py --checkpoint runs/a --data gtzan/ --mode finetune --shots 5,10
    python recipes/probe.py --checkpoint runs/a --data gtzan/ --mode scratch   same encoder, labels alone

linear, mlp and knn judge frozen features, beside a random encoder and log-mel statistics; finetune and scratch train
the whole network. --data may be another dataset than the pre-training's. Writes probe-<mode>.json beside the
(first) checkpoint: every metric, its interval, each class and the confusion matrix.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastaug.ssl.checkpoint import read_card, write_json
from fastaug.ssl.config import parse, resolve
from fastaug.ssl.data import demo_corpus
from fastaug.ssl.probe.protocols import choose_protocol
from fastaug.ssl.probe.results import append, of_table
from fastaug.ssl.probe.rows import ProbeTable
from fastaug.ssl.probe.supervised import Interrupted, supervised_table
from fastaug.ssl.probe.table import Share, probe_table
from fastaug.ssl.training.distributed import start
from fastaug.ssl.training.run import Stop, command_line, guarded, keep_freed_memory

DEMO_RUN = Path("runs/clmr-demo")
# The encoder of preset demo, for a table without any checkpoint.
DEMO_CARD: dict[str, Any] = {
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
    mode: Literal["linear", "mlp", "knn", "finetune", "scratch"] = "linear"
    protocol: Literal[
        "default", "thesis", "clmr-v1", "clmr-v2", "book", "internship", "cola", "marble", "jukemir"
    ] = "default"  # fmt: skip
    as_published: bool = False  # repeat the mistakes of the protocol's source, to reproduce its number
    representation: Literal["h", "z"] = "h"  # z: after the projector, which pre-training throws away
    labels: str = ""  # shares of the labelled training clips, 0.01,0.1,1; default: the protocol's, mostly 1
    shots: str = ""  # instead: clips of each class, 1,5,10
    neighbours: int = 10  # of knn
    seeds: tuple[int, ...] = (0, 1, 2)  # of heads, networks, random encoders and the choice of labels
    transform: str = "none"  # of finetune and scratch: a name of fastaug or module:callable, like clmr
    batch_size: int = 32  # of encoding
    cache: str = ""  # folder that keeps features; default: features/ beside the first checkpoint; "none"
    minutes: float | None = None  # finetune and scratch: stop cleanly after this long; the same command goes on
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    record: str = ""  # a CSV to append the results to, like recipes/results.csv


def main(cfg: Config) -> ProbeTable:
    keep_freed_memory()
    checkpoints = [Path(c) for c in cfg.checkpoint]
    if not checkpoints and (DEMO_RUN / "model.safetensors").is_file():
        checkpoints = [DEMO_RUN]
    home = Path("runs/probe") if not checkpoints else folder_of(checkpoints[0])
    protocol = choose_protocol(cfg.protocol, cfg.as_published)
    table_of = {
        "data": cfg.data or str(demo_corpus()), "checkpoints": checkpoints, "label": cfg.label, "seeds": cfg.seeds,
        "card": DEMO_CARD, "device": start(cfg.device).device, "batch_size": cfg.batch_size, "protocol": protocol,
        "shares": shares(cfg, protocol.labels),
    }  # fmt: skip
    if cfg.mode in ("finetune", "scratch"):
        table = train_networks(cfg, home, table_of)
    else:
        if cfg.transform != "none":
            raise ValueError(f"--transform is of finetune and scratch; --mode {cfg.mode} takes features as they are")
        cache = None if cfg.cache == "none" else cfg.cache or home / "features"
        table = probe_table(
            head=cfg.mode, projected=cfg.representation == "z", neighbours=cfg.neighbours, cache=cache, **table_of
        )
    print(table)
    best = max(table.rows, key=lambda row: row.mean(table.metrics[0]))
    print(f"\n{table.confusion(best)}")
    home.mkdir(parents=True, exist_ok=True)
    kind = f"-{cfg.protocol}" * (cfg.protocol != "default") + "-as-published" * cfg.as_published
    file = home / f"probe-{cfg.mode}{kind}.json"
    write_json(file, table.to_dict())
    print(f"\nall metrics, each class, every seed: {file}")
    if cfg.record:
        preset = read_card(checkpoints[0])[1].get("config", {}).get("preset", "unnamed") if checkpoints else "none"
        append(Path(cfg.record), of_table(table, f"probe {cfg.mode}{kind}", preset, table_of["device"]))
    if not checkpoints:
        print(f"nothing pre-trained here yet: python {Path(__file__).with_name('clmr.py')}")
    return table


def train_networks(cfg: Config, home: Path, table_of: dict[str, Any]) -> ProbeTable:
    """Fine-tune, or train from scratch; leaves with the line that goes on when it is stopped."""
    if cfg.representation == "z":
        raise ValueError(f"--representation z is of frozen features; --mode {cfg.mode} trains encoder and classifier")
    transform = None if cfg.transform == "none" else resolve(cfg.transform, "fastaug")()
    with Stop(cfg.minutes) as stop:
        try:
            return supervised_table(
                cfg.mode, transform=transform, folder=home, stop=stop, log=lambda seen: print(line(seen)), **table_of
            )
        except Interrupted:
            sys.exit(f"stopped; the same command goes on: {command_line()}")


def line(seen: dict[str, Any]) -> str:
    return f"epoch {seen['epoch']:4}  loss {seen['loss']:.4f}  validation loss {seen['valid_loss']:.4f}"


def shares(cfg: Config, of_protocol: float) -> list[Share]:
    """What --labels and --shots ask for."""
    if cfg.labels and cfg.shots:
        raise ValueError("--labels and --shots exclude each other")
    if cfg.shots:
        return [Share(shots=n) for n in numbers(cfg.shots, int, "--shots")]
    return [Share(x) for x in (numbers(cfg.labels, float, "--labels") if cfg.labels else [of_protocol])]


def numbers(text: str, kind: type, flag: str) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} takes numbers with commas between, like 1,5,10; got {text!r}") from None


def folder_of(checkpoint: Path) -> Path:
    return checkpoint if checkpoint.is_dir() else checkpoint.parent


if __name__ == "__main__":
    guarded(lambda: main(parse(Config)))
