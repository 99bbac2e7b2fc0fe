"""What a recipe needs to know about a user's data: its splits and label, and a few cached crops of it."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaug.pipeline import Pipeline
from fastaug.shards.opening import expand_braces, open_source
from fastaug.ssl.config import read_json
from fastaug.ssl.losses import group_ids

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Dataset:
    """A source that ``Pipeline`` accepts, its splits, and the label to use.

    Attributes:
        source: folder of shards, shard pattern or audio folder.
        splits: those of train, valid, test that exist; empty when the data is not split.
        label: field name, None when there is no label with at least two classes.
        name, protocol: for tables and cards.
        classes: ordered names of the label's classes, empty without a label.
        multi: the label is a list of names.
        counts: of train, by what is counted, as in {"tracks": 3923, "clips": 18706}; as far as dataset.json has them.
    """

    source: str
    splits: tuple[str, ...]
    label: str | None
    name: str
    protocol: str
    classes: tuple[str, ...] = ()
    multi: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    def split(self, name: str) -> str | None:
        """``name`` where the data is split, None (everything) where it is not."""
        return name if self.splits else None

    def card(self) -> dict[str, Any]:
        """What a checkpoint's card says of the data that its encoder was trained on."""
        return {
            "data": self.name, "split": self.split("train"), "split_protocol": self.protocol, "label": self.label,
            "classes": self.classes, "counts": self.counts,
        }  # fmt: skip

    def records(self, name: str) -> int:
        """Number of examples in ``split(name)``."""
        return len(open_source(self.source, self.split(name)))


def discover(source: str, label: str | None = None) -> Dataset:
    """Look at ``source``: dataset.json if there is one, else shard names, else folders.

    Args:
        label: the label field; None takes the dataset's default, for an audio folder the parent folder's name, and no
            label where that would be the same for all. "none" asks for no label.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no such label, or dataset.json is none of ours.
    """
    path = Path(source)
    if (path / "dataset.json").is_file():
        return _described(source, read_json(path / "dataset.json"), label)
    shards = [Path(p).name for part in expand_braces(source) for p in glob.glob(part) if p.endswith(".tar")]
    shards = shards or [p.name for p in path.glob("*.tar")]
    if shards:
        splits = tuple(s for s in SPLITS if any(name.startswith(f"{s}-") for name in shards))
        info = open_source(source).label_info
        return _labelled(source, splits, info, label or "none", path.name, "by shard name" if splits else "none")
    labels = open_source(source).label_info  # an audio folder; raises where there is nothing
    splits = tuple(s for s in SPLITS if _has_split(source, s))
    return _labelled(source, splits, labels, label or "label", path.resolve().name, "by folder" if splits else "none")


def _described(source: str, info: dict[str, Any], label: str | None) -> Dataset:
    if not isinstance(info.get("splits"), dict):
        raise ValueError(f"{Path(source) / 'dataset.json'}: has no splits, so it is not of `fastaug shard`")
    labels = info.get("labels", {})
    splits = tuple(s for s in SPLITS if info["splits"].get(s, {}).get("records"))
    chosen = label or info.get("default_label") or "none"
    found = _labelled(source, splits, labels, chosen, info.get("name", ""), info.get("split_protocol", "unknown"))
    return replace(found, counts=_counts(info))


def _counts(info: dict[str, Any]) -> dict[str, int]:
    """Records of train, the groups (tracks, artists) they belong to, and the clips they were joined from."""
    train = info["splits"].get("train", {})
    counts = {f"{info.get('group_field')}s": train.get("groups"), "clips": train.get("clips")}
    counts[f"{info.get('unit', 'clip')}s"] = train.get("records")
    return {name: count for name, count in counts.items() if count is not None}


def _labelled(
    source: str, splits: tuple[str, ...], labels: dict[str, dict[str, Any]], label: str, name: str, protocol: str
) -> Dataset:
    """A Dataset with ``label`` if it can tell anything apart."""
    if label != "none" and label not in {*labels, "label"}:  # folders without sub-folders have none
        raise ValueError(f"{source}: no label {label!r}; there is {', '.join(labels) or 'none'}")
    found = labels.get(label, {})
    classes = tuple(found.get("classes", ()))
    if len(classes) < 2:
        return Dataset(source, splits, None, name, protocol)
    return Dataset(source, splits, label, name, protocol, classes, bool(found.get("multi", False)))


def _has_split(source: str, split: str) -> bool:
    try:
        open_source(source, split)
    except (ValueError, FileNotFoundError):
        return False
    return True


def model_input(batch: Any) -> Tensor:
    """What an encoder gets: the spectrograms where the pipeline makes them, else the samples."""
    return batch.audio if batch.spectrograms is None else batch.spectrograms


def groups(batch: Any, field: str) -> Tensor | None:
    """Ids (B,) of a batch's groups for ``nt_xent``, from the values of ``field``; None where ``field`` is "".

    Raises:
        ValueError: the batch has no such field; names those it has.
    """
    if not field:
        return None
    if field not in batch.fields:
        raise ValueError(f"no field {field!r} in the data; fields are {', '.join(batch.fields) or 'none'}")
    return group_ids(batch.fields[field], batch.audio.device)


def restore(pipe: Any, state: dict[str, Any]) -> None:
    """Resume a pipeline from the state that rank 0 saved.

    All ranks are at the same batch, of the same epoch, of orders that depend on the rank alone: each has delivered one
    batch a step, because `endless` refuses the one setting (``on_error="skip"``) with which some could lose a batch.
    """
    layout = {**state["layout"], "rank": pipe.rank}
    pipe.load_state_dict({**state, "layout": layout})


def endless(pipe: Iterable[Any]) -> Iterator[Any]:
    """Batches of epoch after epoch.

    Raises:
        ValueError: an epoch without any batch; several processes, each of which leaves out bad records of its own:
            their batches would differ in size, and their places in the epoch.
    """
    if isinstance(pipe, Pipeline) and pipe.world_size > 1 and pipe.on_error == "skip":
        raise ValueError('several processes need batches of one size: use on_error="replace", not on_error="skip"')
    while True:
        empty = True
        for batch in pipe:
            empty = False
            yield batch
        if empty:
            raise ValueError("the data gives no batch: no example could be read")


def cache_crops(pipe: Iterable[Any], count: int) -> tuple[Tensor, Tensor, list[str]]:
    """Inputs (N, ...), labels and keys of the first ``count`` examples of a labelled pipeline, on the CPU."""
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    keys: list[str] = []
    for batch in pipe:
        inputs.append(model_input(batch).cpu())
        labels.append(batch.labels.cpu())
        keys += batch.keys
        if len(keys) >= count:
            break
    if not inputs:
        raise ValueError("no crop to cache: the split is empty")
    return torch.cat(inputs)[:count], torch.cat(labels)[:count], keys[:count]


def demo_corpus(root: str | Path = "fastaug-data", tracks: int = 240, seconds: float = 15.0, seed: int = 0) -> Path:
    """Folder of the synthetic corpus the recipes run on without --data; synthesised at the first call."""
    from fastaug.datasets.synthetic import synth

    folder = Path(root) / f"demo-{tracks}x{seconds:g}s-{seed}"
    if not (folder / "dataset.json").is_file():  # written last
        print(f"synthesising {tracks} tracks of {seconds:g} s into {folder}", flush=True)
        synth(folder, tracks=tracks, seconds=seconds, codec="mp3", seed=seed)
    return folder
