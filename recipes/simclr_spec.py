"""SimCLR on spectrograms: a ResNet-18 or EfficientNet-B0 learns from two augmented views of log-mel pictures.

Views are augmented as waveforms (pitch and speed: the internship report), as spectrograms (masks and noise: the
spectrogram branch of "Multi-format Contrastive Learning for Music Genre Classification"), both, or only cropped.

    python recipes/simclr_spec.py                     minutes on a CPU, on a synthetic corpus it makes itself
    python recipes/simclr_spec.py --data gtzan/ --preset simclr-seed001
    python recipes/simclr_spec.py --data gtzan/ --preset simclr-internship --encoder-weights imagenet.safetensors
    torchrun --nproc_per_node 4 recipes/simclr_spec.py --data ...     several GPUs; --batch-size is the total
    python recipes/probe.py --checkpoint runs/simclr-demo             what has been learnt

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
from fastaug import LogMel, Pipeline
from fastaug.ssl.checkpoint import save_model
from fastaug.ssl.config import call_with, parse, resolve
from fastaug.ssl.data import Dataset, demo_corpus, discover, endless, groups, model_input, restore
from fastaug.ssl.encoders import Contrastive, Projector, out_dim
from fastaug.ssl.losses import nt_xent
from fastaug.ssl.optim import contrastive_optimiser, set_rate, warmup_cosine
from fastaug.ssl.spectrogram_encoders import load_weights
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

    preset: str = "simclr-demo"  # a file of configs/ (those named simclr-), or the path of another JSON file
    # data
    data: str = ""  # audio folder, folder of shards, or shard pattern; empty: the synthetic corpus
    label: str | None = None  # of the kNN monitor; default: the dataset's own or the parent folder; "none"
    sample_rate: int = 22_050  # Hz
    crop_samples: int = 110_250
    on_error: Literal["raise", "skip", "replace"] = "replace"  # a file that cannot be read
    # spectrogram
    n_fft: int = 1024  # samples, also of the window
    hop_length: int = 512  # samples
    n_mels: int = 128
    normalise: Literal["clip", "none"] = "clip"  # clip: each spectrogram to mean 0 and standard deviation 1
    # augmentation
    augment: Literal["waveform", "spectrogram", "both", "none"] = "both"  # none: the views differ by their crops
    transform: str = "branch_waveform"  # of waveforms: a name of this file, or module:callable, as in fastaug:clmr
    spec_transform: str = "branch_spectrogram"  # of spectrograms: likewise
    # model
    encoder: str = "ResNet18"  # or ResNet50, EfficientNetB0, or module:callable giving an nn.Module -> (B, D)
    encoder_weights: str = ""  # .safetensors or .pt in timm's or torchvision's names (ImageNet's); empty: random
    projector: Literal["identity", "linear", "mlp"] = "mlp"
    projection_dim: int = 128
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
    # bookkeeping
    out: str = ""  # default: runs/<preset>
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    log_every: int = 10  # steps
    save_minutes: float = 5.0
    knn_crops: int = 128  # cached crops on either side of the kNN monitor; 0: none
    tensorboard: bool = True
    resume: bool = False  # insist on a run to resume (default: resume if there is one)
    fresh: bool = False  # start over, whatever is in --out


def internship_waveform() -> T.Compose:
    """Random pitch, random speed. How far and how often is not stated: a fifth, a tenth and half the time are ours."""
    return T.Compose([T.PitchShift(semitones=(-7.0, 7.0), p=0.5), T.Speed(percent=range(90, 111), p=0.5)])


def branch_waveform() -> T.Compose:
    """White noise, gain, filter and pitch; the ranges of gain and pitch are stated, the rest is ours or CLMR's."""
    return T.Compose([
        T.Noise(snr_db=(10.0, 40.0), p=0.5),
        T.Gain(gain_db=(-6.0, 0.0), p=0.5),
        T.HighLowPass(low_pass_hz=(2200.0, 4000.0), high_pass_hz=(200.0, 1200.0), p=0.8),
        T.PitchShift(semitones=(-5.0, 5.0), p=0.6),
    ])  # fmt: skip


