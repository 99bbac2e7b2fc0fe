"""Reverb: Freeverb as the sox command line tunes it, with settings of its own for every example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastaug.ops._library import active_rows, check_samples, define, direct, pointer, row_values, threads
from fastaug.ops.rows import call

__all__ = ["reverb"]

_THREADS = 256  # of csrc/cuda/reverb.cu
_STATIC_SHARED = 5760  # bytes: FaReverbShared
#: Hz from which no delay is shorter than 4 samples, in the smallest room: 0.1 * 1116 * rate / 44100 + 0.5 >= 4.
_QUADS_FROM = 1400
#: Delay lines at 44.1 kHz in the largest room. The other side's are 12 samples longer and shorter, by turns.
_LENGTHS = (1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617, 225, 341, 441, 556)


def reverb(
    x: Tensor,
    sample_rate: int,
    reverberance: float | Tensor = 50.0,
    hf_damping: float | Tensor = 50.0,
    room_scale: float | Tensor = 100.0,
    stereo_depth: float | Tensor = 100.0,
    pre_delay_ms: float | Tensor = 0.0,
    wet_gain_db: float | Tensor = 0.0,
    wet_only: bool = False,
    clip: bool = True,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """sox's ``reverb``: eight damped combs in parallel and four allpasses in series, added to the dry signal.

    One channel with ``stereo_depth > 0`` gives the mean of sox's two outputs (sox's ``channels 1``), two give sox's
    stereo reverb, more are processed independently with depth 0. The length stays; the tail is cut.

    Args:
        x: (B, C, T) float32.
        sample_rate: Hz, at least 1000.
        reverberance, hf_damping, room_scale, stereo_depth: percent, 0 to 100, each a number or (B,).
        pre_delay_ms: delay of the reverberation, not of the dry signal; a number or (B,), not negative.
        wet_gain_db: gain of the reverberation, a number or (B,).
        wet_only: leave out the dry signal.
        clip: limit input and outputs to ±1 as sox's integer samples do, each side before the mean.
        active: bool (B,); rows that are False are copied. Default: all.
        inplace: the result may be written into `x`, which is then returned: a permission, not a promise.

    Returns:
        (B, C, T) float32, a new tensor unless `inplace`. A NaN rings on to the end of its own example, in no other (so
        does an Inf that is not clipped). Differentiable in `x` with ``clip=False``; a clipped call raises RuntimeError
        in the backward pass.

    Raises:
        TypeError: `x` is not float32 or `active` not bool.
        ValueError: a wrong shape or a sample rate below 1000; on the CPU also a setting out of range.
    """
    x = check_samples(x)
    if sample_rate < 1000:
        raise ValueError(f"sample_rate must be at least 1000 Hz, got {sample_rate}")
    given = {
        "reverberance": reverberance, "hf_damping": hf_damping, "room_scale": room_scale,
        "stereo_depth": stereo_depth, "pre_delay_ms": pre_delay_ms, "wet_gain_db": wet_gain_db,
    }  # fmt: skip
    for name, value in given.items():
        if not isinstance(value, Tensor) and name != "wet_gain_db":
            _check_range(name, float(value), float(value))
    settings = torch.stack([row_values(value, x, name) for name, value in given.items()], dim=1)
    active = active_rows(active, x)
    if direct(x, settings, active):
        return _cpu(x, settings, float(sample_rate), wet_only, clip, False, active, inplace)
    return torch.ops.fastaug.reverb(x, settings, float(sample_rate), wet_only, clip, False, active)


def _check_range(name: str, low: float, high: float) -> None:
    limit = float("inf") if name == "pre_delay_ms" else 100.0
    if not (low >= 0.0 and high <= limit):
        found = low if low == high else f"[{low}, {high}]"
        raise ValueError(f"{name} must lie in [0, {limit:g}], got {found}")


def _check_settings(settings: Tensor) -> None:
    if settings.shape[0] == 0:
        return
    bottom, top = torch.aminmax(settings[:, :5])  # of all at once, which is quick
    if float(bottom) >= 0.0 and float(top) <= 100.0:
        return
    names = ("reverberance", "hf_damping", "room_scale", "stereo_depth", "pre_delay_ms")
    low, high = torch.aminmax(settings[:, :5], dim=0)
    for name, bottom, top in zip(names, low.tolist(), high.tolist()):
        _check_range(name, bottom, top)


def _cpu(
    x: Tensor,
    settings: Tensor,
    rate: float,
    wet_only: bool,
    clip: bool,
    adjoint: bool,
    active: Tensor | None,
    inplace: bool = False,
) -> Tensor:
    x, settings = x.contiguous(), settings.contiguous()
    _check_settings(settings)
    y = x if inplace else torch.empty_like(x)
    addresses = (x.data_ptr(), y.data_ptr(), settings.data_ptr(), pointer(active))
    flags = (int(wet_only), int(clip), int(adjoint))
    call("fa_reverb", *addresses, *x.shape, rate, *flags, threads(), keep=(x, y, settings, active))
    return y


def _cuda(
    x: Tensor, settings: Tensor, rate: float, wet_only: bool, clip: bool, adjoint: bool, active: Tensor | None
) -> Tensor:
    from fastaug.ops._cuda import launch

    x, settings = x.contiguous(), settings.contiguous()
    y = torch.empty_like(x)
    rows, channels, length = x.shape
    blocks = rows * -(-channels // 2)
    if x.numel() == 0:
        return y
    floats = _line_floats(rate)
    head = (x, y, settings, active)
    tail = (channels, length, rate, int(wet_only), int(clip), int(adjoint))
    if rate >= _QUADS_FROM and 4 * floats + _STATIC_SHARED <= _shared_bytes(x.device):
        launch("reverb.cu", "fa_reverb_kernel", (blocks,), (_THREADS,), (*head, *tail), shared_bytes=4 * floats)
    else:
        scratch = x.new_empty(blocks, floats)
        args = (*head, scratch, floats, *tail)
        launch("reverb.cu", "fa_reverb_scratch_kernel", (blocks,), (_THREADS,), args)
    return y


def _line_floats(rate: float) -> int:
    """Room for the delay lines of both sides in the kernel, whatever the settings: see fa_reverb_room there."""
    return 2 * sum(int(rate / 44100 * length) + 1 + 8 for length in _LENGTHS)


def _shared_bytes(device: torch.device) -> int:
    """The most shared memory that a block can ask for: from 64 KiB (Turing) to 227 KiB (Hopper)."""
    properties: Any = torch.cuda.get_device_properties(device)
    return properties.shared_memory_per_block_optin


def _fake(
    x: Tensor, settings: Tensor, rate: float, wet_only: bool, clip: bool, adjoint: bool, active: Tensor | None
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, settings, ctx.rate, ctx.wet_only, ctx.clip, ctx.adjoint, active = inputs
    ctx.save_for_backward(settings, active)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """A linear time-invariant system's adjoint is the system itself, run backwards in time."""
    if ctx.needs_input_grad[1]:
        raise RuntimeError("fastaug::reverb has no gradient with respect to its settings: detach them")
    if ctx.clip:
        raise RuntimeError("fastaug::reverb has a gradient only with clip=False")
    settings, active = ctx.saved_tensors
    reverse = torch.ops.fastaug.reverb(
        gradient.flip(-1), settings, ctx.rate, ctx.wet_only, False, not ctx.adjoint, active
    )
    return reverse.flip(-1), None, None, None, None, None, None


define(
    "reverb(Tensor x, Tensor settings, float rate, bool wet_only, bool clip, bool adjoint, Tensor? active) -> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
