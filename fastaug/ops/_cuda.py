"""CUDA launches: kernels of csrc/cuda compiled at first use by NVRTC through CuPy, on torch's current stream.

Users need no nvcc and no ABI match with torch. CuPy keeps the compiled kernels in ~/.cupy/kernel_cache under a hash of
the source text; it does not see files reached by ``-I``, so the text that we give it contains a hash of all of them.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastaug._paths import csrc_dir

__all__ = ["install_line", "kernel_names", "kernel_source", "launch", "warm"]

#: Above this, a kernel must ask the driver for its dynamic shared memory.
_DEFAULT_SHARED_BYTES = 48 * 1024


def install_line(cuda_version: str | None = None) -> str:
    """The pip command that brings CuPy and NVRTC for `cuda_version` (default: torch.version.cuda)."""
    version = cuda_version or torch.version.cuda or "13.0"
    major = version.split(".", 1)[0]
    nvrtc = "nvidia-cuda-nvrtc" if int(major) >= 13 else f"nvidia-cuda-nvrtc-cu{major}"
    return f'pip install cupy-cuda{major}x "{nvrtc}=={version}.*"'


def _missing(what: str, error: BaseException) -> RuntimeError:
    return RuntimeError(
        f"fastaug runs CUDA tensors through {what}, which is not usable here: {type(error).__name__}: {error}. "
        f"Install it for CUDA {torch.version.cuda} with\n    {install_line()}\nor move the tensor to the CPU."
    )


def _cupy() -> Any:
    try:
        import cupy
    except Exception as error:  # a broken CuPy raises many things, not only ImportError
        raise _missing("CuPy", error) from error
    return cupy


@functools.lru_cache(maxsize=1)
def _sources_hash() -> str:
    """A hash of every file that a kernel could include."""
    digest = hashlib.sha256()
    root = csrc_dir()
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".h", ".cu")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def kernel_source(file: str) -> str:
    """The translation unit of csrc/cuda/`file`, to be compiled with ``-I csrc`` alone."""
    return f'// {_sources_hash()}\n#include "cuda/{file}"\n'


def kernel_files() -> list[Path]:
    """All files that hold kernels."""
    return sorted((csrc_dir() / "cuda").glob("*.cu"))


def kernel_names(file: str) -> list[str]:
    """The kernels that csrc/cuda/`file` defines."""
    text = (csrc_dir() / "cuda" / file).read_text()
    return re.findall(r'extern "C" __global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\s*\(', text)


@functools.cache
def _module(file: str, device: int) -> Any:
    """The compiled module of one file on one device (the caller has made it current)."""
    cupy = _cupy()
    module = cupy.RawModule(code=kernel_source(file), options=("-std=c++17", f"-I{csrc_dir()}"), backend="nvrtc")
    try:
        module.compile()
    except cupy.cuda.compiler.CompileException:
        raise
    except Exception as error:
        raise _missing("NVRTC", error) from error
    return module


@functools.cache
def _kernel(file: str, name: str, device: int, shared_bytes: int) -> Any:
    kernel = _module(file, device).get_function(name)
    if shared_bytes > _DEFAULT_SHARED_BYTES:
        kernel.max_dynamic_shared_size_bytes = shared_bytes
    return kernel


def _argument(value: Any) -> Any:
    """What CuPy packs: an address or an integer as 64 bits, a Python float as double, NumPy scalars as they are."""
    if isinstance(value, Tensor):
        return value.data_ptr()
    if value is None:
        return 0
    return int(value) if isinstance(value, bool) else value


def launch(
    file: str,
    name: str,
    grid: Sequence[int],
    block: Sequence[int],
    args: Sequence[Any],
    shared_bytes: int = 0,
) -> None:
    """Launches kernel `name` of csrc/cuda/`file` on the current stream of the device of its first tensor argument.

    Args:
        grid: blocks, one to three numbers.
        block: threads per block, one to three numbers.
        args: contiguous CUDA tensors (passed as addresses), None (null), ints (``long long`` or ``int`` parameters),
            floats (``double`` parameters), NumPy scalars (their own type: ``np.float32`` for ``float`` parameters).
        shared_bytes: dynamic shared memory.

    Raises:
        RuntimeError: CuPy or NVRTC is missing or unusable, with the pip line that installs it.
        ValueError: no tensor among `args`, or tensors on different devices.
    """
    devices = {value.device for value in args if isinstance(value, Tensor)}
    if len(devices) != 1 or next(iter(devices)).type != "cuda":
        raise ValueError(f"{name}: all tensors must be on one CUDA device, got {sorted(map(str, devices))}")
    if 0 in grid:
        return
    cupy = _cupy()
    device = next(iter(devices))
    with torch.cuda.device(device), cupy.cuda.Device(device.index):
        stream = torch.cuda.current_stream(device)
        kernel = _kernel(file, name, device.index, shared_bytes)
        with cupy.cuda.ExternalStream(stream.cuda_stream, device.index):
            kernel(tuple(grid), tuple(block), tuple(map(_argument, args)), shared_mem=shared_bytes)


def warm(device: int | None = None) -> list[str]:
    """Compiles every kernel file for `device` (default: the current one) and returns the names of the files."""
    index = torch.cuda.current_device() if device is None else device
    cupy = _cupy()
    with torch.cuda.device(index), cupy.cuda.Device(index):
        for path in kernel_files():
            _module(path.name, index)
    return [path.name for path in kernel_files()]