def branch_spectrogram() -> T.Compose:
    """A frequency mask of up to 5 %, a time mask of up to 10 %, noise mixed in; how much noise is ours."""
    return T.Compose([T.FrequencyMask(width=0.05), T.TimeMask(width=0.1), T.SpecNoise(std_ratio=(0.0, 0.2))])


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
    optimiser = contrastive_optimiser(model, cfg.optimiser, batch_size, cfg.lr, cfg.weight_decay)
    run = runs.Run(out, cfg, runs.free_fields(cfg.cosine), writes=world.first, tensorboard=cfg.tensorboard)
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

    def project(x: Tensor) -> Tensor:
        """(2, b, ...) -> (2, b, D)"""
        return parallel(x.flatten(0, 1))[1].unflatten(0, (2, -1))

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
                x, group = model_input(batch), groups(batch, cfg.mask_group)  # (2, B, ...), (B,)
            with monitor.watch("compute"):
                optimiser.zero_grad(set_to_none=True)
                loss, z = backward(
                    parallel, project, split(x, cfg.accumulate),
                    lambda z, group=group: nt_xent(z[0], z[1], cfg.temperature, groups=group), precision,
                )  # fmt: skip
                set_rate(optimiser, warmup_cosine(step, cfg.steps, cfg.warmup_steps, floor=0.0 if cfg.cosine else 1.0))
                precision.step(optimiser)
            step += 1
            bar.update()
            if world.first and (step % cfg.log_every == 0 or step == cfg.steps):
                values = monitor.look(step, batch_size, loss, *z)
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
    own_music = "" if cfg.data else "--preset simclr-seed001 --data FOLDER"
    world.say(runs.closing_words(out, step, cfg.steps, resume_with or runs.command_line(), Path(__file__), own_music))
    world.close()
    return out


def training_pipeline(cfg: Config, data: Dataset, world: World, batch_size: int) -> Pipeline:
    """Two augmented views of random crops; an epoch is at least 32 batches, so that small sets do not restart often."""
    batches = max(32, data.records("train") // batch_size)
    waveform, spectrogram = cfg.augment in ("waveform", "both"), cfg.augment in ("spectrogram", "both")
    return Pipeline(
        data.source, split=data.split("train"), crop="random", views=2, batch_size=batch_size // world.size,
        epoch_size=batch_size * batches, shuffle=4096, on_error=cfg.on_error, device=world.device,
        transform=resolve(cfg.transform, __name__)() if waveform else None,
        spec_transform=resolve(cfg.spec_transform, __name__)() if spectrogram else None, **inputs(cfg),
    )  # fmt: skip


def inputs(cfg: Config) -> dict[str, Any]:
    """What an input is, augmented or not: settings that all pipelines of a run share."""
    frontend = LogMel(**logmel_kwargs(cfg))
    return {
        "sample_rate": cfg.sample_rate, "crop_samples": cfg.crop_samples, "frontend": frontend, "seed": cfg.seed,
    }  # fmt: skip


def logmel_kwargs(cfg: Config) -> dict[str, Any]:
    normalise = None if cfg.normalise == "none" else cfg.normalise
    return {
        "n_fft": cfg.n_fft, "hop_length": cfg.hop_length, "n_mels": cfg.n_mels, "sample_rate": cfg.sample_rate,
        "normalise": normalise,
    }  # fmt: skip


def build_model(cfg: Config, data: Dataset) -> tuple[Contrastive, dict[str, Any]]:
    """Encoder and projector, and the card that lets others rebuild the encoder."""
    encoder, kwargs = call_with(
        resolve(cfg.encoder, "fastaug.ssl.encoders"),
        sample_rate=cfg.sample_rate, crop_samples=cfg.crop_samples, n_mels=cfg.n_mels,
    )  # fmt: skip
    if cfg.encoder_weights:
        load_weights(encoder, cfg.encoder_weights)
    encoder.to(memory_format=torch.channels_last)  # convolutions are faster so, on CPUs and on GPUs
    dim = out_dim(encoder, LogMel(**logmel_kwargs(cfg))(torch.zeros(2, 1, cfg.crop_samples)))
    card = {
        "encoder": cfg.encoder, "encoder_kwargs": kwargs, "out_dim": dim, "sample_rate": cfg.sample_rate,
        "crop_samples": cfg.crop_samples, "logmel": logmel_kwargs(cfg), **data.card(),
    }  # fmt: skip
    return Contrastive(encoder, Projector(dim, cfg.projection_dim, cfg.projector)), card


if __name__ == "__main__":
    runs.guarded(lambda: main(parse(Config, CONFIGS)))
