"""Every kernel compiles for every architecture with nothing but csrc/ on the include path, without spills."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import nvrtc
from fastaug._paths import csrc_dir
from fastaug.ops._cuda import kernel_names, kernel_source

FILES = sorted(path.name for path in (csrc_dir() / "cuda").glob("*.cu"))
needs_nvrtc = pytest.mark.skipif(
    nvrtc.load_nvrtc() is None, reason="no libnvrtc: pip install 'nvidia-cuda-nvrtc>=13,<14'"
)


def test_there_are_kernels() -> None:
    assert "pointwise.cu" in FILES
    assert kernel_names("pointwise.cu") == ["fa_noise_sums_kernel", "fa_pointwise_kernel", "fa_echo_kernel"]


@needs_nvrtc
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("file", FILES)
def test_compiles_without_spills_or_local_memory(file: str, architecture: str) -> None:
    source = kernel_source(file)  # holds the hash of all headers
    log = nvrtc.cached_log(source, csrc_dir(), architecture, (csrc_dir() / "cuda" / file).read_text())
    kernels = nvrtc.parse_log(log)
    assert [kernel.name for kernel in kernels] == sorted(kernel_names(file), key=log.index), log
    for kernel in kernels:
        assert kernel.spill_stores == kernel.spill_loads == 0, kernel
        assert kernel.stack == 0, f"{kernel} uses local memory"


@needs_nvrtc
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("file", ["mp3_lines.cu", "mp3_samples.cu"])
def test_two_blocks_of_mp3_share_a_multiprocessor(file: str, architecture: str) -> None:
    text = (csrc_dir() / "cuda" / file).read_text()
    (use,) = nvrtc.parse_log(nvrtc.cached_log(kernel_source(file), csrc_dir(), architecture, text))
    use = replace(use, threads=nvrtc.threads_per_block(text)[use.name])
    assert use.threads == 256 and nvrtc.MULTIPROCESSORS[architecture].resident(use) >= 2


@needs_nvrtc
def test_local_memory_and_bad_code_are_noticed(tmp_path: Path) -> None:
    greedy = """
        extern "C" __global__ void greedy(float* x, int n) {
            float local[64];
            for (int i = 0; i < 64; ++i) local[i] = x[i];
            for (int i = 0; i < n; ++i) local[(i * n) % 64] += local[n % 64];
            for (int i = 0; i < 64; ++i) x[i] = local[i];
        }"""
    _, log = nvrtc.compile_cubin(greedy, tmp_path, "sm_90")
    (kernel,) = nvrtc.parse_log(log)
    assert kernel.stack >= 256
    with pytest.raises(RuntimeError, match="no_such_function"):
        nvrtc.compile_cubin("__global__ void broken() { no_such_function(); }", tmp_path, "sm_90")
