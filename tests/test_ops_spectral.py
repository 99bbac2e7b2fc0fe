"""The spectrogram operator against a DFT by its definition, its gradient, its CUDA kernels, and what it depends on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from emulation import emulate
from fastaug.frontends.filters import mel_filters
from fastaug.ops import spectral as ops
from fastaug.ops.spectral import Bank, Frames, Level, spectral

DB = Level(True, floor=1e-10, scale=10 / math.log(10))
LEVELS = {
    "power": Level(),
    "gain": Level(gain=3.5),
    "magnitude": Level(magnitude=True),
    "ln": Level(True, offset=1e-3),
    "log1p": Level(True, gain=20.0, offset=1.0),
    "shift": Level(True, offset=1e-3, scale=0.5, shift=1.75),
    "db": DB,
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hann(width: int) -> torch.Tensor:
    return torch.hann_window(width, dtype=torch.float64)


def reference(x: torch.Tensor, window: torch.Tensor, f: Frames, filters: np.ndarray | None, level: Level) -> np.ndarray:
    """Sample by sample and frame by frame in float64, with a DFT by its definition."""
    basis = np.exp(-2j * np.pi * np.outer(np.arange(f.n_fft // 2 + 1), np.arange(f.n_fft)) / f.n_fft)
    signal, out = x.double().numpy(), []
    for row in signal:
        wide = np.pad(row, 4 * f.n_fft, mode="reflect" if f.reflect else "constant")
        frames = np.zeros((f.n_fft, f.count))
        for i in range(f.count):
            first = 4 * f.n_fft + i * f.hop - f.lead
            frames[: window.numel(), i] = wide[first : first + window.numel()] * window.numpy()
        value = np.abs(basis @ frames) ** (1 if level.magnitude else 2)
        out.append(value if filters is None else filters @ value)
    value = np.stack(out) * level.gain
    if level.logarithm:
        value = level.scale * np.log(np.maximum(value + level.offset, level.floor))
    return value + level.shift


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize(
    ("n_fft", "width", "hop", "lead", "reflect"),
    [(128, 128, 32, 64, True), (256, 200, 77, 100, False), (512, 401, 160, 0, False), (1024, 1024, 512, 512, True),
     (2048, 2047, 300, 1023, False), (400, 400, 200, 200, True), (1023, 1023, 256, 511, True),
     (32, 30, 16, 16, True), (250, 250, 100, 125, True), (486, 300, 243, 100, False), (882, 882, 441, 441, True),
     (600, 600, 300, 300, False), (1920, 1920, 480, 960, True), (1100, 1100, 500, 550, True)],
)  # fmt: skip
def test_against_the_definition(n_fft: int, width: int, hop: int, lead: int, reflect: bool, kind: str) -> None:
    x, level = noise(3, 2500), LEVELS[kind]
    frames = Frames(n_fft, hop, lead, 1 + (2500 + lead - width) // hop, reflect)
    for filters in (mel_filters(16_000, n_fft, 12, 50.0), None):
        bank = None if filters is None else Bank(filters)
        expected = reference(x, hann(width), frames, filters, level)
        ours, exact = (
            spectral(x, hann(width), frames, bank, level),
            spectral(x.double(), hann(width), frames, bank, level),
        )
        assert ours.shape == expected.shape and ours.dtype == torch.float32 and exact.dtype == torch.float64
        scale = 1e-10 if level.logarithm else 1e-11 * expected.max()
        assert np.abs(exact.numpy() - expected).max() < 100 * scale
        if level.logarithm:
            power = (expected - level.shift) / level.scale
            close = power > power.max() - np.log(1e4)
            assert np.abs(ours.numpy() - expected)[close].max() < 1e-4
            assert np.abs(ours.numpy() - expected)[power > power.max() - np.log(1e8)].max() < 1e-2
        else:
            assert np.abs(ours.numpy() - expected).max() < 1e-6 * expected.max()


def test_logarithm_of_every_size() -> None:
    """A tone's bin from 1e-36 to 1e30: ln within 3e-7 of its size, also beside 1."""
    x = torch.zeros(400, 128)
    x[:, 0] = torch.logspace(-18, 15, 400, dtype=torch.float64).float()
    frames, one = Frames(128, 1, 0, 1), torch.ones(128, dtype=torch.float64)
    ours = spectral(x, one, frames, None, Level(True, scale=1.0))[:, 5, 0].double()
    expected = 2 * x[:, 0].double().log()
    assert ((ours - expected).abs() <= 3e-7 * expected.abs().clamp(min=1.0)).all()
    small = spectral(x, one, frames, None, Level(True, offset=1.0))[:, 5, 0].double()
    expected = torch.log1p(x[:, 0].double().square())
    assert ((small - expected).abs() <= 4e-7 * expected).all(), "log1p keeps the digits of small powers"


