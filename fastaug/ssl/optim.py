"""LARS, and learning rates that warm up and then follow a cosine, by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LARS", "contrastive_optimiser", "parameter_groups", "set_rate", "warmup_cosine"]


class LARS(torch.optim.Optimizer):
    """Stochastic gradient descent with momentum whose step is in proportion to each layer's norm.

    v ← m v + lr · s · (g + wd · w), w ← w − v, with s = trust · ‖w‖ / ‖g + wd · w‖, and 1 where either norm is 0 or the
    group has ``adapt=False`` (biases and normalisation layers, whose weight decay should be 0: see `parameter_groups`).
    Source: You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks" (2017), algorithm 1, with the
    decay inside the norm as in the SimCLR and VICReg releases.

    Args:
        params: parameters, or groups that may set ``lr``, ``weight_decay`` and ``adapt``.
        lr: learning rate. momentum: m. trust: trust coefficient. weight_decay: wd.
        nesterov: use v ← m v + lr s g, w ← w − (m v + lr s g).

    Raises:
        ValueError: a negative number, or a momentum of 1 or more.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        nesterov: bool = False,
    ) -> None:
        for name, value, most in (
            ("lr", lr, math.inf),
            ("momentum", momentum, 1),
            ("weight_decay", weight_decay, math.inf),
            ("trust", trust, math.inf),
        ):
            if not 0 <= value < most:
                raise ValueError(f"LARS: {name} must lie in [0, {most}), got {value}")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, {**defaults, "nesterov": nesterov, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update; ``closure`` recomputes the loss, which is then returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            updates = list(torch._foreach_add([p.grad for p in weights], weights, alpha=group["weight_decay"]))
            if group["adapt"]:
                # Norms stay on the device: nothing here waits for it.
                scales = [
                    torch.where((w > 0) & (u > 0), group["trust"] * w / u, 1.0)
                    for w, u in zip(torch._foreach_norm(weights), torch._foreach_norm(updates), strict=True)
                ]
                updates = [u * s for u, s in zip(updates, scales, strict=True)]
            torch._foreach_mul_(updates, group["lr"])
            for p, update in zip(weights, updates, strict=True):
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                velocity = state["momentum"].mul_(group["momentum"]).add_(update)
                p.sub_(velocity * group["momentum"] + update if group["nesterov"] else velocity)
        return loss


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels with weight decay; vectors (biases, normalisation) without it and without LARS's scaling."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    many, flat = [p for p in wanted if p.ndim > 1], [p for p in wanted if p.ndim <= 1]
    groups = [
        {"params": many, "weight_decay": weight_decay, "adapt": True},
        {"params": flat, "weight_decay": 0.0, "adapt": False},
    ]
    return [group for group in groups if group["params"]]


def contrastive_optimiser(
    model: nn.Module, kind: str, batch_size: int, lr: float | None = None, weight_decay: float = 1e-6
) -> torch.optim.Optimizer:
    """The optimiser of a contrastive run.

    Args:
        kind: "adam", "sgd" (momentum 0.9), "lars", or "auto": Adam below a batch of 96, LARS from there on (the CLMR
            thesis, table 4.1).
        batch_size: examples a step over all processes.
        lr: None takes 3e-4 for Adam, 0.075 · √batch for LARS (SimCLR, appendix B.1), 0.03 · batch / 256 for SGD.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "auto":
        kind = "adam" if batch_size < 96 else "lars"
    groups = parameter_groups(model, weight_decay)
    plain = [{k: v for k, v in group.items() if k != "adapt"} for group in groups]  # what LARS alone knows
    if kind == "adam":
        return torch.optim.Adam(plain, lr=3e-4 if lr is None else lr)
    if kind == "sgd":
        return torch.optim.SGD(plain, lr=0.03 * batch_size / 256 if lr is None else lr, momentum=0.9)
    if kind == "lars":
        return LARS(groups, lr=0.075 * math.sqrt(batch_size) if lr is None else lr)
    raise ValueError(f'optimiser must be "auto", "adam", "sgd" or "lars", got {kind!r}')


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Learning rates of all groups: ``factor`` times what they were built with, which the groups remember."""
    for group in optimiser.param_groups:
        group["lr"] = group.setdefault("base_lr", group["lr"]) * factor


def warmup_cosine(step: int, steps: int, warmup: int = 0, floor: float = 0.0) -> float:
    """The factor of the learning rate at a step: a straight line up to 1 over ``warmup`` steps, then half a cosine.

    Args:
        step: 0 for the first update. steps: updates of the whole run.
        warmup: steps of the line; its first value is 1 / warmup. With floor 1 there may be more of them than ``steps``.
        floor: the factor at the end.

    Raises:
        ValueError: more warm-up than steps, and a cosine to come after it.
    """
    if not 0 <= warmup <= (steps if floor < 1 else math.inf):
        raise ValueError(f"warmup must lie in [0, steps={steps}], got {warmup}")
    if step < warmup:
        return (step + 1) / warmup
    share = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))
