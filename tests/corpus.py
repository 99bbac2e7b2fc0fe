"""Small encoded corpora that several test files read: tones whose samples say where they stand."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

RATE = 16_000


def tone(seconds: float, seed: int, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """float32 (n, channels): a chirp with a little noise, no two seeds alike."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    sweep = np.sin(2 * np.pi * (rng.uniform(100, 400) * t + rng.uniform(20, 200) * t**2))
    noise = rng.standard_normal((len(t), channels)) * 0.02
    return (0.4 * sweep[:, None] + noise).astype(np.float32)


def encoded(samples: np.ndarray, kind: str, rate: int = RATE) -> bytes:
    """The samples as the bytes of a file: "wav" (16 bit), "flac", "ogg" or "mp3"."""
    import soundfile  # here, so that a machine without it can still run the tests that encode nothing

    buffer = io.BytesIO()
    subtype = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}[kind]
    soundfile.write(buffer, samples, rate, format="MP3" if kind == "mp3" else kind.upper(), subtype=subtype)
    return buffer.getvalue()


KINDS = ("wav", "flac", "ogg", "mp3")
LABELS = ("drone", "beat", "choir")


def examples(count: int, seconds: float = 1.0) -> list[tuple[str, bytes, str]]:
    """(stem, bytes, suffix) of ``count`` clips, codecs, rates and channels mixed, lengths a little apart."""
    found = []
    for i in range(count):
        kind, rate = KINDS[i % 4], (16_000, 22_050, 44_100)[i % 3]
        samples = tone(seconds + 0.05 * (i % 7), i, rate, 1 + i % 2)
        found.append((f"clip{i:03d}", encoded(samples, kind, rate), kind))
    return found


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], fmt: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar of named members, as webdataset would write it."""
    with tarfile.open(path, "w", format=fmt) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def shards(folder: Path, count: int = 24, per_shard: int = 8, seconds: float = 1.0) -> Path:
    """A folder of train shards with dataset.json; labels rotate through LABELS, every fifth clip has none."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    clips = examples(count, seconds)
    for s in range(0, count, per_shard):
        members = []
        for i, (stem, data, suffix) in enumerate(clips[s : s + per_shard], start=s):
            fields = {"number": i, "tags": list(LABELS[: i % 4])}
            if i % 5:
                fields["mood"] = LABELS[i % 3]
            members += [(f"{stem}.{suffix}", data), (f"{stem}.json", json.dumps(fields).encode())]
        name = f"train-{s // per_shard:06d}.tar"
        write_tar(folder / name, members)
        listed.append({"file": name, "records": len(clips[s : s + per_shard])})
    description = {
        "format": "fastaug-dataset-1",
        "name": "tones",
        "labels": {
            "mood": {"classes": list(LABELS), "multi": False},
            "tags": {"classes": list(LABELS), "multi": True},
        },
        "splits": {"train": {"records": count, "shards": listed}},
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def audio_folder(folder: Path, count: int = 9, seconds: float = 1.0) -> Path:
    """The same clips as files in one sub-folder a label."""
    for i, (stem, data, suffix) in enumerate(examples(count, seconds)):
        place = folder / LABELS[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{stem}.{suffix}").write_bytes(data)
    return folder
