"""What all transforms share: drawing from keys, shapes and dtypes, sample-rate binding, equality.

A transform draws its parameters on the host (`draw`), as data, and applies them on the samples' device (`apply`).
`apply` is deterministic: the same samples and params give the same bits, noise included.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fastaug.checks import check_rate
from fastaug.ops.fused import Pointwise
from fastaug.random import Keys, philox4x32

__all__ = ["Params", "Transform", "params_to", "select"]

#: Nested dict of tensors with leading dim B.
Params = dict[str, Any]

_COMPUTE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def select(active: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Rows of ``new`` where ``active`` (B,), rows of ``old`` elsewhere; a NaN in one never leaks into the other."""
    return torch.where(active.view(-1, *[1] * (new.dim() - 1)), new, old)


def params_to(params: Params, device: torch.device) -> Params:
    """Params on ``device``; to a GPU they travel in one pinned asynchronous copy.

    Args:
        params: nested dict of tensors. Those already on ``device`` are left alone.
    """
    if device.type == "cpu" and _on_cpu(params):
        return params
    leaves = [leaf for leaf in _leaves(params) if leaf.device != device]
    return _replaced(params, device, iter(_copy_together(leaves, device))) if leaves else params


# Functions of the module: a closure that calls itself is a cycle, which keeps tensors until the garbage collector runs.


def _on_cpu(params: Params) -> bool:
    """Whether nothing has to move: asked alone, since to compare devices costs more."""
    return all(_on_cpu(value) if isinstance(value, dict) else value.is_cpu for value in params.values())


def _leaves(params: Params) -> Iterator[Tensor]:
    for value in params.values():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield value


def _replaced(params: Params, device: torch.device, moved: Iterator[Tensor]) -> Params:
    """``params`` with the next of ``moved`` in place of each leaf that is not on ``device``."""
    found: Params = {}
    for name, value in params.items():
        if isinstance(value, dict):
            found[name] = _replaced(value, device, moved)
        else:
            found[name] = value if value.device == device else next(moved)
    return found