def test_nothing_but_the_frame_matters() -> None:
    x, bank, frames = noise(7, 5000), Bank(mel_filters(16_000, 512, 20)), Frames(512, 128, 256, 40, True)
    whole = spectral(x, hann(512), frames, bank, DB)
    for rows in ([3], [6, 0], [2, 2, 5]):
        assert torch.equal(spectral(x[rows], hann(512), frames, bank, DB), whole[rows])
    shifted = torch.cat([noise(7, 128 * 5, seed=1), x], 1)
    later = spectral(shifted, hann(512), Frames(512, 128, 256, 45, True), bank, DB)
    assert torch.equal(later[..., 7:43], whole[..., 2:38]), "the place in a tile"
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            assert torch.equal(spectral(x, hann(512), frames, bank, DB), whole)
    finally:
        torch.set_num_threads(threads)


def test_bad_samples_stay_in_their_frames() -> None:
    x, frames = noise(3, 4000), Frames(256, 128, 128, 32)
    clean = spectral(x, hann(255), frames, None, Level(True, offset=1e-6))
    for bad in (float("nan"), float("inf")):
        y = x.clone()
        y[1, 2000] = bad
        out = spectral(y, hann(255), frames, None, Level(True, offset=1e-6))
        sick = ~torch.isfinite(out)
        assert sick[1, :, 15].all() and sick[1, :, 16].all()
        assert torch.equal(torch.where(sick, clean, out), clean)
        touched = sick.any(1)[1].nonzero().flatten().tolist()
        assert touched == [15, 16] and not sick[0].any() and not sick[2].any()
    end = x.clone()
    end[1, 127] = float("nan")  # the sample behind the first frame's window
    assert torch.isfinite(spectral(end, hann(255), frames, None, Level())[1, :, 0]).all()


def test_clip_levels() -> None:
    x, bank, frames = noise(6, 3000), Bank(mel_filters(16_000, 256, 8)), Frames(256, 128, 128, 24)
    x[2:4, :2000] *= 1e-4
    plain = spectral(x, hann(256), frames, bank, DB).reshape(3, 2, 8, 24)
    level = Level(True, floor=1e-10, scale=10 / math.log(10), clip_rows=2, top_db=30.0)
    capped = spectral(x, hann(256), frames, bank, level).reshape(3, 2, 8, 24)
    assert (
        torch.equal(capped, torch.maximum(plain, plain.amax((1, 2, 3), keepdim=True) - 30.0)) and (capped > plain).any()
    )
    level = Level(True, floor=1e-10, scale=10 / math.log(10), clip_rows=2, top_db=30.0, normalise=True)
    normal = spectral(x, hann(256), frames, bank, level).reshape(3, -1).double()
    assert normal.mean(1).abs().max() < 1e-6 and (normal.var(1, correction=0) - 1).abs().max() < 1e-5
    flat = capped.reshape(3, -1).double()
    expected = (flat - flat.mean(1, keepdim=True)) / flat.std(1, correction=0, keepdim=True)
    assert (normal - expected).abs().max() < 1e-5
    alone = spectral(x[2:4], hann(256), frames, bank, level)
    assert torch.equal(alone, spectral(x, hann(256), frames, bank, level)[2:4])


def test_bfloat16_is_the_rounded_result() -> None:
    x, frames = noise(3, 3000), Frames(256, 100, 128, 31)
    for level in (DB, Level(True, floor=1e-10, scale=4.3, top_db=20.0)):
        wide = spectral(x, hann(256), frames, None, level)
        narrow = spectral(x, hann(256), frames, None, level, torch.bfloat16)
        assert narrow.dtype == torch.bfloat16 and torch.equal(narrow, wide.to(torch.bfloat16))


@pytest.mark.parametrize("kind", LEVELS)
def test_gradient(kind: str) -> None:
    level = LEVELS[kind]
    frames, bank = Frames(128, 50, 64, 6, True), Bank(mel_filters(8000, 128, 6))
    exact = noise(2, 300).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: spectral(x, hann(120), frames, bank, level), (exact,))
    single = exact.detach().float().requires_grad_()
    weight = noise(2, 6, 6, seed=3)
    (spectral(single, hann(120), frames, bank, level) * weight).sum().backward()
    (spectral(exact, hann(120), frames, bank, level) * weight).sum().backward()
    assert single.grad is not None and exact.grad is not None
    assert (single.grad - exact.grad).norm() < 1e-5 * exact.grad.norm()


