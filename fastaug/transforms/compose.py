"""Chains of transforms: all in order (`Compose`), one of several (`OneOf`), some of several (`SomeOf`).

The choice is made per example. Every child runs once over the batch, on the rows that chose it, so no decision ever
travels from the device to the host. A child's params sit under its index, "0", "1", ...; its "active" says what
really happens: whatever the parents decided is already in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastaug.ops import fused, rows
from fastaug.ops._library import direct
from fastaug.ops.fused import Pointwise
from fastaug.random import Keys
from fastaug.transforms.base import Params, Transform, select

__all__ = ["Compose", "OneOf", "SomeOf"]


def mask_params(params: Params, active: Tensor) -> Params:
    """``params`` whose every "active" (its own and its children's) is also false where ``active`` (B,) is."""
    return {
        name: mask_params(value, active) if isinstance(value, dict) else value & active if name == "active" else value
        for name, value in params.items()
    }


class _Line:
    """The samples on their way through a chain.

    Neighbouring pointwise steps wait until another kind of step, or the end, needs the samples, and then run as one
    pass. What a step has made anew belongs to the chain, so the next ones may write into it.
    """

    def __init__(self, samples: Tensor, inplace: bool, chained: bool) -> None:
        self.samples, self.inplace = samples, inplace
        self.chained = chained  # ops may wait
        self.waiting: Pointwise | None = None

    def merge(self, child: Transform, params: Params, rate: int | None, lengths: Tensor | None) -> bool:
        """True if the child's step now waits; False if it has to run by itself.

        So it has to where gradients are recorded: each op has its own, the merged pass has none.
        """
        if torch.is_grad_enabled() and _requires_grad(self.samples, params):
            return False
        step = child.pointwise(self.samples, sample_rate=rate, lengths=lengths, **params)
        if step is not None and self.waiting is not None:
            joined = self.waiting.then(step)
            if joined is None:  # the next pass begins here, on what this one makes
                step = child.pointwise(self.finished(), sample_rate=rate, lengths=lengths, **params)
            else:
                step = joined
        if step is not None:
            self.waiting = step
        return step is not None

    def finished(self) -> Tensor:
        """The samples after everything that waits."""
        if self.waiting is not None:
            steps, self.waiting = self.waiting, None
            with rows.collecting(self.chained):
                self.put(fused.run(self.samples, steps, self.inplace))
        return self.samples

    def run(self, child: Transform, params: Params, rate: int | None, lengths: Tensor | None) -> None:
        """The child's step by itself, after everything that waits."""
        samples = self.finished()
        if not self.chained or isinstance(child, Compose):
            self.put(child._run(samples, params, rate, lengths, self.inplace))
        elif child.rowwise and not (torch.is_grad_enabled() and _requires_grad(samples, params)):
            with rows.collecting():
                self.put(child._run(samples, params, rate, lengths, self.inplace))
        else:
            rows.flush()
            self.put(child._run(samples, params, rate, lengths, self.inplace))

    def put(self, samples: Tensor) -> None:
        """The result of a step; the chain's own unless it shares memory with what came in."""
        if not self.inplace and direct(samples):
            self.inplace = samples.untyped_storage().data_ptr() != self.samples.untyped_storage().data_ptr()
        self.samples = samples


def _requires_grad(samples: Tensor, params: Params) -> bool:
    return samples.requires_grad or any(isinstance(v, Tensor) and v.requires_grad for v in params.values())


@dataclass(eq=False, repr=False)
class Compose(Transform):
    """Transforms one after another.

    Args:
        transforms: Transforms, or plain ``nn.Module``s that keep the shape of (B, C, T). A plain module decides by
            its own ``training`` flag what it does in ``.eval()``; Transforms that augment are the identity there.
        p: probability that an example goes through the chain at all; its draw masks those of the children.

    Raises:
        TypeError: a member is not an ``nn.Module``, or a plain one that holds a Transform. ValueError: p < 1 around a
        transform that changes the shape, or waveform and spectrogram transforms in one chain.
    """

    transforms: Sequence[nn.Module] = field(default_factory=list)

    def __post_init__(self) -> None:
        name = type(self).__name__
        self.transforms = list(self.transforms)
        for index, child in enumerate(self.transforms):
            if not isinstance(child, nn.Module):
                raise TypeError(f"{name}: member {index} must be a Transform or nn.Module, got {child!r}")
            if not isinstance(child, Transform) and any(isinstance(inner, Transform) for inner in child.modules()):
                raise TypeError(f"{name}: {type(child).__name__} hides a Transform from its keys; use Compose instead")
            self.add_module(str(index), child)
        dims = {child.batch_dim for child in self._own_kind()}
        if len(dims) > 1:
            raise ValueError(f"{name}: waveform and spectrogram transforms cannot share a chain")
        super().__post_init__()
        if self.sample_rate is not None:
            self._bind_children(self.sample_rate)

    def _own_kind(self) -> list[Transform]:
        return [child for child in self.transforms if isinstance(child, Transform)]

    @property
    def batch_dim(self) -> int:  # type: ignore[override]
        return next((child.batch_dim for child in self._own_kind()), 3)

    @property
    def keeps_shape(self) -> bool:  # type: ignore[override]
        return all(child.keeps_shape for child in self._own_kind())

    def bind(self, sample_rate: int) -> None:
        """Set the rate of the whole chain; children after a Resample get its output rate."""
        super().bind(sample_rate)
        self._bind_children(sample_rate)

    def _bind_children(self, sample_rate: int) -> None:
        rate: int | None = sample_rate
        for child in self._own_kind():
            assert rate is not None
            child.bind(rate)
            rate, _ = child.after(rate, None)

    def draw_params(self, keys: Keys) -> Params:
        """Children's params by index, masked by `gates`."""
        drawn: Params = {}
        for index, child in enumerate(self.transforms):
            own = keys.child(index)
            drawn[str(index)] = child.draw(own) if isinstance(child, Transform) else {"active": own.coin("active", 1.0)}
        gates = self.gates(keys)
        return drawn if gates is None else {n: mask_params(p, gates[:, int(n)]) for n, p in drawn.items()}

    def gates(self, keys: Keys) -> Tensor | None:
        """bool (B, children): which children may act on which example; None is all."""
        return None

    def draw(self, keys: Keys) -> Params:
        params = super().draw(keys)
        return params if self.p == 1 else mask_params(params, params["active"])

    def process(
        self,
        samples: Tensor,
        active: Tensor,
        sample_rate: int | None,
        lengths: Tensor | None,
        inplace: bool = False,
        **children: Any,
    ) -> Tensor:
        if not rows.possible(samples, len(samples)):
            return self._steps(_Line(samples, inplace, False), active, sample_rate, lengths, children)
        with rows.chain(len(samples)):
            return self._steps(_Line(samples, inplace, True), active, sample_rate, lengths, children)

    def _steps(
        self, line: _Line, active: Tensor, sample_rate: int | None, lengths: Tensor | None, children: Params
    ) -> Tensor:
        everyone = direct(active) and bool(active.all())  # where looking is free
        for index, child in enumerate(self.transforms):
            if str(index) not in children:
                raise ValueError(f"{type(self).__name__}: params have no entry {str(index)!r}")
            own = dict(children[str(index)])
            if not everyone:
                own["active"] = own["active"] & active
            if not isinstance(child, Transform):
                samples = line.finished()
                if line.chained:
                    rows.flush()
                line.put(self._run_plain(child, samples, own["active"]))
                continue
            rate = child._rate(sample_rate)
            if not line.merge(child, own, rate, lengths):
                line.run(child, own, rate, lengths)
            sample_rate, lengths = child.after(sample_rate, lengths)
        return line.finished()

    def _apply_to_copies(
        self, batch: Tensor, n: int, params: Params, sample_rate: int | None, lengths: Tensor | None
    ) -> Tensor:
        """The copies are made row by row as well, each before its first step."""
        if n == 1 or batch.dim() != 3 or not rows.possible(batch, n * len(batch)):
            return super()._apply_to_copies(batch, n, params, sample_rate, lengths)
        with rows.chain(n * len(batch)):
            return self._apply_to(rows.repeated(batch, n), params, sample_rate, lengths, inplace=True)

    def _run_plain(self, child: nn.Module, samples: Tensor, active: Tensor) -> Tensor:
        new = child(samples)
        if new.shape != samples.shape:
            raise ValueError(
                f"{type(self).__name__}: {type(child).__name__} turned {tuple(samples.shape)} into "
                f"{tuple(new.shape)}; a plain module must keep the shape"
            )
        return select(active, new.to(samples.dtype), samples)

    def after(self, sample_rate: int | None, lengths: Tensor | None) -> tuple[int | None, Tensor | None]:
        for child in self._own_kind():
            sample_rate, lengths = child.after(sample_rate, lengths)
        return sample_rate, lengths

    def _evaluate(self, samples: Tensor, sample_rate: int | None, lengths: Tensor | None) -> Tensor:
        """In ``.eval()`` only the steps that are not augmentations (Resample, MixDown, plain modules) remain."""
        rate = self._rate(sample_rate)
        for child in self.transforms:
            if not isinstance(child, Transform):
                samples = child(samples)
            elif isinstance(child, Compose):
                samples = child._evaluate(samples, rate, lengths)
                rate, lengths = child.after_eval(rate, lengths)
            elif not child.augments:
                samples = child(samples, rate, lengths)
                rate, lengths = child.after(rate, lengths)
        return samples

    def after_eval(self, rate: int | None, lengths: Tensor | None) -> tuple[int | None, Tensor | None]:
        """`after` of the steps that also run in ``.eval()``."""
        for child in self._own_kind():
            if isinstance(child, Compose):
                rate, lengths = child.after_eval(rate, lengths)
            elif not child.augments:
                rate, lengths = child.after(rate, lengths)
        return rate, lengths


@dataclass(eq=False, repr=False)
class OneOf(Compose):
    """One transform an example, chosen per example; the chosen one still follows its own ``p``.

    Args:
        transforms: the choices; they must keep the shape.
        weights: relative probabilities, one a choice; equal when None.

    Draws ``choice``, visible as the children's ``active``.

    Raises:
        ValueError: no choices, weights that do not fit, or a choice that changes the shape.
    """

    weights: list[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if not self.transforms:
            raise ValueError(f"{name} needs at least one transform")
        if not self.keeps_shape:
            raise ValueError(f"{name}: a transform that changes the shape cannot be one of several choices")
        if self.weights is not None:
            self.weights = [float(weight) for weight in self.weights]
            if len(self.weights) != len(self.transforms):
                raise ValueError(f"{name}: {len(self.weights)} weights for {len(self.transforms)} transforms")
            if min(self.weights) < 0 or not 0 < sum(self.weights) < float("inf"):
                raise ValueError(f"{name}: weights must be non-negative with a positive sum, got {self.weights}")

    def gates(self, keys: Keys) -> Tensor:
        count = len(self.transforms)
        if self.weights is None:
            choice = keys.integers("choice", 0, count)
        else:
            edges = np.cumsum(self.weights) / np.sum(self.weights)
            edges[-1] = 1.0  # whatever the rounding of the sum, u < 1 falls below the last edge
            choice = torch.from_numpy(np.searchsorted(edges, keys.unit("choice")[:, 0], side="right"))
        return choice[:, None] == torch.arange(count)

    def _evaluate(self, samples: Tensor, sample_rate: int | None, lengths: Tensor | None) -> Tensor:
        return samples


@dataclass(eq=False, repr=False)
class SomeOf(Compose):
    """Some of several transforms, chosen per example without repetition and applied in the order listed.

    Args:
        transforms: the choices; they must keep the shape.
        n: how many an example gets: a number, or (lo, hi), both included, drawn uniformly.

    Draws ``count`` and ``order``, visible as the children's ``active``.

    Raises:
        ValueError: n out of range, or a choice that changes the shape.
    """

    n: int | tuple[int, int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self._bounds()
        if not 0 <= low <= high <= len(self.transforms):
            raise ValueError(f"SomeOf: n={self.n!r} of {len(self.transforms)} transforms")
        if not self.keeps_shape:
            raise ValueError("SomeOf: a transform that changes the shape cannot be one of several choices")

    def _bounds(self) -> tuple[int, int]:
        return self.n if isinstance(self.n, tuple) else (self.n, self.n)

    def gates(self, keys: Keys) -> Tensor:
        low, high = self._bounds()
        places = len(self.transforms)
        count = keys.integers("count", low, high + 1)
        chosen = torch.arange(places) < count[:, None]
        return torch.zeros(len(keys), places, dtype=torch.bool).scatter(1, keys.permutation("order", places), chosen)

    def _evaluate(self, samples: Tensor, sample_rate: int | None, lengths: Tensor | None) -> Tensor:
        return samples
