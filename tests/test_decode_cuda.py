"""Decoding kernels in emulation, against the CPU: the whole path but for the device itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import flac_writer as fw
from emulation import Report, emulate
from fastaug.codecs.device import DeviceBatch, decode_on_device
from fastaug.codecs.native import Members, Wanted, decode_into
from fastaug.ops import _cuda
from test_flac import encode, music, needs_flac
from test_wav import KINDS, noise, written


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[Report]]]:
    """Launches run in emulation, forwards and backwards; their reports by kernel."""
    reports: dict[str, list[Report]] = {}

    def launch(
        file: str, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_bytes: int = 0
    ) -> None:
        if 0 in grid:
            return
        report = emulate(file).launch(name, grid, block, args, shared_bytes, count="sectors" in reports)
        reports.setdefault(name, []).append(report)

    monkeypatch.setattr(_cuda, "launch", launch)
    yield reports


def crops(encoded: Sequence[bytes], spans: Sequence[tuple[int, int, int]]) -> tuple[Members, Wanted]:
    """Spans of (member, start, length), a row each."""
    columns = [np.array(column, np.int64) for column in zip(*spans)]
    members = Members(encoded, [f"member {i}" for i in range(len(encoded))], 1)
    return members, Wanted(columns[0], np.arange(len(spans)), columns[1], columns[2])


def both(
    encoded: Sequence[bytes], spans: Sequence[tuple[int, int, int]], channels: int, rate: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, set[int], DeviceBatch]:
    """The CPU's samples and the emulated device's, the rows that the device refused, and its batch."""
    members, wanted = crops(encoded, spans)
    shape = (len(spans), channels, max(length for _, _, length in spans))
    expected = torch.full(shape, 7.0)
    assert not decode_into(members, wanted, rate, expected, 1)
    batch = DeviceBatch(members, wanted, rate, shape, "cpu", 1)
    refused = set(torch.nonzero(batch._status).flatten().tolist())
    return expected, batch.samples, refused, batch


def check(encoded: Sequence[bytes], spans: Sequence[tuple[int, int, int]], channels: int) -> None:
    expected, samples, refused, _ = both(encoded, spans, channels)
    assert not refused
    assert torch.equal(samples.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_wav_of_every_kind(launched: dict[str, list[Report]], kind: str, channels: int) -> None:
    data = [written(noise(length, channels, length), kind) for length in (9_001, 40, 1)]
    spans = [(0, 0, 9_001), (0, 17, 3_000), (0, 8_999, 2), (1, -5, 60), (2, 0, 1), (1, 100, 7), (0, 5, 5_000)]
    check(data, spans, 1)
    check(data, spans, channels)
    assert launched["fa_wav_kernel"]
