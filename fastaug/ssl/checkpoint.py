"""Checkpoints: ``model.safetensors``, weights with a JSON card that rebuild the encoder, and ``last.pt``, the exact
state of a run.

The card is stored in the safetensors header (key "card"), so that one file is enough; ``model.json`` is a copy to read.
``last.pt`` holds tensors, numbers and strings only and is read with ``weights_only=True``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastaug.ssl.config import call_with, hash_of, resolve

FORMAT = "fastaug-encoder-1"
MODEL, CARD, STATE = "model.safetensors", "model.json", "last.pt"


def save_model(folder: Path, model: nn.Module, card: dict[str, Any]) -> Path:
    """Write ``folder``/model.safetensors and its readable copy of the card; returns the former's path.

    Args:
        model: its state dict is stored as it is; the encoder's weights must be under "encoder.".
        card: JSON-able. ``load_encoder`` needs "encoder" (a name or module:callable) and "encoder_kwargs".
    """
    from safetensors.torch import save_file

    card = {"format": FORMAT, **card}
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_whole(folder / MODEL, lambda partial: save_file(weights, partial, metadata={"card": json.dumps(card)}))
    write_json(folder / CARD, card)
    return folder / MODEL


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``file``, put it on the disk, and only then in its place.

    A reader never sees half a file, and a full disk or a lost machine leaves what was there before.

    Raises:
        OSError: it cannot be written; says so, and that the file from before is intact. Other errors of ``write`` pass.
    """
    partial = file.with_name(file.name + ".partial")
    try:
        write(partial)
        with open(partial, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(partial, file)
    except BaseException as error:
        full = _is_full(file.parent)  # before half a file gives its room back
        partial.unlink(missing_ok=True)
        ours = isinstance(error, (OSError, RuntimeError)) or type(error).__name__ == "SafetensorError"
        if not ours or isinstance(error, ConnectionError):  # torch and safetensors have their own words for a full disk
            raise
        kept = "; the one from before is intact" if file.exists() else ""
        torchs = full and not isinstance(error, OSError)  # "unexpected pos 276288 vs 276176"
        why = os.strerror(errno.ENOSPC) if torchs else error
        raise OSError(f"{file} cannot be written: {why}{kept}") from error
    _sync_folder(file.parent)


def write_json(file: Path, values: dict[str, Any]) -> None:
    """``values`` as readable JSON, all or nothing as ``write_whole``."""
    text = json.dumps(values, indent=2) + "\n"
    write_whole(file, lambda partial: partial.write_text(text))


def _is_full(folder: Path) -> bool:
    """Whether less than 64 KiB are left."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < 1 << 16
    return False


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last; some file systems cannot, and need not."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_card(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The weights file at ``path`` (it, or the folder of a run) and its card.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not written by ``save_model``.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path) / MODEL if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no checkpoint at {file}")
    try:
        with safe_open(file, framework="pt") as opened:
            card = json.loads((opened.metadata() or {}).get("card", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: not a readable safetensors file: {error}") from error
    if card.get("format") != FORMAT:
        raise ValueError(f"{file}: its card has format {card.get('format')!r}, expected {FORMAT!r}")
    return file, card


def check_card(card: dict[str, Any], where: str | Path, *keys: str) -> None:
    """Raises a ValueError where ``card`` lacks one of ``keys``."""
    for key in keys:
        if key not in card:
            raise ValueError(f"{where}: its card has no {key!r}")


def build_encoder(card: dict[str, Any]) -> nn.Module:
    """The encoder that a card describes, freshly initialised.

    Raises:
        ValueError: there is none of that name, or it takes other arguments.
    """
    encoder, passed = call_with(resolve(card["encoder"], "fastaug.ssl.encoders"), **card["encoder_kwargs"])
    unknown = sorted(card["encoder_kwargs"].keys() - passed.keys())
    if unknown:
        raise ValueError(f"the card's encoder {card['encoder']} takes no argument {unknown[0]!r}")
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"encoder {card['encoder']} gave a {type(encoder).__name__}, expected an nn.Module")
    return encoder


def load_encoder(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The trained encoder of a checkpoint, in eval mode on the CPU, and its card.

    A card may name any importable ``module:callable`` as its encoder: load only checkpoints whose card you trust.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file, card = read_card(path)
    check_card(card, file, "encoder", "encoder_kwargs")
    encoder = build_encoder(card)
    try:
        stored = load_file(file)
        encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in stored.items() if k.startswith("encoder.")})
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{file}: its weights do not fit its card's {card['encoder']}: {error}") from error
    return encoder.eval(), card


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write ``folder``/last.pt, all or nothing. ``state`` must have "config" and "step"."""
    write_whole(folder / STATE, lambda partial: torch.save(state, partial))


def load_state(
    folder: Path, config: dict[str, Any], required: bool = False, defaults: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """The state to resume from, None when ``folder`` has none.

    Args:
        config: the settings of the run to go on with; JSON-able.
        required: one must be there.
        defaults: of settings that the version which wrote the state may not have known: there they count as these.

    Raises:
        FileNotFoundError: ``required`` and none there.
        ValueError: it belongs to another experiment (names the fields that differ), or cannot be read.
    """
    file = folder / STATE
    if not file.is_file():
        if required:
            raise FileNotFoundError(f"--resume: no {file}")
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{file}: cannot be read ({error}); --fresh starts over") from error
    if not isinstance(state, dict) or not isinstance(state.get("config"), dict):
        raise ValueError(f"{file}: not the state of a run; --fresh starts over")
    saved = {**{k: v for k, v in (defaults or {}).items() if k in config}, **state["config"]}
    fields = sorted(k for k in {*saved, *config} if hash_of([saved.get(k)]) != hash_of([config.get(k)]))
    if fields:
        differs = ", ".join(f"{k}: {saved.get(k)!r} there, {config.get(k)!r} now" for k in fields)
        raise ValueError(
            f"{file} belongs to another experiment ({differs}). "
            "Choose another --out, or --fresh to start over there, or the settings of that run to resume it."
        )
    return state
