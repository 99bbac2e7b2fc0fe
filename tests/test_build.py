"""The package as users get it: the wheel, its kernels, a machine without a compiler or OpenMP, and light imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import nvrtc
from fastaug import _paths
from fastaug._paths import checkout_stamp, csrc_dir, stamp_of
from fastaug.ops._library import native

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "csrc", "recipes", "fastaug")
in_checkout = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs a checkout")


def run(command: Sequence[str | Path], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CXX", "CC")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, without anything built."""
    folder = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder]
    done = run(pip, checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@in_checkout
@pytest.mark.slow
def test_wheel_holds_everything_and_one_binary_for_all_pythons(wheel: Path) -> None:
    assert "-cp310-abi3-" in wheel.name
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "fastaug/_native.abi3.so" in names
    for folder, inside in (("csrc", "fastaug/_csrc"), ("recipes", "fastaug/_recipes")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
                assert f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" in names
    for path in (ROOT / "fastaug").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


INSTALLED = """
import sys
from pathlib import Path
import torch
import fastaug, nvrtc
from fastaug._paths import csrc_dir, recipes_dir
from fastaug.ops._cuda import kernel_files, kernel_source
from fastaug.ops.noise import add_noise
home = Path(sys.prefix)
assert home in Path(fastaug.__file__).parents, fastaug.__file__
assert csrc_dir() == Path(fastaug.__file__).parent / "_csrc", csrc_dir()
assert (recipes_dir() / "clmr.py").exists()
assert add_noise(torch.zeros(1, 1, 8), torch.zeros(1, 3, dtype=torch.int64), sigma=1.0).abs().sum() > 0
for path in kernel_files() if nvrtc.load_nvrtc() else []:
    cubin, log = nvrtc.compile_cubin(kernel_source(path.name), csrc_dir(), "sm_90")
    print("compiled", path.name, len(cubin))
"""


@in_checkout
@pytest.mark.slow
def test_installed_wheel_compiles_every_kernel_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """A clean environment that sees torch and NumPy of this one, but neither the checkout nor its editable install."""
    home = tmp_path / "venv"
    assert run([sys.executable, "-m", "venv", "--without-pip", home], tmp_path).returncode == 0
    python = home / "bin" / "python"
    purelib = Path(
        run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).stdout.strip()
    )
    # A path in a .pth file is only appended: the .pth files of that folder, such as an editable install, stay unread.
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path[1:]}
    folders = [path for path in others if path.endswith(("site-packages", "dist-packages"))]
    (purelib / "others.pth").write_text("\n".join(sorted(folders)) + "\n")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
    ]
    done = run([*install, wheel], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(ROOT / "tests" / "nvrtc.py", tmp_path)
    done = run([python, "-c", INSTALLED], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    if nvrtc.load_nvrtc() is not None:
        assert done.stdout.count("compiled") == len(list((csrc_dir() / "cuda").glob("*.cu")))
    assert (home / "bin" / "fastaug").exists()


@in_checkout
def test_a_missing_compiler_is_named_with_what_to_install(checkout: Path) -> None:
    done = run([sys.executable, "setup.py", "build_ext", "--build-temp", "none"], checkout, CXX="no-such-compiler")
    assert done.returncode != 0
    assert "could not compile its native operators with `no-such-compiler`" in done.stderr
    assert "sudo apt-get install g++ python3-dev" in done.stderr
    assert "Traceback" not in done.stderr


STD_THREAD = """
import importlib.util, os, signal, sys, torch
import fastaug
spec = importlib.util.spec_from_file_location("fastaug._native", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.modules["fastaug._native"] = fastaug._native = module
from fastaug.ops.noise import add_noise
assert module.openmp == 0
x, key = torch.ones(33, 1, 501), torch.arange(99).reshape(33, 3)
torch.set_num_threads(3)
threaded = add_noise(x, key, snr_db=3.0)
torch.set_num_threads(1)
assert torch.equal(threaded, add_noise(x, key, snr_db=3.0))
torch.save(threaded, sys.argv[2])
"""


@in_checkout
def test_builds_and_works_without_openmp(tmp_path: Path) -> None:
    """As clang and macOS build it: rows on std::thread, with the same bits as OpenMP."""
    import torch

    from fastaug.ops.noise import add_noise

    built = tmp_path / "_native.abi3.so"
    flags = ["-std=c++17", "-O0", "-ffp-contract=off", "-shared", "-fPIC", "-pthread", "-DPy_LIMITED_API=0x030A0000"]
    flags += [f"-DFA_STAMP={checkout_stamp()}"]
    includes = [f"-I{sysconfig.get_path('include')}", f"-I{csrc_dir()}"]
    sources = sorted((csrc_dir() / "cpu").glob("*.cpp"))
    compiler = os.environ.get("CXX", "g++" if sys.platform == "linux" else "c++")
    extra = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    done = run([compiler, *flags, *includes, *sources, *extra, "-o", built], tmp_path)
    assert done.returncode == 0, done.stderr
    done = run([sys.executable, "-c", STD_THREAD, built, tmp_path / "y.pt"], ROOT)
    assert done.returncode == 0, done.stderr
    expected = add_noise(torch.ones(33, 1, 501), torch.arange(99).reshape(33, 3), snr_db=3.0)
    assert torch.equal(torch.load(tmp_path / "y.pt"), expected)


@in_checkout
def test_a_module_built_from_other_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csrc = shutil.copytree(csrc_dir(), tmp_path / "csrc")
    assert native().stamp == checkout_stamp() == stamp_of(csrc)
    with (csrc / "cpu" / "member.h").open("a") as header:
        header.write("// another field\n")
    assert stamp_of(csrc) != native().stamp
    package = tmp_path / "fastaug"
    monkeypatch.setattr(_paths, "_PACKAGE", package)
    native.cache_clear()
    with pytest.raises(ImportError, match="than this checkout.s: run `python setup.py build_ext --inplace --force` in"):
        native()
    # Once installed, a folder of that name beside the package is somebody else's.
    shutil.copytree(csrc_dir(), package / "_csrc")
    assert checkout_stamp() is None and native() is not None


def test_native_calls_check_arity_and_types() -> None:
    call = native().fa_philox4x32
    with pytest.raises(TypeError, match=r"fa_philox4x32\(\) takes 4 arguments, got 3"):
        call(0, 0, 0)
    with pytest.raises(TypeError, match=r"argument 1 must be an address \(int\) or None, got float"):
        call(1.5, 0, 0, 0)
    with pytest.raises(TypeError, match="argument 4 must be an int, got str"):
        call(None, None, None, "3")
    with pytest.raises(OverflowError, match="argument 4 is out of range"):
        call(None, None, None, 1 << 70)
    assert call(None, None, None, 0) is None


def test_import_is_light() -> None:
    """Nothing that is only needed later is imported, and no more than 150 ms go by on top of torch."""
    code = (
        "import sys, time, torch, numpy\n"
        "before = set(sys.modules)\n"
        "start = time.perf_counter(); import fastaug; spent = time.perf_counter() - start\n"
        "heavy = {'soundfile', 'cupy', 'sklearn', 'scipy', 'tqdm', 'tyro', 'tensorboard', 'webdataset'}\n"
        "heavy &= set(sys.modules) - before\n"
        "print(sorted(heavy), spent)\n"
        "sys.exit(bool(heavy) or spent > 0.15)"
    )
    done = run([sys.executable, "-c", code], ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
