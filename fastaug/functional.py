"""One deterministic function per effect, in physical units. Transforms only draw their arguments and call these.

Samples are (B, C, T), (C, T) or (T,), of any float dtype, on any device; the output has the input's shape (but for
`crop`, `mix_down` and `resample`, which say so) and dtype; other dtypes than float32 are computed in float32. Every
quantity is a number or a (B,) tensor, one value an example. ``active``: bool (B,), rows that are False come back
unchanged. ``inplace``: the result may be written into ``x``, a permission, not a promise; without it the input is never
written. A NaN or an infinity passes through its own row and reaches no other.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from fastaug.ops._library import row_values

__all__ = [
    "add_noise",
    "band_pass",
    "butterworth",
    "crop",
    "delay",
    "gain",
    "high_pass",
    "high_shelf",
    "invert_polarity",
    "low_pass",
    "low_shelf",
    "mask_spectrogram",
    "mix_down",
    "notch",
    "peaking_eq",
    "pitch_shift",
    "resample",
    "resized_crop",
    "reverb",
    "sinc_filter",
    "sos_filter",
    "time_warp",
]

Quantity = float | Tensor


def invert_polarity(x: Tensor, *, active: Tensor | None = None, inplace: bool = False) -> Tensor:
    """y = −x."""
    from fastaug.ops import pointwise

    return _like(pointwise.scale(_batch(x), -1.0, active=active, inplace=_own(x, inplace)), x)


def gain(
    x: Tensor, gain_db: Quantity, clip: bool = False, *, active: Tensor | None = None, inplace: bool = False
) -> Tensor:
    """y = x · 10^(gain_db / 20), clipped to [−1, 1] if ``clip``.

    Args:
        gain_db: decibels, 20·log10 of the amplitude ratio.
    """
    from fastaug.ops import fused, pointwise

    batch = _batch(x)
    factor = fused.amplitude(gain_db, batch)
    return _like(pointwise.scale(batch, factor, clip, active, inplace=_own(x, inplace)), x)


def add_noise(
    x: Tensor,
    noise_key: Tensor,
    *,
    snr_db: Quantity | None = None,
    std_ratio: Quantity | None = None,
    sigma: Quantity | None = None,
    clip: bool = False,
    lengths: Tensor | None = None,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """White Gaussian noise, independent per channel, the same for the same key.

    Args:
        noise_key: int64 (B, 3): two key words and a stream, see ``Keys.noise_key``.
        snr_db: ratio of the row's RMS to the noise's, in decibels; or
        std_ratio: the noise's standard deviation as a multiple of the row's; or
        sigma: the noise's standard deviation itself.
        clip: clip the result to [−1, 1].
        lengths: int64 (B,): what follows is padding; it stays as it is and does not count in the row's level.

    Raises:
        ValueError: not exactly one of snr_db, std_ratio and sigma.
    """
    from fastaug.ops import noise

    out = noise.add_noise(
        _batch(x),
        noise_key,
        sigma=sigma,
        snr_db=snr_db,
        std_ratio=std_ratio,
        clip=clip,
        lengths=lengths,
        active=active,
        inplace=_own(x, inplace),
    )
    return _like(out, x)


def low_pass(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    zeros: int = 8,
    order: int | None = None,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """What lies below the cutoff, by a `sinc_filter`; with an ``order``, by a `butterworth` filter."""
    if order is None:
        return sinc_filter(x, sample_rate, cutoff_hz, False, zeros, active=active, inplace=inplace)
    return butterworth(x, sample_rate, cutoff_hz, False, order, active=active, inplace=inplace)


def high_pass(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    zeros: int = 8,
    order: int | None = None,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """What lies above the cutoff: x minus its low `sinc_filter`; with an ``order``, by a `butterworth` filter."""
    if order is None:
        return sinc_filter(x, sample_rate, cutoff_hz, True, zeros, active=active, inplace=inplace)
    return butterworth(x, sample_rate, cutoff_hz, True, order, active=active, inplace=inplace)


def sinc_filter(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    highpass: bool | Tensor,
    zeros: int = 8,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Low-pass or high-pass by a Hann-windowed sinc of julius' definition; edges repeat the first and last sample.

    Args:
        sample_rate: Hz.
        cutoff_hz: Hz; half a sample rate and above keeps everything below it.
        highpass: a bool, or bool (B,).
        zeros: zero crossings of the sinc kept on each side.
        inplace: the result may be written into `x`, which is then returned.
    """
    from fastaug.ops import fir

    batch = _batch(x)
    cutoff = (row_values(cutoff_hz, batch, "cutoff_hz", torch.float64) / sample_rate).clamp(max=0.5)
    high = row_values(highpass, batch, "highpass", torch.bool)
    return _like(fir.windowed_sinc(batch, cutoff, high, zeros=zeros, active=active, inplace=inplace), x)


