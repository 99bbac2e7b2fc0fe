"""Spectrograms: frames, window, FFT, filter bank and logarithm in one pass."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.ops._fft import radices
from fastaug.ops._library import define, direct, native, pointer, threads

__all__ = ["Bank", "Frames", "Level", "native_size", "spectral"]

_TINY = 1.2e-38  # the smallest normal float32
_THREADS, _LARGEST_CUDA = 256, 4096  # of csrc/cuda/spectral.cu
_OWN_KERNELS = (512, 1024, 2048)  # lengths that a kernel there is compiled for; one more takes any


@dataclass(frozen=True)
class Frames:
    """Frame i covers samples [i · hop − lead, i · hop − lead + width); width is the window's length.

    Args:
        n_fft: length of the transform, at least the window's; zeros behind the window.
        count: number of frames.
        reflect: samples outside the signal are its mirror image, the edge not repeated; else 0.
    """

    n_fft: int
    hop: int
    lead: int
    count: int
    reflect: bool = False


@dataclass(frozen=True)
class Level:
    """From the power of a band x to a value: scale · ln(max(gain · x + offset, floor)) + shift, or gain · x + shift.

    Args:
        magnitude: x is the sum of magnitudes |X|, not of powers |X|².
        clip_rows: rows that make a clip, for `top_db` and `normalise`.
        top_db: values further below the clip's largest are raised to it (in the unit of the values).
        normalise: subtract the clip's mean and divide by its standard deviation (at least 1e-5), after that.
    """

    logarithm: bool = False
    gain: float = 1.0
    offset: float = 0.0
    floor: float = _TINY
    scale: float = 1.0
    shift: float = 0.0
    magnitude: bool = False
    clip_rows: int = 1
    top_db: float | None = None
    normalise: bool = False


class Bank:
    """Filters (F, n_fft // 2 + 1) on a device, dense and as one run of weights a band.

    Args:
        filters: float64 array; each row's non-zero weights are taken from its first to its last.
    """

    def __init__(self, filters: npt.NDArray[np.float64], device: torch.device | str = "cpu") -> None:
        used = filters != 0
        first = np.where(used.any(1), used.argmax(1), 0)
        last = np.where(used.any(1), filters.shape[1] - used[:, ::-1].argmax(1), 0)
        runs = [row[a:b] for row, a, b in zip(filters, first, last)]
        begin = np.concatenate([[0], np.cumsum([len(run) for run in runs])])
        self.exact = torch.from_numpy(filters).to(device)
        self.filters = self.exact.float()
        self.weights = torch.from_numpy(np.concatenate([*runs, np.zeros(1)])).float().to(device)
        self.first = torch.from_numpy(first.astype(np.int32)).to(device)
        self.begin = torch.from_numpy(begin.astype(np.int32)).to(device)


def native_size(n_fft: int, device: str = "cpu") -> bool:
    """Whether the kernels take transforms of this length: even numbers from 32 to 16384 (on CUDA 4096) without prime
    factors above 7."""
    largest = _LARGEST_CUDA if device == "cuda" else 16_384
    return n_fft % 2 == 0 and 32 <= n_fft <= largest and (2 * 3 * 5 * 7) ** 14 % n_fft == 0


def spectral(
    x: Tensor, window: Tensor, frames: Frames, bank: Bank | None, level: Level, out: torch.dtype = torch.float32
) -> Tensor:
    """Spectrogram of every row, differentiable in `x`.

    A value depends on the samples of its frame alone (and on its clip's for `top_db` and `normalise`): its bits are the
    same in any batch, at any place in the row, on any number of threads.

    Args:
        x: (rows, T) float32. Float64, and n_fft that `native_size` refuses, go through torch's FFT and matrix product,
            whose last bits may depend on the batch.
        window: (width,) float64.
        bank: filters, or None for the n_fft // 2 + 1 bins.
        out: float32 or bfloat16, rounded once; float64 input gives float64.

    Returns:
        (rows, F, frames.count).

    Raises:
        TypeError, ValueError: `x`, `window` or `out` are not as above.
    """
    if x.dim() != 2 or x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64 (rows, T), got {x.dtype} {tuple(x.shape)}")
    if not 1 <= window.numel() <= frames.n_fft:
        raise ValueError(f"the window needs 1 to n_fft = {frames.n_fft} samples, got {window.numel()}")
    if out not in (torch.float32, torch.bfloat16):
        raise TypeError(f"out must be float32 or bfloat16, got {out}")
    if x.dtype == torch.float64:
        filters = None if bank is None else bank.exact
        return expression(x, window, filters, frames, level)
    window = window.float()
    if not native_size(frames.n_fft):
        return expression(x, window, None if bank is None else bank.filters, frames, level).to(out)
    x = x.contiguous()
    tables = (None, None, None, None) if bank is None else (bank.filters, bank.weights, bank.first, bank.begin)
    if direct(x):
        return _cpu(x, window, *tables, *_flat(frames, level, out))
    return torch.ops.fastaug.spectral(x, window, *tables, *_flat(frames, level, out))


def _flat(frames: Frames, level: Level, out: torch.dtype) -> tuple[Any, ...]:
    place = (frames.n_fft, frames.hop, frames.lead, frames.count, frames.reflect)
    curve = (level.logarithm, level.gain, level.offset, level.floor, level.scale, level.shift, level.magnitude)
    return (*place, *curve, level.clip_rows, level.top_db, level.normalise, out == torch.bfloat16)


def _unflat(flat: tuple[Any, ...]) -> tuple[Frames, Level, torch.dtype]:
    names = ("logarithm", "gain", "offset", "floor", "scale", "shift", "magnitude", "clip_rows", "top_db", "normalise")
    return Frames(*flat[:5]), Level(**dict(zip(names, flat[5:15]))), torch.bfloat16 if flat[15] else torch.float32


def expression(x: Tensor, window: Tensor, filters: Tensor | None, frames: Frames, level: Level) -> Tensor:
    """The same in torch, in the dtype of `x`: float64, other lengths of transform, and the gradient."""
    window = torch.nn.functional.pad(window.to(x.dtype), (0, frames.n_fft - window.numel()))
    if frames.count == 0 or x.shape[0] == 0:
        bands = frames.n_fft // 2 + 1 if filters is None else filters.shape[0]
        return x.new_zeros(x.shape[0], bands, frames.count)
    framed = _surrounded(x, frames)
    spectra = torch.stft(framed, frames.n_fft, frames.hop, window=window, center=False, return_complex=True)
    value = spectra.abs() if level.magnitude else spectra.real.square() + spectra.imag.square()
    if filters is not None:
        value = torch.matmul(filters.to(value.dtype), value)
    value = value * level.gain
    if level.logarithm:
        if level.offset == 1.0:
            value = torch.log1p(value.clamp(min=level.floor - 1.0)) * level.scale
        else:
            value = torch.log((value + level.offset).clamp(min=level.floor)) * level.scale
    return _settled(value + level.shift, level)


def _surrounded(x: Tensor, frames: Frames) -> Tensor:
    """The samples from the first frame's start to the last one's end: (rows, (count − 1) hop + n_fft)."""
    length = x.shape[-1]
    at = torch.arange((frames.count - 1) * frames.hop + frames.n_fft, device=x.device) - frames.lead
    inside = (at >= 0) & (at < length)
    if length == 0:
        return x.new_zeros(x.shape[0], at.numel())
    if frames.reflect:
        period = max(2 * (length - 1), 1)
        at = at.abs() % period
        at = torch.minimum(at, period - at) if length > 1 else torch.zeros_like(at)
        return x.index_select(1, at)
    return x.index_select(1, at.clamp(0, length - 1)).masked_fill(~inside, 0.0)


def _settled(value: Tensor, level: Level) -> Tensor:
    if level.top_db is None and not level.normalise:
        return value
    clips = value.reshape(-1, level.clip_rows, *value.shape[1:])
    if level.top_db is not None and clips.numel():
        clips = torch.maximum(clips, clips.amax((1, 2, 3), keepdim=True) - level.top_db)
    if level.normalise and clips.numel():
        clips = clips - clips.mean((1, 2, 3), keepdim=True)
        clips = clips / clips.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-5)
    return clips.reshape(value.shape)


def _bands(n_fft: int, filters: Tensor | None) -> int:
    return n_fft // 2 + 1 if filters is None else filters.shape[0]


def _kernel_window(window: Tensor) -> Tensor:
    """Halved (the half-size transform gives twice the bins), with zeros to a multiple of four."""
    return torch.nn.functional.pad(window.float() * 0.5, (0, -window.numel() % 4))


def _cpu(
    x: Tensor, window: Tensor, filters: Tensor | None, weights: Tensor | None, first: Tensor | None,
    begin: Tensor | None, *flat: Any,
) -> Tensor:  # fmt: skip
    frames, level, out = _unflat(flat)
    x, halved = x.contiguous(), _kernel_window(window)
    rows, length = x.shape
    y = x.new_empty((rows, _bands(frames.n_fft, filters), frames.count), dtype=_first_dtype(level, out))
    tables = (pointer(weights), pointer(first), pointer(begin))
    native().fa_spectral(
        x.data_ptr(), y.data_ptr(), int(y.dtype == torch.bfloat16), halved.data_ptr(), *tables, y.shape[1], rows,
        length, frames.count, frames.hop, frames.lead, window.numel(), frames.n_fft, int(frames.reflect), level.gain,
        level.offset, level.floor, level.scale, level.shift, int(level.logarithm), int(level.magnitude), threads(),
    )  # fmt: skip
    if level.top_db is not None or level.normalise:
        top_db = -1.0 if level.top_db is None else level.top_db
        clips, count = rows // level.clip_rows, level.clip_rows * y.shape[1] * frames.count
        native().fa_spectral_settle(y.data_ptr(), clips, count, top_db, int(level.normalise), threads())
    return y.to(out)


def _first_dtype(level: Level, out: torch.dtype) -> torch.dtype:
    """What the kernel writes: values that a second pass changes are rounded after it."""
    return out if level.top_db is None and not level.normalise else torch.float32


@functools.lru_cache(maxsize=16)
def _turns(n_fft: int, device: torch.device) -> Tensor:
    """cos and sin (2, n), float32, of the angles that csrc/cuda/spectral.cu reads: of each pass but the first, then of
    the untangling."""
    parts, done = [], 1
    for radix in radices(n_fft // 2):
        parts.append(torch.arange(done if done > 1 else 0, dtype=torch.float64) / (done * radix))
        done *= radix
    angles = 2 * math.pi * torch.cat([*parts, torch.arange(n_fft // 4 + 1, dtype=torch.float64) / n_fft])
    return torch.stack([angles.cos(), angles.sin()]).float().to(device)


def _cuda(
    x: Tensor, window: Tensor, filters: Tensor | None, weights: Tensor | None, first: Tensor | None,
    begin: Tensor | None, *flat: Any,
) -> Tensor:  # fmt: skip
    from fastaug.ops._cuda import launch

    frames, level, out = _unflat(flat)
    if not native_size(frames.n_fft, "cuda") or max(x.shape[1], frames.count * frames.hop) >= 1 << 30:
        return expression(x, window, filters, frames, level).to(out)
    x, halved = x.contiguous(), _kernel_window(window)
    rows = x.shape[0]
    y = x.new_empty((rows, _bands(frames.n_fft, filters), frames.count), dtype=_first_dtype(level, out))
    if y.numel():
        turns = _turns(frames.n_fft, x.device)
        grid, shared, args = cuda_launch(x, y, halved, turns, (weights, first, begin), window.numel(), frames, level)
        launch("spectral.cu", cuda_kernel(frames.n_fft), grid, (_THREADS,), args, shared)
    return _settled(y, level).to(out)


def cuda_kernel(n_fft: int) -> str:
    """Its name in csrc/cuda/spectral.cu."""
    return f"fa_spectral_{n_fft}_kernel" if n_fft in _OWN_KERNELS else "fa_spectral_kernel"


def cuda_launch(
    x: Tensor,
    y: Tensor,
    halved: Tensor,
    turns: Tensor,
    bank: tuple[Tensor | None, ...],
    width: int,
    frames: Frames,
    level: Level,
) -> tuple[tuple[int], int, tuple[Any, ...]]:
    """Grid, bytes of shared memory and arguments (32-bit integers and floats as NumPy scalars) of the CUDA kernel: as
    many frames a block as leave room for several blocks; a power of two of them at a time, 8 points a thread at most.
    """
    points, bands = frames.n_fft // 2, y.shape[1]
    most = 1 << (8 * _THREADS // points).bit_length() - 1
    for tile in (32, 16, 8):
        group = min(most, tile)
        room = 8 * group * (-(-points // 32) * 32 + 8)
        shared = room + 4 * bands * (tile + 1)
        if shared <= 56 * 1024:
            break
    passes = sum(radix << 4 * i for i, radix in enumerate(radices(points)))
    place = (x.shape[1], frames.count, frames.hop, frames.lead)
    small = (width, frames.n_fft, int(frames.reflect))
    curve = (level.gain, level.offset, level.floor, level.scale, level.shift)
    flags = (int(level.logarithm), int(level.magnitude), bands, tile, int(y.dtype == torch.bfloat16))
    integers = [np.int32(value) for value in (*small, *flags, passes, group, turns.shape[1])]
    args = (x, y, halved, turns, *bank, *place, *integers[:3], *map(np.float32, curve), *integers[3:])
    return (x.shape[0] * -(-frames.count // tile),), shared, args


def _fake(
    x: Tensor, window: Tensor, filters: Tensor | None, weights: Tensor | None, first: Tensor | None,
    begin: Tensor | None, *flat: Any,
) -> Tensor:  # fmt: skip
    frames, _, out = _unflat(flat)
    return x.new_empty((x.shape[0], _bands(frames.n_fft, filters), frames.count), dtype=out)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, window, filters = inputs[:3]
    ctx.flat = inputs[6:]
    ctx.save_for_backward(x, window, filters)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The spectra are computed again, by torch: kept ones would take more memory than everything else."""
    frames, level, _ = _unflat(ctx.flat)
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        x, window, filters = ctx.saved_tensors
        x = x if again else x.detach().requires_grad_()
        y = expression(x, window, filters, frames, level)
        (result,) = torch.autograd.grad(y, x, gradient.to(y.dtype), create_graph=again)
    return result, *[None] * (5 + len(ctx.flat))


define(
    "spectral(Tensor x, Tensor window, Tensor? filters, Tensor? weights, Tensor? first, Tensor? begin, int n_fft, "
    "int hop, int lead, SymInt count, bool reflect, bool logarithm, float gain, float offset, float floor, "
    "float scale, float shift, bool magnitude, int clip_rows, float? top_db, bool normalise, bool narrow) -> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
