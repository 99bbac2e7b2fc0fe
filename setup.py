"""Builds fastaug._native (one abi3 extension from csrc/cpu/*.cpp) and ships csrc/ and recipes/ inside the package."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
# Without importing the package, which needs torch.
stamp_of = runpy.run_path(str(ROOT / "fastaug" / "_paths.py"))["stamp_of"]
# Rounding is the same on every machine (no contraction, no reassociation); errno and traps, which nobody reads, would
# keep sqrtf and selections from being vectorised.
FLAGS = ["-O3", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-fvisibility=hidden", "-g0", "-Wall", "-Wextra"]
SHIPPED = {"csrc": "fastaug._csrc", "recipes": "fastaug._recipes"}
DATA_KINDS = ("html", "js", "css", "csv", "json", "svg", "png")  # beside the modules of fastaug/
SHIPPED_SUFFIXES = {".h", ".cu", ".cpp", ".py", ".toml", ".json", ".csv", ".yaml", ".yml", ".md"}

NO_COMPILER = """
fastaug could not compile its native operators with `{command}`:
{error}
It needs a C++17 compiler and the headers of this Python ({python}). Install them with one of

    sudo apt-get install g++ python3-dev     # Debian, Ubuntu
    sudo dnf install gcc-c++ python3-devel   # Fedora, RHEL
    xcode-select --install                   # macOS
    conda install cxx-compiler               # conda

or name another compiler: CXX=clang++ pip install .
"""

# Only GCC shares torch's libgomp.so.1. Clang would bring a second OpenMP runtime, so it gets std::thread instead.
PROBE = """
#include <Python.h>
#include <vector>
#include <thread>
#ifdef _OPENMP
#include <omp.h>
#if defined(__clang__) || !defined(__GNUC__)
#error "not GCC"
#endif
#endif
int main() { if constexpr (sizeof(int) == 4) return static_cast<int>(std::vector<int>(0).size()); }
"""


class BuildNative(build_ext):
    """Probes the compiler once: OpenMP if it is GCC's, a clear message if there is no C++17 compiler at all. Then
    compiles as many files at a time as there are cores."""

    def build_extensions(self) -> None:
        compiler = getattr(self.compiler, "compiler_so_cxx", None) or self.compiler.compiler_so
        compiler = [os.environ["CXX"]] if os.environ.get("CXX") else list(compiler)
        error = self._probe(compiler, [])
        if error is not None:
            message = NO_COMPILER.format(command=" ".join(compiler), error=error.strip(), python=sys.version.split()[0])
            raise SystemExit(message)
        openmp = sys.platform == "linux" and self._probe(compiler, ["-fopenmp"]) is None
        for extension in self.extensions:
            threads = ["-fopenmp"] if openmp else ["-pthread"]
            extension.extra_compile_args += threads
            extension.extra_link_args += threads + (["-Wl,-s"] if sys.platform == "linux" else [])
        compile_files = self.compiler.compile

        def compile_at_once(sources: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                done = pool.map(lambda source: compile_files([source], *args, **options), sources)
                return [file for files in done for file in files]

        self.compiler.compile = compile_at_once
        super().build_extensions()

    def _probe(self, compiler: list[str], extra: list[str]) -> str | None:
        """None if `compiler` accepts the probe with `extra` flags, else what it said."""
        includes = [f"-I{directory}" for directory in self.compiler.include_dirs + self.include_dirs]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text(PROBE)
            command = [
                *compiler,
                *includes,
                "-std=c++17",
                *extra,
                "-c",
                str(source),
                "-o",
                str(source.with_suffix(".o")),
            ]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as problem:
                return str(problem)
        return None if done.returncode == 0 else "\n".join(done.stderr.splitlines()[:8])


def shipped_packages() -> tuple[dict[str, str], dict[str, list[str]]]:
    """(package -> folder, package -> files) for csrc/ and recipes/, which have no __init__.py of their own."""
    folders: dict[str, str] = {}
    files: dict[str, list[str]] = {}
    for top, package in SHIPPED.items():
        for folder, _, names in os.walk(ROOT / top):
            kept = sorted(name for name in names if Path(name).suffix in SHIPPED_SUFFIXES)
            relative = Path(folder).relative_to(ROOT)
            if kept and "__pycache__" not in relative.parts:
                dotted = ".".join([package, *relative.parts[1:]])
                folders[dotted] = relative.as_posix()
                files[dotted] = kept
    return folders, files


def relative_sources(pattern: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))


SHIPPED_FOLDERS, SHIPPED_FILES = shipped_packages()

setup(
    license="Apache-2.0",
    packages=find_packages(include=["fastaug", "fastaug.*"]) + list(SHIPPED_FOLDERS),
    package_dir={"fastaug": "fastaug", **SHIPPED_FOLDERS},
    package_data={
        "fastaug": ["py.typed", *(f"**/*.{kind}" for kind in DATA_KINDS)],
        **SHIPPED_FILES,
    },
    ext_modules=[
        Extension(
            "fastaug._native",
            sources=relative_sources("csrc/cpu/*.cpp"),
            depends=relative_sources("csrc/**/*.h"),
            include_dirs=["csrc"],
            define_macros=[("Py_LIMITED_API", "0x030A0000"), ("FA_STAMP", str(stamp_of(ROOT / "csrc")))],
            extra_compile_args=list(FLAGS),
            language="c++",
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
