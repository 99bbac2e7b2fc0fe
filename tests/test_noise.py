"""add_noise: Philox vectors, the normal polynomials, CPU against the emulated kernel, and what the op promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emulation import Emulated, EmulationError, emulate, emulate_source
from fastaug.ops import noise as noise_ops
from fastaug.ops._library import native
from fastaug.ops.noise import add_noise
from fastaug.random import philox4x32

MODES = ("sigma", "snr_db", "std_ratio")
SEGMENT = 4096


def snr_db(reference: np.ndarray | Tensor, got: np.ndarray | Tensor) -> float:
    reference, got = np.asarray(reference, np.float64), np.asarray(got, np.float64)
    error = np.sum((reference - got) ** 2)
    return np.inf if error == 0 else float(10 * np.log10(np.sum(reference**2) / error))


def batch(rows: int, channels: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, channels, length, generator=generator)
    return x, torch.randint(0, 1 << 32, (rows, 3), generator=generator)


def reference_normals(noise_key: Tensor, channels: int, length: int) -> np.ndarray:
    """The definition in float64: Philox words by NumPy, Box-Muller by libm. (B, 3) -> (B, C, T)."""
    key = noise_key.numpy().astype(np.uint64)
    block = np.arange(-(-length // 4), dtype=np.uint64)
    counter = (block & 0xFFFFFFFF, block >> np.uint64(32), key[:, 2, None, None], np.arange(channels)[:, None])
    words = philox4x32(counter, (key[:, 0, None, None], key[:, 1, None, None]))
    out = np.empty((len(key), channels, len(block), 4))
    for pair in (0, 1):
        u1 = ((words[2 * pair] >> 8).astype(np.float64) + 1) / 2**24
        u2 = (words[2 * pair + 1] >> 8).astype(np.float64) / 2**24
        radius = np.sqrt(-2 * np.log(u1))
        out[..., 2 * pair] = radius * np.cos(2 * np.pi * u2)
        out[..., 2 * pair + 1] = radius * np.sin(2 * np.pi * u2)
    return out.reshape(len(key), channels, -1)[..., :length]


def test_philox_known_answers_through_the_native_module() -> None:
    """The philox4x32 10-round vectors of Random123's kat_vectors."""
    full = 0xFFFFFFFF
    counters = np.array(
        [[0] * 4, [full] * 4, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]],
        np.uint32,
    )
    keys = np.array([[0, 0], [full, full], [0xA4093822, 0x299F31D0]], np.uint32)
    words = np.zeros_like(counters)
    native().fa_philox4x32(counters.ctypes.data, keys.ctypes.data, words.ctypes.data, 3)
    expected = [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ]
    np.testing.assert_array_equal(words, np.array(expected, np.uint32))


def test_native_philox_equals_numpy_philox() -> None:
    generator = np.random.default_rng(1)
    counters = generator.integers(0, 1 << 32, (1001, 4), dtype=np.uint32)
    keys = generator.integers(0, 1 << 32, (1001, 2), dtype=np.uint32)
    words = np.zeros_like(counters)
    native().fa_philox4x32(counters.ctypes.data, keys.ctypes.data, words.ctypes.data, len(words))
    np.testing.assert_array_equal(words, np.stack(philox4x32(tuple(counters.T), tuple(keys.T)), 1))


