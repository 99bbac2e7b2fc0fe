"""Labels: field values ↔ indices and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["LabelError", "Labels"]


class LabelError(ValueError):
    """A record's label is none of the classes."""


@dataclass
class Labels:
    """Names ↔ indices of the label that a Pipeline delivers.

    Attributes:
        name: the field, e.g. "genre". classes: ordered names; None where the field holds integers.
        multi: multi-hot rather than one index.
    """

    name: str
    classes: list[str] | None
    multi: bool = False

    def encode(self, fields: dict[str, Any]) -> Any:
        """A field value as an index, or as the list of indices of a multi-hot row; None when absent.

        Raises:
            LabelError: the value is not among the classes.
            ValueError: there are no classes, and the value is not an index: not the record's fault.
        """
        value = fields.get(self.name)
        if value is None:
            return None
        if self.multi:
            return [self._index(item) for item in (value if isinstance(value, list) else [value])]
        return self._index(value)

    def _index(self, value: Any) -> int:
        if self.classes is None:
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            raise ValueError(f"{self.name} is {value!r}: give classes=[...] to Pipeline for labels that are names")
        if value not in self.classes:
            raise LabelError(f"{self.name} is {value!r}, not one of the {len(self.classes)} classes")
        return self.classes.index(value)

    def tensor(self, encoded: Sequence[Any]) -> Tensor:
        """int64 (B,) with -1 for None, or float32 (B, n) with NaN for None."""
        if not self.multi:
            return torch.tensor([-1 if value is None else value for value in encoded], dtype=torch.int64)
        hot = torch.zeros(len(encoded), len(self.classes or []))
        for row, value in zip(hot, encoded, strict=True):
            row[value if value is not None else slice(None)] = 1.0 if value is not None else torch.nan
        return hot
