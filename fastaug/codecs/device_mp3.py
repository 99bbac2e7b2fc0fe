"""MP3 on a CUDA device: the host finds frames and copies main data back to back, csrc/cuda/mp3_*.cu do the rest."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastaug.codecs.native import Members
from fastaug.codecs.staging import Staging
from fastaug.ops import _library

__all__ = ["Part", "launch_mp3", "stage_mp3"]

# Struct Piece of csrc/cpu/mp3_stage.cpp: fields of int64, in its order. FaMp3Crop of csrc/codecs/mp3_gpu.h has 9.
_PIECE_FIELDS = (
    "address", "index", "low", "high", "to", "stride", "row", "from", "last",
    "bytes", "units", "granules", "status", "where", "main_at", "unit_at",
)  # fmt: skip
_PIECE = np.dtype([(name, np.int64) for name in _PIECE_FIELDS])
_CROP_WORDS = 9
_ROW_WORDS = 304  # kMp3RowWords
_RUN, _THREADS = 6, 256  # kRun of csrc/cuda/mp3_block.h; kThreads
_MOST_UNITS = 1 << 18  # of one launch: 304 MiB of decoded lines; a batch of long files takes several
_MOST_BYTES = 1 << 28  # likewise: bits are counted in 32 bits
_MOST_CROPS = 1 << 15  # likewise: a grid has at most 65535 in its second dimension


@dataclass(frozen=True)
class Part:
    """Crops that one launch chain decodes, as they lie in the staged bytes."""

    places: tuple[int, ...]  # byte offsets of main data, units, their order, crops
    sizes: tuple[int, ...]  # bytes of each
    units: int  # granules of one channel
    total: int  # of them to be decoded: the others are silent
    granules: int  # with samples of the crop that has most
    crops: int


def stage_mp3(members: Members, crops: npt.NDArray[np.void], staging: Staging, threads: int) -> list[Part]:
    """Copy what a device needs of crops of MP3 members into ``staging``.

    Args:
        members: of `Members`, those of the crops MP3.
        crops: a row each with the fields member; low and high (source samples, inside the file); to and stride
            (where the first sample goes, in elements of the batch, or if negative ~to in elements of the other tensor
            of `launch_mp3`, and the distance to the next channel); row (of the batch); status. The last is written:
            0, or a `Status` for what the host refuses, as the CPU decoder would.
        threads: at most so many.
    """
    native = _library.native()
    pieces = np.zeros(len(crops), _PIECE)
    for name in ("low", "high", "to", "stride", "row"):
        pieces[name] = crops[name]
    for name in ("address", "index"):
        pieces[name] = members.table[name][crops["member"]]
    native.fa_mp3_measure(pieces.ctypes.data, len(pieces))
    parts, begin = [], 0
    while begin < len(pieces):
        units, size = (np.cumsum(pieces[name][begin:]) for name in ("units", "bytes"))
        fit = int(np.searchsorted(units, _MOST_UNITS, "right")), int(np.searchsorted(size, _MOST_BYTES, "right"))
        end = begin + max(min(*fit, _MOST_CROPS), 1)
        if units[end - begin - 1]:
            parts.append(_stage(pieces[begin:end], staging, threads))
        begin = end
    crops["status"] = pieces["status"]
    return parts


def _stage(pieces: npt.NDArray[np.void], staging: Staging, threads: int) -> Part:
    for at, of in (("main_at", "bytes"), ("unit_at", "units")):
        pieces[at] = np.cumsum(pieces[of]) - pieces[of]
    units, count = int(pieces["units"].sum()), len(pieces)
    sizes = (-(-int(pieces["bytes"].sum()) // 4) * 4, 16 * units, 4 * units, 8 * _CROP_WORDS * count)
    places = tuple(staging.reserve(size) for size in sizes)
    main, described, order, crops = (staging.view().ctypes.data + place for place in places)
    total = _library.native().fa_mp3_stage(pieces.ctypes.data, count, main, described, order, units, crops, threads)
    return Part(places, sizes, units, total, int(pieces["granules"].max()), count)


def launch_mp3(part: Part, staged: Tensor, samples: Tensor, other: Tensor | None, status: Tensor) -> None:
    """Queue the decoding of a part on the device of ``samples``.

    Samples at the file's own rate, within 1e-6 of the CPU decoder's: the mean of both channels where ``samples`` has
    one, mono repeated where it has more than the file. Frames that the host refused are silent.

    Args:
        staged: what was staged, on the device.
        samples: float32 (rows, C, T), written at the crops' places.
        other: likewise of any shape, or None if no crop has its place there.
        status: int32 (rows,); set to 1 where the device finds what cannot be decoded.
    """
    from fastaug.ops._cuda import launch

    main, described, order, crops = (
        staged[place : place + size] for place, size in zip(part.places, part.sizes, strict=True)
    )
    tables = _tables(samples.device)
    counts = torch.empty(part.units, dtype=torch.int32, device=samples.device)
    rows = torch.empty(part.units * _ROW_WORDS, dtype=torch.int32, device=samples.device)
    to_lines = (tables, main, described, order, counts, rows, part.total, main.numel() // 4)
    launch("mp3_lines.cu", "fa_mp3_lines_kernel", (-(-part.total // _THREADS),), (_THREADS,), to_lines)
    grid = (-(-part.granules // _RUN), part.crops, samples.shape[1])
    to_samples = (tables, described, counts, rows, crops, samples, other, status, samples.shape[1])
    launch("mp3_samples.cu", "fa_mp3_samples_kernel", grid, (_THREADS,), to_samples)


@functools.cache
def _tables(device: torch.device) -> Tensor:
    """FaMp3GpuTables on the device."""
    native = _library.native()
    tables = torch.zeros(native.fa_mp3_gpu_tables(None), dtype=torch.uint8)
    native.fa_mp3_gpu_tables(tables.data_ptr())
    return tables.to(device)
