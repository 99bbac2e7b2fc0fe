"""Voices of the synthetic corpus: pitched notes from wavetables.

Everything is computed in float64 where a library function is involved (sin, exp) and rounded to float32 once,
then only added and multiplied, so that the sound does not depend on the machine's SIMD width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["VOICES", "Draws", "NoteCache", "Voice", "fade", "sine"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
T = TypeVar("T")

_TABLE_BITS = 12
_TABLE_SIZE = 1 << _TABLE_BITS
_HARMONICS = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)


class Draws:
    """A named stream of uniform draws: raw Philox words, so a NumPy release cannot change the corpus.

    Args:
        seed: corpus seed, any int.
        name: what the draws are for, such as ``"track/3/drums"``; streams of different names are independent.
    """

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
        self._philox = np.random.Philox(key=int.from_bytes(digest, "little"))
        self._words: list[int] = []

    def unit(self) -> float:
        """A double in [0, 1)."""
        if not self._words:
            self._words = self._philox.random_raw(64).tolist()
        return (self._words.pop() >> 11) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def integer(self, low: int, high: int) -> int:
        """An int in [low, high)."""
        return low + int(self.unit() * (high - low))

    def chance(self, p: float) -> bool:
        return self.unit() < p

    def choice(self, values: Sequence[T]) -> T:
        return values[int(self.unit() * len(values))]

    def noise(self, samples: int) -> Floats:
        """White noise (samples,), uniform in [-1, 1) with 16 bits."""
        words = self._philox.random_raw((samples + 3) // 4).astype("<u8", copy=False)
        return words.view("<i2")[:samples].astype(np.float32) * np.float32(2.0**-15)


@dataclass(frozen=True)
class Voice:
    """A pitched instrument: a harmonic series with an envelope.

    Args:
        rolloff: harmonic k has amplitude k ** -rolloff.
        even: gain of the even harmonics (0 is a square or a clarinet).
        attack: seconds to full level.
        decay: time constant in seconds of the fall after the attack, 0 to sustain.
        release: seconds of the fade after the note ends.
        bright: weight of a brighter spectrum at the onset, which fades within ``bright_decay`` seconds.
        detune: spread in cents of a second oscillator, 0 for none.
        vibrato: depth in radians of a 5.5 Hz phase modulation.
        fm: (frequency ratio, depth in radians, decay in seconds) of a phase modulation.
        breath: level of added noise.
        drive: gain into a soft clipper over the whole part, 0 for none.
        level: overall gain.
    """

    rolloff: float = 1.4
    even: float = 1.0
    attack: float = 0.005
    decay: float = 0.0
    release: float = 0.04
    bright: float = 0.0
    bright_decay: float = 0.08
    detune: float = 0.0
    vibrato: float = 0.0
    fm: tuple[float, float, float] | None = None
    breath: float = 0.0
    drive: float = 0.0
    level: float = 1.0


VOICES: dict[str, Voice] = {
    "accordion": Voice(rolloff=0.8, attack=0.04, release=0.08, detune=7, level=0.8),
    "bell": Voice(rolloff=3.0, decay=0.9, release=0.5, fm=(3.5, 2.2, 0.5)),
    "brass": Voice(rolloff=1.0, attack=0.03, release=0.06, bright=0.5, bright_decay=0.2),
    "clean guitar": Voice(rolloff=0.9, decay=0.12, release=0.03, bright=0.5, bright_decay=0.03),
    "distorted guitar": Voice(rolloff=0.9, decay=2.0, release=0.03, detune=4, drive=7.0, level=0.9),
    "electric bass": Voice(rolloff=1.5, decay=0.6, bright=0.4, bright_decay=0.06, level=1.5),
    "electric piano": Voice(rolloff=2.6, decay=0.8, release=0.1, fm=(1.0, 0.9, 0.3)),
    "flute": Voice(rolloff=2.6, even=0.4, attack=0.05, release=0.08, vibrato=0.5, breath=0.05, level=1.2),
    "harmonica": Voice(rolloff=0.7, even=0.7, attack=0.04, release=0.06, vibrato=0.3, level=0.7),
    "nylon guitar": Voice(rolloff=1.7, decay=0.35, release=0.06, bright=0.5, bright_decay=0.05, level=1.2),
    "organ": Voice(rolloff=1.2, even=1.3, attack=0.008, release=0.04, vibrato=0.2, level=0.8),
    "piano": Voice(rolloff=1.8, decay=0.7, release=0.1, bright=0.7, bright_decay=0.1, level=1.2),
    "pulse": Voice(rolloff=0.85, even=0.5, attack=0.002, release=0.01, level=0.7),
    "saw lead": Voice(rolloff=1.0, attack=0.006, release=0.06, detune=12, bright=0.2, bright_decay=0.15),
    "square lead": Voice(rolloff=1.0, even=0.0, attack=0.002, release=0.02, vibrato=0.2, level=0.8),
    "steel guitar": Voice(rolloff=1.2, decay=0.5, release=0.08, bright=0.6, bright_decay=0.06),
    "strings": Voice(rolloff=1.1, attack=0.12, release=0.2, detune=8, vibrato=0.3, level=0.8),
    "sub bass": Voice(rolloff=2.8, attack=0.01, release=0.04, level=1.7),
    "synth bass": Voice(rolloff=1.1, decay=0.25, release=0.02, bright=0.6, bright_decay=0.07, level=1.2),
    "synth pad": Voice(rolloff=1.7, attack=0.35, release=0.6, detune=10, vibrato=0.15),
    "upright bass": Voice(rolloff=2.0, decay=0.4, bright=0.3, bright_decay=0.04, level=1.7),
}


@lru_cache(maxsize=4096)
def _wavetable(rolloff: float, even: float, harmonics: int) -> Floats:
    """One period (_TABLE_SIZE,) of the harmonic series, at RMS 0.25."""
    k = np.arange(1, harmonics + 1, dtype=np.float64)
    amplitude = k**-rolloff * np.where(k % 2 == 0, even, 1.0)
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex128)
    # Schroeder phases keep the crest factor low: less clipping for the same loudness (Schroeder 1970).
    spectrum[1 : harmonics + 1] = amplitude * np.exp(1j * np.pi * k * (k - 1) / harmonics)
    table = np.fft.irfft(spectrum)
    return (table * (0.25 / np.sqrt(np.mean(table * table)))).astype(np.float32)


def fade(samples: int, seconds: float, rate: int) -> Floats:
    """exp(-t / seconds) (samples,)."""
    return np.exp(np.arange(samples, dtype=np.float64) * (-1.0 / (seconds * rate))).astype(np.float32)


def sine(cycles: Doubles) -> Doubles:
    """sin of a phase in cycles."""
    return np.sin(2.0 * np.pi * cycles)


@dataclass
class NoteCache:
    """Notes of one track: each (voice, pitch, length) is synthesised once.

    Args:
        rate: sample rate in Hz.
        seed, name: of the draws that colour each voice (the same for the whole track).
    """

    rate: int
    draws: Draws
    _colours: dict[str, Voice] = field(default_factory=dict)
    _notes: dict[tuple[str, int, int], Floats] = field(default_factory=dict)

    def colour(self, name: str) -> Voice:
        """The named voice as this track has it: brightness, decay and tuning vary from track to track."""
        if name not in self._colours:
            voice, draws = VOICES[name], self.draws
            self._colours[name] = Voice(
                **{
                    **voice.__dict__,
                    "rolloff": round(voice.rolloff * draws.uniform(0.85, 1.2), 2),
                    "decay": voice.decay * draws.uniform(0.6, 1.6),
                    "detune": voice.detune * draws.uniform(0.6, 1.5),
                    "bright": voice.bright * draws.uniform(0.5, 1.3),
                }
            )
        return self._colours[name]

    def note(self, name: str, pitch: int, samples: int) -> Floats:
        """A note held for ``samples`` plus its release, mono, RMS around 0.25 at the onset.

        Args:
            name: key of ``VOICES``.
            pitch: MIDI number.
            samples: held length.
        """
        key = (name, pitch, samples)
        if key not in self._notes:
            self._notes[key] = self._synthesise(self.colour(name), pitch, samples)
        return self._notes[key]

    def _synthesise(self, voice: Voice, pitch: int, samples: int) -> Floats:
        hertz = 440.0 * 2.0 ** ((pitch - 69) / 12.0)
        release = max(int(voice.release * self.rate), 1)
        total = samples + release
        out = self._oscillator(voice, hertz, total)
        if voice.detune:
            out += self._oscillator(voice, hertz * 2.0 ** (voice.detune / 1200.0), total)
            out *= np.float32(0.7)
        if voice.breath:
            out += self.draws.noise(total) * np.float32(voice.breath)
        if voice.decay:
            out *= fade(total, voice.decay, self.rate)
        attack = min(max(int(voice.attack * self.rate), 1), total)
        out[:attack] *= np.arange(attack, dtype=np.float32) / np.float32(attack)
        out[samples:] *= np.arange(release, 0, -1, dtype=np.float32) / np.float32(release)
        out *= np.float32(voice.level)
        return out

    def _oscillator(self, voice: Voice, hertz: float, samples: int) -> Floats:
        # Phase in 32-bit integer cycles: it wraps by itself and is the same on every machine.
        time = np.arange(samples, dtype=np.uint32)
        phase = time * np.uint32(round(hertz / self.rate * 2.0**32))
        seconds = time.astype(np.float64) * (1.0 / self.rate)
        swing = np.zeros(0)
        if voice.fm is not None:
            ratio, depth, decay = voice.fm
            swing = sine(seconds * (hertz * ratio)) * (fade(samples, decay, self.rate) * depth)
        elif voice.vibrato:
            swing = sine(seconds * 5.5) * voice.vibrato
        if swing.size:
            phase += (swing * (2.0**32 / (2.0 * np.pi))).astype(np.int64).astype(np.uint32)
        index = phase >> np.uint32(32 - _TABLE_BITS)
        limit = 0.45 * self.rate / hertz
        harmonics = next((h for h in _HARMONICS if h <= limit), 1)
        out = _wavetable(voice.rolloff, voice.even, harmonics).take(index)
        if voice.bright:
            extra = _wavetable(round(voice.rolloff * 0.5, 3), voice.even, harmonics).take(index)
            out += extra * (fade(samples, voice.bright_decay, self.rate) * np.float32(voice.bright))
        return out
