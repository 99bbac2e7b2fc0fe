"""Clips of one track joined into one recording: the unit of CLMR's first code, and so of its thesis, on MagnaTagATune.

There a "track" of MTAT is its 29 s clips one after another, and both crops of a pair come from anywhere in that: from
two clips, or across the joint between them. Crops of one song are then never each other's negatives.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import soundfile
import torch

from fastaug.codecs import DecodeError
from fastaug.datasets.collection import AudioCollection
from fastaug.io import load
from fastaug.shards.entries import Entry

__all__ = ["join_clips", "join_tracks"]


def join_tracks(found: AudioCollection) -> AudioCollection:
    """One entry for each value of the field ``track`` and split: its clips joined in order, as FLAC at their own rate.

    Args:
        found: entries with a file each, in the order in which the clips of a track follow one another, and the fields
            ``track`` and ``artist``.

    Returns:
        The fields of an entry are ``track``, ``artist``, ``clips`` (paths, in order), and for each label the union of
        the clips' in the official order. Nothing is decoded yet.
    """
    tracks: dict[tuple[str, str], list[Entry]] = {}
    for entry in found.entries:
        tracks.setdefault((entry.split, entry.fields["track"]), []).append(entry)
    entries = []
    for (split, track), clips in tracks.items():
        fields: dict[str, Any] = {
            "track": track, "artist": clips[0].fields["artist"], "clips": [clip.path for clip in clips],
        }  # fmt: skip
        for label, classes in found.labels.items():
            heard = {name for clip in clips for name in clip.fields[label]}
            fields[label] = [name for name in classes or sorted(heard) if name in heard]
        folder = clips[0].path.rpartition("/")[0]
        path = f"{folder}/{track}.flac" if folder else f"{track}.flac"
        entries.append(Entry(path, partial(join_clips, [str(clip.audio) for clip in clips]), fields, split))
    return replace(
        found, entries=entries, unit="track", protocol=f"{found.protocol} clips, joined to {len(entries):,} tracks"
    )


def join_clips(files: Sequence[str]) -> bytes:
    """The sounds of files one after another, as a FLAC file of 16 bits: of lossy clips rounded to them.

    Raises:
        OSError: a file is missing or cannot be decoded, or they differ in sample rate or channels; names it.
    """
    parts, rates = [], []
    for file in files:
        try:
            samples, rate = load(file)
        except (DecodeError, ValueError) as error:
            raise OSError(f"a clip of it cannot be decoded: {error}") from error
        parts.append(samples)
        rates.append(rate)
        if (rate, len(samples)) != (rates[0], len(parts[0])):
            raise OSError(f"{file} has {len(samples)} channels at {rate} Hz, {files[0]} {len(parts[0])} at {rates[0]}")
    joined = (torch.cat(parts, dim=1) * 32768.0).round().clamp(-32768, 32767).to(torch.int16)
    flac = io.BytesIO()
    soundfile.write(flac, joined.T.contiguous().numpy(), rates[0], format="FLAC", subtype="PCM_16")
    return flac.getvalue()
