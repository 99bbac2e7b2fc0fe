"""The data that every contender of a case gets: music-like signals, and the same encoded."""

from __future__ import annotations

import io
import os
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

CLIPS, SAMPLES, RATE = 64, 59_049, 22_050  # one CLMR batch: 2.68 s each
FORMATS = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "wav": ("WAV", "PCM_16"),
}  # libsndfile's names


def music(clips: int, samples: int, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(clips, channels, samples) float32, peak 0.5: decaying harmonic notes over a noise floor; no two alike.

    Never silent, never at full scale: zeros run faster than music in recursive filters, and clipping hides differences.
    """
    rng = np.random.default_rng(seed)
    out = np.empty((clips, channels, samples), dtype=np.float32)
    for clip in out:
        mono = 0.05 * pink_noise(samples, rng)
        beat = rng.uniform(0.25, 0.6)
        for start in np.arange(rng.uniform(0, beat), samples / rate, beat):
            first = int(start * rate)
            age = np.arange(min(rate, samples - first)) / rate
            pitch = 55 * 2 ** (rng.integers(0, 48) / 12)
            harmonics = sum(np.sin(2 * np.pi * pitch * h * age) / h for h in range(1, 7) if pitch * h < rate / 2)
            mono[first : first + len(age)] += harmonics * np.exp(-age * rng.uniform(4, 8))
        for channel in clip:
            channel[:] = np.roll(mono, int(rng.integers(0, 40)))
        clip += 0.02 * pink_noise(clip.size, rng).reshape(clip.shape).astype(np.float32)
        clip *= 0.5 / np.abs(clip).max()
    return out


def pink_noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) with power falling as 1/f, standard deviation 1."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum /= np.sqrt(np.arange(1, len(spectrum) + 1))
    noise = np.fft.irfft(spectrum, samples)
    return noise / noise.std()


def batch(clips: int = CLIPS, samples: int = SAMPLES, rate: int = RATE, seed: int = 0):  # type: ignore[no-untyped-def]
    """:func:`music` as a torch tensor (B, 1, T)."""
    import torch

    return torch.from_numpy(_batch(clips, samples, rate, seed).copy())


@cache
def _batch(clips: int, samples: int, rate: int, seed: int) -> np.ndarray:
    return music(clips, samples, rate, seed=seed)


def encode(samples: np.ndarray, rate: int, codec: str, kbps: int | None = None) -> bytes:
    """(channels, samples) as a whole file of ``codec``: mp3 (LAME's default quality), flac, ogg or wav.

    kbps: of an mp3 of constant rate, from 32 to 320 (MPEG 1).
    """
    import soundfile

    container, subtype = FORMATS[codec]
    options: dict[str, Any] = {}
    if kbps is not None:  # libsndfile spreads its levels evenly over the rates
        options = {"bitrate_mode": "CONSTANT", "compression_level": (320 - kbps) / (320 - 32)}
    memory = io.BytesIO()
    soundfile.write(memory, samples.T, rate, format=container, subtype=subtype, **options)
    return memory.getvalue()


def tracks(count: int, seconds: float, codec: str, rate: int = 44_100, kbps: int | None = None) -> list[bytes]:
    """``count`` encoded stereo tracks: four different ones (encoding takes a second each), over and over.

    The suites of all runs share them through the folder FASTAUG_BENCH_CACHE, if that is set.
    """
    distinct = min(count, 4)
    folder = os.environ.get("FASTAUG_BENCH_CACHE")
    if not folder:
        encoded = [encode(track, rate, codec, kbps) for track in _recordings(distinct, seconds, rate)]
    else:
        paths = [Path(folder) / f"{i}of{distinct}-{seconds:g}-{rate}-{kbps}.{codec}" for i in range(distinct)]
        if not all(path.exists() for path in paths):
            Path(folder).mkdir(parents=True, exist_ok=True)
            for path, track in zip(paths, _recordings(distinct, seconds, rate), strict=True):
                part = path.with_suffix(f".part{os.getpid()}")
                part.write_bytes(encode(track, rate, codec, kbps))
                part.rename(path)  # whole or not there
        encoded = [path.read_bytes() for path in paths]
    return [encoded[i % distinct] for i in range(count)]


@cache
def _recordings(count: int, seconds: float, rate: int) -> np.ndarray:
    return music(count, int(seconds * rate), rate, channels=2)


def write_shards(folder: Path, encoded: list[bytes], suffix: str, per_shard: int) -> list[Path]:
    """Plain tar shards of ``<key>.<suffix>`` + ``<key>.json`` pairs, readable by fastaug and webdataset."""
    paths = []
    for first in range(0, len(encoded), per_shard):
        path = folder / f"train-{first // per_shard:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for i, data in enumerate(encoded[first : first + per_shard], start=first):
                for name, content in ((f"track{i:05d}.{suffix}", data), (f"track{i:05d}.json", b'{"label": "none"}')):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        paths.append(path)
    return paths
