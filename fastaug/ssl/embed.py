"""Embeddings of a folder of audio as one table: key, start, h and label of every segment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf

from fastaug.ssl.checkpoint import write_whole
from fastaug.ssl.data import discover
from fastaug.ssl.weights import PretrainedEncoder, load

_ROWS = 4096


@dataclass
class Embedded:
    """What ``embed`` wrote: ``print`` it."""

    out: Path
    rows: int = 0
    clips: int = 0
    dim: int = 0
    unreadable: int = 0

    def __str__(self) -> str:
        bad = f", {self.unreadable} files could not be read" if self.unreadable else ""
        return f"{self.out}: {self.rows} embeddings of {self.dim} numbers, of {self.clips} clips{bad}"


def embed(
    checkpoint: str | Path,
    source: str,
    out: str | Path,
    hop_seconds: float | None = None,
    whole: bool = False,
    split: str | None = None,
    label: str | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> Embedded:
    """Write the representation h of every segment of every clip, in the order of the files.

    A parquet file (with pyarrow) has the columns key, start and length (samples at the encoder's rate; length without
    padding), label (a name, a list of names, or null) and h (float32, fixed size), and the card in its schema's
    metadata; an .npz file has arrays of the same names and the card as JSON. Both are written whole or not at all.

    Args:
        checkpoint: what `fastaug.ssl.load` takes: a run's folder, a file, or a URL with its checksum.
        source: audio folder, folder of shards, or shard pattern.
        out: a path that ends in .parquet or .npz.
        hop_seconds: from segment to segment; default: the crop's length, without overlap.
        whole: one embedding a clip from its whole length, one clip at a time, for encoders that take any length; padded
            with zeros to the crop's length where it is shorter.
        split: train, valid or test; default: all.
        label: field to carry along; default: the data's own. "none": no label.

    Raises:
        ValueError: another suffix of ``out``, ``hop_seconds`` with ``whole``, or no readable clip.
        ImportError: no pyarrow.
    """
    out = Path(out)
    if out.suffix not in (".npz", ".parquet"):
        raise ValueError(f"{out}: expected a name that ends in .parquet or .npz")
    if whole and hop_seconds is not None:
        raise ValueError("a whole clip has no hop: give hop_seconds or whole")
    _pyarrow(out)
    encoder = load(checkpoint).to(device)
    pipe = _pipeline(encoder, source, hop_seconds, whole, split, batch_size, device)
    data = discover(source)
    name = None if label == "none" else label or data.label
    done = Embedded(out, dim=encoder.out_dim)
    columns = _columns(pipe, encoder, name, done)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        write_whole(out, lambda partial: _write_npz(partial, columns, encoder))
    else:
        several = data.multi and name == data.label
        write_whole(out, lambda partial: _write_parquet(partial, columns, encoder, several))
    done.unreadable = len(pipe.stats.bad)
    return done


def _pipeline(
    encoder: PretrainedEncoder, source: str, hop_seconds: float | None, whole: bool, split: str | None, batch: int,
    device: torch.device | str,
) -> Any:  # fmt: skip
    from fastaug import Pipeline

    rate = encoder.sample_rate
    settings: dict[str, Any] = {"crop": "whole", "batch_size": 1}  # padding to batch-mates would change embeddings
    if not whole:
        hop = encoder.crop_samples if hop_seconds is None else int(np.floor(hop_seconds * rate + 0.5))
        if hop < 1:
            raise ValueError(f"hop_seconds must be at least a sample, got {hop_seconds}")
        settings = {"crop": "segments", "crop_samples": encoder.crop_samples, "hop_samples": hop, "batch_size": batch}
    return Pipeline(source, split=split, sample_rate=rate, shuffle=0, on_error="skip", device=device, **settings)


@torch.no_grad()
def _columns(pipe: Any, encoder: PretrainedEncoder, label: str | None, done: Embedded) -> Iterator[dict[str, Any]]:
    """Columns of one batch after the other; counts into ``done``."""
    last, found = None, label is None
    for batch in pipe:
        samples = batch.audio
        samples = nnf.pad(samples, (0, max(0, encoder.crop_samples - samples.shape[-1])))
        values = batch.fields.get(label) if label else None
        found |= values is not None
        done.rows += len(batch)
        for key in batch.keys:
            done.clips, last = done.clips + (key != last), key
        yield {
            "key": batch.keys,
            "start": batch.starts.cpu().numpy(),
            "length": batch.lengths.cpu().numpy(),
            "label": values or [None] * len(batch),
            "h": encoder(samples).float().cpu().numpy(),
        }
    if not done.rows:
        raise ValueError("no clip could be read")
    if not found:
        raise ValueError(f"no field {label!r} in the data; fields are {', '.join(batch.fields) or 'none'}")


def _write_npz(partial: Path, columns: Iterator[dict[str, Any]], encoder: PretrainedEncoder) -> None:
    """Several labels of one clip are joined by "|": arrays hold no lists."""
    parts = list(columns)
    labels = [_joined(value) for part in parts for value in part["label"]]
    arrays: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in ("start", "length", "h")}
    keys = np.array([key for part in parts for key in part["key"]])
    with open(partial, "wb") as file:  # a path would get another suffix
        np.savez(file, key=keys, label=np.array(labels), card=np.array(json.dumps(encoder.card)), **arrays)


def _joined(value: Any) -> str:
    if value is None:
        return ""
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


def _write_parquet(partial: Path, columns: Iterator[dict[str, Any]], encoder: PretrainedEncoder, several: bool) -> None:
    """``several``: a label is a list of names."""
    pa, pq = _pyarrow(partial.with_suffix(""))
    text = pa.list_(pa.string()) if several else pa.string()
    fields = [("key", pa.string()), ("start", pa.int64()), ("length", pa.int64()), ("label", text),
              ("h", pa.list_(pa.float32(), encoder.out_dim))]  # fmt: skip
    schema = pa.schema(fields, metadata={"card": json.dumps(encoder.card)})

    def convert(value: Any) -> Any:
        return value if several or value is None else _joined(value)

    with pq.ParquetWriter(partial, schema) as writer:
        group: list[Any] = []
        for part in columns:
            h = pa.FixedSizeListArray.from_arrays(pa.array(part["h"].ravel()), encoder.out_dim)
            labels = pa.array([convert(value) for value in part["label"]], text)
            group.append(pa.record_batch([pa.array(part["key"]), part["start"], part["length"], labels, h], schema))
            if sum(map(len, group)) >= _ROWS:
                writer.write_table(pa.Table.from_batches(group))
                group = []
        if group:
            writer.write_table(pa.Table.from_batches(group))


def _pyarrow(out: Path) -> Any:
    if out.suffix != ".parquet":
        return None
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{out} needs pyarrow (pip install pyarrow); a name that ends in .npz does not") from error
    return pyarrow, pyarrow.parquet
