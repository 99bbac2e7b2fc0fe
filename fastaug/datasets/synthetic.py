"""The synthetic corpus: procedural music in ten genres, really encoded, in shards.

Track i of a seed is the same music whatever the number of tracks, the codec, the rate or the machine. Labels: genre,
key and instruments; tempo in bpm stands in the fields. Licence: the output is nobody's work, CC0.
"""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fastaug.datasets.splits import split_entries
from fastaug.datasets.synth_compose import INSTRUMENTS, KEYS, Score, compose
from fastaug.datasets.synth_genres import GENRES
from fastaug.datasets.synth_render import render
from fastaug.datasets.synth_voices import Draws
from fastaug.shards.writer import DatasetSummary, Entry, write_shards

__all__ = ["CODECS", "encode", "synth", "synth_track"]

#: Codec name -> (libsndfile format, subtype).
CODECS = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "wav": ("WAV", "PCM_16"),
}
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_FRACTIONS = (0.6, 0.15, 0.25)
_CHUNK = 1 << 16  # libsndfile's Vorbis encoder keeps a whole write on its stack


@dataclass(frozen=True)
class _Format:
    codec: str
    rate: int
    channels: int


def synth(
    out: str | os.PathLike[str],
    tracks: int = 96,
    seconds: float = 30.0,
    codec: str = "mixed",
    seed: int = 0,
    sample_rate: int | None = None,
    channels: int | None = None,
    *,
    shard_records: int = 32,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> DatasetSummary:
    """Composes, plays and encodes a corpus, and writes it as OUT/{train,valid,test}-NNNNNN.tar.

    The same arguments give the same bytes on one machine with one libsndfile. The music itself does not depend on the
    machine, nor on the number of tracks, the codec, or the other tracks.

    Args:
        out: the dataset folder, new or empty.
        tracks: number of tracks; genres take turns.
        seconds: length of each, at least 0.5.
        codec: ``"mp3"``, ``"flac"``, ``"ogg"`` (Vorbis), ``"wav"`` or ``"mixed"``.
        seed: of everything.
        sample_rate: in Hz. Default 22,050; for ``"mixed"``, a third of the tracks have another rate.
        channels: 1 or 2. Default 1; for ``"mixed"``, some tracks are stereo.
        shard_records: most records per shard.
        workers: threads; default the number of usable cores.
        overwrite: replace a dataset already in OUT.
        progress: show a progress bar if stderr is a terminal.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: OUT is not empty.
    """
    _check(tracks, seconds, codec, sample_rate, channels)
    entries = [_entry(seed, index, seconds, codec, sample_rate, channels) for index in range(tracks)]
    return write_shards(
        split_entries(entries, seed=seed, fractions=_FRACTIONS, stratify="genre"),
        out,
        name="fastaug-synth",
        labels={"genre": sorted(GENRES), "key": KEYS, "instruments": INSTRUMENTS},
        split_protocol=f"seeded 60/15/25 by track, stratified by genre, seed {seed}",
        licence="CC0-1.0",
        group_field="group",
        seed=seed,
        shard_records=shard_records,
        workers=workers,
        probe=False,
        overwrite=overwrite,
        progress=progress,
    )


def synth_track(
    seed: int, index: int, seconds: float = 30.0, sample_rate: int = 22_050, channels: int = 1
) -> tuple[npt.NDArray[np.int16], dict[str, Any]]:
    """One track before encoding.

    Returns:
        Samples int16 (T, C) and the fields genre, tempo (bpm), key, instruments, group.
    """
    score = compose(seed, index, seconds)
    return render(score, seed, sample_rate, channels), _fields(score)


def _check(tracks: int, seconds: float, codec: str, sample_rate: int | None, channels: int | None) -> None:
    if tracks < 1:
        raise ValueError(f"tracks must be at least 1, got {tracks}")
    if not 0.5 <= seconds <= 3600.0:
        raise ValueError(f"seconds must lie in [0.5, 3600], got {seconds}")
    if codec not in (*CODECS, "mixed"):
        raise ValueError(f"codec must be one of {', '.join(CODECS)} or mixed, got {codec!r}")
    if channels not in (None, 1, 2):
        raise ValueError(f"channels must be 1 or 2, got {channels}")
    if sample_rate is not None and not 8_000 <= sample_rate <= 192_000:
        raise ValueError(f"sample_rate must lie in [8000, 192000] Hz, got {sample_rate}")
    if sample_rate is not None and codec in ("mp3", "mixed") and sample_rate not in _MP3_RATES:
        raise ValueError(f"mp3 has the sample rates {', '.join(map(str, _MP3_RATES))} only, got {sample_rate}")


def _fields(score: Score) -> dict[str, Any]:
    return {
        "genre": score.genre,
        "tempo": score.bpm,
        "key": score.key,
        "instruments": score.instruments,
        "group": f"artist-{score.index:05d}",
    }


def _format(seed: int, index: int, codec: str, sample_rate: int | None, channels: int | None) -> _Format:
    """How a track is stored. In a mixed corpus this is drawn without regard to the genre."""
    if codec != "mixed":
        return _Format(codec, sample_rate or 22_050, channels or 1)
    draws = Draws(seed, f"track/{index}/format")
    chosen = draws.choice(("mp3",) * 7 + ("ogg",) * 5 + ("flac",) * 4 + ("wav",) * 4)
    rate = sample_rate or draws.choice((22_050,) * 12 + (44_100,) * 5 + (16_000, 32_000, 48_000))
    count = channels or draws.choice((1, 1, 1, 2))
    if chosen == "mp3" and channels is None and rate > 24_000:
        count = 1  # LAME takes 1.2 s for half a minute of 44.1 kHz stereo
    return _Format(chosen, rate, count)


def _entry(seed: int, index: int, seconds: float, codec: str, sample_rate: int | None, channels: int | None) -> Entry:
    score = compose(seed, index, seconds)
    form = _format(seed, index, codec, sample_rate, channels)
    path = f"{score.genre}/{index:05d}.{form.codec}"
    return Entry(path, partial(_produce, seed, index, seconds, form), _fields(score))


def _produce(seed: int, index: int, seconds: float, form: _Format) -> bytes:
    # Composed again rather than kept: 2 ms, against megabytes of notes for a large corpus.
    samples = render(compose(seed, index, seconds), seed, form.rate, form.channels)
    return encode(samples, form.rate, form.codec, serial=index)


def encode(samples: npt.NDArray[np.int16], sample_rate: int, codec: str, serial: int = 0) -> bytes:
    """Encodes PCM as a file in memory, reproducibly.

    Args:
        samples: int16 (T, C).
        sample_rate: in Hz.
        codec: key of ``CODECS``.
        serial: stream number written into Ogg pages, where libsndfile would put a random one.
    """
    import soundfile

    container, subtype = CODECS[codec]
    # libsndfile (1.2.2 at least) copies only half of each block of 16-bit stereo into LAME, and what lay in memory
    # for the rest (libsndfile/libsndfile#1106). 32-bit input takes another path.
    pcm = samples.astype(np.int32) << 16 if codec == "mp3" else samples
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", sample_rate, pcm.shape[1], format=container, subtype=subtype) as file:
        for start in range(0, len(pcm), _CHUNK):
            file.write(pcm[start : start + _CHUNK])
    data = buffer.getvalue()
    return _with_serial(data, serial) if codec == "ogg" else data


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _with_serial(data: bytes, serial: int) -> bytes:
    """An Ogg file with its stream serial number replaced, checksums included (RFC 3533, section 6)."""
    out = bytearray(data)
    position = 0
    while position < len(out):
        if out[position : position + 4] != b"OggS":
            raise ValueError(f"no Ogg page at byte {position}")
        segments = out[position + 26]
        body = position + 27 + segments
        end = body + sum(out[position + 27 : body])
        out[position + 14 : position + 18] = serial.to_bytes(4, "little")
        out[position + 22 : position + 26] = bytes(4)
        # Ogg's CRC-32 is zlib's with the bits of every byte and of the result reversed and no inversion.
        crc = zlib.crc32(bytes(out[position:end]).translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        out[position + 22 : position + 26] = int(f"{crc:032b}"[::-1], 2).to_bytes(4, "little")
        position = end
    return bytes(out)
