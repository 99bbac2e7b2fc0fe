"""The ``fastaug`` command. Each subcommand is a thin line to a function that does the work."""

from __future__ import annotations

import argparse
import runpy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from fastaug import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (0 done, 1 failed with a message, 2 wrong usage, 130 Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:2] in (["recipe", "ls"], ["recipe", "cp"], ["recipe", "run"]):  # the rest belongs to the recipe
        return _guarded(lambda: _recipe(arguments[1], arguments[2:]))
    options = _parser().parse_args(arguments)
    return _guarded(lambda: int(options.run(options) or 0))


def _guarded(run: object) -> int:
    """Expected failures as one line on stderr; anything else is a bug and keeps its traceback."""
    assert callable(run)
    try:
        return int(run())
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"fastaug: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastaug", description="Audio augmentation and loading for self-supervision.")
    parser.add_argument("--version", action="version", version=f"fastaug {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_data(commands)
    _add_weights(commands)
    recipe = commands.add_parser("recipe", help="list, copy or run the recipes that came with this version")
    recipe.add_argument("action", choices=("ls", "cp", "run"), help="`fastaug recipe run clmr --help` shows its flags")
    doctor = commands.add_parser("doctor", help="what is available here, and what to install for the rest")
    doctor.add_argument("--warm", action="store_true", help="compile all CUDA kernels into the cache")
    doctor.set_defaults(run=_doctor)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="synthesise or read music, hear its augmentations, pre-train and probe")
    demo.add_argument("--data", help="your own music: an audio folder or a folder of shards (default: synthetic)")
    demo.add_argument("--out", default="demo", help="folder for everything the demo writes (default: demo)")
    demo.add_argument("--minutes", type=float, default=2.0, help="pre-training time (default: 2)")
    demo.add_argument("--tracks", type=int, default=96, help="synthetic tracks (default: 96)")
    demo.add_argument("--seconds", type=float, default=30.0, help="length of each (default: 30)")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--device", help="cpu, cuda or cuda:N (default: CUDA if usable)")
    demo.set_defaults(run=_demo)
    listen = commands.add_parser("listen", help="one HTML page: clips, their augmented views, pictures, parameters")
    listen.add_argument("data", help="audio file, audio folder, folder of shards or shard pattern")
    listen.add_argument("--out", default="listen.html", help="the page to write (default: listen.html)")
    listen.add_argument("--clips", type=int, default=8)
    listen.add_argument("--seed", type=int, default=0)
    listen.set_defaults(run=_listen)


def _add_data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    synth = commands.add_parser("synth", help="write a procedural music corpus as shards")
    synth.add_argument("out", help="new or empty folder")
    synth.add_argument("--tracks", type=int, default=96)
    synth.add_argument("--seconds", type=float, default=30.0, help="length of each track")
    synth.add_argument("--codec", choices=("mp3", "flac", "ogg", "wav", "mixed"), default="mixed")
    synth.add_argument("--sample-rate", type=int, help="Hz (default: 22050; mixed varies)")
    synth.add_argument("--seed", type=int, default=0)
    synth.add_argument("--overwrite", action="store_true", help="replace a dataset already in OUT")
    synth.set_defaults(run=_synth)
    shard = commands.add_parser("shard", help="pack an audio folder, a manifest, GTZAN, MTAT or FMA into shards")
    shard.add_argument("source", help="audio folder (label = parent folder), manifest, or folder of GTZAN, MTAT or FMA")
    shard.add_argument("out", help="new or empty folder")
    shard.add_argument("--dataset", choices=("folder", "manifest", "gtzan", "mtat", "fma"), help="default: recognised")
    shard.add_argument("--protocol", choices=("full", "clean", "artist-disjoint"), help="of MTAT (default: full)")
    shard.add_argument("--unit", choices=("clip", "track"), help="of MTAT; track: its clips joined (default: clip)")
    shard.add_argument("--subset", choices=("small", "medium", "large", "full"), help="of FMA (default: the only one)")
    shard.add_argument("--manifest", help="CSV, TSV or JSONL (path,label,split,group) whose paths start from SOURCE")
    shard.add_argument("--name", help="dataset name (default: the source's)")
    shard.add_argument("--licence", help="licence of the recordings")
    shard.add_argument("--seed", type=int, default=0, help="of the order, and of the split where none is given")
    shard.add_argument("--shard-records", type=int, default=1000, help="most records a shard")
    shard.add_argument("--no-split", action="store_true", help="put everything into train")
    shard.add_argument("--overwrite", action="store_true", help="replace a dataset already in OUT")
    shard.set_defaults(run=_shard)
    inspect = commands.add_parser("inspect", help="what a dataset or shard holds, and what is wrong with it")
    inspect.add_argument("source", help="folder, tar file, pattern or audio folder")
    inspect.add_argument("--split", help="train, valid or test")
    inspect.add_argument("--decode", action="store_true", help="also decode every record to its end")
    inspect.set_defaults(run=_inspect)


