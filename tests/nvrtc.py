"""NVRTC through ctypes: compiles kernels to cubins without a GPU, and reads what ptxas says about them."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")
DEFAULT_THREADS = 256  #: a block of the kernels without __launch_bounds__


@dataclass(frozen=True)
class KernelUse:
    """Resources of one kernel on one architecture, in bytes unless named otherwise."""

    name: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int  # static
    threads: int = 0  # a block, from __launch_bounds__; 0 if the source does not say


@dataclass(frozen=True)
class Multiprocessor:
    """What the blocks of one multiprocessor share (CUDA C++ programming guide, table of compute capabilities)."""

    threads: int
    blocks: int
    shared: int  # bytes
    reserved: int = 1024  # bytes of it, a block
    registers: int = 65_536

    def resident(self, use: KernelUse, dynamic_shared: int = 0) -> int:
        """How many blocks of a kernel fit at once: registers come in units of 256 a warp."""
        warps = -(-use.threads // 32)
        by_registers = self.registers // (-(-use.registers * 32 // 256) * 256 * warps)
        by_shared = self.shared // max(use.shared + dynamic_shared + self.reserved, 1)
        return min(self.blocks, self.threads // use.threads, by_registers, by_shared)


MULTIPROCESSORS = {
    "sm_75": Multiprocessor(1024, 16, 64 << 10, reserved=0),
    "sm_80": Multiprocessor(2048, 32, 164 << 10),
    "sm_90": Multiprocessor(2048, 32, 228 << 10),
    "sm_100": Multiprocessor(2048, 32, 228 << 10),
}


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
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
        re.DOTALL,
    )
    uses = []
    for name, stack, stores, loads, registers, rest in pattern.findall(log):
        shared = re.search(r"(\d+) bytes smem", rest)
        size = int(shared.group(1)) if shared else 0
        uses.append(KernelUse(name, int(registers), int(stack), int(stores), int(loads), size))
    return uses


def threads_per_block(source: str) -> dict[str, int]:
    """The first number (or constant) of the __launch_bounds__ of every kernel that has them."""
    found = re.findall(r"__launch_bounds__\((\w+)[^)]*\)\s+(\w+)\s*\(", source)
    constants = dict(re.findall(r"constexpr int (\w+) = (\d+);", source))
    return {name: int(constants.get(bound, bound)) for bound, name in found}


def report(csrc: Path, dynamic_shared: dict[str, int]) -> str:
    """A table of every kernel: registers, static shared memory and resident blocks on each architecture.

    Args:
        dynamic_shared: bytes a block asks for at launch, by kernel.
    """
    lines = ["| kernel | threads | " + " | ".join(ARCHITECTURES) + " |", "|---" * (len(ARCHITECTURES) + 2) + "|"]
    for file in sorted((csrc / "cuda").glob("*.cu")):
        text = file.read_text()
        threads = threads_per_block(text)
        rows: dict[str, list[str]] = {}
        for architecture in ARCHITECTURES:
            _, log = compile_cubin(f'#include "cuda/{file.name}"\n', csrc, architecture)
            for use in parse_log(log):
                use = replace(use, threads=threads.setdefault(use.name, DEFAULT_THREADS))
                extra = dynamic_shared.get(use.name, 0)
                blocks = MULTIPROCESSORS[architecture].resident(use, extra)
                shared = f"{use.shared + extra} B, " if use.shared + extra else ""
                rows.setdefault(use.name, []).append(f"{use.registers} reg, {shared}{blocks} blocks")
        lines += [f"| {name} | {threads[name]} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines)


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


if __name__ == "__main__":  # python tests/nvrtc.py [KERNEL=DYNAMIC_SHARED_BYTES ...]
    import sys

    given = (argument.split("=") for argument in sys.argv[1:])
    print(report(Path(__file__).parents[1] / "csrc", {name: int(size) for name, size in given}))