def _copy_together(leaves: list[Tensor], device: torch.device) -> list[Tensor]:
    """Copies of ``leaves`` on ``device``, through one buffer with every leaf at a multiple of 16 bytes."""
    if device.type != "cuda" or any(leaf.device.type != "cpu" for leaf in leaves):
        return [leaf.to(device) for leaf in leaves]
    sizes = [-(-leaf.numel() * leaf.element_size() // 16) * 16 for leaf in leaves]
    staging = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=True)
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist()
    spans = [(o, o + leaf.numel() * leaf.element_size()) for o, leaf in zip(offsets, leaves, strict=True)]
    for (start, stop), leaf in zip(spans, leaves, strict=True):
        staging[start:stop].view(leaf.dtype).copy_(leaf.reshape(-1))
    there = staging.to(device, non_blocking=True)
    return [there[a:b].view(leaf.dtype).view(leaf.shape) for (a, b), leaf in zip(spans, leaves, strict=True)]


def _process_seed(seed: int) -> int:
    """``seed`` mixed with the distributed rank and the DataLoader worker's seed; itself in a plain process."""
    worker = torch.utils.data.get_worker_info()
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if distributed else 0
    if worker is None and rank == 0:
        return seed
    worker_seed = 0 if worker is None else worker.seed & 0xFFFFFFFFFFFFFFFF
    counter = (rank, worker_seed & 0xFFFFFFFF, worker_seed >> 32, 1)
    low, high, _, _ = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    return int(low) | int(high) << 32


@dataclass(eq=False, repr=False)
class Transform(nn.Module):
    """Base of all transforms. Subclasses are ``@dataclass(eq=False, repr=False)`` and implement
    `draw_params` and `process`.

    ``transform(samples, sample_rate=None, lengths=None, keys=None)`` takes (B, C, T), (C, T) or (T,) of any float
    dtype on any device, keeps dtype and shape, never writes its input, and is the identity in ``.eval()``.

    Args:
        p: probability that an example is transformed; its channels share the decision.
        sample_rate: in Hz; may instead be bound by a Pipeline or given in the call, which wins.
        seed: 64-bit seed of draws made without ``keys``; OS entropy when None.
    """

    p: float = field(default=1.0, kw_only=True)
    sample_rate: int | None = field(default=None, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)

    #: True where `process` needs the sample rate.
    needs_sample_rate: ClassVar[bool] = False
    #: False for deterministic steps (resample, mix down) that also run in ``.eval()``.
    augments: ClassVar[bool] = True
    #: False where the output has another shape than the input (crop, resample, mix down).
    keeps_shape: ClassVar[bool] = True
    #: Dimensions of a full batch: 3 for samples (B, C, T), 4 for spectra (B, C, F, N).
    batch_dim: ClassVar[int] = 3

    def __init_subclass__(cls) -> None:
        """A subclass that processes in its own way inherits no `pointwise` or `rowwise` that stand for another."""
        super().__init_subclass__()
        if "process" in cls.__dict__ and "pointwise" not in cls.__dict__:
            cls.pointwise = Transform.pointwise  # type: ignore[method-assign]
        if "process" in cls.__dict__ and "rowwise" not in cls.__dict__:
            cls.rowwise = Transform.rowwise  # type: ignore[method-assign]

    def __new__(cls, *args: Any, **kwargs: Any) -> Transform:
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"{type(self).__name__}: p must lie in [0, 1], got {self.p}")
        if self.p < 1 and not self.keeps_shape:
            raise ValueError(f"{type(self).__name__} changes the shape, so it takes every example: p must be 1")
        if self.sample_rate is not None:
            check_rate(self.sample_rate, type(self).__name__)
        self._seed_given = self.seed is not None
        self._bound_rate: int | None = None
        self.reset(self.seed if self.seed is not None else secrets.randbits(64))

    # What a subclass implements.

    def draw_params(self, keys: Keys) -> Params:
        """The transform's own parameters: CPU tensors with leading dim B."""
        return {}

    def process(self, *args: Any, **params: Any) -> Tensor:
        """float32 samples with the transform applied to the rows where ``active`` (B,) is true.

        Subclasses declare ``process(self, samples, active, sample_rate, lengths, <drawn params>, inplace=False)``.
        With ``inplace`` the samples may be written and returned. A chain gives it to the steps after the first that
        made a new tensor, so what `process` returns may be written by others: keep no reference to it.
        """
        raise NotImplementedError

    def pointwise(self, *args: Any, **params: Any) -> Pointwise | None:
        """What `process` does as a part of the pointwise pass, for a chain that merges neighbouring ones; or None.

        Takes the arguments of `process`. The bits must be the same.
        """
        return None

    @property
    def rowwise(self) -> bool:
        """Whether `process` hands the samples to native ops and does nothing else with them: on the CPU a chain then
        lets these ops wait and takes row by row through neighbouring steps (see `ops.rows`)."""
        return False

    def after(self, sample_rate: int | None, lengths: Tensor | None) -> tuple[int | None, Tensor | None]:
        """Rate and valid lengths of the output, given those of the input; the next step of a chain gets them."""
        return sample_rate, lengths

    # What a user calls.

    def draw(self, keys: Keys) -> Params:
        """Parameters of one batch: ``{"active": bool (B,), ...}``, a pure function of the keys."""
        return {"active": keys.coin("active", self.p), **self.draw_params(keys)}

    def apply(  # type: ignore[override]
        self,
        samples: Tensor | Callable[[nn.Module], None],
        params: Params | None = None,
        sample_rate: int | None = None,
        lengths: Tensor | None = None,
    ) -> Any:
        """Apply drawn parameters: deterministic, no randomness, no host synchronisation.

        Args:
            samples: (B, C, T), (C, T) or (T,), any float dtype; computed in float32 from end to end.
            params: what `draw` returned, or any nested dict of tensors of that form.
            sample_rate: in Hz, wins over the constructor's.
            lengths: int64 (B,), valid samples of each row; the rest is padding.

        Raises:
            ValueError: shape, rate or batch size do not fit. TypeError: samples are not a float tensor.
        """
        if callable(samples) and params is None:  # nn.Module.apply(fn), as in model.apply(init_weights)
            return super().apply(samples)
        assert isinstance(samples, Tensor) and params is not None
        return self._apply_to(samples, params, sample_rate, lengths)

    def forward(
        self,
        samples: Tensor,
        sample_rate: int | None = None,
        lengths: Tensor | None = None,
        keys: Keys | Sequence[str] | None = None,
    ) -> Tensor:
        """Draw and apply. ``keys``: Keys, record keys (B,), or None for (seed, call number, row)."""
        if not self.training and self.augments:
            return self._evaluate(samples, sample_rate, lengths)
        batch = self._as_batch(samples)
        return self._apply_to(samples, self.draw(self._keys(len(batch), keys)), sample_rate, lengths)

    def views(
        self,
        samples: Tensor,
        n: int = 2,
        sample_rate: int | None = None,
        lengths: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> Tensor:
        """n independently augmented versions of every example, stacked: (n, ...) of the input's shape."""
        if not self.training and self.augments:
            return torch.stack([self._evaluate(samples, sample_rate, lengths)] * n)
        batch = self._as_batch(samples)
        ids: Any = keys if keys is not None else range(len(batch))
        call = 0 if keys is not None else self._next_call()
        rows = Keys.cat([Keys.of(_process_seed(self.base_seed), ids, epoch=call, view=v) for v in range(n)])
        every = None if lengths is None else lengths.repeat(n)
        out = self._apply_to_copies(batch, n, self.draw(rows), sample_rate, every)
        one = (len(batch), *out.shape[1:])[self.batch_dim - samples.dim() :]
        return out.reshape(n, *one)

    def reset(self, seed: int | None = None) -> None:
        """Start over at call 0, with another seed if one is given: the same calls then give the same output."""
        if seed is not None:
            self.seed = int(seed) & 0xFFFFFFFFFFFFFFFF
        self._calls = 0

    @property
    def base_seed(self) -> int:
        """The seed in use: the constructor's, or the OS entropy drawn in its place."""
        assert self.seed is not None
        return self.seed

    def bind(self, sample_rate: int) -> None:
        """Set the rate that a Pipeline works at.

        Raises:
            ValueError: the constructor gave another rate.
        """
        check_rate(sample_rate, "bind")
        if self.sample_rate not in (None, sample_rate):
            raise ValueError(
                f"{type(self).__name__} was built for sample_rate={self.sample_rate}, bound to {sample_rate}"
            )
        self._bound_rate = sample_rate

    # Values: printing, comparing, serialising.

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain data: class name and every field but the seed."""
        values = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "seed"}
        return {"transform": type(self).__name__, **values}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transform) and self.to_dict() == other.to_dict()

    __hash__ = object.__hash__  # nn.Module keeps modules in sets by identity

    def __repr__(self) -> str:
        shown = []
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            if (f.name == "seed" and not self._seed_given) or (f.name != "seed" and _same(value, default)):
                continue
            shown.append(f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    # Inside.

    def _evaluate(self, samples: Tensor, sample_rate: int | None, lengths: Tensor | None) -> Tensor:
        """What an augmentation does in ``.eval()``: nothing."""
        return samples

    def _apply_to(
        self, samples: Tensor, params: Params, sample_rate: int | None, lengths: Tensor | None, inplace: bool = False
    ) -> Tensor:
        """`apply`; the samples may be written if ``inplace``, and are anyway where they had to be converted first."""
        batch = self._as_batch(samples)
        if len(params["active"]) != len(batch):
            raise ValueError(f"params are of {len(params['active'])} examples, samples of {len(batch)}")
        if lengths is not None:
            lengths = lengths.to(samples.device, non_blocking=True)
        inplace = inplace or samples.dtype != torch.float32
        out = self._run(batch, params_to(params, samples.device), self._rate(sample_rate), lengths, inplace)
        if out.dtype != samples.dtype:
            out = out.to(samples.dtype)
        return out if out.dim() == samples.dim() else out.reshape(out.shape[self.batch_dim - samples.dim() :])

    def _apply_to_copies(
        self, batch: Tensor, n: int, params: Params, sample_rate: int | None, lengths: Tensor | None
    ) -> Tensor:
        """`_apply_to` of n copies of the batch, one after another."""
        many = batch.repeat(n, *[1] * (batch.dim() - 1))
        return self._apply_to(many, params, sample_rate, lengths, inplace=n > 1)

    def _run(
        self, batch: Tensor, params: Params, rate: int | None, lengths: Tensor | None, inplace: bool = False
    ) -> Tensor:
        """`process` on a full float32 batch with params already on its device."""
        own = {name: value for name, value in params.items() if name != "active"}
        return self.process(batch, params["active"], rate, lengths, inplace=inplace, **own)

    def _as_batch(self, samples: Tensor) -> Tensor:
        name = type(self).__name__
        if not isinstance(samples, Tensor) or samples.dtype not in _COMPUTE:
            kind = samples.dtype if isinstance(samples, Tensor) else type(samples).__name__
            raise TypeError(f"{name}: samples must be a float tensor, got {kind}")
        if samples.dim() == self.batch_dim:
            return samples.float()
        if not self.batch_dim - 2 <= samples.dim() <= self.batch_dim:
            shapes = "(B, C, T), (C, T) or (T,)" if self.batch_dim == 3 else "(B, C, F, N), (C, F, N) or (F, N)"
            raise ValueError(f"{name}: samples must be {shapes}, got shape {tuple(samples.shape)}")
        return samples.float().reshape(*[1] * (self.batch_dim - samples.dim()), *samples.shape)

    def _rate(self, given: int | None) -> int | None:
        rate = given if given is not None else self.sample_rate if self.sample_rate is not None else self._bound_rate
        if rate is not None:
            if given is not None:  # the others were checked when they were set
                check_rate(given, type(self).__name__)
        elif self.needs_sample_rate:
            name = type(self).__name__
            raise ValueError(
                f"{name} needs a sample rate: {name}(..., sample_rate=22050), a Pipeline, or transform(x, 22050)"
            )
        return rate

    def _keys(self, rows: int, keys: Keys | Sequence[str] | None) -> Keys:
        if isinstance(keys, Keys):
            found = keys
        elif keys is not None:
            found = Keys.of(_process_seed(self.base_seed), list(keys))
        else:
            found = Keys.of(_process_seed(self.base_seed), range(rows), epoch=self._next_call())
        if len(found) != rows:
            raise ValueError(f"{len(found)} keys for {rows} examples")
        return found

    def _next_call(self) -> int:
        self._calls += 1
        return self._calls - 1


def _plain(value: Any) -> Any:
    if isinstance(value, Transform):
        return value.to_dict()
    if isinstance(value, nn.Module):
        return repr(value)
    if isinstance(value, list | range):
        return [_plain(item) for item in value]
    return value


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)