def _add_weights(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    embed = commands.add_parser("embed", help="a table of embeddings: key, start, h and label of every segment")
    embed.add_argument("checkpoint", help="folder of a run, model.safetensors, or URL#sha256=…")
    embed.add_argument("source", help="audio folder, folder of shards, or shard pattern")
    embed.add_argument("out", help="file to write: .parquet (needs pyarrow) or .npz")
    embed.add_argument("--hop-seconds", type=float, help="from segment to segment (default: no overlap)")
    embed.add_argument("--whole", action="store_true", help="one embedding a clip, from its whole length")
    embed.add_argument("--split", choices=("train", "valid", "test"), help="default: all")
    embed.add_argument("--label", help='field to carry along (default: the data\'s own; "none": no label)')
    embed.add_argument("--batch-size", type=int, default=32)
    embed.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: CUDA if usable)")
    embed.set_defaults(run=_embed)
    convert = commands.add_parser("convert", help="published CLMR weights (.pt, .ckpt) to a checkpoint of this library")
    convert.add_argument("source", help="file written by torch.save or safetensors; no code in it is run")
    convert.add_argument("out", help="folder for model.safetensors and model.json")
    convert.add_argument("--sample-rate", type=int, help="Hz, where the strides do not tell")
    convert.set_defaults(run=_convert)


def _demo(options: argparse.Namespace) -> int:
    from fastaug.demo import run

    return run(
        data=options.data, out=options.out, minutes=options.minutes, tracks=options.tracks, seconds=options.seconds,
        seed=options.seed, device=options.device,
    )  # fmt: skip


def _listen(options: argparse.Namespace) -> int:
    from fastaug.demo.page import write_page

    print(write_page(options.data, options.out, clips=options.clips, seed=options.seed))
    return 0


def _synth(options: argparse.Namespace) -> int:
    from fastaug.datasets.synthetic import synth

    print(
        synth(
            options.out, options.tracks, options.seconds, options.codec, options.seed, options.sample_rate,
            overwrite=options.overwrite,
        )
    )  # fmt: skip
    return 0


def _shard(options: argparse.Namespace) -> int:
    from fastaug.datasets.shard import shard

    print(
        shard(
            options.source, options.out, dataset=options.dataset, manifest=options.manifest, name=options.name,
            protocol=options.protocol, subset=options.subset, unit=options.unit, licence=options.licence,
            seed=options.seed, shard_records=options.shard_records,
            fractions=(1, 0, 0) if options.no_split else (0.8, 0.1, 0.1), overwrite=options.overwrite,
        )
    )  # fmt: skip
    return 0


def _inspect(options: argparse.Namespace) -> int:
    """One line a finding; exit code 1 where a record cannot be read."""
    from fastaug.codecs import DecodeError, open_audio
    from fastaug.shards import open_source

    source = open_source(options.source, options.split)
    print(f"{len(source)} records in {len(source.sizes)} parts")
    for name, info in source.label_info.items():
        print(f"label {name}: {len(info['classes'])} classes, {', '.join(map(str, info['classes'][:12]))}")
    problems = [str(bad) for bad in source.bad]
    seconds = 0.0
    for i in range(len(source)):
        try:
            record = source.read(i)
            with open_audio(record.audio, record.place) as audio:
                seconds += audio.info.duration_seconds
                if options.decode:
                    audio.read(0, audio.info.frames)
                if i < 3:
                    print(f"{record.key}: {audio.info.format}, {audio.info.duration_seconds:.2f} s, "
                          f"{audio.info.sample_rate} Hz, {audio.info.channels} ch, {record.fields}")  # fmt: skip
        except (DecodeError, ValueError, OSError) as error:
            problems.append(str(error))
    print(f"{seconds / 3600:.3f} hours of audio, {len(problems)} problems")
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0


def _embed(options: argparse.Namespace) -> int:
    from fastaug.codecs.quiet import quiet_decoders
    from fastaug.ssl.embed import embed
    from fastaug.ssl.training.distributed import start

    with quiet_decoders():
        print(
            embed(
                options.checkpoint, options.source, options.out, hop_seconds=options.hop_seconds, whole=options.whole,
                split=options.split, label=options.label, batch_size=options.batch_size,
                device=start(options.device).device,
            )
        )  # fmt: skip
    return 0


def _convert(options: argparse.Namespace) -> int:
    from fastaug.ssl.convert import convert_clmr

    print(convert_clmr(options.source, options.out, options.sample_rate))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from fastaug.doctor import main as doctor

    return doctor(warm=options.warm)


def _recipe(action: str, rest: list[str]) -> int:
    """``ls``; ``cp NAME [FOLDER]`` copies a recipe with its configs; ``run NAME FLAGS…`` runs it."""
    from fastaug._paths import recipes_dir

    folder = Path(recipes_dir())
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    if action == "ls":
        for name in names:
            first = (folder / f"{name}.py").read_text("utf-8").split('"""')[1].strip().splitlines()[0]
            print(f"{name:12} {first}")
        return 0
    if not rest or rest[0] not in names:
        raise ValueError(f"recipe {action} takes one of {', '.join(names)}" + (f", got {rest[0]!r}" if rest else ""))
    path = folder / f"{rest[0]}.py"
    if action == "cp":
        target = Path(rest[1] if len(rest) > 1 else ".")
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        shutil.copytree(folder / "configs", target / "configs", dirs_exist_ok=True)
        print(f"copied {path.name} and configs/ to {target}")
        return 0
    sys.argv = [str(path), *rest[1:]]
    runpy.run_path(str(path), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
