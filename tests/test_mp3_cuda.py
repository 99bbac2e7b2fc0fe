"""csrc/cuda/mp3.cu in emulation: integer lines equal to the CPU decoder's, samples within 1e-6 of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mp3_writer as mw
from emulation import Emulated, Report, emulate, emulate_source
from fastaug.codecs import Status, decode, device_mp3
from fastaug.codecs.native import Members
from fastaug.ops import _cuda
from mp3_writer import EMPTY, LONG, SHORT, START, STOP, Frame, Granule
from test_mp3 import lame, needs_lame
from test_mp3_frames import spectrum

CLOSE = 1e-6
_CROP = np.dtype([(name, np.int64) for name in ("member", "row", "low", "high", "to", "stride", "status")])


class Emulator:
    """Stands in for `fastaug.ops._cuda.launch`."""

    def __init__(self, count: bool = False) -> None:
        self.count, self.args, self.reports = count, {}, {}  # type: bool, dict[str, Any], dict[str, Report]

    def __call__(self, file: str, name: str, grid: Any, block: Any, args: Any, shared_bytes: int = 0) -> None:
        self.args[name] = args
        self.reports[name] = emulate(file).launch(name, grid, block, args, shared_bytes, count=self.count)


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    found = Emulator()
    monkeypatch.setattr(_cuda, "launch", found)
    return found


def on_device(
    encoded: Sequence[bytes], starts: Sequence[int], length: int, channels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples (B, C, T), statuses of the host, flags of the device."""
    members = Members(list(encoded), [str(i) for i in range(len(encoded))], 1)
    assert (members.table["status"] == 0).all() and (members.table["format"] == 4).all()
    crops = np.zeros(len(encoded), _CROP)
    crops["member"] = crops["row"] = np.arange(len(encoded))
    frames = members.table["frames"]
    crops["low"] = np.clip(starts, 0, frames)
    crops["high"] = np.clip(np.array(starts) + length, 0, frames)
    crops["to"] = np.arange(len(encoded)) * channels * length + crops["low"] - starts
    crops["stride"] = length
    samples, status = torch.zeros(len(encoded), channels, length), torch.zeros(len(encoded), dtype=torch.int32)
    device_mp3.decode_mp3(members, crops, samples, None, status, 1)
    return samples.numpy(), crops["status"], status.numpy()


def check(encoded: Sequence[bytes], starts: Sequence[int], length: int, source: int, loud: float = 0.05) -> np.ndarray:
    """Every number of channels against the CPU decoder; returns the samples of all channels."""
    found = np.zeros(0)
    for channels in {1, source}:
        found, refused, flagged = on_device(encoded, starts, length, channels)
        expected, status = decode(list(encoded), np.array(starts), length, channels=channels)
        assert not status.any() and not refused.any() and not flagged.any()
        peak = max(1.0, float(expected.abs().max()))
        assert peak > loud
        assert np.abs(found - expected.numpy()).max() <= CLOSE * peak
    return found


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cpu() -> Emulated:
    return emulate_source((Path(__file__).parent / "mp3_lines.h").read_text())


def units_of(data: bytes) -> int:
    members = Members([data], ["one"], 1)
    return -(-int(members.table["frames"][0]) // 576)


def check_lines(cpu: Emulated, emulator: Emulator, data: bytes, channels: int) -> None:
    """All units of a file that begins with its first frame of sound and has no tag."""
    frames = int(Members([data], ["one"], 1).table["frames"][0])
    on_device([data], [0], frames, channels)
    _, _, _, _, counts, rows, total, _ = emulator.args["fa_mp3_lines_kernel"]
    units = len(counts)
    lines, theirs = np.zeros((units, 576), np.int16), np.zeros(units, np.int32)
    factors = np.zeros((units, 40), np.uint8)
    padded = np.frombuffer(data + bytes(4096), np.uint8)
    cpu.launch("cpu_lines", (1,), (1,), (padded, len(data), lines, theirs, factors), count=False)
    whole = rows.numpy().reshape(units, 304)
    assert total == units and (counts.numpy() == theirs).all() and theirs.max() > 50
    ours = whole[:, 16:].copy().view(np.int16)
    written = np.arange(576) < theirs[:, None]
    assert (ours[written] == lines[written]).all() and not lines[~written].any()
    head = whole[:, :10].copy().view(np.uint8) & 127
    granule1 = np.arange(units) // channels % 2 == 1
    assert (head[~granule1] == factors[~granule1])[:, :39].all()
    assert ((head == factors) | (head == 0))[:, :39].all()  # shared ones are taken from granule 0


FILES = [
    (44_100, 2, "-b 128 -t"),
    (44_100, 2, "-b 320 -t"),
    (44_100, 2, "-V 4 -t"),
    (44_100, 1, "-b 64 -t"),
    (22_050, 2, "-b 32 -t"),
    (8_000, 1, "-b 8 -t"),
]


@needs_lame
@pytest.mark.parametrize(("rate", "channels", "options"), FILES)
def test_lines_equal_the_cpu_decoder(cpu: Emulated, emulator: Emulator, rate: int, channels: int, options: str) -> None:
    check_lines(cpu, emulator, lame(rate, channels, options, 0.4), channels)


# --- samples ---------------------------------------------------------------------------------------------------------


@needs_lame
@pytest.mark.parametrize(("rate", "channels", "options"), FILES)
def test_samples_are_close_to_the_cpu_decoder(emulator: Emulator, rate: int, channels: int, options: str) -> None:
    data = lame(rate, channels, options.replace(" -t", ""), 0.6)
    check([data] * 3, [0, rate // 4, rate // 2], 2500, channels)
