"""A transform for all views of a batch, or one a view: what Pipeline does between crops and spectrograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastaug.random import Keys
from fastaug.transforms.base import Params, Transform

__all__ = ["bind_views", "transform_views", "unwrap_views", "valid_frames"]


def bind_views(steps: Any, sample_rate: int, views: int | None, name: str) -> Any:
    """``steps`` with the rate bound into every part that takes one."""
    if isinstance(steps, list | tuple):
        if len(steps) != views:
            raise ValueError(f"{name} is a list of {len(steps)} for views={views}")
        return [bind_views(step, sample_rate, None, name) for step in steps]
    if hasattr(steps, "bind"):
        steps.bind(sample_rate)
    return steps


def transform_views(
    samples: Tensor, steps: Any, subkeys: Tensor, path: str, lengths: Tensor | None, inplace: bool = False
) -> tuple[Tensor, list[Params | None]]:
    """(V, B, ...) through one transform for all views, in one call, or through a list of V. With ``inplace`` transforms
    may write the samples."""
    views, count = samples.shape[:2]
    keys = [Keys(subkeys[v].numpy().astype(np.uint32), path) for v in range(views)]
    if isinstance(steps, list):
        valid: Any = [None] * views if lengths is None else lengths
        each = [_applied(samples[v], steps[v], keys[v], valid[v], inplace) for v in range(views)]
        return torch.stack([out for out, _ in each]), [params for _, params in each]
    flat_lengths = None if lengths is None else lengths.flatten()
    out, params = _applied(samples.flatten(0, 1), steps, Keys.cat(keys), flat_lengths, inplace)
    split = [None if params is None else _rows(params, v * count, (v + 1) * count) for v in range(views)]
    return out.reshape(views, count, *out.shape[1:]), split


def valid_frames(frontend: Any, lengths: Tensor, width: int, samples: int) -> Tensor | None:
    """int64 (V, B), frames that are not padding, of crops of ``width`` samples, ``samples`` after their transform; None
    where all are, or the front end cannot tell."""
    count = getattr(frontend, "frames", None)
    if count is None or samples != width or bool((lengths >= width).all()):  # on the host: nothing waits
        return None
    frames = torch.tensor([max(count(n), 0) for n in lengths.flatten().tolist()], dtype=torch.int64)
    return frames.reshape(-1, lengths.shape[-1])


def _applied(
    samples: Tensor, step: Any, keys: Keys, lengths: Tensor | None, inplace: bool
) -> tuple[Tensor, Params | None]:
    if step is None:
        return samples, None
    if not isinstance(step, Transform):
        return step(samples), None
    if step.augments and not step.training:
        return step(samples, lengths=lengths), None
    params = step.draw(keys)
    return step._apply_to(samples, params, None, lengths, inplace), params


def _rows(params: Params, start: int, stop: int) -> Params:
    return {k: _rows(v, start, stop) if isinstance(v, dict) else v[start:stop] for k, v in params.items()}


def unwrap_views(params: list[Params | None] | None, views: int | None) -> Any:
    """Params as Batch holds them: None where nothing was drawn, one dict without a view dimension."""
    if params is None or all(p is None for p in params):
        return None
    return params[0] if views is None else params
