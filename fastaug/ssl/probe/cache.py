"""Features on disk, so that other heads, seeds and shares of labels decode and encode nothing again.

One .npz file (arrays only, nothing pickled) per encoder, part of the data and way of cropping. Its name is a hash of
all that its content depends on: the checkpoint's bytes, the files' sizes and times, label, rate, crops, front end,
device type and this library's version. Not of the code of an encoder that is yours (``module:callable``).
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastaug.shards.opening import expand_braces
from fastaug.ssl.probe.features import Features

__all__ = ["FeatureCache", "file_hash", "stamp"]


def file_hash(path: Path) -> str:
    """32 hex digits of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stamp(source: str) -> str:
    """Hash of the names, sizes and times of change of all files of a folder or pattern: another one, other data."""
    if Path(source).is_dir():
        files = sorted(p for p in Path(source).rglob("*") if p.is_file() and not p.name.endswith(".idx"))
    else:
        files = sorted(Path(f) for part in expand_braces(source) for f in glob.glob(part))
    lines = [f"{p}\0{(s := p.stat()).st_size}\0{s.st_mtime_ns}\n" for p in files]
    return hashlib.blake2b("".join(lines).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


class FeatureCache:
    """A folder of features; None as the folder keeps nothing.

    Args:
        folder: created when something is stored.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, key: dict[str, Any]) -> Features | None:
        """What was stored under ``key``; None when nothing was, or when the file is damaged."""
        file = self._file(key)
        if file is None or not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                parts = [torch.from_numpy(arrays[name]) for name in ("values", "clip", "labels", "turn")]
                keys = json.loads(bytes(arrays["keys"]).decode("utf-8", "surrogateescape"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # half a disk, or another version: extracted anew
        return Features(parts[0], parts[1], parts[2], keys, parts[3])

    def store(self, key: dict[str, Any], features: Features) -> None:
        """Keep ``features`` under ``key``, all or nothing.

        Raises:
            ValueError: it cannot be written, e.g. because the disk is full; nothing is left behind.
        """
        file = self._file(key)
        if file is None:
            return
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
        keys = np.frombuffer(json.dumps(features.keys).encode("utf-8", "surrogateescape"), np.uint8)
        arrays = {name: getattr(features, name).numpy() for name in ("values", "clip", "labels", "turn")}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as opened:
                np.savez(opened, allow_pickle=False, keys=keys, **arrays)
            os.replace(partial, file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ValueError(f"features cannot be kept in {file.parent}: {error}; --cache FOLDER or none") from error

    def _file(self, key: dict[str, Any]) -> Path | None:
        if self.folder is None:
            return None
        text = json.dumps(key, sort_keys=True)
        return self.folder / f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.npz"
