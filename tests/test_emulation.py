"""The emulator finds the faults that it exists to find: a judge of kernels needs judging itself."""

from __future__ import annotations

import numpy as np
import pytest

from emulation import Emulated, EmulationError, Site, emulate_source

FAULTS = """
extern "C" __global__ void shift(const float* x, float* y, int barrier) {
    __shared__ float line[64];
    line[threadIdx.x] = FA_LD(x + threadIdx.x);
    if (barrier) __syncthreads();
    FA_ST(y + threadIdx.x, line[(threadIdx.x + 1) % 64]);
}
extern "C" __global__ void strided(const float* x, float* y, long long stride) {
    FA_ST(y + threadIdx.x, FA_LD(x + threadIdx.x * stride));
}
extern "C" __global__ void stuck(float* y) {
    if (threadIdx.x == 40) __syncthreads();
    else __syncwarp();
    FA_ST(y + threadIdx.x, 1.0f);
}
extern "C" __global__ void reduce(const float* x, double* y, float scale, double offset) {
    FA_DYNAMIC_SHARED(double, parts);
    double value = FA_LD(x + blockIdx.x * blockDim.x + threadIdx.x);
    for (int distance = 16; distance; distance /= 2) value += __shfl_down_sync(0xffffffffu, value, distance);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) FA_ST(y + blockIdx.x, (parts[0] + parts[1]) * scale + offset);
}
extern "C" __global__ void uninitialised(float* y) {
    __shared__ float line[32];
    FA_ST(y + threadIdx.x, line[threadIdx.x]);
}
extern "C" __global__ void warp(int* y) {
    const int lane = threadIdx.x;
    const unsigned odd = __ballot_sync(0xffffffffu, lane % 2);
    const int up = __shfl_up_sync(0xffffffffu, lane, 1);
    const int crossed = __shfl_xor_sync(0xffffffffu, lane, 8, 16);
    const int first = __shfl_sync(0xffffffffu, lane, 0, 8);
    if (lane == 5) FA_ST(y + 32, static_cast<int>(odd));
    FA_ST(y + lane, up + 100 * crossed + 10000 * first);
}
"""


@pytest.fixture(scope="module")
def faults() -> Emulated:
    return emulate_source(FAULTS)


def floats(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.float32)


def test_a_missing_barrier_is_a_race(faults: Emulated) -> None:
    x, y = floats(64), np.zeros(64, np.float32)
    faults.launch("shift", (1,), (64,), (x, y, 1))
    np.testing.assert_array_equal(y, np.roll(x, -1))
    with pytest.raises(EmulationError, match="race: argument 1"):
        faults.launch("shift", (1,), (64,), (x, y, 0))


def test_accesses_outside_the_arrays_are_found(faults: Emulated) -> None:
    with pytest.raises(EmulationError, match="load outside"):
        faults.launch("strided", (1,), (64,), (floats(63), np.zeros(64, np.float32), 1))
    with pytest.raises(EmulationError, match="store outside"):
        faults.launch("strided", (1,), (64,), (floats(64), np.zeros(63, np.float32), 1))
    constant = np.zeros(64, np.float32)
    constant.flags.writeable = False
    with pytest.raises(EmulationError, match="store outside the writable"):
        faults.launch("strided", (1,), (64,), (floats(64), constant, 1))


def test_different_barriers_deadlock(faults: Emulated) -> None:
    with pytest.raises(EmulationError, match="deadlock"):
        faults.launch("stuck", (1,), (64,), (np.zeros(64, np.float32),))


def test_sectors_are_counted(faults: Emulated) -> None:
    def loads(array: np.ndarray, stride: int) -> Site:
        report = faults.launch("strided", (1,), (64,), (array, np.zeros(64, np.float32), stride))
        return next(site for site in report.sites if not site.store)

    x = np.zeros(64 * 8 + 16, np.float32)
    start = (-x.ctypes.data // 4) % 8  # a 32-byte boundary
    aligned = x[start : start + 512]
    assert (loads(aligned, 1).accesses, loads(aligned, 1).sectors, loads(aligned, 1).minimum) == (2, 8, 8)
    assert (loads(aligned, 8).sectors, loads(aligned, 8).minimum) == (64, 8)
    shifted = x[start + 1 : start + 66]
    assert (loads(shifted, 1).sectors, loads(shifted, 1).minimum) == (10, 8)


def test_shuffles_dynamic_shared_memory_and_scalars(faults: Emulated) -> None:
    x, y = floats(128), np.zeros(2)
    faults.launch("reduce", (2,), (64,), (x, y, np.float32(0.5), 3.0), shared_bytes=16)
    np.testing.assert_array_equal(y, x.reshape(2, 64).sum(1) * 0.5 + 3.0)
    with pytest.raises(TypeError, match=r"np\.float32"):
        faults.launch("reduce", (2,), (64,), (x, y, 0.5, 3.0), shared_bytes=16)
    with pytest.raises(TypeError, match="4 parameters"):
        faults.launch("reduce", (2,), (64,), (x, y), shared_bytes=16)


def test_warp_functions(faults: Emulated) -> None:
    y = np.zeros(33, np.int32)
    faults.launch("warp", (1,), (32,), (y,))
    lane = np.arange(32)
    expected = np.maximum(lane - 1, 0) + 100 * (lane ^ 8) + 10000 * (lane // 8 * 8)
    np.testing.assert_array_equal(y[:32], expected)
    assert y[32] == np.uint32(0xAAAAAAAA).astype(np.int32)


def test_shared_memory_starts_as_nan(faults: Emulated) -> None:
    y = np.zeros(32, np.float32)
    faults.launch("uninitialised", (1,), (32,), (y,))
    assert np.isnan(y).all()
