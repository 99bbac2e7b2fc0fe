"""NVRTC through ctypes: compiles kernels to cubins without a GPU, and reads what ptxas says about them."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")


@dataclass(frozen=True)
class KernelUse:
    """Resources of one kernel on one architecture, in bytes unless named otherwise."""

    name: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int


def _library_paths() -> list[Path]:
    """Candidate libnvrtc files, of pip packages first, then of a toolkit."""
    found: list[Path] = []
    try:
        import nvidia

        roots = [Path(root) for root in nvidia.__path__]
    except ImportError:
        roots = []
    roots += [Path(os.environ[name]) for name in ("CUDA_PATH", "CUDA_HOME") if name in os.environ] + [
        Path("/usr/local/cuda")
    ]
    for root in roots:
        found += sorted(path for path in root.glob("**/libnvrtc.so.*") if ".alt." not in path.name)
    return found


@functools.lru_cache(maxsize=1)
def load_nvrtc() -> ctypes.CDLL | None:
    """The newest-found NVRTC, or None. Its builtins are preloaded by full path: without that every compile fails."""
    for path in _library_paths():
        for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))
    return None


def _check(library: ctypes.CDLL, code: int) -> None:
    if code != 0:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: {library.nvrtcGetErrorString(code).decode()}")


def _text(library: ctypes.CDLL, program: ctypes.c_void_p, size_of: str, get: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, size_of)(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, get)(program, buffer))
    return buffer.raw


def compile_cubin(source: str, csrc: Path, architecture: str) -> tuple[bytes, str]:
    """(cubin, log with the lines of ptxas). Only `csrc` is on the include path, as on a user's machine.

    Raises:
        RuntimeError: it does not compile; the message is the compiler's.
    """
    library = load_nvrtc()
    assert library is not None, "no libnvrtc"
    program = ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None))
    options = [f"-arch={architecture}", "-std=c++17", f"-I{csrc}", "-ftz=true", "--ptxas-options=-v"]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    try:
        status = library.nvrtcCompileProgram(program, len(options), array)
        log = _text(library, program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").rstrip(b"\0").decode()
        if status != 0:
            raise RuntimeError(f"{architecture}: {log}")
        return _text(library, program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN"), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def parse_log(log: str) -> list[KernelUse]:
    """The kernels that a ptxas log speaks of."""
    pattern = re.compile(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        re.DOTALL,
    )
    return [
        KernelUse(name, int(regs), int(stack), int(st), int(ld)) for name, stack, st, ld, regs in pattern.findall(log)
    ]


def cached_log(source: str, csrc: Path, architecture: str, contents: str) -> str:
    """The log of `source`, compiled only if nothing of `contents` (the text of all headers) or the options changed."""
    library = load_nvrtc()
    assert library is not None
    version = ctypes.c_int(), ctypes.c_int()
    _check(library, library.nvrtcVersion(ctypes.byref(version[0]), ctypes.byref(version[1])))
    facts = f"{source}|{contents}|{architecture}|{version[0].value}.{version[1].value}|v1"
    folder = Path(os.environ.get("FASTAUG_TEST_CACHE", Path(tempfile.gettempdir()) / f"fastaug-tests-{os.getuid()}"))
    folder.mkdir(parents=True, exist_ok=True)
    name = folder / f"{hashlib.sha256(facts.encode()).hexdigest()}.ptxas"
    if not name.exists():
        cubin, log = compile_cubin(source, csrc, architecture)
        temporary = name.with_suffix(f".{os.getpid()}")
        temporary.write_text(log)
        name.with_suffix(".cubin").write_bytes(cubin)
        temporary.replace(name)
    return name.read_text()
