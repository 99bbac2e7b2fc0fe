"""`fastaug doctor`: its rows, its exit status, and what it says where something is missing."""

from __future__ import annotations

import sys

import pytest
import torch

from fastaug import doctor
from fastaug.ops import _cuda


def rows() -> dict[str, doctor.Row]:
    return {row.name: row for row in doctor.report()}


def test_reports_what_is_here() -> None:
    found = rows()
    assert found["torch"].ok
    assert torch.__version__ in found["torch"].found
    assert found["native CPU ops"].ok
    assert "mp3" in found["libsndfile"].found
    assert {"CUDA", "CuPy", "NVRTC", "webdataset", "sklearn", "tyro", "safetensors", "tensorboard"} <= set(found)


def test_exit_status_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main() == (1 if any(row.ok is False for row in doctor.report()) else 0)
    assert "native CPU ops" in capsys.readouterr().out


def test_missing_packages_name_their_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    monkeypatch.setitem(sys.modules, "webdataset", None)
    found = rows()
    assert found["tyro"].install == "pip install 'fastaug[recipes]'"
    assert found["webdataset"].install == "pip install 'fastaug[webdataset]'"
    assert found["tyro"].ok is None  # optional: no reason to fail


def test_cuda_without_cupy_is_a_failure_with_the_exact_pip_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert doctor.main() == 1
    assert 'pip install cupy-cuda12x "nvidia-cuda-nvrtc-cu12==12.8.*"' in capsys.readouterr().out


def test_a_failing_check_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    row = rows()["libsndfile"]
    assert row.ok is False
    assert "soundfile" in row.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_warm_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(warm=True) == 1
    assert "no usable CUDA device" in capsys.readouterr().out


@pytest.mark.gpu
def test_warm_compiles_every_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(warm=True) == 0
    printed = capsys.readouterr().out
    assert all(path.name in printed for path in _cuda.kernel_files())