def test_polynomials_at_and_between_their_edges() -> None:
    """log and cos/sin of csrc/normal.h, at every power of two, quadrant edge, and 100 000 random arguments."""
    kernel = """
    #include "normal.h"
    extern "C" __global__ void polynomials(const int* k, float* log_unit, float* cosine, float* sine) {
        const long long i = blockIdx.x * 256ll + threadIdx.x;
        float c, s;
        fa_cos_sin_turn(FA_LD(k + i) - 1, c, s);
        FA_ST(log_unit + i, fa_log_unit(FA_LD(k + i)));
        FA_ST(cosine + i, c);
        FA_ST(sine + i, s);
    }"""
    edges = [max(1, min(1 << 24, (1 << p) + d)) for p in range(25) for d in (-1, 0, 1)]
    edges += [(q << 21) + d for q in range(1, 8) for d in (-1, 0, 1, 2)] + list(range((1 << 24) - 100, (1 << 24) + 1))
    k = np.concatenate([edges, np.random.default_rng(0).integers(1, (1 << 24) + 1, 100_000)]).astype(np.int32)
    k = k[: len(k) // 256 * 256]
    log_unit, cosine, sine = (np.zeros(len(k), np.float32) for _ in range(3))
    emulate_source(kernel).launch("polynomials", (len(k) // 256,), (256,), (k, log_unit, cosine, sine), count=False)
    exact = np.log(k / 2.0**24)
    assert log_unit[k == 1 << 24].max() == 0
    np.testing.assert_allclose(log_unit, exact, rtol=2e-7, atol=0)
    turn = 2 * np.pi * (k.astype(np.float64) - 1) / 2**24
    assert max(np.abs(cosine - np.cos(turn)).max(), np.abs(sine - np.sin(turn)).max()) < 1.2e-7


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 63, 64, 65, 1000])
def test_noise_is_the_defined_function_of_the_key(length: int) -> None:
    x, key = batch(3, 2, length)
    noise = add_noise(torch.zeros_like(x), key, sigma=1.0)
    assert snr_db(reference_normals(key, 2, length), noise) > 125


def test_normals_reach_130_db_over_a_million() -> None:
    key = torch.tensor([[1, 2, 3], [0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF]])
    noise = add_noise(torch.zeros(2, 1, 500_000), key, sigma=1.0)
    assert snr_db(reference_normals(key, 1, 500_000), noise) > 130


def test_noise_is_normal_white_and_independent() -> None:
    """Each bound is about five standard errors of n = 400 000 draws."""
    from scipy import stats

    n = 400_000
    _, key = batch(2, 2, 1)
    noise = add_noise(torch.zeros(2, 2, n), key, sigma=1.0).double()
    bound = 5 / n**0.5
    assert noise.mean(-1).abs().max() < bound
    assert (noise.var(-1) - 1).abs().max() < bound * 2**0.5
    assert ((noise**4).mean(-1) - 3).abs().max() < bound * 96**0.5
    assert (np.corrcoef(noise.reshape(4, n)) - np.eye(4)).__abs__().max() < bound
    for lag in (1, 2, 3, 4, 8, 64):
        assert (noise[..., lag:] * noise[..., :-lag]).mean(-1).abs().max() < bound
    assert stats.kstest(noise[0, 0].numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_levels_against_float64(mode: str) -> None:
    x, key = batch(4, 2, 3001)
    x = x * torch.tensor([1.0, 0.01, 30.0, 1.0])[:, None, None] + torch.tensor([0, 0, 0, 100.0])[:, None, None]
    level = torch.tensor([0.5, 3.0, 20.0, 0.1])
    wide = x.double().flatten(1)
    scale = {
        "sigma": level.double(),
        "snr_db": wide.square().mean(1).sqrt() * 10 ** (-level.double() / 20),
        "std_ratio": wide.std(1) * level.double(),
    }[mode]
    expected = scale[:, None, None].numpy() * reference_normals(key, 2, 3001)
    got = add_noise(x, key, **{mode: level}).double() - x.double()
    for row in range(3):
        assert snr_db(expected[row], got[row]) > 90  # x + noise is rounded to float32, here at 20 to 40 dB of SNR
    assert snr_db(x.double() + torch.from_numpy(expected), add_noise(x, key, **{mode: level})) > 130


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_depends_on_itself_alone(mode: str, threads: int) -> None:
    x, key = batch(13, 2, 2777)  # enough for a team of threads
    level = torch.linspace(0.1, 3, 13)
    torch.set_num_threads(2)
    whole = add_noise(x, key, **{mode: level})
    torch.set_num_threads(threads)
    for rows in (slice(0, 1), slice(4, 9), slice(12, 13)):
        assert torch.equal(add_noise(x[rows], key[rows], **{mode: level[rows]}), whole[rows])
    order = torch.arange(12, -1, -1)
    assert torch.equal(add_noise(x[order], key[order], **{mode: level[order]}), whole[order])


def test_length_and_channels_do_not_move_the_noise() -> None:
    _, key = batch(2, 1, 1)
    long = add_noise(torch.zeros(2, 3, 1000), key, sigma=1.0)
    assert torch.equal(add_noise(torch.zeros(2, 1, 501), key, sigma=1.0), long[:, :1, :501])
    assert not torch.equal(long[:, 0], long[:, 1])


@pytest.mark.parametrize("mode", MODES)
def test_inactive_silent_and_broken_rows(mode: str) -> None:
    x, key = batch(4, 1, 300)
    x[1] = 0.25  # constant: its standard deviation is exactly 0
    x[2, 0, 7] = float("nan")
    active = torch.tensor([False, True, True, True])
    y = add_noise(x, key, **{mode: 1.0}, active=active)
    assert torch.equal(y[0], x[0])
    assert torch.equal(y[1], x[1]) == (mode == "std_ratio")
    assert torch.isnan(y[2]).all() == (mode != "sigma")
    assert torch.isnan(y[2, 0, 7])
    assert torch.isfinite(y[3]).all()
    assert not torch.equal(y[3], x[3])
    silent = torch.zeros(4, 1, 300)
    assert torch.equal(add_noise(silent, key, snr_db=0.0), silent)


def test_empty_and_tiny_rows() -> None:
    for shape in ((0, 1, 10), (2, 0, 10), (2, 1, 0)):
        x, key = torch.zeros(shape), torch.zeros(shape[0], 3, dtype=torch.int64)
        assert add_noise(x, key, snr_db=3.0).shape == shape
    one, key = batch(2, 1, 1)
    assert torch.equal(add_noise(one, key, std_ratio=1.0), one)


def test_the_input_is_never_written_whatever_its_strides(global_rng_untouched: None) -> None:
    x, key = batch(4, 2, 100)
    strided, expanded = x.transpose(1, 2).contiguous().transpose(1, 2), x[:1].expand(4, 2, 100)
    for given in (x, strided, expanded, x[:, :, ::2], x.requires_grad_()):
        before = given.detach().clone()
        got = add_noise(given, key, snr_db=10.0)
        assert torch.equal(given.detach(), before)
        assert torch.equal(got.detach(), add_noise(before.contiguous(), key, snr_db=10.0))


def test_clear_errors() -> None:
    x, key = batch(2, 1, 8)
    with pytest.raises(ValueError, match="exactly one of sigma, snr_db and std_ratio"):
        add_noise(x, key)
    with pytest.raises(ValueError, match="exactly one"):
        add_noise(x, key, sigma=1.0, snr_db=1.0)
    with pytest.raises(TypeError, match="x must be float32, got torch.float64"):
        add_noise(x.double(), key, sigma=1.0)
    with pytest.raises(ValueError, match=r"x must have shape \(B, C, T\), got \(1, 8\)"):
        add_noise(x[0], key, sigma=1.0)
    with pytest.raises(TypeError, match="noise_key must be int64"):
        add_noise(x, key.int(), sigma=1.0)
    with pytest.raises(ValueError, match=r"noise_key must have shape \(2, 3\)"):
        add_noise(x, key[:1], sigma=1.0)
    with pytest.raises(ValueError, match=r"snr_db must be a number or have shape \(2,\), got \(3,\)"):
        add_noise(x, key, snr_db=torch.zeros(3))
    with pytest.raises(TypeError, match="active must be a bool tensor"):
        add_noise(x, key, sigma=1.0, active=torch.ones(2))


@pytest.mark.parametrize("lengths", [None, torch.tensor([50, 20, 7])])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_gradient_equals_the_float64_expression(mode: str, clip: bool, lengths: Tensor | None) -> None:
    x, key = batch(3, 2, 50)
    level = torch.tensor([0.5, 2.0, 5.0])
    active = torch.tensor([True, True, False])
    weight = batch(3, 2, 50, seed=5)[0]
    x32, level32 = x.clone().requires_grad_(), level.clone().requires_grad_()
    y32 = add_noise(x32, key, **{mode: level32}, active=active, clip=clip, lengths=lengths)
    (y32 * weight).sum().backward()

    x64, level64 = x.double().requires_grad_(), level.double().requires_grad_()
    inside = torch.arange(50) < (torch.full((3,), 50) if lengths is None else lengths)[:, None, None]
    n = 2 * inside.sum((1, 2))
    kept = x64 * inside
    mean = kept.sum((1, 2)) / n
    scale = {
        "sigma": level64,
        "snr_db": (kept.square().sum((1, 2)) / n).sqrt() * 10 ** (-level64 / 20),
        "std_ratio": (((x64 - mean[:, None, None]) * inside).square().sum((1, 2)) / (n - 1)).sqrt() * level64,
    }[mode]
    y = x64 + (scale * active)[:, None, None] * torch.from_numpy(reference_normals(key, 2, 50)) * inside
    if clip:
        y = torch.where(inside & active[:, None, None], y.clamp(-1, 1), y)
    torch.testing.assert_close(y32, y.float(), rtol=1e-5, atol=1e-6)
    (y * weight).sum().backward()
    torch.testing.assert_close(x32.grad, x64.grad.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(level32.grad, level64.grad.float(), rtol=1e-5, atol=1e-5)


def test_vmap_works_and_forward_derivatives_raise_instead_of_vanishing() -> None:
    x, key = batch(2, 1, 8)
    rows = torch.func.vmap(lambda row: add_noise(row[None], key[:1], sigma=1.0))(x)  # torch loops over the rows
    assert torch.equal(rows[1], add_noise(x[1:], key[:1], sigma=1.0))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
            add_noise(dual, key, sigma=1.0)


@pytest.mark.parametrize("mode", range(3))
def test_opcheck(mode: int) -> None:
    x, key = batch(3, 2, 17)
    args = (x.requires_grad_(), key, torch.tensor([1.0, 2.0, 3.0], requires_grad=True), mode, None)
    torch.library.opcheck(torch.ops.fastaug.add_noise, (*args, False, None))
    torch.library.opcheck(torch.ops.fastaug.add_noise, (*args, True, torch.tensor([17, 9, 0])))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend: str) -> None:
    def chain(x: Tensor, key: Tensor, level: Tensor) -> Tensor:
        return add_noise(x * 0.5, key, snr_db=level) + 1.0

    x, key = batch(4, 1, 100)
    level = torch.full((4,), 6.0)
    compiled = torch.compile(chain, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(x, key, level), chain(x, key, level))


# --- the CUDA kernels, on the CPU ---


def run_kernels(kernels: Emulated, x: Tensor, key: Tensor, level: Tensor, mode: int, active: Tensor | None = None):
    """add_noise as ops/noise.py launches it, with a read-only input. Returns (y, each launch's report)."""
    reports = []

    def launch(file: str, name: str, grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
        given = args[0].numpy().copy()
        given.flags.writeable = False
        reports.append(kernels.launch(name, grid, block, (given, *args[1:])))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastaug.ops._cuda.launch", launch)
        y = noise_ops._cuda(x, key, level, mode, active, False, None)
    return y, reports


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 127, 128, 129, 1023, 1025, 4095, 4096, 4097, 9001])
@pytest.mark.parametrize("mode", range(3))
def test_kernel_equals_cpu(mode: int, length: int) -> None:
    x, key = batch(3, 2, length)
    level = torch.tensor([1.0, 0.2, 3.0])
    active = torch.tensor([True, True, False])
    y, _ = run_kernels(emulate("pointwise.cu"), x, key, level, mode, active)
    expected = add_noise(x, key, **{MODES[mode]: level}, active=active)
    for row in range(3):
        assert snr_db(expected[row], y[row]) > 110
    assert torch.equal(y[2], x[2])


def test_kernel_row_does_not_depend_on_the_batch() -> None:
    x, key = batch(5, 1, 5000)
    level = torch.full((5,), 10.0)
    whole, _ = run_kernels(emulate("pointwise.cu"), x, key, level, 1)
    alone, _ = run_kernels(emulate("pointwise.cu"), x[3:4].contiguous(), key[3:4].contiguous(), level[3:4], 1)
    assert torch.equal(whole[3:4], alone)


@pytest.mark.parametrize("length", [4096, 5001])
def test_kernel_accesses_are_coalesced(length: int) -> None:
    x, key = batch(4, 2, length)
    _, reports = run_kernels(emulate("pointwise.cu"), x, key, torch.ones(4), 1)
    for report in reports:
        assert report.ratio <= 1.5, str(report)


def test_kernel_fills_a_gpu_at_the_clmr_batch() -> None:
    """256 crops of 59 049 samples: 3840 blocks of 256 threads, 20 or more for each of the largest GPU's 160 cores."""
    assert 256 * -(-59_049 // SEGMENT) >= 20 * 160


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("noise[threadIdx.x] = make_float4(z.z0, z.z1", "noise[threadIdx.x] = make_float4(z.z1, z.z0"),
        ("line % channels)", "0)"),
        ("        __syncwarp();\n        for", "        for"),
        ("    __syncthreads();\n    const float sigma", "    const float sigma"),
        ("tile / 4 + lane", "tile / 4 + lane + 1"),
        ("end = fa_min(begin + kTile, sound)", "end = sound"),
    ],
)
def test_broken_kernels_are_caught(right: str, wrong: str) -> None:
    """Swapped words, a channel left out of the counter, missing barriers, a wrong block, segments that overlap."""
    from fastaug._paths import csrc_dir

    source = (csrc_dir() / "cuda" / "pointwise.cu").read_text().replace('"../', '"')
    assert right in source
    x, key = batch(2, 2, 5001)
    expected = add_noise(x, key, snr_db=6.0)
    try:
        y, _ = run_kernels(emulate_source(source.replace(right, wrong)), x, key, torch.full((2,), 6.0), 1)
    except EmulationError:
        return
    assert not snr_db(expected, y) > 110


