"""MP3 on a CUDA device: the host finds frames and copies main data back to back, csrc/cuda/mp3.cu does the rest."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.codecs.native import Members
from fastaug.codecs.staging import Staging
from fastaug.ops import _library

__all__ = ["decode_mp3"]

# Struct Piece of csrc/cpu/mp3_stage.cpp: fields of int64, in its order. FaMp3Crop of csrc/codecs/mp3_gpu.h has 9.
_PIECE_FIELDS = (
    "address", "index", "low", "high", "to", "stride", "row", "from", "last",
    "bytes", "units", "granules", "status", "where", "main_at", "unit_at",
)  # fmt: skip
_PIECE = np.dtype([(name, np.int64) for name in _PIECE_FIELDS])
_CROP_WORDS = 9
_ROW_WORDS = 304  # kMp3RowWords
_RUN, _THREADS = 6, 256  # kRun and kThreads of csrc/cuda/mp3.cu
_MOST_UNITS = 1 << 18  # of one launch: 304 MiB of decoded lines; a batch of long files takes several
_MOST_BYTES = 1 << 28  # likewise: bits are counted in 32 bits


def decode_mp3(
    members: Members, crops: npt.NDArray[np.void], samples: Tensor, other: Tensor | None, status: Tensor, threads: int
) -> None:
    """Queue the decoding of crops of MP3 members on the device of ``samples``.

    Samples within 1e-6 of the CPU decoder's, at the file's own rate: the mean of both channels where ``samples`` has
    one, mono repeated where it has more than the file.

    Args:
        members: of `Members`, those of the crops MP3.
        crops: a row each with the fields member; low and high (source samples, inside the file); to and stride
            (where the first sample goes, in elements of ``samples``, or if negative ~to in elements of ``other``, and
            the distance to the next channel); row (of ``status``); status. The last is written: 0, or a `Status` for
            what the host refuses (another decoder will say the same); such a crop gets zeros in place of its bad
            frames, or nothing.
        samples: float32 (rows, C, T).
        other: float32, or None if no crop has its place there.
        status: int32 (rows,); set to 1 where the device finds what cannot be decoded.
        threads: at most so many for the host's part.
    """
    if not len(crops):
        return
    native = _library.native()
    pieces = np.zeros(len(crops), _PIECE)
    for name in ("low", "high", "to", "stride", "row"):
        pieces[name] = crops[name]
    for name in ("address", "index"):
        pieces[name] = members.table[name][crops["member"]]
    native.fa_mp3_measure(pieces.ctypes.data, len(pieces))
    begin = 0
    while begin < len(pieces):
        units, size = (np.cumsum(pieces[name][begin:]) for name in ("units", "bytes"))
        fit = int(np.searchsorted(units, _MOST_UNITS, "right")), int(np.searchsorted(size, _MOST_BYTES, "right"))
        end = begin + max(min(fit), 1)
        _decode(pieces[begin:end], samples, other, status, threads)
        begin = end
    crops["status"] = pieces["status"]


def _decode(pieces: npt.NDArray[np.void], samples: Tensor, other: Tensor | None, status: Tensor, threads: int) -> None:
    """One launch chain: stage, copy, lines, samples."""
    from fastaug.ops._cuda import launch

    for at, of in (("main_at", "bytes"), ("unit_at", "units")):
        pieces[at] = np.cumsum(pieces[of]) - pieces[of]
    units, count = int(pieces["units"].sum()), len(pieces)
    if units == 0:
        return
    staging = Staging(samples.device)
    sizes = (-(-int(pieces["bytes"].sum()) // 4) * 4, 16 * units, 4 * units, 8 * _CROP_WORDS * count)
    places = [staging.reserve(size) for size in sizes]
    first = staging.view().ctypes.data
    total = _library.native().fa_mp3_stage(
        pieces.ctypes.data, count, *(first + place for place in places[:3]), units, first + places[3], threads
    )
    staged = staging.upload()
    main, described, order, crops = (staged[place : place + size] for place, size in zip(places, sizes, strict=True))
    tables = _tables(samples.device)
    counts = torch.empty(units, dtype=torch.int32, device=samples.device)
    rows = torch.empty(units * _ROW_WORDS, dtype=torch.int32, device=samples.device)
    to_lines = (tables, main, described, order, counts, rows, total, main.numel() // 4)
    launch("mp3.cu", "fa_mp3_lines_kernel", (-(-total // _THREADS),), (_THREADS,), to_lines)
    grid = (-(-int(pieces["granules"].max()) // _RUN), count, samples.shape[1])
    to_samples = (tables, described, counts, rows, crops, samples, other, status, samples.shape[1])
    launch("mp3.cu", "fa_mp3_samples_kernel", grid, (_THREADS,), to_samples)


@functools.cache
def _tables(device: torch.device) -> Tensor:
    """FaMp3GpuTables on the device."""
    native = _library.native()
    tables = torch.zeros(native.fa_mp3_gpu_tables(None), dtype=torch.uint8)
    native.fa_mp3_gpu_tables(tables.data_ptr())
    return tables.to(device)
