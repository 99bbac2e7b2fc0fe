"""Datasets of other libraries as sources, found by their shape: neither library is imported here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastaug.shards.record import Record
from fastaug.shards.source import Source, digest_of

__all__ = ["huggingface_source", "is_huggingface", "is_webdataset", "webdataset_shards"]

_SPLIT_NAMES = {"valid": ("valid", "validation", "val", "dev")}
_PLAIN_STAGES = {"single_node_only", "split_by_node", "split_by_worker", "check_empty", "_shuffle", "group_by_keys"}


def is_webdataset(source: Any) -> bool:
    """Whether it is a ``webdataset.WebDataset`` (or another of its DataPipelines)."""
    return any(kind.__module__.startswith("webdataset.") for kind in type(source).__mro__)


def webdataset_shards(dataset: Any) -> list[str]:
    """The shards that a WebDataset reads.

    Their order, splitting and shuffling are then the Pipeline's, which are exact and resumable. Stages that change
    samples cannot be taken over.

    Raises:
        TypeError: it has such a stage, or does not begin with a list of shards; names it.
    """
    stages = list(getattr(dataset, "pipeline", []))
    urls = getattr(stages[0], "urls", None) if stages else None
    if urls is None:
        raise TypeError(f"{type(dataset).__name__} does not begin with a list of shards: give Pipeline the shards")
    for stage in stages[1:]:
        name = getattr(getattr(stage, "f", stage), "__name__", type(stage).__name__)
        options = getattr(stage, "kw", {})
        changed = [option for option in ("select_files", "rename_files") if options.get(option) is not None]
        if changed or not (name in _PLAIN_STAGES or name in ("tar_file_expander", "StreamingOpen", "FileCache")):
            raise TypeError(
                f"the WebDataset has a stage {name}{' with ' + changed[0] if changed else ''}, which fastaug cannot "
                "take over: give Pipeline a WebDataset of plain samples (no decode, map, select, batched, ...)"
            )
    return [str(url) for url in urls]


def is_huggingface(source: Any) -> bool:
    """Whether it is a ``datasets.Dataset``, or a dict of them."""
    return type(source).__module__.startswith("datasets.") and (hasattr(source, "features") or isinstance(source, dict))


def huggingface_source(dataset: Any, split: str | None) -> Source:
    """A ``datasets.Dataset`` with one audio column as a Source: encoded bytes, decoded by fastaug.

    Keys are row numbers, "00000017". Class labels become their names, -1 becomes no label.

    Raises:
        ValueError: the split is not there. TypeError: not exactly one audio column, or a streamed dataset.
    """
    if isinstance(dataset, dict):
        names = _SPLIT_NAMES.get(split or "", (split,))
        chosen = [dataset[name] for name in names if name in dataset]
        if not chosen:
            raise ValueError(f"no split {split!r} among {', '.join(map(str, dataset))}: give split=, or one of them")
        dataset = chosen[0]
    if not hasattr(dataset, "__len__"):
        raise TypeError(f"{type(dataset).__name__} is streamed: fastaug needs rows by number; load it as a Dataset")
    features = dict(dataset.features)
    audio = [name for name, feature in features.items() if type(feature).__name__ == "Audio"]
    if len(audio) != 1:
        raise TypeError(f"a dataset with one audio column is needed, this one has {len(audio)}: {', '.join(features)}")
    column = audio[0]
    encoded = dataset.cast_column(column, type(features[column])(decode=False))
    names_of = {name: classes for name, feature in features.items() if (classes := _classes(feature)) is not None}
    return Source(
        sizes=[len(encoded)],
        read=partial(_read_row, encoded, column, names_of),
        key=_row_key,
        digest=digest_of([str(getattr(dataset, "_fingerprint", "")), str(len(encoded))]),
        label_info={n: {"classes": c, "multi": _is_list(features[n])} for n, c in names_of.items()},
    )


def _is_list(feature: Any) -> bool:
    return not hasattr(feature, "names")


def _classes(feature: Any) -> list[str] | None:
    """Names of a ClassLabel, or of a list of them."""
    inner = feature if hasattr(feature, "names") else getattr(feature, "feature", None)
    names = getattr(inner, "names", None)
    return list(names) if names is not None else None


def _row_key(row: int) -> str:
    return f"{row:08d}"


def _read_row(dataset: Any, column: str, names_of: dict[str, list[str]], row: int) -> Record:
    fields = dict(dataset[row])
    audio = fields.pop(column)
    if audio is None or (audio.get("bytes") is None and not audio.get("path")):
        raise ValueError(f"row {row} has no audio in column {column!r}")
    for name, classes in names_of.items():
        fields[name] = _named(fields[name], classes.__getitem__)
    if audio.get("path"):
        fields.setdefault("path", audio["path"])
    return Record(_row_key(row), audio["bytes"] if audio.get("bytes") is not None else Path(audio["path"]), fields)


def _named(value: Any, name: Callable[[int], str]) -> Any:
    if isinstance(value, list):
        return [name(one) for one in value]
    return None if value is None or value < 0 else name(value)
