"""``fastaug doctor``: what this installation can use, and what to install for the rest."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Row", "main", "report"]

#: Import name -> (what it serves, the pip argument that brings it).
_OPTIONAL = {
    "webdataset": ("shards through webdataset itself", "'fastaug[webdataset]'"),
    "tyro": ("the recipes' command lines", "'fastaug[recipes]'"),
    "sklearn": ("probe metrics", "'fastaug[recipes]'"),
    "safetensors": ("checkpoints of the recipes", "'fastaug[recipes]'"),
    "tensorboard": ("training curves", "'fastaug[recipes]'"),
    "lightning": ("Lightning modules", "lightning"),
    "fsspec": ("shards on remote storage", "fsspec"),
    "scipy": ("some tests", "'fastaug[test]'"),
    "soxr": ("tests and benchmarks of resampling", "'fastaug[test]'"),
    "julius": ("tests of the filters", "'fastaug[test]'"),
}
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


@dataclass(frozen=True)
class Row:
    """One line of the report. `ok` is None where it does not matter for this machine."""

    name: str
    ok: bool | None
    found: str
    install: str = ""


def report() -> list[Row]:
    """Looks at everything once, without changing anything. A failed look is a row that says so, never an exception."""
    checks: list[tuple[str, Callable[[], Row | list[Row]]]] = [
        ("python", _python),
        ("torch", _torch),
        ("native CPU ops", _native),
        ("CUDA", _cuda),
        ("CuPy", _cupy),
        ("NVRTC", _nvrtc),
        ("libsndfile", _libsndfile),
        ("optional packages", _optional),
    ]
    rows: list[Row] = []
    for name, check in checks:
        try:
            found = check()
        except Exception as error:  # a doctor must survive its patients
            found = Row(name, False, f"{type(error).__name__}: {error}")
        rows += found if isinstance(found, list) else [found]
    return rows


def main(warm: bool = False) -> int:
    """Prints the report; with `warm`, compiles every CUDA kernel. Returns 0 if all that fastaug must have is there."""
    rows = report()
    width = max(len(row.name) for row in rows)
    for row in rows:
        mark = {True: "ok", False: "MISSING", None: "-"}[row.ok]
        print(f"{row.name:<{width}}  {mark:<7}  {row.found}")
        if row.install:
            print(f"{'':<{width}}           install: {row.install}")
    if warm and not _warm():
        return 1
    return 1 if any(row.ok is False for row in rows) else 0


def _warm() -> bool:
    import torch

    if not torch.cuda.is_available():
        print("warm: there is no usable CUDA device, so no kernel to compile")
        return False
    from fastaug.ops._cuda import warm

    try:
        print(f"warm: compiled {', '.join(warm())} for {torch.cuda.get_device_name()}")
    except RuntimeError as error:
        print(f"warm: {error}")
        return False
    return True


def _version(module: str) -> str | None:
    """The version of an importable package, None if it cannot be imported."""
    try:
        importlib.import_module(module)
    except Exception:  # broken packages raise anything
        return None
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _python() -> Row:
    return Row("python", sys.version_info >= (3, 10), f"{platform.python_version()} on {platform.platform()}")


def _torch() -> Row:
    import torch

    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return Row(
        "torch",
        version >= (2, 6),
        f"{torch.__version__} ({build} build), {torch.get_num_threads()} threads",
        "" if version >= (2, 6) else "pip install 'torch>=2.6'",
    )


def _native() -> Row:
    import torch  # before the module: both then share torch's libgomp

    from fastaug.ops._library import native

    try:
        module = native()
    except ImportError as error:
        return Row("native CPU ops", False, str(error), "a C++17 compiler, then: pip install .")
    threading = "OpenMP" if module.openmp else "std::thread"
    return Row("native CPU ops", True, f"{threading}, {torch.get_num_threads()} threads, built by {module.compiler}")


def _cuda() -> Row:
    import torch

    if not torch.cuda.is_available():
        why = "no usable device" if torch.version.cuda else "torch is a CPU build"
        return Row("CUDA", None, f"{why}: everything runs on the CPU")
    devices = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Row("CUDA", True, f"{torch.version.cuda}: {devices}")


def _needed_for_cuda(name: str, found: str | None, absent: str) -> Row:
    """CuPy and NVRTC are missed only where torch can use CUDA."""
    import torch

    from fastaug.ops._cuda import install_line

    if found is not None:
        return Row(name, True, found)
    if not torch.cuda.is_available():
        return Row(name, None, f"{absent} (only needed with a CUDA device)")
    return Row(name, False, absent, install_line())


def _cupy() -> Row:
    try:
        import cupy
    except Exception as error:  # a broken CuPy raises anything
        return _needed_for_cuda("CuPy", None, f"not importable ({error})")
    return _needed_for_cuda("CuPy", str(cupy.__version__), "")


def _nvrtc() -> Row:
    """Through CuPy, as the launches go; without CuPy, whether a pip package of NVRTC is there."""
    if _version("cupy") is not None:
        try:
            from cupy.cuda import nvrtc

            major, minor = nvrtc.getVersion()
            return _needed_for_cuda("NVRTC", f"{major}.{minor} (through CuPy)", "")
        except Exception as error:  # CuPy loads the library at first use
            return _needed_for_cuda("NVRTC", None, f"CuPy cannot load it ({error})")
    for name in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"):
        try:
            return _needed_for_cuda("NVRTC", f"{importlib.metadata.version(name)} ({name})", "")
        except importlib.metadata.PackageNotFoundError:
            continue
    return _needed_for_cuda("NVRTC", None, "not found")


def _libsndfile() -> Row:
    import soundfile

    subtypes, formats = set(soundfile.available_subtypes()), set(soundfile.available_formats())
    have = {"mp3": "MPEG_LAYER_III" in subtypes, "flac": "FLAC" in formats, "wav": "WAV" in formats}
    have |= {"vorbis": "VORBIS" in subtypes, "opus": "OPUS" in subtypes}
    lacking = [name for name, present in have.items() if not present]
    codecs = ", ".join(name for name, present in have.items() if present)
    return Row(
        "libsndfile",
        not lacking,
        f"{soundfile.__libsndfile_version__}: {codecs}" + (f"; lacks {', '.join(lacking)}" if lacking else ""),
        "pip install --upgrade soundfile  (its wheel brings libsndfile >= 1.1 with mp3)" if lacking else "",
    )


def _optional() -> list[Row]:
    rows = []
    for module, (purpose, package) in _OPTIONAL.items():
        version = _version(module)
        found = f"{version}: {purpose}" if version else f"not installed: {purpose}"
        rows.append(Row(module, True if version else None, found, "" if version else f"pip install {package}"))
    return rows