def test_opcheck_and_compile() -> None:
    x, bank, frames = noise(2, 2000).requires_grad_(), Bank(mel_filters(8000, 256, 8)), Frames(256, 100, 128, 21)
    tables = (bank.filters, bank.weights, bank.first, bank.begin)
    flat = ops._flat(frames, LEVELS["ln"], torch.float32)
    torch.library.opcheck(torch.ops.fastaug.spectral.default, (x, hann(256).float(), *tables, *flat))

    def front(x: torch.Tensor) -> torch.Tensor:
        return spectral(x, hann(256), frames, bank, LEVELS["ln"])

    compiled = torch.compile(front, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), front(x))


@pytest.mark.parametrize(("rows", "length", "count"), [(0, 1000, 8), (2, 0, 1), (2, 1, 1), (1, 1000, 0), (3, 40, 1)])
def test_edges(rows: int, length: int, count: int) -> None:
    for reflect in (False, True):
        out = spectral(noise(rows, length), hann(256), Frames(256, 128, 128, count, reflect), None, Level())
        assert out.shape == (rows, 129, count) and torch.isfinite(out).all()
        if length == 0:
            assert (out == 0).all()
    mirrored = spectral(noise(2, 40), hann(256), Frames(256, 128, 128, 1, True), None, Level())
    wide = torch.from_numpy(np.pad(noise(2, 40).numpy(), ((0, 0), (128, 128)), mode="reflect"))
    whole = spectral(wide, hann(256), Frames(256, 128, 0, 1), None, Level())
    assert torch.equal(mirrored, whole), "reflection as often as it takes"


def test_mistakes() -> None:
    frames = Frames(256, 128, 128, 8)
    with pytest.raises(TypeError, match="float32 or float64"):
        spectral(noise(2, 1000).half(), hann(256), frames, None, Level())
    with pytest.raises(ValueError, match="1 to n_fft = 256"):
        spectral(noise(2, 1000), hann(257), frames, None, Level())
    with pytest.raises(TypeError, match="out must be"):
        spectral(noise(2, 1000), hann(256), frames, None, Level(), torch.float16)


def emulated(x: torch.Tensor, width: int, frames: Frames, bank: Bank | None, level: Level, narrow: bool) -> Any:
    bands = frames.n_fft // 2 + 1 if bank is None else bank.filters.shape[0]
    y = torch.full((x.shape[0], bands, frames.count), -1, dtype=torch.bfloat16 if narrow else torch.float32)
    tables = (None, None, None) if bank is None else (bank.weights, bank.first, bank.begin)
    turns = ops._turns(frames.n_fft, torch.device("cpu"))
    halved = ops._kernel_window(hann(width))
    grid, shared, args = ops.cuda_launch(x, y, halved, turns, tables, width, frames, level)
    raw = [a.view(torch.int16) if isinstance(a, torch.Tensor) and a.dtype == torch.bfloat16 else a for a in args]
    report = emulate("spectral.cu").launch(ops.cuda_kernel(frames.n_fft), grid, (256,), raw, shared)
    return y, report


#: Kernels of their own; small; every radix, alone and with others, 2 to 7 passes; points of an odd number; the largest.
CUDA_SIZES = [512, 1024, 2048, 32, 250, 400, 486, 600, 640, 882, 1200, 1458, 4096]


@pytest.mark.parametrize("n_fft", CUDA_SIZES)
@pytest.mark.parametrize("kind", ["power", "magnitude", "shift"])
def test_cuda_kernels(n_fft: int, kind: str) -> None:
    x, level = noise(2, 6000), LEVELS[kind]
    for width, hop, count, reflect, bank in [
        (n_fft, n_fft // 2, 6000 // (n_fft // 2) + 1, True, Bank(mel_filters(16_000, n_fft, 40))),
        (n_fft - n_fft // 10 - 1, 333, 5, False, None),
    ]:
        frames = Frames(n_fft, hop, n_fft // 2, count, reflect)
        y, _ = emulated(x, width, frames, bank, level, False)
        expected = spectral(x, hann(width), frames, bank, level)
        assert (y - expected).abs().max() <= (1e-4 if level.logarithm else 1e-6 * expected.max())
        exact = spectral(x.double(), hann(width), frames, bank, level)
        if not level.logarithm:
            assert (y - exact).abs().max() <= 1e-6 * exact.max()


def test_cuda_bfloat16_and_traffic() -> None:
    x, bank, frames = noise(2, 20_000), Bank(mel_filters(16_000, 1024, 64)), Frames(1024, 256, 512, 79)
    wide, report = emulated(x, 1024, frames, bank, DB, False)
    assert report.ratio <= 1.5, str(report)
    narrow, _ = emulated(x, 1024, frames, bank, DB, True)
    assert torch.equal(narrow, wide.to(torch.bfloat16))