def butterworth(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    highpass: bool | Tensor,
    order: int = 2,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Low-pass or high-pass by a recursive filter, flat in its pass band, causal, from rest.

    Args:
        sample_rate: Hz.
        cutoff_hz: Hz, the -3 dB point; half a sample rate and above keeps everything below it.
        highpass: a bool, or bool (B,).
        order: 1 to 16: 6 dB an octave each.
    """
    from fastaug.ops import iir

    batch = _batch(x)
    cutoff = (row_values(cutoff_hz, batch, "cutoff_hz", torch.float64) / sample_rate).clamp(max=0.5)
    sos = iir.butterworth(cutoff, row_values(highpass, batch, "highpass", torch.bool), order)
    return _like(iir.sos_filter(batch, sos, active, inplace), x)


def band_pass(
    x: Tensor,
    sample_rate: int,
    centre_hz: Quantity,
    q: Quantity = 2**-0.5,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """0 dB at the centre, 6 dB an octave on either side; centre / q between the -3 dB points (analogue)."""
    return _biquad("band_pass", x, sample_rate, centre_hz, q, 0.0, active, inplace)


def notch(
    x: Tensor,
    sample_rate: int,
    centre_hz: Quantity,
    q: Quantity = 10.0,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Nothing at the centre; centre / q between the -3 dB points (analogue)."""
    return _biquad("notch", x, sample_rate, centre_hz, q, 0.0, active, inplace)


def peaking_eq(
    x: Tensor,
    sample_rate: int,
    centre_hz: Quantity,
    gain_db: Quantity,
    q: Quantity = 1.0,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """``gain_db`` at the centre, 0 dB far from it; centre / q between the points of half the decibels (analogue)."""
    return _biquad("peaking", x, sample_rate, centre_hz, q, gain_db, active, inplace)


def low_shelf(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    gain_db: Quantity,
    q: Quantity = 2**-0.5,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """``gain_db`` well below the cutoff, half of it there, 0 dB well above."""
    return _biquad("low_shelf", x, sample_rate, cutoff_hz, q, gain_db, active, inplace)


def high_shelf(
    x: Tensor,
    sample_rate: int,
    cutoff_hz: Quantity,
    gain_db: Quantity,
    q: Quantity = 2**-0.5,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """``gain_db`` well above the cutoff, half of it there, 0 dB well below."""
    return _biquad("high_shelf", x, sample_rate, cutoff_hz, q, gain_db, active, inplace)


def _biquad(
    kind: str,
    x: Tensor,
    sample_rate: int,
    hz: Quantity,
    q: Quantity,
    gain_db: Quantity,
    active: Tensor | None,
    inplace: bool,
) -> Tensor:
    """One section of the Audio EQ Cookbook (Bristow-Johnson): see `fastaug.ops.iir.biquad`."""
    from fastaug.ops import iir

    batch = _batch(x)
    frequency = (row_values(hz, batch, "frequency", torch.float64) / sample_rate).clamp(max=0.5)
    q, gain_db = row_values(q, batch, "q", torch.float64), row_values(gain_db, batch, "gain_db", torch.float64)
    return _like(iir.sos_filter(batch, iir.biquad(kind, frequency, q, gain_db), active, inplace), x)


def sos_filter(x: Tensor, sos: Tensor, *, active: Tensor | None = None, inplace: bool = False) -> Tensor:
    """``scipy.signal.sosfilt(sos, x)`` from rest, coefficients and state in float64. See `fastaug.ops.iir.sos_filter`.

    Args:
        sos: float64 (S, 6) or (B, S, 6): sections of b0, b1, b2, a0, a1, a2; stable, else ValueError (on the CPU).
    """
    from fastaug.ops import iir

    return _like(iir.sos_filter(_batch(x), sos, active, inplace), x)


def delay(
    x: Tensor,
    sample_rate: int,
    delay_ms: Quantity,
    factor: Quantity = 0.5,
    halve: bool = True,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """One echo: y[n] = x[n] + factor · x[n − d] with d = ⌊delay_ms · sample_rate / 1000⌋, halved if ``halve``.

    Args:
        sample_rate: Hz.
        delay_ms: milliseconds, not negative.
        factor: amplitude of the echo.
    """
    from fastaug.ops import pointwise

    batch = _batch(x)
    offset = (row_values(delay_ms, batch, "delay_ms", torch.float64) * sample_rate / 1000).long()
    dry, wet = 1.0, row_values(factor, batch, "factor")
    if halve:  # a power of two may as well be taken out of the levels: the bits are the same
        dry, wet = 0.5, wet * 0.5
    return _like(pointwise.echo(batch, offset, dry, wet, active, inplace=_own(x, inplace)), x)


def pitch_shift(
    x: Tensor,
    sample_rate: int,
    semitones: Quantity,
    max_semitones: float = 12.0,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """The pitch moved, the length kept, as ``sox pitch``: WSOLA, then resampling; channels stay aligned.

    Args:
        sample_rate: Hz.
        semitones: positive is up.
        max_semitones: bound of ``semitones`` when that is a CUDA tensor, which nobody waits for: see
            ``ops.wsola.pitch_shift``.
        inplace: the result may be written into ``x``, which is then returned; a permission, not a promise.
    """
    from fastaug.ops import wsola

    return _like(wsola.pitch_shift(_batch(x), sample_rate, semitones, active, max_semitones, inplace), x)


def reverb(
    x: Tensor,
    sample_rate: int,
    reverberance: Quantity = 50.0,
    hf_damping: Quantity = 50.0,
    room_scale: Quantity = 100.0,
    stereo_depth: Quantity = 100.0,
    pre_delay_ms: Quantity = 0.0,
    wet_gain_db: Quantity = 0.0,
    wet_only: bool = False,
    clip: bool = True,
    *,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Freeverb with the controls of ``sox reverb``; the tail beyond T is cut.

    One channel with stereo_depth > 0: the mean of the two clipped outputs, as sox's ``channels 1``; two channels: sox
    stereo; more: depth 0.

    Args:
        sample_rate: Hz.
        reverberance, hf_damping, room_scale, stereo_depth: percent.
        pre_delay_ms: milliseconds. wet_gain_db: decibels.
        wet_only: leave the dry signal out. clip: clip each side to [−1, 1].
        inplace: the result may be written into `x`.
    """
    from fastaug.ops import reverb as op

    out = op.reverb(
        _batch(x),
        sample_rate,
        reverberance,
        hf_damping,
        room_scale,
        stereo_depth,
        pre_delay_ms,
        wet_gain_db,
        wet_only=wet_only,
        clip=clip,
        active=active,
        inplace=inplace,
    )
    return _like(out, x)


@overload
def resample(x: Tensor, from_rate: int, to_rate: int, quality: str = "high") -> Tensor: ...
@overload
def resample(
    x: Tensor, from_rate: Tensor, to_rate: int | Tensor, quality: str = "high", out_length: int | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def resample(
    x: Tensor, from_rate: int, to_rate: Tensor, quality: str = "high", out_length: int | None = None
) -> tuple[Tensor, Tensor]: ...
def resample(
    x: Tensor, from_rate: int | Tensor, to_rate: int | Tensor, quality: str = "high", out_length: int | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Band-limited resampling; output k sits at source position k · from_rate / to_rate, zeros outside.

    Shapes: (..., T) -> (..., ceil(T · to_rate / from_rate)). With an integer (B,) tensor of rates: (B, C, T) ->
    (B, C, N) with zeros behind each row's end, and the lengths, int64 (B,).

    Args:
        from_rate, to_rate: Hz.
        quality: "fast", "high" or "best", see docs/resampling.md.
        out_length: N with a tensor of rates; by default the longest row's, for which rates on a GPU are waited for.
    """
    from fastaug.ops import resample, resample_rows

    if not isinstance(from_rate, Tensor) and not isinstance(to_rate, Tensor):
        return resample.resample(x.float(), from_rate, to_rate, quality).to(x.dtype)
    out, lengths = resample_rows.resample_rows(_batch(x), from_rate, to_rate, quality, out_length)
    return _like(out, x), lengths


def mix_down(x: Tensor) -> Tensor:
    """The mean of the channels.  Shapes: (B, C, T) -> (B, 1, T), (C, T) -> (1, T); (T,) stays."""
    batch = _batch(x)
    total = batch[:, :1]
    for channel in range(1, batch.shape[1]):  # one by one: the order of the sum must not depend on the batch
        total = total + batch[:, channel : channel + 1]
    return _like(total / max(1, batch.shape[1]), x)


def crop(x: Tensor, start: int | Tensor, samples: int) -> Tensor:
    """Samples [start, start + samples) of every example, zeros beyond the end.

    Shapes: (B, C, T) -> (B, C, samples), and likewise (C, T) and (T,).

    Args:
        start: a number or int64 (B,), not negative.
    """
    from fastaug.ops import pointwise

    return _like(pointwise.crop(_batch(x), start, samples), x)


def mask_spectrogram(
    x: Tensor,
    freq_start: Tensor,
    freq_size: Tensor,
    time_start: Tensor,
    time_size: Tensor,
    fill: float | str = 0.0,
    *,
    lengths: Tensor | None = None,
    active: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Bins [start, start + size) and frames likewise replaced, in every channel.

    Shapes: (B, C, F, N), (C, F, N) or (F, N), kept.

    Args:
        freq_start, freq_size, time_start, time_size: int64 (B, masks); size 0 is no mask.
        fill: a number, or "mean" for the mean of the example's valid frames.
        lengths: int64 (B,), valid frames; the mean is theirs.
    """
    from fastaug.ops import spec

    bounds = (freq_start, freq_size, time_start, time_size)
    batch = _batch(x, 4)
    return _like(spec.mask(batch, *bounds, fill, lengths, active, _own(x, inplace)), x)


def time_warp(
    x: Tensor,
    center: Quantity,
    shift: Quantity,
    *,
    lengths: Tensor | None = None,
    active: Tensor | None = None,
) -> Tensor:
    """Frame ``center`` of each spectrogram moved to ``center + shift``; both sides are stretched, the ends stay.

    Shapes: (B, C, F, N), (C, F, N) or (F, N), kept.

    Args:
        center, shift: frames; center + shift must lie inside, or the ends move.
        lengths: int64 (B,), valid frames: the last of them is an end, and those after it stay as they are.
    """
    from fastaug.ops import spec
    from fastaug.ops._library import row_values

    batch = _batch(x, 4)
    last = row_values(batch.shape[-1] if lengths is None else lengths, batch, "lengths")[:, None] - 1
    old = row_values(center, batch, "center")[:, None]
    new = old + row_values(shift, batch, "shift")[:, None]
    frame = torch.arange(batch.shape[-1], device=batch.device)
    left = frame * (old / new.clamp(min=1))
    right = old + (frame - new) * ((last - old) / (last - new).clamp(min=1))
    at = torch.where(frame > last, frame, torch.where(frame <= new, left, right))
    return _like(spec.warp(batch, at, active=active), x)


def resized_crop(
    x: Tensor,
    freq_start: Quantity,
    freq_size: Quantity,
    time_start: Quantity,
    time_size: Quantity,
    *,
    active: Tensor | None = None,
) -> Tensor:
    """A window of each spectrogram, which may reach beyond it into zeros, resized to the whole by cubic convolution.

    As `torch.nn.functional.interpolate(mode="bicubic", align_corners=True)` of the window.
    Shapes: (B, C, F, N), (C, F, N) or (F, N), kept.

    Args:
        freq_start, freq_size, time_start, time_size: the window in whole bins and frames; starts may be negative.
    """
    from fastaug.ops import spec
    from fastaug.ops._library import row_values

    batch = _batch(x, 4)
    positions, ranges = [], []
    for size, start, width in ((batch.shape[2], freq_start, freq_size), (batch.shape[3], time_start, time_size)):
        first = row_values(start, batch, "start", torch.int64)[:, None]
        last = row_values(width, batch, "size", torch.int64)[:, None] - 1
        positions.append(first + torch.arange(size, device=batch.device) * (last / max(size - 1, 1)))
        ranges.append(torch.cat([first, first + last], dim=1))
    return _like(spec.warp(batch, positions[1], positions[0], ranges[1], ranges[0], True, active), x)


def _batch(x: Tensor, dims: int = 3) -> Tensor:
    """``x`` as float32 with ``dims`` dimensions, leading ones added."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"samples must be a float tensor, got {x.dtype if isinstance(x, Tensor) else type(x).__name__}")
    if x.dim() == dims:
        return x.float()
    if not dims - 2 <= x.dim() <= dims:
        raise ValueError(f"samples must have {dims - 2} to {dims} dimensions, got shape {tuple(x.shape)}")
    return x.float().reshape(*[1] * (dims - x.dim()), *x.shape)


def _own(x: Tensor, inplace: bool) -> bool:
    """True if what `_batch` made of ``x`` may be written: the caller allows it, or it is a copy of another dtype."""
    return inplace or x.dtype != torch.float32


def _like(out: Tensor, x: Tensor) -> Tensor:
    """``out`` with the dtype and the number of dimensions of ``x``."""
    if out.dim() == x.dim():
        return out.to(x.dtype)
    return out.to(x.dtype).reshape(out.shape[out.dim() - x.dim() :])
