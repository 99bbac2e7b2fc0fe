"""What a Pipeline yields: samples, spectrograms, labels, and everything that says where they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastaug.shards.record import BadRecord
from fastaug.transforms.base import Params

__all__ = ["Batch", "Place", "Stamp"]

#: of the iterations of DataLoader workers; the last two grow from one to the next
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """A batch's place in the epoch: lets whoever receives it continue right after it.

    Attributes:
        count: batches of the epoch.
        stride: step from one batch of a DataLoader worker to its next.
        lost: number of batches right before it, of the same worker, of which nothing could be had.
        stamp: the same for all batches of one iteration of a DataLoader; None without workers.
    """

    epoch: int
    index: int
    count: int
    stride: int = 1
    lost: int = 0
    stamp: Stamp | None = None

    @property
    def last(self) -> bool:
        return self.index == self.count - 1


@dataclass(repr=False)
class Batch:
    """One batch of V views of B examples.

    Attributes:
        audio: float32 (V, B, C, T); (B, C, T) when the Pipeline has ``views=None``.
        spectrograms: float32 (V, B, C, F, N) or (B, C, F, N); None without a frontend.
        labels: int64 (B,) with -1 for unlabelled, or float32 (B, n) multi-hot with NaN; None without ``labels``.
        keys: the B record keys.
        fields: field name → list of B raw values, None where an example lacks the field.
        starts, lengths: int64 (V, B) or (B,), crop start and valid samples, at ``sample_rate``.
        segment: int64 (B,), ordinal of the segment in its example; None unless ``crop="segments"``.
        params: one dict of drawn parameters a view (a single dict when ``views=None``); None before augmentation.
        spec_params: likewise for ``spec_transform``.
        sample_rate: Hz.
        errors: records that are missing from, or were replaced in, this batch.
        outcomes: of every record tried for it, in order, whether it was good.
        subkeys: int64 (V, B, 2), from which all draws of the batch derive.
        place: epoch and index of the batch.
    """

    audio: Tensor
    sample_rate: int
    keys: list[str]
    fields: dict[str, list[Any]]
    starts: Tensor
    lengths: Tensor
    labels: Tensor | None = None
    segment: Tensor | None = None
    spectrograms: Tensor | None = None
    params: Params | list[Params | None] | None = None
    spec_params: Params | list[Params | None] | None = None
    errors: list[BadRecord] = field(default_factory=list)
    outcomes: list[bool] = field(default_factory=list)
    subkeys: Tensor | None = None
    place: Place | None = None
    finished: bool = False

    def __len__(self) -> int:
        """Number of examples B."""
        return len(self.keys)

    @property
    def views(self) -> int | None:
        """V, or None where ``audio`` has no view dimension."""
        return self.audio.shape[0] if self.audio.dim() == 4 else None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """A batch whose audio, spectrograms, labels, lengths and segment are on ``device``.

        Starts, params and subkeys stay where they are: they describe the batch, the model does not read them.
        """
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name in ("audio", "spectrograms", "labels", "lengths", "segment")
            if (value := getattr(self, name)) is not None
        }
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Batch:
        """A batch in page-locked memory, from which ``.to("cuda", non_blocking=True)`` is asynchronous."""
        pinned = {
            name: value.pin_memory()
            for name in ("audio", "spectrograms", "labels", "lengths", "segment")
            if (value := getattr(self, name)) is not None and value.device.type == "cpu"
        }
        return dataclasses.replace(self, **pinned)

    def listen(self, n: int = 4) -> None:
        """Show players for the first n examples, every view, in a notebook.

        Raises:
            ImportError: IPython is not installed.
        """
        try:
            from IPython.display import Audio, display
        except ImportError as error:
            raise ImportError("Batch.listen plays in a notebook and needs IPython: pip install ipython") from error
        views = self.audio if self.audio.dim() == 4 else self.audio[None]
        for b in range(min(n, len(self))):
            for v in range(len(views)):
                print(f"{self.keys[b]}, view {v}")
                display(Audio(views[v, b].cpu().numpy(), rate=self.sample_rate, normalize=False))

    def __repr__(self) -> str:
        shown: dict[str, Callable[[Any], str]] = {
            "audio": _tensor,
            "spectrograms": _tensor,
            "labels": _tensor,
            "keys": lambda keys: f"[{keys[0]!r}, … {len(keys)}]" if keys else "[]",
            "fields": lambda fields: "{" + ", ".join(fields) + "}",
            "starts": _tensor,
            "lengths": _tensor,
            "segment": _tensor,
            "params": lambda params: "drawn",
            "sample_rate": str,
            "errors": lambda errors: str(len(errors)),
        }
        parts = [f"{n}={f(v)}" for n, f in shown.items() if (v := getattr(self, n)) is not None and n != "errors"]
        if self.errors:
            parts.append(f"errors={len(self.errors)}")
        return f"Batch({', '.join(parts)})"


def _tensor(value: Tensor) -> str:
    kind = str(value.dtype).removeprefix("torch.")
    return f"{kind}{tuple(value.shape)}" + ("" if value.device.type == "cpu" else f" on {value.device}")
