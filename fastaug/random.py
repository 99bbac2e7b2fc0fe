"""Counter-based randomness: every draw is a pure function of (seed, example, epoch, view, stream).

No state is kept and no global generator is read or written, so a draw does not depend on batch size,
batch-mates, workers, rank, device or resume. The generator is Philox4x32-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011), checked against the known-answer vectors of Random123.

    sample_id = first 8 bytes, little endian, of BLAKE2b(record key)
    subkey    = Philox(key=seed, counter=(id_lo, id_hi, epoch, view | occurrence << 8))[:2]
    draw      = Philox(key=subkey, counter=(block_lo, block_hi, stream, channel))
    stream    = CRC-32 of "<stage>/<child path>:<param>"
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.ops._library import native

__all__ = ["Keys", "Spec", "philox4x32", "sample_id", "stream_id"]

Words = npt.NDArray[np.uint32]
IntLike = int | npt.NDArray[np.integer]

#: A quantity to draw: a number is a constant, a tuple (low, high) a uniform range, a list a choice; a Python
#: ``range`` is a choice among its integers.
Spec = float | tuple[float, float] | list[float] | range

_MASK = np.uint64(0xFFFFFFFF)
_MAX_VIEW = 1 << 8
_MAX_OCCURRENCE = 1 << 24


def philox4x32(counter: Sequence[IntLike], key: Sequence[IntLike]) -> tuple[Words, Words, Words, Words]:
    """Philox4x32-10, elementwise over broadcast arrays.

    Args:
        counter: four words, each an int or an array of integers in [0, 2^32).
        key: two words, likewise.

    Returns:
        Four uint32 arrays of the broadcast shape.
    """
    words = [np.asarray(word) for word in (*counter, *key)]
    shape = np.broadcast_shapes(*(word.shape for word in words))
    counters, keys = np.empty((*shape, 4), dtype=np.uint32), np.empty((*shape, 2), dtype=np.uint32)
    for i, word in enumerate(words):
        (counters[..., i] if i < 4 else keys[..., i - 4])[...] = word
    result = _blocks(counters, keys)
    return result[..., 0], result[..., 1], result[..., 2], result[..., 3]


def _blocks(counters: Words, keys: Words) -> Words:
    """Philox of contiguous uint32 counters (..., 4) and keys (..., 2)."""
    result = np.empty_like(counters)
    native().fa_philox4x32(_address(counters), _address(keys), _address(result), result.size // 4)
    return result


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def sample_id(key: str) -> int:
    """The 64-bit identity of a record: first 8 bytes, little endian, of BLAKE2b of the key's UTF-8."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8")).digest()[:8], "little")


@functools.lru_cache(maxsize=4096)
def stream_id(name: str) -> int:
    """The 32-bit stream of a named draw such as ``"transform/4/0:cutoff_hz"``: its CRC-32."""
    return zlib.crc32(name.encode("utf-8"))


