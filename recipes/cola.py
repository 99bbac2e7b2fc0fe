"""COLA: contrastive learning of general-purpose audio representations (Saeed, Grangier and Zeghidour, 2021).

Two crops of a clip, as log-mel spectrograms, must find each other among all others of the batch. Crops are hardly
augmented; what counts as near is learnt (``--loss bilinear``), an angle (``cosine``) or a margin (``triplet``).

    python recipes/cola.py                                 minutes on a CPU, on a synthetic corpus it makes itself
    python recipes/cola.py --data fma/ --preset cola-fma   EfficientNet-B0 on a folder written by `fastaug shard`
    python recipes/cola.py --data ~/Sounds --preset cola-official
    torchrun --nproc_per_node 4 recipes/cola.py --data ... several GPUs; --batch-size is the total over all
    python recipes/probe.py --checkpoint runs/cola-demo    what has been learnt

The same command again goes on where it stopped (Ctrl-C, --minutes). The output folder is that of recipes/clmr.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

import fastaug.transforms as T
from fastaug import LogMel, Pipeline, frontends
from fastaug.ssl.checkpoint import save_model
from fastaug.ssl.cola import Cola
from fastaug.ssl.config import call_with, parse, resolve
from fastaug.ssl.data import Dataset, demo_corpus, discover, endless, groups, model_input, restore
from fastaug.ssl.encoders import out_dim
from fastaug.ssl.frontend import logmel_settings
from fastaug.ssl.losses import pair_cross_entropy, triplet
from fastaug.ssl.optim import contrastive_optimiser, set_rate
from fastaug.ssl.training import run as runs
from fastaug.ssl.training.accumulate import backward, split
from fastaug.ssl.training.distributed import World, start
from fastaug.ssl.training.monitor import Monitor, knn_monitor
from fastaug.ssl.training.precision import Precision
from fastaug.ssl.training.recompute import recompute

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Config:
    """Every field is a flag (--batch-size 64); a preset is a JSON file of them."""

    preset: str = "cola-demo"  # a file of configs/ (those named cola-), or the path of another JSON file
    # data
    data: str = ""  # audio folder, folder of shards, or shard pattern; empty: the synthetic corpus
    label: str | None = None  # of the kNN monitor; default: the dataset's own or the parent folder; "none"
    sample_rate: int = 16_000  # Hz
    crop_samples: int = 16_000  # 98 frames
    on_error: Literal["raise", "skip", "replace"] = "replace"  # a file that cannot be read
    frontend: str = "official_logmel"  # a name of this file, or module:callable giving a LogMel
    augment: str = "official_views"  # what each view goes through: a name of this file, or module:callable; "none"
    # model
    encoder: str = "EfficientNetB0"  # a name of fastaug.ssl.encoders, or module:callable giving an nn.Module -> (B, D)
    pool: Literal["max", "mean"] = "max"  # of EfficientNetB0, over bins and frames
    projection_dim: int = 512
    dropout: float = 0.0  # of the representation, before the projection
    loss: Literal["bilinear", "cosine", "triplet"] = "bilinear"
    temperature: float = 0.2  # of --loss cosine
    margin: float = 0.5  # of --loss triplet, in squared distance of unit vectors
    # optimisation
    batch_size: int = 64  # examples a step, over all processes
    lr: float = 1e-3  # of Adam
    lr_decay: float = 1.0  # multiplies the rate ...
    lr_decay_steps: int = 1000  # ... each time that so many steps are done
    mask_group: str = ""  # field of the data (artist, track): examples that share its value are no negatives
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"  # auto: what is fastest on the device
    accumulate: int = 1  # parts of a batch that the model sees one after another; the loss stays that of the whole
    recompute: bool = False  # activations again in the backward pass: less memory, about a third more time
    compile: bool = False  # torch.compile
    steps: int = 10_000
    minutes: float | None = None  # stop cleanly after this long
    seed: int = 0
    # bookkeeping
    out: str = ""  # default: runs/<preset>
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    log_every: int = 10  # steps
    save_minutes: float = 5.0
    knn_crops: int = 128  # cached crops on either side of the kNN monitor; 0: none
    tensorboard: bool = True
    resume: bool = False  # insist on a run to resume (default: resume if there is one)
    fresh: bool = False  # start over, whatever is in --out


def official_logmel() -> LogMel:
    """64 bands, 25 ms windows every 10 ms at 16 kHz. Each spectrogram to mean 0 and deviation 1, which stands for the
    published scaling of the samples to unit energy: both take the loudness away."""
    return frontends.presets.cola(normalise="clip")


def fma_logmel() -> LogMel:
    """librosa's defaults at 16 kHz with 64 bands, in decibels, (dB + 40) / 40: the experiments on FMA."""
    return frontends.presets.librosa(sample_rate=16_000, n_mels=64, top_db=None, normalise=(-40.0, 40.0))


