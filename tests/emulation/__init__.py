"""Runs the kernels of csrc/cuda on the CPU: ``emulate("noise.cu").launch("fa_noise_kernel", grid, block, args)``.

Each launch runs the threads forwards and, on copies, backwards; a difference is a race. Loads and stores through FA_LD
and FA_ST are checked against the argument arrays and counted in 32-byte sectors per warp access. See emulation.h.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastaug._paths import csrc_dir
from fastaug.ops._cuda import kernel_names, kernel_source

__all__ = ["Emulated", "EmulationError", "Report", "Site", "emulate", "emulate_source"]

_HEADER = Path(__file__).with_name("emulation.h")
_FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC", "-w"]
_SITE_ROOM = 256


class EmulationError(AssertionError):
    """The kernel raced, went out of bounds, or its threads waited at different barriers."""


@dataclass(frozen=True)
class Site:
    """One FA_LD or FA_ST of the source, summed over all warps and executions."""

    where: str
    store: bool
    accesses: int
    sectors: int
    minimum: int


@dataclass(frozen=True)
class Report:
    """The global memory traffic of one launch, in 32-byte sectors."""

    sites: tuple[Site, ...]

    @property
    def ratio(self) -> float:
        """Sectors touched over the fewest that could hold the distinct bytes of each warp access; 1 is perfect."""
        return sum(site.sectors for site in self.sites) / max(1, sum(site.minimum for site in self.sites))

    def __str__(self) -> str:
        return "\n".join(
            f"{site.where} {'store' if site.store else 'load'}: {site.accesses} warp accesses, {site.sectors} sectors, "
            f"minimum {site.minimum}"
            for site in self.sites
        )


class _Range(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_uint64), ("end", ctypes.c_uint64), ("writable", ctypes.c_int)]


class _SiteCount(ctypes.Structure):
    _fields_ = [
        ("file", ctypes.c_char_p),
        ("line", ctypes.c_int),
        ("store", ctypes.c_int),
        ("accesses", ctypes.c_uint64),
        ("sectors", ctypes.c_uint64),
        ("minimum", ctypes.c_uint64),
    ]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("backwards", ctypes.c_int),
        ("count", ctypes.c_int),
        ("args", ctypes.POINTER(ctypes.c_void_p)),
        ("ranges", ctypes.POINTER(_Range)),
        ("range_count", ctypes.c_int),
        ("sites", ctypes.POINTER(_SiteCount)),
        ("site_room", ctypes.c_int),
        ("site_count", ctypes.c_int),
    ]


def _scalar(letter: str, value: Any) -> Any:
    """The ctypes scalar of a kernel parameter, refusing what launch() of fastaug.ops._cuda would pack differently."""
    integer = isinstance(value, int | np.integer)
    if letter in "qi" and integer:
        return (ctypes.c_int64 if letter == "q" else ctypes.c_int32)(int(value))
    if letter == "d" and isinstance(value, float):
        return ctypes.c_double(value)
    if letter == "f" and isinstance(value, np.float32):
        return ctypes.c_float(float(value))
    if letter == "p" and value is None:
        return ctypes.c_void_p(0)
    kinds = {"q": "an int", "i": "an int", "d": "a float", "f": "a np.float32", "p": "an array or None"}
    raise TypeError(f"the kernel wants {kinds[letter]} here, got {type(value).__name__} {value!r}")


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if not isinstance(value, np.ndarray):
        return None
    if not value.flags.c_contiguous:
        raise ValueError("kernel arguments must be contiguous")
    return value


class Emulated:
    """The kernels of one source, built for the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        shared_bytes: int = 0,
        count: bool = True,
    ) -> Report:
        """Runs kernel `name`, writing into the arrays of `args` as a GPU would.

        Args:
            grid, block: one to three numbers each.
            args: NumPy arrays or CPU tensors (a read-only array must not be written), None, ints, floats, np.float32.
            shared_bytes: dynamic shared memory.
            count: count memory sectors (slow for kernels with many accesses).

        Raises:
            EmulationError: race, access outside the arrays, or threads stuck at different barriers.
            TypeError, ValueError: `args` do not fit the kernel's parameters.
        """
        arrays = [_array(value) for value in args]
        # An array that is given twice stays one.
        own = {(a.ctypes.data, a.nbytes): a.copy() for a in arrays if a is not None}
        copies = [None if a is None else own[a.ctypes.data, a.nbytes] if a.flags.writeable else a for a in arrays]
        report = self._run(name, grid, block, args, arrays, shared_bytes, backwards=False, count=count)
        self._run(name, grid, block, args, copies, shared_bytes, backwards=True, count=False)
        for index, (forwards, backwards) in enumerate(zip(arrays, copies, strict=True)):
            if forwards is not None and backwards is not None and forwards.tobytes() != backwards.tobytes():
                a, b = forwards.reshape(-1), backwards.reshape(-1)
                where = np.flatnonzero(a.view(np.uint8).reshape(a.size, -1) != b.view(np.uint8).reshape(a.size, -1))
                first = int(where[0]) // a.itemsize
                raise EmulationError(
                    f"{name}: a race: argument {index} differs at {first} between threads run forwards ({a[first]}) "
                    f"and backwards ({b[first]})"
                )
        return report

    def _run(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        arrays: Sequence[np.ndarray | None],
        shared_bytes: int,
        backwards: bool,
        count: bool,
    ) -> Report:
        letters = self._signature(name)
        if len(letters) != len(args):
            raise TypeError(f"{name} has {len(letters)} parameters, got {len(args)} arguments")
        values, ranges = [], []
        for letter, value, array in zip(letters, args, arrays, strict=True):
            if array is None:
                values.append(_scalar(letter, value))
                continue
            if letter != "p":
                raise TypeError(f"{name}: an array where the kernel wants a number")
            begin = array.ctypes.data
            values.append(ctypes.c_void_p(begin))
            ranges.append(_Range(begin, begin + array.nbytes, int(array.flags.writeable)))
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sites = (_SiteCount * _SITE_ROOM)()
        launch = _Launch(
            (ctypes.c_uint * 3)(*grid, *[1] * (3 - len(grid))),
            (ctypes.c_uint * 3)(*block, *[1] * (3 - len(block))),
            shared_bytes,
            int(backwards),
            int(count),
            ctypes.cast(pointers, ctypes.POINTER(ctypes.c_void_p)),
            (_Range * max(1, len(ranges)))(*ranges),
            len(ranges),
            sites,
            _SITE_ROOM,
            0,
        )
        run = getattr(self._library, f"run_{name}")
        run.restype = ctypes.c_char_p
        error = run(ctypes.byref(launch))
        if error is not None:
            raise EmulationError(f"{name}: {error.decode()}")
        found = (sites[i] for i in range(launch.site_count))
        return Report(
            tuple(
                Site(f"{Path(s.file.decode()).name}:{s.line}", bool(s.store), s.accesses, s.sectors, s.minimum)
                for s in found
            )
        )

    def _signature(self, name: str) -> str:
        function = getattr(self._library, f"signature_{name}")
        function.restype = ctypes.c_char_p
        return function().decode()


