"""Drawn parameters in words: what happened to one example, as one would tell it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastaug.transforms import (
    Compose,
    Delay,
    Gain,
    HighLowPass,
    HighPass,
    LowPass,
    Noise,
    PitchShift,
    PolarityInversion,
    RandomCrop,
    Reverb,
)
from fastaug.transforms.base import Params

__all__ = ["in_words"]


def in_words(transform: nn.Module, params: Params, row: int) -> list[str]:
    """What ``transform`` does to example ``row``, one phrase an effect that acts on it, in the order they are applied.

    Args:
        transform: the transform, or a chain of them (chains may be nested).
        params: what its ``draw`` gave, or a Batch holds.
        row: which example.

    Returns:
        Phrases such as "pitch −3.2 st", "reverb 61 %", "low-pass 2.9 kHz"; empty when nothing acts.
    """
    if not bool(params["active"][row]):
        return []
    if isinstance(transform, Compose):
        parts = (in_words(child, params[str(i)], row) for i, child in enumerate(transform.transforms))
        return [phrase for part in parts for phrase in part]
    values = {k: v[row].item() for k, v in params.items() if isinstance(v, torch.Tensor) and v[row].dim() == 0}
    return [_phrase(transform, values)]


def _phrase(transform: nn.Module, value: dict[str, Any]) -> str:
    match transform:
        case PolarityInversion():
            return "polarity flipped"
        case Noise() if "std_ratio" in value:
            return f"noise at {_number(100 * value['std_ratio'])} % of the level"
        case Noise():
            return f"noise {_signed(-value['snr_db'])} dB"
        case Gain():
            return f"gain {_signed(value['gain_db'])} dB"
        case HighLowPass():
            return f"{'high' if value['highpass'] else 'low'}-pass {_hertz(value['cutoff_hz'])}"
        case HighPass():
            return f"high-pass {_hertz(value['cutoff_hz'])}"
        case LowPass():
            return f"low-pass {_hertz(value['cutoff_hz'])}"
        case Delay():
            return f"delay {value['delay_ms']:.0f} ms"
        case PitchShift():
            return f"pitch {_signed(value['semitones'])} st"
        case Reverb():
            return f"reverb {value['reverberance']:.0f} %"
        case RandomCrop():
            return "crop"
    own = ", ".join(f"{k} {_number(v)}" for k, v in value.items() if k != "active")
    return f"{type(transform).__name__} {own}".strip()


def _signed(value: float) -> str:
    """One decimal, a true minus sign, and a plus: direction matters. ±0.0 loses its sign."""
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _hertz(value: float) -> str:
    return f"{value / 1000:.1f} kHz" if value >= 999.5 else f"{value:.0f} Hz"


def _number(value: float) -> str:
    return f"{value:.2g}".replace("-", "−")
