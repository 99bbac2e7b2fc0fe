"""Recursive filters as cascades of second-order sections, with coefficients of its own for every example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastaug.ops._library import active_rows, check_samples, define, direct, native, pointer, row_values, threads

__all__ = ["BIQUADS", "biquad", "butterworth", "sos_filter"]

#: What `biquad` designs; the position is FaBiquadKind of csrc/iir.h.
BIQUADS = ("band_pass", "notch", "peaking", "low_shelf", "high_shelf")

_LARGEST_ORDER, _MOST_SECTIONS = 16, 16  # kIirLargestOrder, kIirMostSections of csrc/iir.h
_THREADS = 256  # of csrc/cuda/iir.cu
_TABLE_BYTES = 1544  # sizeof(FaSectionTable) there


def sos_filter(x: Tensor, sos: Tensor, active: Tensor | None = None, inplace: bool = False) -> Tensor:
    """``scipy.signal.sosfilt`` from rest, row by row: a cascade of sections of first or second order.

    Coefficients and state are float64, so low cutoffs keep the precision of the output's float32 (150 dB). On CUDA a
    block scans a channel in parallel.

    Args:
        x: (B, C, T) float32.
        sos: (B, S, 6) or (S, 6) float64, sections of b0, b1, b2, a0, a1, a2; 1 to 16 of them. All poles must lie inside
            the unit circle.
        active: bool (B,); rows that are False are copied. Default: all.
        inplace: the result may be written into `x`, which is then returned.

    Returns:
        (B, C, T) float32. A NaN or Inf reaches everything after it in its own channel. Differentiable in `x`;
        RuntimeError in the backward pass if the coefficients ask for a gradient.

    Raises:
        TypeError, ValueError: the arguments are not as above. On CUDA the coefficients are looked at only if they are
        still on the CPU: an unstable filter that is already there overflows.
    """
    x = check_samples(x)
    if not isinstance(sos, Tensor) or sos.dtype != torch.float64:
        raise TypeError("sos must be a float64 tensor: float32 coefficients lose low cutoffs")
    if sos.dim() == 2:
        sos = sos.expand(x.shape[0], *sos.shape)
    if sos.dim() != 3 or sos.shape[0] != x.shape[0] or sos.shape[2] != 6:
        raise ValueError(f"sos must have shape ({x.shape[0]}, S, 6) or (S, 6), got {tuple(sos.shape)}")
    if not 1 <= sos.shape[1] <= _MOST_SECTIONS:
        raise ValueError(f"sos must hold 1 to {_MOST_SECTIONS} sections, got {sos.shape[1]}")
    sos = sos.contiguous()
    active = active_rows(active, x)
    if direct(x, sos, active):
        return _filter(x, sos, active, x if inplace else torch.empty_like(x))
    if x.device != sos.device and sos.device.type == "cpu" and not torch.compiler.is_compiling():
        rows, sections, _ = sos.shape
        _check_stable(native().fa_sos_filter(None, None, sos.data_ptr(), None, rows, 0, 0, sections, 1), sos)
    return torch.ops.fastaug.sos_filter(x, sos.to(x.device, non_blocking=True), active)


def butterworth(cutoff: Tensor, highpass: Tensor, order: int) -> Tensor:
    """Butterworth filters for `sos_filter`: bilinear transform, prewarped so that the cutoff is the -3 dB point.

    Args:
        cutoff: float64 (B,), fraction of the sample rate in [0, 0.5]. At 0 a low-pass gives silence, at 0.5 everything,
            a high-pass the other way round.
        highpass: bool (B,).
        order: 1 to 16: 6 dB an octave each. 1 is the first-order filter of essentia's LowPass and HighPass.

    Returns:
        float64 (B, ceil(order / 2), 6), a0 = 1: ``scipy.signal.butter(..., output="sos")``, each section of unit gain.
        The same bits for a row whatever the batch.

    Raises:
        TypeError, ValueError: the arguments are not as above; the values of `cutoff` are looked at on the CPU only.
    """
    if cutoff.dtype != torch.float64 or highpass.dtype != torch.bool:
        raise TypeError(f"butterworth needs float64 cutoffs and bool highpass, got {cutoff.dtype}, {highpass.dtype}")
    if cutoff.dim() != 1 or cutoff.shape != highpass.shape:
        raise ValueError(f"one cutoff and one highpass a row, got {tuple(cutoff.shape)}, {tuple(highpass.shape)}")
    if not 1 <= order <= _LARGEST_ORDER:
        raise ValueError(f"order must lie in [1, {_LARGEST_ORDER}], got {order}")
    run = _butterworth_cpu if direct(cutoff, highpass) else torch.ops.fastaug.butterworth
    return run(cutoff.contiguous(), highpass.contiguous(), order)


def biquad(kind: str, frequency: Tensor, q: float | Tensor = 2**-0.5, gain_db: float | Tensor = 0.0) -> Tensor:
    """One section for `sos_filter` after R. Bristow-Johnson's "Audio EQ Cookbook".

    Args:
        kind: one of `BIQUADS`. band_pass has 0 dB at its centre.
        frequency: float64 (B,), fraction of the sample rate in [0, 0.5]: centre, or midpoint of a shelf.
        q: a number or (B,), positive: centre over bandwidth; a shelf with 2^-0.5 is as steep as it can be without
            overshoot.
        gain_db: a number or (B,): of the peak or the shelf.

    Returns:
        float64 (B, 1, 6), a0 = 1. The same bits for a row whatever the batch.

    Raises:
        TypeError, ValueError: the arguments are not as above; values of tensors are looked at on the CPU only.
    """
    if kind not in BIQUADS:
        raise ValueError(f"kind must be one of {', '.join(BIQUADS)}, got {kind!r}")
    if frequency.dtype != torch.float64:
        raise TypeError(f"frequency must be float64, got {frequency.dtype}")
    if frequency.dim() != 1:
        raise ValueError(f"one frequency a row, got {tuple(frequency.shape)}")
    q = row_values(q, frequency, "q", torch.float64)
    gain_db = row_values(gain_db, frequency, "gain_db", torch.float64)
    run = _biquad_cpu if direct(frequency, q, gain_db) else torch.ops.fastaug.biquad
    return run(frequency.contiguous(), q, gain_db, BIQUADS.index(kind))


def _check_stable(section: int, sos: Tensor) -> None:
    if section >= 0:
        row, index = divmod(section, sos.shape[1])
        raise ValueError(
            f"sos: section {index} of row {row} is not a stable filter (all poles inside the unit circle, all numbers "
            f"finite): {sos[row, index].tolist()}"
        )


def _filter(x: Tensor, sos: Tensor, active: Tensor | None, y: Tensor) -> Tensor:
    addresses = (x.data_ptr(), y.data_ptr(), sos.data_ptr(), pointer(active))
    team = threads(x.numel() * sos.shape[1])
    _check_stable(native().fa_sos_filter(*addresses, *x.shape, sos.shape[1], team), sos)
    return y


def _cpu(x: Tensor, sos: Tensor, active: Tensor | None) -> Tensor:
    return _filter(x.contiguous(), sos.contiguous(), active, torch.empty_like(x, memory_format=torch.contiguous_format))


def _cuda(x: Tensor, sos: Tensor, active: Tensor | None) -> Tensor:
    from fastaug.ops._cuda import launch

    x, sos = x.contiguous(), sos.contiguous()
    y = torch.empty_like(x)
    rows, channels, length = x.shape
    if y.numel():
        args = (x, y, sos, active, channels, length, sos.shape[1])
        shared = sos.shape[1] * _TABLE_BYTES
        launch("iir.cu", "fa_sos_filter_kernel", (rows * channels,), (_THREADS,), args, shared)
    return y


def _fake(x: Tensor, sos: Tensor, active: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, sos, active = inputs
    ctx.save_for_backward(sos, active)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Linear and time-invariant from rest: the adjoint is the same filter, run over the gradient from its end."""
    if ctx.needs_input_grad[1]:
        raise RuntimeError("fastaug::sos_filter has no gradient with respect to its coefficients: detach them")
    sos, active = ctx.saved_tensors
    return torch.ops.fastaug.sos_filter(gradient.flip(-1), sos, active).flip(-1), None, None


