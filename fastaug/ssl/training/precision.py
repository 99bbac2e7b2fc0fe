"""Mixed precision: the type in which a model computes, and the loss scale that float16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

KINDS = ("auto", "float32", "bfloat16", "float16")


class Precision:
    """How one training run computes: autocast for the forward pass, a loss scale for the backward pass of float16.

    float16 loses gradients below 6e-8; ``scale`` multiplies the loss so that they stay above, ``step`` divides again
    and leaves out a step whose gradients overflowed (Micikevicius et al., "Mixed Precision Training", 2018, 3.2).

    Args:
        kind: "float32", "bfloat16", "float16", or "auto": see `fastest`.

    Attributes:
        dtype: of autocast; None in float32.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, kind: str, device: torch.device) -> None:
        if kind not in KINDS:
            raise ValueError(f"precision must be one of {', '.join(KINDS)}, got {kind!r}")
        self.device = device
        self.kind = fastest(device) if kind == "auto" else kind
        self.dtype: torch.dtype | None = None if self.kind == "float32" else getattr(torch, self.kind)
        self.scaler = torch.amp.GradScaler(device.type) if self.kind == "float16" else None  # type: ignore[attr-defined]

    def autocast(self) -> AbstractContextManager[Any]:
        """Around forward passes, not around the loss."""
        return autocast(self.device, self.dtype)

    def scale(self, loss: Tensor) -> Tensor:
        """What to call ``backward`` on."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """``optimiser.step()``, in float16 with true gradients and only if they are finite."""
        if self.scaler is None:
            optimiser.step()
        else:
            self.scaler.step(optimiser)
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Also takes the state of a run in another precision, which holds no scale: then this one starts anew."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """``torch.autocast`` to ``dtype``; None: no change of type."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def fastest(device: torch.device) -> str:
    """bfloat16 on GPUs that have it (from Ampere on), float16 on those with tensor cores for it alone (Volta, Turing: a
    T4), else float32.

    On CPUs float32 always: with AVX-512 BF16 instructions a training step of SampleCNN took 1.2 to 5 times as long
    in bfloat16, one of ResNet-18 1.5 to 8 times, one of EfficientNet-B0 about as long (torch 2.13, Zen 4).
    """
    if device.type != "cuda":
        return "float32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    return "float16" if torch.cuda.get_device_capability(device) >= (7, 0) else "float32"