def _build(source: str, names: Sequence[str]) -> ctypes.CDLL:
    entries = "".join(
        f'extern "C" const char* run_{n}(fa_emu::Launch* launch) {{\n'
        f"    return fa_emu::run_grid(launch, [](void** args) {{ fa_emu::call({n}, args); }});\n}}\n"
        f'extern "C" const char* signature_{n}() {{ return fa_emu::signature({n}); }}\n'
        for n in names
    )
    unit = f'#include "{_HEADER}"\n{source}\n{entries}'
    digest = hashlib.sha256((unit + _HEADER.read_text() + " ".join(_FLAGS)).encode()).hexdigest()
    folder = Path(os.environ.get("FASTAUG_TEST_CACHE", Path(tempfile.gettempdir()) / f"fastaug-tests-{os.getuid()}"))
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            file, built = Path(work, "unit.cpp"), Path(work, "unit.so")
            file.write_text(unit)
            command = [os.environ.get("CXX", "g++"), *_FLAGS, f"-I{csrc_dir()}", str(file), "-o", str(built)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the emulated kernel does not compile:\n{done.stderr[:4000]}")
            built.replace(library)
    return ctypes.CDLL(str(library))


def emulate_source(source: str) -> Emulated:
    """The kernels of `source`, which may include files relative to csrc/."""
    names = re.findall(r"__global__\s+void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\s*\(", source)
    return Emulated(_build(source, names))


@functools.cache
def emulate(file: str) -> Emulated:
    """The kernels of csrc/cuda/`file`, built once per content."""
    return Emulated(_build(kernel_source(file), kernel_names(file)))
