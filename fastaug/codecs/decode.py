"""The batched face of decoding: many members, many crops, one tensor, one status a member."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.checks import check_rate
from fastaug.codecs.sndfile import DecodeError, open_audio

__all__ = ["decode"]

Encoded = bytes | memoryview | str | Path


def decode(
    encoded: Sequence[Encoded],
    starts: Tensor | npt.ArrayLike = 0,
    lengths: Tensor | npt.ArrayLike | None = None,
    sample_rate: int | None = None,
    channels: int | None = 1,
    device: torch.device | str | None = None,
    num_threads: int | None = None,
) -> tuple[Tensor, list[str | None]]:
    """Decode ranges of encoded audio into one batch.

    A file of n samples has ⌈n · out / in⌉ output samples; output sample k sits at source position k · in / out in
    exact integer arithmetic. So a range equals the same slice of the whole, bit for bit (MP3: to 2^-22, because
    libsndfile's decoder rounds differently after a seek). Zeros outside the file.

    Args:
        encoded: B members, bytes or paths, of mixed codecs and rates.
        starts: int64 (B,) or (V, B), in samples at the output rate; an int broadcasts.
        lengths: likewise; None reads to the end of each file.
        sample_rate: output rate in Hz; None keeps each file's own.
        channels: 1 mixes down (mean), None keeps (all members must then agree).
        device: of the result; the CPU by default.
        num_threads: decoding threads; torch's count by default.

    Returns:
        samples: float32 (B, C, T) or (V, B, C, T), T the largest length; shorter ones are zero-padded.
        status: for each member None, or the reason why its rows are zeros.

    Raises:
        ValueError: shapes do not fit, a length is negative, or the sample rate is not positive.
    """
    if sample_rate is not None:
        check_rate(sample_rate, "decode")
    first = _crops(starts, len(encoded), "starts")
    count = np.full_like(first, -1) if lengths is None else _crops(lengths, len(encoded), "lengths")
    if lengths is not None and (count < 0).any():
        raise ValueError("lengths must not be negative")
    views = max(first.shape[0], count.shape[0])
    first, count = (np.broadcast_to(a, (views, len(encoded))) for a in (first, count))

    def one(i: int) -> list[Tensor] | str:
        try:
            with open_audio(encoded[i]) as audio:
                total = audio.frames(sample_rate)
                wanted = zip(first[:, i].tolist(), count[:, i].tolist(), strict=True)
                spans = [(start, n if n >= 0 else max(total - start, 0)) for start, n in wanted]
                return [audio.read(start, n, sample_rate, channels) for start, n in spans]
        except (DecodeError, FileNotFoundError) as error:
            return str(error)

    with ThreadPoolExecutor(num_threads or torch.get_num_threads()) as pool:
        members = list(pool.map(one, range(len(encoded))))
    samples = _collect(members, views, None if lengths is None else int(count.max(initial=0)), channels)
    flat = np.ndim(starts) < 2 and np.ndim(lengths if lengths is not None else 0) < 2
    status = [member if isinstance(member, str) else None for member in members]
    return (samples[0] if flat else samples).to(device or "cpu"), status


def _crops(values: Tensor | npt.ArrayLike, members: int, name: str) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be whole samples, got {array.dtype}")
    if array.ndim > 2 or (array.ndim and array.shape[-1] != members):
        raise ValueError(f"{name} must be an int, ({members},) or (V, {members}), got shape {array.shape}")
    return np.broadcast_to(array.astype(np.int64), (*array.shape[:-1], members)).reshape(-1, members)


def _collect(members: list[list[Tensor] | str], views: int, length: int | None, channels: int | None) -> Tensor:
    """(V, B, C, T) from the crops of each member."""
    good = [crop for member in members if not isinstance(member, str) for crop in member]
    counts = sorted({crop.shape[0] for crop in good})
    if len(counts) > 1:
        raise ValueError(f"members have {counts} channels: give channels=1, or decode them apart")
    width = length if length is not None else max((crop.shape[1] for crop in good), default=0)
    samples = torch.zeros(views, len(members), counts[0] if counts else channels or 1, width)
    for i, member in enumerate(members):
        if not isinstance(member, str):
            for v, crop in enumerate(member):
                samples[v, i, :, : crop.shape[1]] = crop
    return samples
