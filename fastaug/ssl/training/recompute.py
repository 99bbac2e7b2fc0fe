"""Gradient checkpointing: keep the inputs of an encoder's blocks for the backward pass, compute the rest again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_Norm = nn.modules.batchnorm._BatchNorm


def recompute(encoder: nn.Module) -> nn.Module:
    """Make every block of ``encoder`` recompute its activations in the backward pass; returns it, changed in place.

    Blocks are the members of its outermost ``nn.Sequential``s. Outputs, gradients and the running statistics of batch
    norm are those of the plain encoder bit for bit, and it keeps its parameter names; a step takes about a third longer
    (one more forward pass). Unlike accumulation in parts it leaves batch norm the statistics of the whole batch.
    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016).

    Raises:
        ValueError: the encoder holds no ``nn.Sequential`` with at least two members.
    """
    blocks = list(_blocks(encoder))
    if len(blocks) < 2:
        raise ValueError(f"recompute: {type(encoder).__name__} holds no nn.Sequential of blocks to compute again")
    for block in blocks:
        block.forward = functools.partial(_run, block, block.forward)  # type: ignore[method-assign]
    encoder.recomputes = True  # type: ignore[assignment]
    return encoder


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential):
        yield from module
    else:
        for child in module.children():
            yield from _blocks(child)


def _run(block: nn.Module, forward: Callable[..., Any], x: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(x)
    contexts: Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]
    contexts = lambda: (nullcontext(), _still(block))  # noqa: E731
    return checkpoint(forward, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _still(block: nn.Module) -> Iterator[None]:
    """Batch norm in training mode that leaves its running statistics alone: they have seen this batch."""
    norms = [m for m in block.modules() if isinstance(m, _Norm)]
    before = [(m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.momentum, m.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for m, (momentum, count) in zip(norms, before, strict=True):
            m.momentum, m.num_batches_tracked = momentum, count
