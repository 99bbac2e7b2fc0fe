"""The way to the GPU: what is compiled, what is said when CuPy or NVRTC is missing, and launches where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastaug._paths import csrc_dir
from fastaug.ops import _cuda


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("12.8", 'pip install cupy-cuda12x "nvidia-cuda-nvrtc-cu12==12.8.*"'),
        ("13.0", 'pip install cupy-cuda13x "nvidia-cuda-nvrtc==13.0.*"'),
    ],
)
def test_the_install_line_follows_the_cuda_of_torch(version: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _cuda.install_line(version) == line
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match="through CuPy, which is not usable here") as raised:
        _cuda._cupy()
    assert line in str(raised.value)
    assert f"CUDA {version}" in str(raised.value)


def test_a_missing_nvrtc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        def __init__(self, **_: object) -> None:
            pass

        def compile(self) -> None:
            raise ImportError("libnvrtc.so.13: cannot open shared object file")

    compiler = SimpleNamespace(CompileException=type("CompileException", (Exception,), {}))
    fake = SimpleNamespace(RawModule=Module, cuda=SimpleNamespace(compiler=compiler))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    _cuda._module.cache_clear()
    with pytest.raises(
        RuntimeError, match=r"through NVRTC, which is not usable here: ImportError: libnvrtc\.so\.13"
    ) as raised:
        _cuda._module("pointwise.cu", 0)
    assert _cuda.install_line() in str(raised.value)


def test_the_source_changes_with_any_header(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CuPy's disk cache knows the source text alone: an edited header must change it."""
    _cuda._sources_hash.cache_clear()
    before = _cuda.kernel_source("pointwise.cu")
    for path in csrc_dir().rglob("*"):
        if path.suffix in (".h", ".cu"):
            copy = tmp_path / path.relative_to(csrc_dir())
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(_cuda, "csrc_dir", lambda: tmp_path)
    try:
        _cuda._sources_hash.cache_clear()
        assert _cuda.kernel_source("pointwise.cu") == before
        (tmp_path / "philox.h").write_text((tmp_path / "philox.h").read_text().replace("round < 10", "round < 9"))
        _cuda._sources_hash.cache_clear()
        assert _cuda.kernel_source("pointwise.cu") != before
    finally:
        monkeypatch.undo()
        _cuda._sources_hash.cache_clear()


def test_only_cuda_tensors_are_launched() -> None:
    with pytest.raises(ValueError, match="all tensors must be on one CUDA device"):
        _cuda.launch("pointwise.cu", "fa_echo_kernel", (1,), (256,), (torch.zeros(4), 3))


def test_arguments_are_packed_as_the_emulator_reads_them() -> None:
    x = torch.zeros(3)
    packed = [_cuda._argument(value) for value in (x, None, True, 7, 0.5, np.float32(0.25))]
    assert packed == [x.data_ptr(), 0, 1, 7, 0.5, np.float32(0.25)]
    assert [type(value) for value in packed] == [int, int, int, int, float, np.float32]


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_a_required_gpu_that_is_missing_fails_instead_of_skipping() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/test_doctor.py", "-p", "no:cacheprovider"]
    root = Path(__file__).parents[1]
    env = os.environ | {"FASTAUG_REQUIRE_CUDA": "1"}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FASTAUG_REQUIRE_CUDA=1, but torch.cuda.is_available() is False" in done.stdout


WARM = "from fastaug.ops._cuda import warm; print(len(warm()))"


@pytest.mark.gpu
def test_processes_compile_at_once_on_an_empty_cache(tmp_path: Path) -> None:
    env = os.environ | {"CUPY_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[1]
    team = [subprocess.Popen([sys.executable, "-c", WARM], cwd=root, env=env, stdout=subprocess.PIPE) for _ in range(4)]
    for process in team:
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0
        assert int(out) == len(_cuda.kernel_files())


@pytest.mark.gpu
def test_every_kernel_has_an_entry_on_this_gpu() -> None:
    import cupy

    _cuda.warm()
    device = torch.cuda.current_device()
    with cupy.cuda.Device(device):
        for path in _cuda.kernel_files():
            for name in _cuda.kernel_names(path.name):
                assert _cuda._kernel(path.name, name, device, 0).num_regs > 0


@pytest.mark.gpu
def test_a_launch_waits_for_the_work_of_its_stream() -> None:
    """On a side stream, behind slow work: a launch on the default stream would read the old values."""
    from fastaug.ops.noise import add_noise

    key = torch.zeros(1, 3, dtype=torch.int64, device="cuda")
    expected = add_noise(torch.ones(1, 1, 1000, device="cuda"), key, sigma=1.0)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        slow = torch.ones(2000, 2000, device="cuda")
        for _ in range(50):
            slow = slow @ slow * 1e-4
        x = torch.ones(1, 1, 1000, device="cuda") + 0 * slow.nan_to_num(0, 0, 0)[0, 0]
        got = add_noise(x, key, sigma=1.0)
    torch.cuda.synchronize()
    assert torch.equal(got, expected)
