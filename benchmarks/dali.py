"""DALI as a peer, on the CPU: it decodes whole files by libsndfile (no MP3), and has its own mel spectrogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import Run

PACKAGE = "nvidia-dali-cuda130"


def decibels(clips: np.ndarray, rate: int, n_fft: int, hop: int, bands: int, threads: int) -> Run:
    """(B, T) float32 → (B, 1, bands, frames) decibels, as librosa's power_to_db of its melspectrogram."""
    from nvidia.dali import fn, pipeline_def, types

    rows = [np.ascontiguousarray(np.pad(clip, n_fft // 2)) for clip in clips]

    @pipeline_def(batch_size=len(rows), num_threads=threads, device_id=None, prefetch_queue_depth=1)
    def graph() -> Any:
        samples = fn.external_source(source=lambda: rows, batch=True, dtype=types.FLOAT, ndim=1)
        power = fn.spectrogram(samples, nfft=n_fft, window_length=n_fft, window_step=hop, center_windows=False)
        mel = fn.mel_filter_bank(power, sample_rate=rate, nfilter=bands, mel_formula="slaney", normalize=True)
        return fn.to_decibels(mel, multiplier=10.0, reference=1.0, cutoff_db=-100.0)

    pipe = graph()
    pipe.build()
    return lambda: np.stack([np.asarray(row) for row in pipe.run()[0]])[:, None]


def crops(encoded: list[bytes], starts: np.ndarray, length: int, rate: int, threads: int) -> Run:
    """Whole files decoded, mixed down and resampled, then cut: DALI has no ranges. → (B, 1, length)."""
    from nvidia.dali import fn, pipeline_def, types

    data = [np.frombuffer(item, np.uint8) for item in encoded]
    first = [np.array([start], np.int32) for start in starts]

    @pipeline_def(batch_size=len(data), num_threads=threads, device_id=None, prefetch_queue_depth=1)
    def graph() -> Any:
        members = fn.external_source(source=lambda: data, batch=True, dtype=types.UINT8, ndim=1)
        start = fn.external_source(source=lambda: first, batch=True, dtype=types.INT32, ndim=1)
        audio, _ = fn.decoders.audio(members, downmix=True, sample_rate=rate, dtype=types.FLOAT)
        return fn.slice(audio, start, (length,), axes=(0,))

    pipe = graph()
    pipe.build()
    return lambda: np.stack([np.asarray(row).reshape(-1) for row in pipe.run()[0]])[:, None]
