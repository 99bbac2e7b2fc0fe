"""The demo's steps in order: choose, make music, a page to listen to, speed, pre-training, a table, what to type next.

Every step leaves its files and finds them again, so that the same command goes on after Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastaug.codecs.quiet import quiet_decoders
from fastaug.demo.terminal import box, columns, command, say

__all__ = ["run"]

_NEEDED = {"safetensors": "safetensors", "sklearn": "scikit-learn", "tyro": "tyro"}  # by pre-training and the table


@dataclass(frozen=True)
class Demo:
    """What was asked for. ``data`` None: a synthetic corpus of ``tracks`` tracks of ``seconds``."""

    data: str | None
    out: Path
    minutes: float
    tracks: int
    seconds: float
    seed: int
    device: torch.device

    @property
    def corpus(self) -> Path:
        """The synthetic corpus; its name holds all it depends on."""
        return self.out / f"corpus-{self.tracks}x{self.seconds:g}s-{self.seed}"

    @property
    def source(self) -> str:
        return self.data or str(self.corpus)

    @property
    def page(self) -> Path:
        return self.out / "listen.html"

    @property
    def training(self) -> Path:
        """The training run, one for every data set."""
        return self.out / f"clmr-{Path(self.source).resolve().stem}-{self.seed}"


def run(
    data: str | None = None,
    out: str | os.PathLike[str] = "demo",
    minutes: float = 2.0,
    tracks: int = 96,
    seconds: float = 30.0,
    seed: int = 0,
    device: str | None = None,
    resume_with: str | None = None,
) -> int:
    """Run the demo.

    Args:
        data: audio folder, folder of shards or pattern; None synthesises a corpus.
        out: folder for everything that is written.
        minutes: pre-training time at most; 0 leaves it out.
        tracks, seconds: of the synthetic corpus.
        seed: of the music, the page and the training.
        device: "cpu", "cuda", "cuda:1"; None is CUDA if usable.
        resume_with: the command to show after Ctrl-C; by default one with these arguments.

    Returns:
        Exit code: 0 done, 1 a step was left out (says which and why), 130 interrupted.

    Raises:
        ValueError, OSError: arguments that make no sense, data that cannot be read.
    """
    if minutes < 0:
        raise ValueError(f"minutes must not be negative, got {minutes}")
    chosen, why = _device(device)
    demo = Demo(data, Path(out), minutes, tracks, seconds, seed, chosen)
    again = resume_with or _again(demo, device)
    _say_plan(demo, why)
    try:
        with quiet_decoders():
            return _steps(demo, again)
    except KeyboardInterrupt:
        _say_interrupted(demo, again)
        return 130


def _steps(demo: Demo, again: str) -> int:
    from fastaug.demo.page import write_page
    from fastaug.demo.speed import speed_line

    demo.out.mkdir(parents=True, exist_ok=True)
    if demo.data is None:
        _corpus(demo)
    say("page", "eight tracks, two views of each")
    page = write_page(demo.source, demo.page, seed=demo.seed, device=demo.device)
    box("open this in a browser and listen:", str(page.resolve()))
    say("speed", speed_line(demo.source, demo.device))
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        say("train", f"left out, without {', '.join(missing)}: pip install {' '.join(missing)}, then {again}")
    elif demo.minutes > 0:
        began = time.monotonic()
        _train(demo, again)
        _table(demo, time.monotonic() - began)
    _say_next(demo)
    return 1 if missing else 0


def _corpus(demo: Demo) -> None:
    from fastaug.datasets.synthetic import synth

    description = demo.corpus / "dataset.json"  # written last: a folder that has one is complete
    if description.is_file():
        info = json.loads(description.read_text("utf-8"))
        if (info["seed"], sum(split["records"] for split in info["splits"].values())) == (demo.seed, demo.tracks):
            say("music", f"{demo.corpus} is there already")
            return
    say("music", f"synthesising {demo.tracks} tracks of {demo.seconds:g} s in ten genres into {demo.corpus}")
    began = time.monotonic()
    made = synth(demo.corpus, demo.tracks, demo.seconds, "mixed", demo.seed, overwrite=True)
    hours = demo.tracks * demo.seconds / 3600
    say("", f"{hours:.2g} hours of mp3, Vorbis, FLAC and WAV, {made.bytes / 2**20:.0f} MiB, in {_time(began)}")


def _train(demo: Demo, again: str) -> None:
    """recipes/clmr.py with preset ``demo``; its progress bar is the live line."""
    from fastaug.ssl.config import load_preset
    from fastaug.ssl.training.run import Stop

    clmr = _recipe("clmr")
    preset = load_preset(clmr.Config, "demo", clmr.CONFIGS)
    config = dataclasses.replace(
        preset, data=demo.source, out=str(demo.training), minutes=demo.minutes, seed=demo.seed, device=str(demo.device),
        log_every=5,
    )  # fmt: skip
    say("train", f"CLMR, preset demo ({preset.sample_rate / 1000:g} kHz, narrow), at most {demo.minutes:g} minutes")
    stop = Stop(demo.minutes)
    clmr.main(config, resume_with=again, stop=stop)
    if stop.interrupted:
        raise KeyboardInterrupt


def _table(demo: Demo, seconds: float) -> None:
    """Representations side by side on held-out tracks, where the data has labels."""
    from fastaug.ssl.data import discover
    from fastaug.ssl.probe.table import probe_table

    data = discover(demo.source)
    if data.label is None:
        say("table", "left out: nothing tells the tracks apart (one sub-folder a class would)")
        return
    say("table", "what a linear classifier gets out of each representation, on tracks it has not heard")
    print(f"\n{probe_table(data, [demo.training], device=demo.device)}\n")
    where = f"{torch.get_num_threads()} CPU cores" if demo.device.type == "cpu" else "one GPU"
    print(
        f"This is {max(seconds / 60, 0.1):.1f} minutes on {where}, one run, a narrow encoder, few tracks: it shows\n"
        "that the line works. What the method can do takes hours, more music and the full encoder (preset clmr-v2).",
        flush=True,
    )


def _recipe(name: str) -> Any:
    """A recipe as a module. Recipes are files to read and copy, not a package."""
    from fastaug._paths import recipes_dir

    spec = importlib.util.spec_from_file_location(f"fastaug_recipe_{name}", recipes_dir() / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _device(asked: str | None) -> tuple[torch.device, str]:
    """The device to use, and why."""
    if asked is not None:
        return torch.device(asked), "as asked"
    if not torch.cuda.is_available():
        return torch.device("cpu"), "no usable CUDA device"
    from fastaug.ops._cuda import install_line

    if importlib.util.find_spec("cupy") is None:
        return torch.device("cpu"), f"there is a GPU, but no CuPy to compile for it: {install_line()}"
    return torch.device("cuda"), torch.cuda.get_device_name()


def _say_plan(demo: Demo, why: str) -> None:
    from fastaug import __version__

    say("fastaug", f"{__version__} with torch {torch.__version__}")
    say("device", f"{demo.device}, {torch.get_num_threads()} CPU threads ({why})")
    if demo.data is None:
        synthetic = f"{demo.tracks} synthetic tracks of {demo.seconds:g} s, seed {demo.seed}"
        say("data", f"{synthetic} (--data FOLDER takes yours)")
    else:
        say("data", f"{demo.data}")
    free = shutil.disk_usage(next(p for p in (demo.out.resolve(), *demo.out.resolve().parents) if p.exists())).free
    say("folder", f"{demo.out.resolve()} ({free / 2**30:.0f} GiB free; Ctrl-C keeps what is there)")


def _say_interrupted(demo: Demo, again: str) -> None:
    made = [demo.corpus if demo.data is None else None, demo.page, demo.training]
    there = [str(path) for path in made if path is not None and path.exists()]
    print(f"\n\nstopped. Made so far: {', '.join(there) or 'nothing yet'}")
    print(f"To go on:  {again}", flush=True)


def _say_next(demo: Demo) -> None:
    print(f"\nHear it again:  {demo.page.resolve().as_uri()}\n")
    print("Your own music:" if demo.data is None else "More of your music:")
    music = "~/Music" if demo.data is None else shlex.quote(demo.data)
    rows = [
        (f"shard {music} music", "pack it: sub-folders are labels, bytes stay as they are"),
        ("recipe run clmr --preset clmr-v2 --data music", "pre-train for real"),
        ("recipe run probe --checkpoint runs/clmr-clmr-v2 --data music", "what has it learnt?"),
    ]
    if demo.data is None:
        rows.insert(0, ("demo --data ~/Music --out demo-mine", "all of this, on a folder of audio files"))
    columns([(f"{command()} {line}", what) for line, what in rows])


def _again(demo: Demo, device: str | None) -> str:
    """The command that repeats these arguments."""
    words = [command(), "demo"]
    defaults = {"data": None, "out": "demo", "minutes": 2.0, "tracks": 96, "seconds": 30.0, "seed": 0, "device": None}
    given = {**dataclasses.asdict(demo), "out": str(demo.out), "device": device}
    for name, default in defaults.items():
        if given[name] != default:
            value = given[name]
            words += [f"--{name}", shlex.quote(f"{value:g}" if isinstance(value, float) else str(value))]
    return " ".join(words)


def _time(began: float) -> str:
    return f"{time.monotonic() - began:.0f} s"
