"""Writes seeds for a fuzz target: small files of every kind that the codec knows. `python seeds.py flac FOLDER`"""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import itertools

import flac_writer as fw
import mp3_writer as mw


def sine(length: int, channels: int, top: int) -> np.ndarray:
    t = np.arange(length)[None] + 7 * np.arange(channels)[:, None]
    return np.floor(0.9 * top * np.sin(t * 0.05)).astype(np.int64)


def flac_seeds() -> dict[str, bytes]:
    found = {}
    for subtype in ("PCM_S8", "PCM_16", "PCM_24"):
        for channels in (1, 2, 3):
            buffer = io.BytesIO()
            x = sine(2000, channels, 1).T + 0.01 * np.random.default_rng(0).standard_normal((2000, channels))
            soundfile.write(buffer, sine(2000, channels, 1000).T / 1200 + 0.01 * x, 44100, subtype, format="FLAC")
            found[f"sndfile-{subtype}-{channels}"] = buffer.getvalue()
    subframes = {
        "constant": fw.Constant(),
        "verbatim": fw.Verbatim(),
        "wasted": fw.Verbatim(wasted=3),
        **{f"fixed{i}": fw.Predicted(i, rice=fw.Rice([9, 10])) for i in range(5)},
        "escape": fw.Predicted(1, rice=fw.Rice([("raw", 17), 10])),
        "rice2": fw.Predicted(0, rice=fw.Rice([11] * 4, method=1)),
        "lpc2": fw.Predicted(coefficients=(16_000, -7_500), shift=13, rice=fw.Rice([9])),
        "lpc32": fw.Predicted(coefficients=[300] * 32, shift=14, rice=fw.Rice([12])),
    }
    for name, kind in subframes.items():
        for bits, stereo in ((16, None), (16, 8), (32, 9), (16, 10)):
            x = sine(128, 2, 2**14) // 8 * 8
            frames = [fw.frame(x[:, 32 * i : 32 * i + 32], i, kind, bits=bits, stereo=stereo) for i in range(4)]
            told = {"channels": 2, "bits": bits, "smallest": 32, "largest": 32}
            found[f"{name}-{bits}-{stereo}"] = fw.stream(frames, 128 if stereo else 0, **told)
    x = sine(200, 1, 2**14)
    cuts = [0, 16, 100, 117, 200]
    moving = [fw.frame(x[:, a:b], a, variable=True) for a, b in itertools.pairwise(cuts)]
    found["variable"] = fw.stream(moving, 200, smallest=16, largest=100)
    found["headless"] = b"".join(moving)
    found["tags"] = b"ID3\x04\0\0\0\0\0\x05hello" + found["variable"] + b"TAG" + bytes(125)
    return found


def wav_seeds() -> dict[str, bytes]:
    found = {}
    for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM"):
        for channels, container in ((1, "WAV"), (2, "WAVEX"), (3, "RF64")):
            if container == "WAV" or not kind.endswith(("LAW", "ADPCM")):
                buffer = io.BytesIO()
                soundfile.write(buffer, sine(100, channels, 1000).T / 1200, 8000, kind, format=container)
                found[f"{kind}-{channels}"] = buffer.getvalue()
    plain = found["PCM_16-1"]
    at = plain.index(b"data") + 4
    for size in (0, 0xFFFFFFFF, 1 << 20):
        found[f"size-{size}"] = plain[:at] + size.to_bytes(4, "little") + plain[at + 4 :]
    found["odd"] = plain[: at - 4] + b"LIST\x03\0\0\0abc" + plain[at - 4 :]
    found["turned"] = plain[:12] + plain[at - 4 :] + plain[12 : at - 4]
    return found


def mp3_seeds() -> dict[str, bytes]:
    found = {}
    for rate in (8000, 16000, 22050, 32000, 44100):
        for channels in (1, 2):
            for mode in ("CONSTANT", "VARIABLE"):
                buffer = io.BytesIO()
                x = sine(rate // 5, channels, 1000).T / 1200
                x[:: rate // 20] = 0.9  # transients: short blocks
                told = {"bitrate_mode": mode, "compression_level": 0.9}
                soundfile.write(buffer, x, rate, "MPEG_LAYER_III", format="MP3", **told)
                found[f"sndfile-{rate}-{channels}-{mode}"] = buffer.getvalue()
    lines = [12, -7, 20, 3, 5, -2, 0, 1, -9, 30, 17, 0, 2, -1, 1, 0, 1, 1, -1, 0] * 3
    for rate in (0, 2, 4, 8):
        for block, mixed in ((mw.LONG, False), (mw.START, True), (mw.SHORT, False), (mw.SHORT, True)):
            compress = 13 if rate < 3 else 328
            left = mw.Granule(lines, 190, block=block, mixed=mixed, subblock_gain=(0, 1, 2), quadruples=rate & 1)
            for ms, intensity in ((False, True), (True, True), (True, False)):
                right = mw.Granule(lines[:20], 190, (), compress, block=block, mixed=mixed)
                sizes = mw.factor_sizes(rate, right, intensity)
                right = replace(right, factors=[min(size, 1) for size in sizes])
                granules = [[left, right]] * (2 if rate < 3 else 1)
                kbps = 5 if rate < 3 else 8
                frame = mw.Frame(granules, rate, ms=ms, intensity=intensity, shared=(5, 10), kbps_index=kbps)
                found[f"{rate}-{block}-{mixed}-{ms}-{intensity}"] = frame.bytes() * 4
    found["tags"] = b"ID3\x04\0\0\0\0\0\x05hello" + found["0-0-False-True-False"] + b"TAG" + bytes(125)
    found["free"] = bytes.fromhex("fffb00c4") + bytes(196)
    found["free"] = found["free"] * 6
    found["garbage"] = found["tags"][:700] + bytes(range(100)) + found["tags"][15:]
    return found


def crops_seeds() -> dict[str, bytes]:
    """Numbers of any size; what they are is in fuzz_crops.cpp."""
    rng = np.random.default_rng(0)
    return {f"{size}-{i}": rng.bytes(size) for size in (40, 100, 250) for i in range(20)}


def main(codec: str, folder: str) -> None:
    seeds = {"flac": flac_seeds, "wav": wav_seeds, "mp3": mp3_seeds, "crops": crops_seeds}[codec]()
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, data in seeds.items():
        Path(folder, name).write_bytes(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
