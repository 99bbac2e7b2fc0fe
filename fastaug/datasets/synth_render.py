"""Rendering a score: notes into parts, parts into a mix, 16-bit PCM out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastaug.datasets.synth_compose import Hit, Score
from fastaug.datasets.synth_drums import DRUMS
from fastaug.datasets.synth_genres import Mix
from fastaug.datasets.synth_voices import VOICES, Draws, NoteCache

__all__ = ["render"]

Floats = npt.NDArray[np.float32]

_PART_LEVEL = {"drums": 0.55, "bass": 0.45, "comp": 0.4, "lead": 0.4}
_SEND = {"drums": 0.2, "bass": 0.0, "comp": 1.0, "lead": 1.0}
_COMBS_SECONDS = (0.0297, 0.0371, 0.0411)
_PEAK = 0.85  # lossy codecs overshoot by about 1 dB: leave them room


def render(score: Score, seed: int, rate: int, channels: int) -> npt.NDArray[np.int16]:
    """Plays a score.

    Args:
        score: from ``compose`` with the same seed.
        seed: corpus seed.
        rate: sample rate in Hz, at least 4,000.
        channels: 1 or 2.

    Returns:
        int16 (T, C) with T = floor(seconds * rate + 0.5), peak below 0.86 of full scale, RMS between about -23 and
        -12 dBFS.
    """
    samples = int(score.seconds * rate + 0.5)
    draws = Draws(seed, f"track/{score.index}/mix")
    cache = NoteCache(rate, Draws(seed, f"track/{score.index}/voices"))
    parts = {name: _play(hits, cache, samples) for name, hits in score.parts.items() if hits}
    _duck(parts, score, draws.uniform(*score.mix.pump), rate)
    return _master(_mix(parts, score, draws, rate, channels), score.mix, draws, rate)


def _play(hits: list[Hit], cache: NoteCache, samples: int) -> Floats:
    """Adds all hits of a part into one buffer (T,)."""
    out = np.zeros(samples, dtype=np.float32)
    drums: dict[str, Floats] = {}
    for hit in hits:
        if hit.voice in DRUMS:
            if hit.voice not in drums:
                drums[hit.voice] = DRUMS[hit.voice](cache.draws, cache.rate)
            sound = drums[hit.voice]
        else:
            sound = cache.note(hit.voice, hit.pitch, max(int(hit.length * cache.rate), 1))
        start = int(hit.start * cache.rate)
        sound = sound[: samples - start]
        out[start : start + sound.size] += sound * np.float32(hit.gain)
    drive = max((VOICES[hit.voice].drive for hit in hits[:1] if hit.voice in VOICES), default=0.0)
    return _clip(out * np.float32(drive)) * np.float32(0.35) if drive else out


def _clip(x: Floats) -> Floats:
    """A soft clipper: the Pade approximant of tanh, exact arithmetic only."""
    x = np.clip(x, np.float32(-3.0), np.float32(3.0))
    square = x * x
    return x * (square + np.float32(27.0)) / (square * np.float32(9.0) + np.float32(27.0))


def _duck(parts: dict[str, Floats], score: Score, depth: float, rate: int) -> None:
    """Lowers the other parts after each kick, as a side-chain compressor does."""
    kicks = [hit.start for hit in score.parts["drums"] if hit.voice == "kick"]
    if depth <= 0.0 or not kicks:
        return
    dip = (1.0 - depth * np.exp(-np.arange(int(0.35 * rate)) / (0.12 * rate))).astype(np.float32)
    gain = np.ones(next(iter(parts.values())).size, dtype=np.float32)
    for start in kicks:
        window = gain[int(start * rate) : int(start * rate) + dip.size]
        np.minimum(window, dip[: window.size], out=window)
    for name, part in parts.items():
        if name != "drums":
            part *= gain


def _echo(x: Floats, delay: int, feedback: float) -> Floats:
    """y[n] = x[n] + feedback * y[n - delay], a block of ``delay`` samples at a time."""
    y = x.copy()
    for start in range(delay, y.size, delay):
        block = y[start : start + delay]
        block += y[start - delay : start - delay + block.size] * np.float32(feedback)
    return y


def _mix(parts: dict[str, Floats], score: Score, draws: Draws, rate: int, channels: int) -> Floats:
    """(C, T): parts at their levels and places, with echo and room."""
    samples = int(score.seconds * rate + 0.5)
    out = np.zeros((channels, samples), dtype=np.float32)
    send = np.zeros(samples, dtype=np.float32)
    for name, part in parts.items():
        level = np.float32(_PART_LEVEL[name] * draws.uniform(0.8, 1.2))
        place = draws.uniform(-0.5, 0.5) if name in ("comp", "lead") else 0.0
        part *= level
        for channel in range(channels):
            side = place if channel == 0 else -place
            out[channel] += part * np.float32(1.0 + side) if channels == 2 else part
        if _SEND[name]:
            send += part * np.float32(_SEND[name])
    echo, space = draws.uniform(*score.mix.echo), draws.uniform(*score.mix.space)
    beat = 60.0 / score.bpm * draws.choice((0.5, 0.75, 1.0))
    for channel in range(channels):
        delay = max(int(beat * rate) + 113 * channel, 1)
        wet = _echo(send, delay, 0.5)
        out[channel, delay:] += wet[:-delay] * np.float32(echo) if delay < samples else np.float32(0.0)
        for seconds in _COMBS_SECONDS:
            comb = max(int(seconds * rate) + 23 * channel, 1)
            out[channel] += _echo(send, comb, 0.72) * np.float32(space * 0.4)
    return out


def _smooth(x: Floats, amount: float, delay: int) -> Floats:
    """One zero: y[n] = (x[n] + amount * x[n - delay]) / (1 + |amount|). Negative amounts brighten."""
    y = x.copy()
    y[:, delay:] += x[:, :-delay] * np.float32(amount)
    y *= np.float32(1.0 / (1.0 + abs(amount)))
    return y


def _rms(x: Floats) -> float:
    """RMS over all samples, in integers, so that the order of summation cannot matter."""
    quantised = np.rint(x * np.float32(4096.0)).astype(np.int64)
    return float((int((quantised * quantised).sum()) / quantised.size) ** 0.5 / 4096.0)


def _mean(x: Floats) -> Floats:
    """Mean of each channel (C, 1), likewise."""
    quantised = np.rint(x * np.float32(4096.0)).astype(np.int64)
    return (quantised.sum(axis=1, keepdims=True) / (x.shape[1] * 4096.0)).astype(np.float32)


def _master(x: Floats, mix: Mix, draws: Draws, rate: int) -> npt.NDArray[np.int16]:
    """Equaliser, hiss, soft clipper and loudness: (C, T) float32 -> (T, C) int16."""
    delay = max(1, round(rate / 22_050))
    dark = draws.uniform(*mix.dark)
    x = _smooth(_smooth(x, dark, delay), max(dark, 0.0) * 0.7, 2 * delay)
    # The room, the tape, the engineer: a tilt that says nothing about the genre.
    x = _smooth(x, draws.uniform(-0.3, 0.25), delay)
    x = x * np.float32(0.3 / max(_rms(x), 1e-4))
    hiss = 10.0 ** (draws.uniform(*mix.hiss) / 20.0)
    for channel in range(x.shape[0]):
        x[channel] += draws.noise(x.shape[1]) * np.float32(hiss)
    x = _clip(x * np.float32(draws.uniform(*mix.drive)))
    x -= _mean(x)  # the clipper turns an asymmetric wave into an offset
    gain = 10.0 ** (draws.uniform(-21.0, -13.0) / 20.0) / max(_rms(x), 1e-4)
    peak = float(np.max(np.abs(x), initial=0.0))
    gain = min(gain, _PEAK / max(peak, 1e-4))
    return np.rint(x.T * np.float32(gain * 32_767.0)).astype(np.int16)