# --- processes ---

FORK = """
import os, signal, sys, torch
from fastaug.ops.noise import add_noise
torch.set_num_threads(2)
x, key = torch.ones(64, 1, 4000), torch.arange(192).reshape(64, 3)
before = add_noise(x, key, snr_db=3.0)  # OpenMP has run in the parent
child = os.fork()
if child == 0:
    signal.alarm(20)  # a hang must end
    torch.set_num_threads(2)  # torch's own parallel loops (torch.equal on so much) would hang here: compare in NumPy
    ok = all((add_noise(x, key, snr_db=3.0).numpy() == before.numpy()).all() for _ in range(3))
    os._exit(0 if ok else 3)
status = os.waitpid(child, 0)[1]
after = torch.equal(add_noise(x, key, snr_db=3.0), before)
sys.exit(os.waitstatus_to_exitcode(status) or (0 if after else 4))
"""


def test_works_in_a_child_forked_after_openmp_was_used() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], timeout=60, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0


# --- on a GPU ---


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_cuda_equals_cpu(mode: str) -> None:
    x, key = batch(5, 2, 59_049)
    active = torch.tensor([True, False, True, True, True])
    level = torch.linspace(0.5, 5, 5)
    got = add_noise(x.cuda(), key.cuda(), **{mode: level.cuda()}, active=active.cuda()).cpu()
    expected = add_noise(x, key, **{mode: level}, active=active)
    assert snr_db(expected, got) > 110
    assert snr_db(expected - x, got - x) > 80
    assert torch.equal(got[1], x[1])


@pytest.mark.gpu
def test_cuda_runs_on_the_current_stream_and_in_a_graph() -> None:
    x, key = (t.cuda() for t in batch(4, 1, 20_000))
    expected = add_noise(x, key, snr_db=6.0)
    level = torch.full((4,), 6.0, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = add_noise(x, key, snr_db=level)
    out.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, expected)
    torch.library.opcheck(torch.ops.fastaug.add_noise, (x, key, level, 1, None, False, None))