def _ids(ids: Iterable[str | int] | npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    if isinstance(ids, np.ndarray):
        return ids.astype(np.uint64, copy=False)
    if isinstance(ids, range):
        return np.arange(ids.start, ids.stop, ids.step, dtype=np.int64).astype(np.uint64)
    return np.array([sample_id(i) if isinstance(i, str) else int(i) for i in ids], dtype=np.uint64)


def _reaches(value: IntLike, limit: int) -> bool:
    return value >= limit if isinstance(value, int) else bool(np.any(np.asarray(value) >= limit))


def _refuse_span(param: str, low: int, high: IntLike) -> None:
    raise ValueError(f"{param}: an integer range needs low < high ≤ low + 2^31, got [{low}, {high})")


@dataclass(frozen=True)
class Keys:
    """The keys of a batch: one Philox subkey a row, and the place in the chain that draws from them.

    Attributes:
        rows: uint32 (B, 2), the subkey of each row.
        path: names the stream together with the parameter, e.g. ``"transform/4/0"``.
    """

    rows: Words
    path: str = "transform"
    #: Where the rows lie in memory, which NumPy takes longer to say than a draw takes.
    _at: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", np.ascontiguousarray(self.rows, dtype=np.uint32))
        object.__setattr__(self, "_at", _address(self.rows))

    def __reduce__(self) -> tuple[type[Keys], tuple[Words, str]]:
        return Keys, (self.rows, self.path)  # in another process they lie elsewhere

    @classmethod
    def of(
        cls,
        seed: int,
        ids: Iterable[str | int] | npt.NDArray[np.uint64],
        epoch: IntLike = 0,
        view: IntLike = 0,
        occurrence: IntLike = 0,
        path: str = "transform",
    ) -> Keys:
        """Subkeys of examples.

        Args:
            seed: 64-bit seed.
            ids: record keys (str) or 64-bit sample ids, B of them.
            epoch, view, occurrence: numbers or integer arrays (B,); view < 256, occurrence < 2^24.
            path: the stage that draws ("transform", "crop", "spec_transform", ...).

        Raises:
            ValueError: a view or an occurrence is out of range.
        """
        if _reaches(view, _MAX_VIEW) or _reaches(occurrence, _MAX_OCCURRENCE):
            raise ValueError(f"view must be below {_MAX_VIEW} and occurrence below {_MAX_OCCURRENCE}")
        numbers = np.ascontiguousarray(_ids(ids))
        if all(isinstance(number, int) and number >= 0 for number in (epoch, view, occurrence)):
            rows = np.empty((len(numbers), 2), dtype=np.uint32)
            low, high, place = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, int(view | occurrence << 8)
            native().fa_subkeys(_address(numbers), _address(rows), len(rows), low, high, epoch & 0xFFFFFFFF, place)
            return cls(rows, path)
        words = numbers.astype("<u8", copy=False).reshape(-1, 1).view("<u4")
        (count,) = np.broadcast_shapes((len(words),), np.shape(epoch), np.shape(view), np.shape(occurrence))
        counters, keys = np.empty((count, 4), dtype=np.uint32), np.empty((count, 2), dtype=np.uint32)
        counters[:, :2] = words
        counters[:, 2] = np.asarray(epoch, np.uint64) & _MASK
        counters[:, 3] = np.asarray(view, dtype=np.uint32) | (np.asarray(occurrence, dtype=np.uint32) << np.uint32(8))
        keys[:] = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
        return cls(_blocks(counters, keys)[:, :2], path)

    @classmethod
    def cat(cls, parts: Sequence[Keys]) -> Keys:
        """The rows of several Keys of one path, one after another."""
        return cls(np.concatenate([part.rows for part in parts]), parts[0].path)

    def __len__(self) -> int:
        return len(self.rows)

    def child(self, name: str | int) -> Keys:
        """The same rows one step down the chain: path + "/name"."""
        below = object.__new__(Keys)
        below.__dict__.update(rows=self.rows, path=f"{self.path}/{name}", _at=self._at)
        return below

    def stream(self, param: str) -> int:
        """The stream of a parameter at this place of the chain."""
        return stream_id(f"{self.path}:{param}")

    def words(self, param: str, block: int = 0, channel: int = 0) -> Tensor:
        """Four raw 32-bit words a row, as int64 (B, 4)."""
        return torch.from_numpy(self._words(param, block, channel).astype(np.int64))

    def word(self, param: str) -> Tensor:
        """The first of these words, int64 (B,)."""
        return self._integers(param, 0, 1 << 32)

    def unit(self, param: str, count: int = 1) -> npt.NDArray[np.float64]:
        """Uniforms in [0, 1) on a grid of 2^-24, float64 (B, count): element i is word i % 4 of block i // 4."""
        blocks = [self._words(param, block, 0) >> 8 for block in range(-(-count // 4))]
        words = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
        return words[:, :count].astype(np.float64) * 2.0**-24

    def _words(self, param: str, block: int, channel: int) -> Words:
        counters = np.empty((len(self.rows), 4), dtype=np.uint32)
        counters[:] = (block & 0xFFFFFFFF, block >> 32, self.stream(param), channel)
        return _blocks(counters, self.rows)

    def uniform(self, param: str, low: float, high: float) -> Tensor:
        """float32 (B,) in [low, high): low + (high - low) · u, u a multiple of 2^-24."""
        values = torch.empty(len(self.rows), dtype=torch.float32, device="cpu")
        at = (self._at, values.data_ptr(), len(self.rows), self.stream(param))
        native().fa_draw_uniforms(*at, low, high)
        return values

    def log_uniform(self, param: str, low: float, high: float) -> Tensor:
        """float32 (B,), uniform in the logarithm; both bounds positive.

        Raises:
            ValueError: a bound is not positive.
        """
        if low <= 0 or high <= 0:
            raise ValueError(f"{param}: a log-uniform range needs positive bounds, got ({low}, {high})")
        exponent = np.log(low) + (np.log(high) - np.log(low)) * self.unit(param)[:, 0]
        return torch.from_numpy(np.exp(exponent).astype(np.float32))

    def integers(self, param: str, low: int, high: IntLike) -> Tensor:
        """int64 (B,) in [low, high): low + ⌊word · (high - low) / 2^32⌋.

        Args:
            high: exclusive bound, a number or an integer array (B,); high - low ≤ 2^31.

        Raises:
            ValueError: the range is empty or wider than 2^31.
        """
        if isinstance(high, int) and 0 < high - low <= 1 << 31:
            return self._integers(param, low, high - low)
        span = np.asarray(high, dtype=np.int64) - low
        if np.any(span <= 0) or np.any(span > 1 << 31):
            _refuse_span(param, low, high)
        word = self._words(param, 0, 0)[:, 0].astype(np.int64)
        return torch.from_numpy(low + ((word * span) >> 32))

    def _integers(self, param: str, low: int, span: int) -> Tensor:
        values = torch.empty(len(self.rows), dtype=torch.int64, device="cpu")
        at = (self._at, values.data_ptr(), len(self.rows), self.stream(param))
        native().fa_draw_integers(*at, low, span)
        return values

    def fractions(self, param: str, low: int, high: int, divisor: int = 1) -> Tensor:
        """float32 (B,): `integers` over ``divisor``, rounded once.

        Raises:
            ValueError: the range is empty or wider than 2^31.
        """
        if not 0 < high - low <= 1 << 31:
            _refuse_span(param, low, high)
        values = torch.empty(len(self.rows), dtype=torch.float32, device="cpu")
        at = (self._at, values.data_ptr(), len(self.rows), self.stream(param))
        native().fa_draw_fractions(*at, low, high - low, divisor)
        return values

    def choice(self, param: str, values: Sequence[float]) -> Tensor:
        """float32 (B,), each one of ``values`` with equal probability."""
        index = self.integers(param, 0, len(values))
        return torch.from_numpy(np.array(values, dtype=np.float32)[index.numpy()])

    def coin(self, param: str, p: float) -> Tensor:
        """bool (B,), true with probability p (p = 0 never, p = 1 always)."""
        if p <= 0 or p >= 1:  # decided without looking: u lies in [0, 1)
            return torch.full((len(self.rows),), p >= 1, device="cpu")
        values = torch.empty(len(self.rows), dtype=torch.bool, device="cpu")
        native().fa_draw_coins(self._at, values.data_ptr(), len(self.rows), self.stream(param), p)
        return values

    def permutation(self, param: str, n: int) -> Tensor:
        """int64 (B, n): a random order of range(n) a row (argsort of n uniforms; ties by index)."""
        return torch.from_numpy(np.argsort(self.unit(param, n), axis=1, kind="stable"))

    def value(self, param: str, spec: Spec) -> Tensor:
        """float32 (B,) from a specification: a number, a (low, high) range or a list (or `range`) of choices."""
        if isinstance(spec, tuple):
            return self.uniform(param, *spec)
        if isinstance(spec, list):
            return self.choice(param, spec)
        if isinstance(spec, range):
            if spec.step == 1:
                return self.fractions(param, spec.start, spec.stop)
            return (spec.start + spec.step * self.integers(param, 0, len(spec))).float()
        return torch.full((len(self),), float(spec), dtype=torch.float32)

    def noise_key(self, param: str) -> Tensor:
        """int64 (B, 3): subkey word 0, subkey word 1 and stream, for noise made inside a kernel."""
        key = np.empty((len(self), 3), dtype=np.int64)
        key[:, :2], key[:, 2] = self.rows, self.stream(param)
        return torch.from_numpy(key)
