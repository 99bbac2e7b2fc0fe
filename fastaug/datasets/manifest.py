"""A manifest: a CSV, TSV or JSONL file with one recording per line.

Columns: ``path`` (relative to the manifest), ``label`` or ``labels`` (several separated by ``;``), ``split``
(train, valid or test), ``group`` (the track or artist, which no split may divide). Only ``path`` is required; any
other column is kept as a field.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastaug.datasets.collection import AudioCollection
from fastaug.datasets.folder import SPLIT_NAMES
from fastaug.shards.entries import Entry

__all__ = ["MANIFEST_SUFFIXES", "read_manifest"]

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")

_Row = tuple[int, dict[str, Any]]  # line number, columns


def read_manifest(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> AudioCollection:
    """Reads a manifest.

    Labels become the field ``label`` (one name) or, if any line has several or a list, ``labels``. Files that are
    missing are not an error here: the writer puts them into quarantine.

    Args:
        path: the manifest; ``.csv``, ``.tsv`` or ``.jsonl``. A byte-order mark and CRLF line ends are accepted.
        root: folder that relative paths start from; default the manifest's own.

    Raises:
        ValueError: a line is malformed; names the file and the line.
    """
    path = Path(path)
    base = Path(root) if root is not None else path.parent
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise ValueError(f"{path}: a manifest ends in one of {', '.join(MANIFEST_SUFFIXES)}")
    # newline="": the csv module wants to see line ends itself, quoted fields may contain some.
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            rows = list(_json_rows(path, file) if "json" in path.suffix.lower() else _table_rows(path, file))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not rows:
        raise ValueError(f"{path}: no recordings are listed")
    splits = _splits(path, rows)
    labels = [_labels(path, line, row) for line, row in rows]
    multi = any(isinstance(label, list) for label in labels)
    name = "labels" if multi else "label"
    seen: dict[str, int] = {}
    entries = []
    for (line, row), label, split in zip(rows, labels, splits, strict=True):
        fields = {key: value for key, value in row.items() if key not in _OWN and value not in (None, "")}
        if label is not None:
            fields[name] = [label] if multi and isinstance(label, str) else label
        if row.get("group") not in (None, ""):
            fields["group"] = row["group"]
        relative = _relative(row["path"])
        if relative in seen:
            raise ValueError(f"{path}, line {line}: {row['path']!r} already stands in line {seen[relative]}")
        seen[relative] = line
        entries.append(Entry(relative, base / row["path"], fields, split or "train"))
    return AudioCollection(
        name=path.stem,
        entries=entries,
        labels={name: None} if any(label is not None for label in labels) else {},
        protocol=f"the split column of {path.name}" if splits[0] else "",
        group_field="group" if any("group" in entry.fields for entry in entries) else None,
    )


_OWN = ("path", "label", "labels", "split", "group")


def _table_rows(path: Path, file: Any) -> Iterator[_Row]:
    header_line = file.readline()
    file.seek(0)
    tabs = path.suffix.lower() == ".tsv" or ("\t" in header_line and "," not in header_line)
    reader = csv.reader(file, delimiter="\t" if tabs else ",", strict=True)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        if "path" not in columns:
            raise ValueError(f"{path}, line 1: expected a header with a column 'path', got {columns}")
        if len(set(columns)) < len(columns):
            raise ValueError(f"{path}, line 1: a column occurs twice: {columns}")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has {len(columns)} columns"
                )
            row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
            if not row["path"]:
                raise ValueError(f"{path}, line {reader.line_num}: the path is empty")
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _json_rows(path: Path, file: Any) -> Iterator[_Row]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {line}: not JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not row["path"]:
            raise ValueError(f"{path}, line {line}: expected an object with a string 'path', got {text.strip()[:80]}")
        yield line, row


def _labels(path: Path, line: int, row: dict[str, Any]) -> str | list[str] | None:
    """One name, a list of names, or None. ``labels`` is always a list, ``label`` one if it has a ``;``."""
    if row.get("label") not in (None, "") and row.get("labels") not in (None, "", []):
        raise ValueError(f"{path}, line {line}: give either label or labels, not both")
    several = row.get("labels") not in (None, "", [])
    value = row["labels"] if several else row.get("label")
    if value in (None, "", []):
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, list)):
        raise ValueError(f"{path}, line {line}: a label must be a name or a list of names, got {value!r}")
    if isinstance(value, str) and (several or ";" in value):
        value = [name.strip() for name in value.split(";") if name.strip()]
    if isinstance(value, list):
        if not all(isinstance(name, (str, int)) and not isinstance(name, bool) for name in value):
            raise ValueError(f"{path}, line {line}: labels must be names, got {value!r}")
        return [str(name) for name in value]
    return [str(value)] if several else str(value)


def _splits(path: Path, rows: list[_Row]) -> list[str | None]:
    """The split of each row; all or none of them must name one."""
    splits: list[str | None] = []
    for line, row in rows:
        given = row.get("split")
        split = None if given in (None, "") else SPLIT_NAMES.get(str(given).strip().lower(), "")
        if split == "":
            raise ValueError(f"{path}, line {line}: unknown split {given!r}, expected train, valid or test")
        if splits and (split is None) != (splits[0] is None):
            raise ValueError(f"{path}, line {line}: the split is {given!r}; either all lines name a split or none does")
        splits.append(split)
    return splits


def _relative(path: str) -> str:
    """The path as it is kept: forward slashes, no drive, no leading slash, ``.`` or ``..``."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts)
