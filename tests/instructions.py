"""Calls each kernel of the CPU extension once, alone in a bare interpreter, so that valgrind can count instructions.

    python -S tests/instructions.py EXTENSION.so TRACK.mp3 TRACK.flac

callgrind, told ``--dump-before=getppid``, writes a profile at every call of that function, which nothing else
calls: the program calls it before each kernel and after the last. No torch, no NumPy: they would take a minute to load.
"""

from __future__ import annotations

import math
import os
import sys
from array import array
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import Any

ROWS, LENGTH, RATE = 16, 4096, 22_050
SAMPLES = ROWS * LENGTH
FRAMES = 1152 * 12  # of a track
Job = tuple[int, Callable[[], Any]]  # the number of samples that it handles, the call


def load(path: str) -> Any:
    loader = ExtensionFileLoader("_native", path)
    spec = spec_from_loader("_native", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


class Memory:
    """Arrays that stay where they are, and their addresses."""

    def __init__(self) -> None:
        self.kept: list[array[Any]] = []

    def __call__(self, kind: str, values: Any) -> int:
        self.kept.append(array(kind, values))
        return self.kept[-1].buffer_info()[0]

    def bytes(self, path: str) -> tuple[int, int]:
        with open(path, "rb") as file:
            data = file.read()
        return self("B", data), len(data)


def tune(count: int) -> list[float]:
    """Two tones and noise, by a generator of its own, so that it is the same everywhere."""
    tones = [0.3 * math.sin(2 * math.pi * i / 44) + 0.2 * math.sin(2 * math.pi * i / 352) for i in range(352)]
    state, out = 1, []
    for i in range(count):
        state = (1103515245 * state + 12345) & 0x7FFFFFFF
        out.append(tones[i % 352] + 1e-10 * state)
    return out


def effects(native: Any, memory: Memory, x: int) -> dict[str, Job]:
    y = memory("f", bytes(4 * SAMPLES))
    shape = (ROWS, 1, LENGTH)
    settings = memory("f", [50.0, 50.0, 70.0, 100.0, 0.0, 0.0] * ROWS)
    cutoff = memory("d", [0.02 + 0.01 * i for i in range(ROWS)])
    high = memory("B", [i % 2 for i in range(ROWS)])
    sections = memory("d", bytes(8 * ROWS * 2 * 6))
    native.fa_butterworth(cutoff, high, sections, ROWS, 4)
    factor = memory("f", [0.5] * ROWS)
    keys = memory("q", [v for i in range(ROWS) for v in (i, 7, 3)])
    level = memory("f", [30.0] * ROWS)
    offset = memory("q", [4 * 100 + i for i in range(ROWS)])
    pitch = memory("d", [0.75 if i % 2 else 1.25 for i in range(ROWS)])
    half_band = memory("f", [1 / 80] * 80)
    gain = (None, factor, None, 0)
    nothing = (None, None, None, 0)
    hiss, silence = (keys, level, None, None, 1, 0), (None, None, None, None, 0, 0)
    return {
        "gain": (SAMPLES, lambda: native.fa_pointwise(x, y, None, *gain, *silence, *nothing, *shape, LENGTH, 1)),
        "noise": (SAMPLES, lambda: native.fa_pointwise(x, y, None, *nothing, *hiss, *nothing, *shape, LENGTH, 1)),
        "delay": (SAMPLES, lambda: native.fa_echo(x, y, offset, factor, factor, None, *shape, 1)),
        "reverb": (SAMPLES, lambda: native.fa_reverb(x, y, settings, None, *shape, float(RATE), 0, 1, 0, 1)),
        "sinc filter": (SAMPLES, lambda: native.fa_windowed_sinc(x, y, cutoff, high, None, *shape, 8, 1)),
        "butterworth": (SAMPLES, lambda: native.fa_sos_filter(x, y, sections, None, *shape, 2, 1)),
        "pitch shift": (SAMPLES, lambda: native.fa_pitch_shift(x, y, pitch, None, *shape, float(RATE), half_band, 1)),
    }


def others(native: Any, memory: Memory, x: int, mp3: str, flac: str) -> dict[str, Job]:
    y = memory("f", bytes(4 * SAMPLES))
    half, frames = 40, LENGTH // 512
    taps = memory("f", [1 / 80] * (2 * half))
    window = memory("f", [0.25] * 1024)
    bands = memory("f", bytes(4 * ROWS * 513 * frames))
    resample = (ROWS, LENGTH, LENGTH, 0, 0, LENGTH // 2, 1, 2, taps, half, 0, 1)
    size, lead = 128, 208  # as for 44.1 to 22.05 kHz
    outputs = 16 * size - 2 * lead
    factors = memory("f", [1.0] * (size // 16 * 640))
    halve = (*resample[:-1], outputs, 2 * outputs, lead, size, size, None, None, factors, 1)
    spectrum = (513, ROWS, LENGTH, frames, 512, 512, 1024, 1024, 0, 1.0, 1e-6, 0.0, 1.0, 0.0, 1, 0, 1)
    data, flac_bytes = memory.bytes(flac)
    trouble = memory("q", [0])
    member = memory("q", [*memory.bytes(mp3), *[0] * 16])
    wanted = memory("q", [0, 0, 0, FRAMES])  # member, row, start, length
    outcome = memory("q", [0, 0])
    audio = memory("f", bytes(4 * 2 * FRAMES))

    def decode_mp3() -> None:
        native.fa_audio_probe(member, 1, 1)
        native.fa_audio_decode(member, wanted, 1, 0, None, 0, outcome, audio, 1, 2, FRAMES, FRAMES, 1)
        native.fa_audio_release(member, 1)

    return {
        "resample, direct": (SAMPLES // 2, lambda: native.fa_resample(x, y, *resample)),
        "resample, half": (SAMPLES // 2, lambda: native.fa_resample_blocks(x, y, *halve)),
        "spectrogram": (SAMPLES, lambda: native.fa_spectral(x, bands, 0, window, None, None, None, *spectrum)),
        "flac": (2 * FRAMES, lambda: native.fa_flac_decode(data, flac_bytes, 0, FRAMES, audio, None, FRAMES, trouble)),
        "mp3": (2 * FRAMES, decode_mp3),
    }


def main() -> None:
    native, memory = load(sys.argv[1]), Memory()
    x = memory("f", tune(SAMPLES))
    jobs = {**effects(native, memory, x), **others(native, memory, x, *sys.argv[2:4])}
    for _, run in jobs.values():
        run()  # tables and scratch are made by the first call
    for _, run in jobs.values():
        os.getppid()
        run()
    os.getppid()
    for name, (samples, _) in jobs.items():
        print(f"{name}\t{samples}")


if __name__ == "__main__":
    main()
