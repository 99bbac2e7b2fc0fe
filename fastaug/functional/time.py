"""Windows, sample rates and pitch."""

from __future__ import annotations

from typing import overload

from torch import Tensor

from fastaug.functional.shapes import Quantity, as_batch, like
from fastaug.ops import pointwise, resample_rows, wsola
from fastaug.ops import resample as op

__all__ = ["crop", "pitch_shift", "resample"]


def crop(x: Tensor, start: int | Tensor, samples: int) -> Tensor:
    """Samples [start, start + samples) of every example, zeros beyond the end.

    Shapes: (B, C, T) -> (B, C, samples), and likewise (C, T) and (T,).

    Args:
        start: a number or int64 (B,), not negative.
    """
    return like(pointwise.crop(as_batch(x), start, samples), x)


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
    if not isinstance(from_rate, Tensor) and not isinstance(to_rate, Tensor):
        return op.resample(x.float(), from_rate, to_rate, quality).to(x.dtype)
    out, lengths = resample_rows.resample_rows(as_batch(x), from_rate, to_rate, quality, out_length)
    return like(out, x), lengths


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
    return like(wsola.pitch_shift(as_batch(x), sample_rate, semitones, active, max_semitones, inplace), x)
