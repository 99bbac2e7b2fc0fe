"""Waveform and spectrogram together: five ways of fusing two formats of one sound, pre-trained without labels, probed.

    python recipes/fusion.py                                  minutes on a CPU, on a synthetic corpus it makes itself
    python recipes/fusion.py --audio-checkpoint runs/clmr --spectrogram-checkpoint runs/simclr       nothing to train
    python recipes/fusion.py --preset fusion-seed001 --data gtzan/ --tables     tables 1 and 2 beside the published ones
    torchrun --nproc_per_node 4 recipes/fusion.py --data ...  several GPUs; --batch-size is the total over all

--fusion: separate (two encoders, each trained alone, side by side), decision (the two heads' probabilities averaged),
joint (a clip's views are its waveform and its spectrogram), early (one encoder on a learned waveform front end beside
the log-mel), model (two stems, one trunk); audio, spectrogram. Folder and resuming as recipes/clmr.py; fusion.json.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from fastaug import LogMel, Pipeline
from fastaug.ssl.checkpoint import read_card, save_model
from fastaug.ssl.config import parse, resolve
from fastaug.ssl.data import Dataset, demo_corpus, discover, endless, groups, restore
from fastaug.ssl.fusion import model as fusion
from fastaug.ssl.fusion.probe import Rows, join_seeds, probe_checkpoint
from fastaug.ssl.fusion.published import RUNS, record, write_tables
from fastaug.ssl.optim import contrastive_optimiser, set_rate, warmup_cosine
from fastaug.ssl.training import run as runs
from fastaug.ssl.training.accumulate import backward
from fastaug.ssl.training.distributed import World, choose_device, start
from fastaug.ssl.training.monitor import Monitor, knn_monitor
from fastaug.ssl.training.precision import Precision
from fastaug.ssl.training.recompute import recompute

CONFIGS = Path(__file__).parent / "configs"
FREE = ("probe_data", "head", "probe_seeds", "probe_steps", "tables", "table_seeds", "mtat", "record")  # of the probe


@dataclasses.dataclass(frozen=True)
class Config:
    """Every field is a flag (--batch-size 64); a preset is a JSON file of them."""

    preset: str = "fusion-demo"  # a file of configs/ (those named fusion-), or the path of another JSON file
    fusion: Literal["separate", "decision", "joint", "early", "model", "audio", "spectrogram"] = "separate"
    tables: bool = False  # pre-train and probe all rows of the source's tables; --out holds one folder a row
    table_seeds: tuple[int, ...] = (0,)  # of the pre-training of each row
    # data
    data: str = ""  # audio folder, folder of shards, or shard pattern; empty: the synthetic corpus
    pretrain_data: str = ""  # default: --data
    probe_data: str = ""  # default: --data
    mtat: str = ""  # for the row of the tables that pre-trains on MagnaTagATune
    label: str | None = None  # default: the dataset's own or the parent folder; "none"
    sample_rate: int = 22_050  # Hz
    crop_samples: int = 110_250
    n_fft: int = 1024  # samples, also of the window
    hop_length: int = 512  # samples
    n_mels: int = 128
    on_error: Literal["raise", "skip", "replace"] = "replace"  # a file that cannot be read
    transform: str = "branch_waveform"  # of waveforms: in fastaug.ssl.fusion.published, or module:callable; "none"
    spec_transform: str = "branch_spectrogram"  # of spectrograms: likewise
    # model
    audio_encoder: str = "fastaug.ssl.fusion.encoders:BranchCNN"  # or another encoder of (B, C, T), or module:callable
    spectrogram_encoder: str = "ResNet18"  # or another encoder of (B, C, F, N); early gives it two channels
    audio_checkpoint: str = ""  # separate and decision: a run of recipes/clmr.py instead of training, with the next
    spectrogram_checkpoint: str = ""  # a run of recipes/simclr_spec.py
    width: float = 1.0  # multiplies the channels of encoders that have a width
    projection_dim: int = 128  # of the MLP projectors, one for each format
    # optimisation
    temperature: float = 0.5
    batch_size: int = 48  # examples a step, over all processes
    optimiser: Literal["auto", "adam", "sgd", "lars"] = "adam"  # auto: Adam below 96 examples a step, LARS from there
    lr: float | None = None  # default: 3e-4 for Adam, 0.075 * sqrt(batch) for LARS, 0.03 * batch / 256 for SGD
    weight_decay: float = 1e-6  # of matrices and kernels, not of biases and normalisation
    warmup_steps: int = 0  # a straight line up to lr
    cosine: bool = False  # then half a cosine down to 0 at --steps
    mask_group: str = ""  # field of the data (artist, track): examples that share its value are no negatives
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"  # auto: what is fastest on the device
    accumulate: int = 1  # parts of a batch that the model sees one after another; the loss stays that of the whole
    recompute: bool = False  # activations again in the backward pass: less memory, about a third more time
    compile: bool = False  # torch.compile
    steps: int = 10_000
    minutes: float | None = None  # stop cleanly after this long
    seed: int = 0
    # probe, the same for all rows
    head: Literal["linear", "mlp"] = "linear"
    probe_steps: int = 500  # each on the whole training set
    probe_seeds: tuple[int, ...] = (0, 1, 2)  # of heads and of untrained encoders; none: no probe
    record: str = ""  # a CSV to append --tables to, like recipes/results.csv
    # bookkeeping
    out: str = ""  # default: runs/<preset>-<fusion>
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    log_every: int = 10  # steps
    save_minutes: float = 5.0
    knn_crops: int = 128  # cached crops on either side of the kNN monitor; 0: none
    tensorboard: bool = True
    resume: bool = False  # insist on a run to resume (default: resume if there is one)
    fresh: bool = False  # start over, whatever is in --out


def main(cfg: Config, stop: runs.Stop | None = None) -> Path:
    """Pre-train; returns the output folder. ``stop`` says when to leave early (default: Ctrl-C, or --minutes)."""
    world = start(cfg.device)
    runs.keep_freed_memory()
    torch.manual_seed(cfg.seed)
    out = Path(cfg.out or f"runs/{Path(cfg.preset).stem}-{cfg.fusion}")
    if cfg.audio_checkpoint or cfg.spectrogram_checkpoint:  # nothing to train
        return fusion.join_checkpoints(cfg.audio_checkpoint, cfg.spectrogram_checkpoint, out)
    source = cfg.pretrain_data or cfg.data or world.once(demo_corpus)
    data = discover(str(source), None if cfg.pretrain_data else cfg.label)
    precision = Precision(cfg.precision, world.device)
    batch_size = min(cfg.batch_size, data.records("train")) // world.size * world.size
    pipe = training_pipeline(cfg, data, world, batch_size)
    model, card = build_model(cfg, data)
    model.to(world.device)
    if cfg.recompute:
        recompute(model.encoder)
    optimiser = contrastive_optimiser(model, cfg.optimiser, batch_size, cfg.lr, cfg.weight_decay)
    run = runs.Run(out, cfg, (*runs.free_fields(cfg.cosine), *FREE), writes=world.first, tensorboard=cfg.tensorboard)
    step = 0
    if state := run.resume(cfg.resume, cfg.fresh):
        step = state["step"]
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        precision.load_state_dict(state["precision"])
        restore(pipe, state["pipeline"])
    world.say(f"{data.name}: {data.records('train')} examples, fusion {cfg.fusion}, {batch_size} a step "
              f"on {world.device}; " + (f"resuming {out} at step {step}" if state else f"starting {out}"))  # fmt: skip

    def save() -> None:
        run.save(step=step, model=model, optimiser=optimiser, precision=precision, pipeline=pipe)
        if world.first:
            save_model(out, model, {**card, "step": step, "config_hash": run.hash, "config": run.config})

    parallel, losses = world.wrap(model, cfg.compile), {}

    def loss_of(z: torch.Tensor) -> torch.Tensor:
        losses.update(fusion.contrast(z, cfg.fusion == "joint", cfg.temperature, groups(batch, cfg.mask_group)))
        return sum(losses.values())

    knn, heard = None, {"sample_rate": cfg.sample_rate, "crop_samples": cfg.crop_samples, "seed": cfg.seed}
    if world.first and cfg.knn_crops and data.label:
        knn = knn_monitor(data, cfg.knn_crops, world.device, precision.dtype, **heard)
    monitor = Monitor(model.encoder, knn)  # all that is looked at while training takes at most 2 % of the time
    bar = tqdm(total=cfg.steps, initial=step, unit="step", disable=not world.first, dynamic_ncols=True)
    batches, saved, shown = endless(pipe), time.monotonic(), {}
    with bar, runs.Stop(cfg.minutes) if stop is None else stop as stop:
        while step < cfg.steps:
            with monitor.watch("loading"):  # waiting for decoded crops, augmenting them, making spectrograms
                samples, spectra = fusion.model_inputs(cfg.fusion, batch := next(batches))
            with monitor.watch("compute"):
                optimiser.zero_grad(set_to_none=True)
                parts = fusion.in_parts(samples, spectra, cfg.accumulate)
                loss, z = backward(parallel, lambda part: parallel(*part), parts, loss_of, precision)
                set_rate(optimiser, warmup_cosine(step, cfg.steps, cfg.warmup_steps, floor=0.0 if cfg.cosine else 1.0))
                precision.step(optimiser)
            step += 1
            bar.update()
            if world.first and (step % cfg.log_every == 0 or step == cfg.steps):
                values = monitor.look(step, batch_size, loss, *fusion.two_views(z))
                values |= {f"loss_{name}": value.item() for name, value in losses.items()}
                run.log(step, **values)
                runs.report(bar, shown, values)
            if (world.size == 1 or step % cfg.log_every == 0) and world.any(bool(stop)):
                break
            if time.monotonic() - saved > 60 * cfg.save_minutes:
                save()
                saved = time.monotonic()
        save()
    batches.close()
    run.close()
    more = "" if cfg.data else "--preset fusion-seed001 --data FOLDER"
    world.say(runs.closing_words(out, step, cfg.steps, runs.command_line(), Path(__file__), more))
    world.close()
    return out


def training_pipeline(cfg: Config, data: Dataset, world: World, batch_size: int) -> Pipeline:
    """All views of a clip from one decode; an epoch is at least 32 batches, so that small sets do not restart often."""
    names, home = (cfg.transform, cfg.spec_transform), "fastaug.ssl.fusion.published"
    chains = [None if name == "none" else resolve(name, home)() for name in names]
    transforms, spec_transforms = fusion.format_views(cfg.fusion, *chains)
    frontend = None if cfg.fusion == "audio" else LogMel(**logmel_kwargs(cfg))
    return Pipeline(
        data.source, split=data.split("train"), crop="random", views=len(transforms), transform=transforms,
        batch_size=batch_size // world.size, epoch_size=batch_size * max(32, data.records("train") // batch_size),
        shuffle=4096, on_error=cfg.on_error, device=world.device, frontend=frontend, sample_rate=cfg.sample_rate,
        spec_transform=spec_transforms if frontend else None, crop_samples=cfg.crop_samples, seed=cfg.seed,
    )  # fmt: skip


def logmel_kwargs(cfg: Config) -> dict[str, Any]:
    return {"normalise": "clip", **{n: getattr(cfg, n) for n in ("n_fft", "hop_length", "n_mels", "sample_rate")}}


def build_model(cfg: Config, data: Dataset) -> tuple[fusion.MultiFormat, dict[str, Any]]:
    """Fused encoder and projectors, and the card that lets others rebuild the encoder."""
    offered = {name: getattr(cfg, name) for name in ("sample_rate", "crop_samples", "n_mels", "width")}
    offered |= {"audio": cfg.audio_encoder, "spectrogram": cfg.spectrogram_encoder, "logmel": logmel_kwargs(cfg)}
    encoder, description = fusion.fused_encoder(cfg.fusion, **offered)
    model = fusion.MultiFormat(encoder, torch.zeros(2, 1, cfg.crop_samples), cfg.projection_dim)
    card = {
        **description, "fusion": cfg.fusion, "out_dim": sum(model.dims.values()), "sample_rate": cfg.sample_rate,
        "crop_samples": cfg.crop_samples, "logmel": None, **data.card(),
    }  # fmt: skip
    return model, card


def probe(cfg: Config, out: Path) -> Rows:
    device = choose_device(cfg.device)
    return probe_checkpoint(out, probe_data(cfg), cfg.fusion, cfg.head, cfg.probe_seeds, cfg.probe_steps, device)


def probe_data(cfg: Config) -> Dataset:
    return discover(cfg.probe_data or cfg.data or str(demo_corpus()), cfg.label)


def tables(cfg: Config) -> str:
    """Tables 1 and 2 of the source: pre-train and probe what they need, each run in a folder of --out."""
    if "WORLD_SIZE" in os.environ:
        raise ValueError("--tables takes one process; train row by row")
    root, found = Path(cfg.out or f"runs/{Path(cfg.preset).stem}-tables"), {}
    for name in (name for name in RUNS if cfg.mtat or name != "mtat"):
        changes = {"fusion": "separate", **RUNS[name], **({"pretrain_data": cfg.mtat} if name == "mtat" else {})}
        for seed in cfg.table_seeds:
            heads = tuple(seed * len(cfg.probe_seeds) + other for other in cfg.probe_seeds)  # others for each run
            one = dataclasses.replace(cfg, **changes, seed=seed, probe_seeds=heads, out=str(root / f"{name}-{seed}"))
            if read_card(out := main(one))[1]["step"] < cfg.steps:
                raise KeyboardInterrupt  # the same command goes on
            found.setdefault(name, []).append(probe(one, out))
    joined = {name: join_seeds(rows) for name, rows in found.items()}
    if cfg.record:
        record(Path(cfg.record), joined, probe_data(cfg), cfg.head, cfg.preset, choose_device(cfg.device))
    return write_tables(root / "tables.txt", joined)


def run(cfg: Config) -> None:
    if cfg.record and not cfg.tables:
        raise ValueError("--record needs --tables")
    if cfg.tables:
        print("\n" + tables(cfg))
    elif (out := main(cfg)) and cfg.probe_seeds and os.environ.get("RANK", "0") == "0":
        probe(cfg, out)


if __name__ == "__main__":
    runs.guarded(lambda: run(parse(Config, CONFIGS)))
