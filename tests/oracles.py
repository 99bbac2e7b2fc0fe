"""What the tests of native operators share: the sox command line, emulated launches, and properties of every op."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from emulation import Report, emulate
from fastaug.ops import _cuda

needs_sox = pytest.mark.skipif(shutil.which("sox") is None, reason="no sox command")


def sox(x: Tensor, rate: int, *effect: object) -> Tensor:
    """x (C, T) through `sox -D`, float files on both ends."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "in.wav"), Path(folder, "out.wav")
        soundfile.write(source, x.T.numpy(), rate, subtype="FLOAT")
        command = ["sox", "-D", str(source), "-e", "floating-point", "-b", "32", str(result), *map(str, effect)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        y, _ = soundfile.read(result, dtype="float32", always_2d=True)
    return torch.from_numpy(y.T.copy())


def emulate_launches(monkeypatch: pytest.MonkeyPatch, count: bool = False) -> list[Report]:
    """From here on kernels run on the emulator: an op's CUDA function may be called with CPU tensors."""
    reports: list[Report] = []

    def launch(
        file: str,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        shared_bytes: int = 0,
    ) -> None:
        reports.append(emulate(file).launch(name, grid, block, args, shared_bytes, count=count))

    monkeypatch.setattr(_cuda, "launch", launch)
    return reports


def agreement_db(a: Tensor, b: Tensor) -> float:
    """Level of `b` over the difference, in decibels."""
    error = (a.double() - b.double()).square().sum()
    return float(10 * torch.log10(b.double().square().sum() / error.clamp_min(1e-300)))


def music(rate: int, length: int, channels: int = 1, seed: int = 0) -> Tensor:
    """(C, T): a dozen gliding partials below 0.3 of the rate and a little noise, within ±0.4."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(length, dtype=torch.float64) / rate
    x = torch.zeros(channels, length, dtype=torch.float64)
    for _ in range(12):
        hz, phase, level = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        x += 0.03 * (0.3 + level) * torch.sin(6.283 * ((60 + hz * 0.29 * rate) * t * (1 + 0.01 * t) + phase))
    return (x + 0.003 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).float()


def check_rows(op: Callable[[Tensor, slice, Tensor | None], Tensor], x: Tensor, same_shape: bool = True) -> None:
    """`op(x[rows], rows, active[rows])` treats rows alone: batch size, threads, strides, NaN rows and `active`."""
    kept = x.clone()
    whole = op(x, slice(None), None)
    assert torch.equal(x, kept), "wrote its input"
    for row in range(len(x)):
        assert torch.equal(op(x[row : row + 1], slice(row, row + 1), None), whole[row : row + 1])
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        assert torch.equal(op(x, slice(None), None), whole)
    torch.set_num_threads(threads)
    strided = torch.stack([x, torch.zeros_like(x)], dim=-1)[..., 0]
    assert not strided.is_contiguous() or x.numel() < 2
    assert torch.equal(op(strided, slice(None), None), whole)
    expanded = x[:1].expand_as(x)
    assert torch.equal(op(expanded, slice(None), None), op(expanded.contiguous(), slice(None), None))
    for bad in (float("nan"), float("inf")):
        sick = x.clone()
        sick[1, :, x.shape[-1] // 2] = bad
        y = op(sick, slice(None), None)
        assert torch.equal(y[0], whole[0]) and torch.equal(y[2:], whole[2:])
        assert bad == float("inf") or y[1].isnan().any()  # an Inf may be clipped, a NaN may not vanish
    if same_shape:
        active = torch.arange(len(x)) % 2 == 0
        y = op(x, slice(None), active)
        assert torch.equal(y[active], whole[active]) and torch.equal(y[~active], x[~active])