def demo_logmel() -> LogMel:
    """32 bands, 32 ms windows every 16 ms at 8 kHz."""
    return LogMel(256, 128, 32, sample_rate=8_000, normalise="clip")


def official_views() -> dict[str, Any]:
    """The second crop gets noise of deviation 0.001 beside samples of unit energy: over 16,000 of them, 18 dB."""
    return {"transform": [None, T.Noise(snr_db=18.0)]}


def fma_views() -> dict[str, Any]:
    """Masks in time; how long is ours: up to 10 % of a crop. (Published: one mask of the whole clip before it is
    cropped, and a factor of 0.9 to 1.1 on the decibels, which is left out.)"""
    return {"spec_transform": T.TimeMask(width=0.1)}


def main(
    cfg: Config, on_log: Callable[[dict[str, Any]], None] | None = None, resume_with: str = "",
    stop: runs.Stop | None = None,
) -> Path:  # fmt: skip
    """Pre-train; returns the output folder. ``on_log`` gets what metrics.jsonl gets, ``resume_with`` is the command
    that resumes (default: the one typed), ``stop`` says when to leave early (default: Ctrl-C, or --minutes are up)."""
    world = start(cfg.device)
    runs.keep_freed_memory()
    torch.manual_seed(cfg.seed)
    out = Path(cfg.out or f"runs/{Path(cfg.preset).stem}")
    data = discover(cfg.data or str(world.once(demo_corpus)), cfg.label)
    precision = Precision(cfg.precision, world.device)

    batch_size = min(cfg.batch_size, data.records("train")) // world.size * world.size
    pipe = training_pipeline(cfg, data, world, batch_size)
    model, card = build_model(cfg, data)
    model.to(world.device)
    if cfg.recompute:
        recompute(model.encoder)
    optimiser = contrastive_optimiser(model, "adam", batch_size, cfg.lr, 0.0)
    run = runs.Run(out, cfg, runs.free_fields(cosine=False), writes=world.first, tensorboard=cfg.tensorboard)
    step = 0
    if state := run.resume(cfg.resume, cfg.fresh):
        step = state["step"]
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        precision.load_state_dict(state["precision"])
        restore(pipe, state["pipeline"])
    world.say(f"{data.name}: {data.records('train')} examples, label {data.label or 'none'}, {batch_size} a step "
              f"on {world.device}; " + (f"resuming {out} at step {step}" if state else f"starting {out}"))  # fmt: skip

    def save() -> None:
        run.save(step=step, model=model, optimiser=optimiser, precision=precision, pipeline=pipe)
        if world.first:
            save_model(out, model, {**card, "step": step, "config_hash": run.hash, "config": run.config})

    parallel = world.wrap(model, cfg.compile)
    knn = None
    if world.first and cfg.knn_crops and data.label:
        knn = knn_monitor(data, cfg.knn_crops, world.device, precision.dtype, **inputs(cfg))
    monitor = Monitor(model.encoder, knn)  # all that is looked at while training takes at most 2 % of the time
    bar = tqdm(total=cfg.steps, initial=step, unit="step", disable=not world.first, dynamic_ncols=True)
    batches, saved, shown = endless(pipe), time.monotonic(), {}
    with bar, runs.Stop(cfg.minutes) if stop is None else stop as stop:
        while step < cfg.steps:
            with monitor.watch("loading"):  # waiting for decoded crops, augmenting them, making spectrograms
                batch = next(batches)
                crops, group = model_input(batch), groups(batch, cfg.mask_group)  # (2, B, 1, F, N), (B,)
            with monitor.watch("compute"):
                # Dropout's masks, the same after resuming.
                torch.manual_seed((cfg.seed << 32) + step * world.size + world.rank)
                optimiser.zero_grad(set_to_none=True)
                loss, z = backward(
                    parallel, parallel, split(crops, cfg.accumulate),
                    lambda z, group=group: contrast(cfg, z, group)[0], precision,
                )  # fmt: skip
                set_rate(optimiser, cfg.lr_decay ** (step // cfg.lr_decay_steps))
                precision.step(optimiser)
            step += 1
            bar.update()
            if world.first and (step % cfg.log_every == 0 or step == cfg.steps):
                values = monitor.look(step, batch_size, loss, *z[1:]) | {
                    "found": contrast(cfg, z, group, False)[1].item()
                }
                run.log(step, **values)
                runs.report(bar, shown, values)
                if on_log:
                    on_log({"step": step, **values})
            if (world.size == 1 or step % cfg.log_every == 0) and world.any(bool(stop)):
                break
            if time.monotonic() - saved > 60 * cfg.save_minutes:
                save()
                saved = time.monotonic()
        save()
    batches.close()
    run.close()
    own_music = "" if cfg.data else "--preset cola-official --data FOLDER"
    world.say(runs.closing_words(out, step, cfg.steps, resume_with or runs.command_line(), Path(__file__), own_music))
    world.close()
    return out


def contrast(cfg: Config, z: Tensor, group: Tensor | None, across: bool | None = None) -> tuple[Tensor, Tensor]:
    """The loss for what Cola gives, and the share of first crops that find their second crop. ``across=False``:
    among those of this process, without meeting the others."""
    if cfg.loss == "triplet":
        return triplet(z[0], z[2], cfg.margin, across, group)
    return pair_cross_entropy(z[0], z[2], cfg.temperature if cfg.loss == "cosine" else None, across, group)


def training_pipeline(cfg: Config, data: Dataset, world: World, batch_size: int) -> Pipeline:
    """Two random crops of a clip; an epoch is at least 32 batches, so that small sets do not restart often."""
    batches = max(32, data.records("train") // batch_size)
    views = {} if cfg.augment == "none" else resolve(cfg.augment, __name__)()
    return Pipeline(
        data.source, split=data.split("train"), crop="random", views=2, batch_size=batch_size // world.size,
        epoch_size=batch_size * batches, shuffle=4096, on_error=cfg.on_error, device=world.device, **views,
        **inputs(cfg),
    )  # fmt: skip


def inputs(cfg: Config) -> dict[str, Any]:
    """What an input is, augmented or not: settings that all pipelines of a run share."""
    frontend = resolve(cfg.frontend, __name__)()
    return {
        "sample_rate": cfg.sample_rate, "crop_samples": cfg.crop_samples, "frontend": frontend, "seed": cfg.seed,
    }  # fmt: skip


def build_model(cfg: Config, data: Dataset) -> tuple[Cola, dict[str, Any]]:
    """Encoder, head and similarity, and the card that lets others rebuild the encoder."""
    logmel = inputs(cfg)["frontend"]
    encoder, kwargs = call_with(
        resolve(cfg.encoder, "fastaug.ssl.encoders"),
        sample_rate=cfg.sample_rate, crop_samples=cfg.crop_samples, pool=cfg.pool, n_mels=logmel.n_mels,
    )  # fmt: skip
    encoder.to(memory_format=torch.channels_last)  # convolutions are faster so, on CPUs and on GPUs
    dim = out_dim(encoder, logmel(torch.zeros(2, 1, cfg.crop_samples), cfg.sample_rate))
    card = {
        "encoder": cfg.encoder, "encoder_kwargs": kwargs, "out_dim": dim, "sample_rate": cfg.sample_rate,
        "crop_samples": cfg.crop_samples, "logmel": logmel_settings(logmel), **data.card(),
    }  # fmt: skip
    return Cola(encoder, dim, cfg.projection_dim, cfg.dropout, cfg.loss == "bilinear"), card


if __name__ == "__main__":
    runs.guarded(lambda: main(parse(Config, CONFIGS)))