def _butterworth_cpu(cutoff: Tensor, highpass: Tensor, order: int) -> Tensor:
    sos = _butterworth_fake(cutoff, highpass, order)
    addresses = (cutoff.data_ptr(), highpass.data_ptr(), sos.data_ptr())
    bad = native().fa_butterworth(*addresses, len(cutoff), order)
    if bad >= 0:
        raise ValueError(f"cutoff must be a fraction of the sample rate in [0, 0.5], got {cutoff[bad].item()}")
    return sos


def _butterworth_cuda(cutoff: Tensor, highpass: Tensor, order: int) -> Tensor:
    from fastaug.ops._cuda import launch

    sos = _butterworth_fake(cutoff, highpass, order)
    args = (cutoff.contiguous(), highpass.contiguous(), sos, len(cutoff), order)
    launch("iir.cu", "fa_butterworth_kernel", (-(-sos.numel() // 128),), (128,), args)
    return sos


def _butterworth_fake(cutoff: Tensor, highpass: Tensor, order: int) -> Tensor:
    return cutoff.new_empty(cutoff.shape[0], (order + 1) // 2, 6)


def _biquad_cpu(frequency: Tensor, q: Tensor, gain_db: Tensor, kind: int) -> Tensor:
    sos = _biquad_fake(frequency, q, gain_db, kind)
    addresses = [t.data_ptr() for t in (frequency, q, gain_db, sos)]
    bad = native().fa_biquads(kind, *addresses, len(frequency))
    if bad >= 0:
        found = [t[bad].item() for t in (frequency, q, gain_db)]
        raise ValueError(
            "a biquad needs a frequency in [0, 0.5] of the sample rate, q > 0 and a finite gain_db, got "
            f"{found[0]}, {found[1]}, {found[2]}"
        )
    return sos


def _biquad_cuda(frequency: Tensor, q: Tensor, gain_db: Tensor, kind: int) -> Tensor:
    from fastaug.ops._cuda import launch

    sos = _biquad_fake(frequency, q, gain_db, kind)
    args = (frequency.contiguous(), q.contiguous(), gain_db.contiguous(), sos, len(frequency), kind)
    launch("iir.cu", "fa_biquads_kernel", (-(-sos.numel() // 128),), (128,), args)
    return sos


def _biquad_fake(frequency: Tensor, q: Tensor, gain_db: Tensor, kind: int) -> Tensor:
    return frequency.new_empty(frequency.shape[0], 1, 6)


define(
    "sos_filter(Tensor x, Tensor sos, Tensor? active) -> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
define(
    "butterworth(Tensor cutoff, Tensor highpass, int order) -> Tensor",
    cpu=_butterworth_cpu,
    cuda=_butterworth_cuda,
    fake=_butterworth_fake,
)
define(
    "biquad(Tensor frequency, Tensor q, Tensor gain_db, int kind) -> Tensor",
    cpu=_biquad_cpu,
    cuda=_biquad_cuda,
    fake=_biquad_fake,
)
