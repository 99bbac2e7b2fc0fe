"""Choosing tracks, and everything a page shows of one: its excerpt, two views, facts, parameters in words."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaug.codecs import DecodeError, open_audio
from fastaug.demo.words import in_words
from fastaug.pipeline import Pipeline
from fastaug.shards.opening import open_source
from fastaug.shards.record import Record
from fastaug.transforms.base import Transform

__all__ = ["RATE", "Clip", "View", "choose", "make_clips"]

RATE = 22_050
CROP = 59_049  # CLMR's crop: 2.7 s at 22.05 kHz
EXCERPT_SECONDS = 30
_LOOKED_AT = 256  # records whose label is read, so that the tracks shown differ


@dataclass
class View:
    """One augmented crop: samples (C, T), where it begins in the excerpt, valid length in seconds, phrases."""

    samples: Tensor
    start: float
    seconds: float
    words: list[str]


@dataclass
class Clip:
    """One track: a title, facts, and its excerpt (C, T) at ``RATE`` with the views cut from it."""

    title: str
    key: str
    facts: list[str]
    samples: Tensor
    views: list[View] = field(default_factory=list)


def choose(data: Any, count: int, seed: int) -> list[Record]:
    """Up to ``count`` readable records in a seeded order, of different labels as far as possible.

    Raises:
        ValueError: none of those looked at can be decoded; names the first reason.
    """
    source = open_source(data)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(source))[:_LOOKED_AT]
    records, reasons = [], [str(bad) for bad in source.bad]
    for i in order.tolist():
        try:
            records.append(source.read(i))
        except (OSError, ValueError) as error:
            reasons.append(str(error))
    records = _alternating(records)
    chosen: list[Record] = []
    for record in records:
        if len(chosen) == count:
            break
        try:
            with open_audio(record.audio, record.place) as audio:
                if audio.info.frames == 0:
                    raise DecodeError(f"{record.place}: no samples")
            chosen.append(record)
        except (DecodeError, OSError) as error:
            reasons.append(str(error))
    if not chosen:
        raise ValueError(f"{data}: no track can be read" + "".join(f"; {reason}" for reason in reasons[:1]))
    return chosen


def _alternating(records: list[Record]) -> list[Record]:
    """One of every label, then a second of every label, and so on."""
    seen: dict[str, int] = {}
    turns = []
    for record in records:
        name = _label(record.fields)
        turns.append(seen.get(name, 0))
        seen[name] = seen.get(name, 0) + 1
    return [records[i] for i in sorted(range(len(records)), key=lambda i: turns[i])]


def make_clips(records: list[Record], transform: Transform, seed: int, device: torch.device) -> list[Clip]:
    """Decode excerpts of ``records`` and augment two crops of each, exactly as a Pipeline does."""
    clips, excerpts = [], []
    for record in records:
        clip = _clip(record)
        clips.append(clip)
        excerpts.append(Record(record.key, _wav(clip.samples), {"path": record.key}))
    pipe = Pipeline(
        excerpts, sample_rate=RATE, crop_samples=CROP, crop="random", views=2, batch_size=len(excerpts),
        transform=transform, seed=seed, shuffle=0, device=device, num_threads=0,
    )  # fmt: skip
    batch = next(iter(pipe))
    assert isinstance(batch.params, list)
    for b, clip in enumerate(clips):
        for v, params in enumerate(batch.params):
            start, length = batch.starts[v, b].item() / RATE, batch.lengths[v, b].item() / RATE
            words = in_words(transform, params, b) if params else []
            clip.views.append(View(batch.audio[v, b].cpu(), start, length, words))
    return clips


def _clip(record: Record) -> Clip:
    with open_audio(record.audio, record.place) as audio:
        total, wanted = audio.frames(RATE), EXCERPT_SECONDS * RATE
        length = min(total, wanted)
        samples = audio.read((total - length) // 2, length, RATE, 1)
        info = audio.info
    kind = info.format.split("/")[-1 if "VORBIS" in info.format or "OPUS" in info.format else 0]
    channels = {1: "mono", 2: "stereo"}.get(info.channels, f"{info.channels} channels")
    stored = f"{kind.title() if len(kind) > 4 else kind}, {info.sample_rate / 1000:g} kHz, {channels}"
    title = _title(record)
    facts = [fact for fact in _facts(record.fields) if not title.startswith(fact.capitalize())]
    return Clip(title, record.key, [*facts, stored], samples)


def _label(fields: dict[str, Any]) -> str:
    value = fields.get("genre", fields.get("label", fields.get("labels", "")))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _title(record: Record) -> str:
    name = Path(str(record.fields.get("path", record.key))).stem
    label = _label(record.fields)
    return f"{label.capitalize()} {name}" if label and name.isdigit() else name


def _facts(fields: dict[str, Any]) -> list[str]:
    facts = [_label(fields)] if _label(fields) else []
    if isinstance(fields.get("tempo"), int | float):
        facts.append(f"{fields['tempo']:.0f} bpm")
    if isinstance(fields.get("key"), str):
        facts.append(fields["key"])
    return facts + [str(name) for name in fields.get("instruments") or [] if isinstance(name, str)]


def _wav(samples: Tensor) -> bytes:
    """32-bit float WAV: nothing is lost between the excerpt and its crops."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T.numpy(), RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()
