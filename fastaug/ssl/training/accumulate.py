"""The gradient of a large batch from a model that sees one part of it at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastaug.ssl.training.precision import Precision


def backward(
    model: nn.Module,
    forward: Callable[[Any], Tensor],
    parts: Sequence[Any],
    loss_of: Callable[[Tensor], Tensor],
    precision: Precision,
) -> tuple[Tensor, Tensor]:
    """Add the gradient of the loss of the joined parts to the parameters; returns (loss, projections (V, B, D)).

    A contrastive loss compares all views of a batch with each other, so the losses of parts do not sum up to it. With
    several parts, all projections are computed without a graph first, the loss and its gradient with respect to them
    next, and a second pass through each part carries that gradient into the model. Memory is that of the largest part,
    the time one forward pass more. Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory
    Limited Setup" (2021), section 3.2.

    The gradient is that of one pass over the whole, except that batch norm knows the statistics of a part only; its
    running statistics are updated once a part, and dropout repeats its masks. Under DistributedDataParallel processes
    meet once, in the last part, and must all have as many parts.

    Args:
        model: whose buffers the forward pass changes; may be wrapped in DistributedDataParallel.
        forward: runs the model on a part, giving (V, b, D); called under autocast.
        parts: of the batch, at least one: whatever ``forward`` takes.
        loss_of: from projections (V, B, D), in float32 or wider, to a 0-dimensional loss.
        precision: scales the loss; ``precision.step`` takes the scale off again.
    """
    if not parts:
        raise ValueError("backward: at least one part is needed")
    if len(parts) == 1:
        with precision.autocast():
            z = _wide(forward(parts[0]))
        loss = loss_of(z)
        precision.scale(loss).backward()
        return loss.detach(), z.detach()

    before = [buffer.clone() for buffer in model.buffers()]
    seeds, pieces = [], []
    for part in parts:
        seeds.append(_random_state(precision.device))
        with torch.no_grad(), precision.autocast():
            pieces.append(_wide(forward(part)))
    z = torch.cat(pieces, dim=1).requires_grad_()
    loss = loss_of(z)
    precision.scale(loss).backward()
    assert z.grad is not None
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
    grads = z.grad.split([piece.shape[1] for piece in pieces], dim=1)
    for number, (part, seed, grad) in enumerate(zip(parts, seeds, grads, strict=True), start=1):
        _set_random_state(precision.device, seed)
        with _without_meeting(model, number < len(parts)):
            with precision.autocast():
                piece = _wide(forward(part))
            piece.backward(grad)
    return loss.detach(), z.detach()


def split(views: Tensor, parts: int) -> list[Tensor]:
    """(V, B, ...) in ``parts`` parts (V, b, ...) of nearly the same size.

    Raises:
        ValueError: fewer than one part, or a part without an example.
    """
    if not 1 <= parts <= views.shape[1]:
        raise ValueError(f"accumulate must lie in [1, {views.shape[1]}], the examples a process has, got {parts}")
    return list(views.tensor_split(parts, dim=1))


def _wide(z: Tensor) -> Tensor:
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def _without_meeting(model: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """Gradients stay in this process, to be averaged with those of the last part."""
    if wanted and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
