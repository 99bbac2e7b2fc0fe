"""csrc/fft.h on single floats, as a kernel would use it, against numpy in float64. Its vectors carry the filters of
tests/test_ops_fir.py."""

from __future__ import annotations

import numpy as np
import pytest

from emulation import Emulated, emulate_source
from fastaug.ops import _fft
from fastaug.ops._cuda import _sources_hash

SOURCE = """
#include "fft.h"
static FaFft planned(int n, const float* table) {
    FaFft fft;
    fa_fft_plan(n, fft);
    fft.table = table;
    return fft;
}
extern "C" __global__ void plan(int* radices, int n) {
    FaFft fft;
    radices[0] = fa_fft_plan(n, fft) ? fft.passes : 0;
    for (int pass = 0; pass < radices[0]; ++pass) radices[pass + 1] = fft.radix[pass];
}
extern "C" __global__ void table(float* factors, int* position, int n) {
    fa_fft_fill_table(planned(n, factors), factors);
    for (int i = 0; i < n; ++i) position[i] = fa_fft_position(planned(n, factors), i);
}
extern "C" __global__ void forward(float* z, const float* factors, int n) {
    fa_fft_forward(planned(n, factors), reinterpret_cast<FaComplex<float>*>(z));
}
extern "C" __global__ void inverse(float* z, const float* factors, int n) {
    fa_fft_inverse(planned(n, factors), reinterpret_cast<FaComplex<float>*>(z));
}
extern "C" __global__ void convolve(float* z, const float* factors, const float* gain, int n) {
    fa_fft_convolve(planned(n, factors), reinterpret_cast<FaComplex<float>*>(z),
                    [gain](FaComplex<float>* bins, int position, int count) {
                        for (int i = 0; i < count; ++i) {
                            bins[i].re *= gain[position + i];
                            bins[i].im *= gain[position + i];
                        }
                    });
}
"""
SIZES = [64, 256, 512, 1024, 8192, 2, 3, 5, 7, 8, 12, 14, 100, 135, 200, 240, 343, 360, 441, 486, 729, 960, 1764, 2560]


@pytest.fixture(scope="module")
def fft() -> Emulated:
    return emulate_source(f"// {_sources_hash()}{SOURCE}")


class Transform:
    """One size: arrays of complex128 in, numpy's order out."""

    def __init__(self, fft: Emulated, n: int) -> None:
        self.fft, self.n = fft, n
        self.table, self.position = np.zeros(2 * n, np.float32), np.zeros(n, np.int32)
        fft.launch("table", (1,), (1,), (self.table, self.position, n))
        self.bin = np.argsort(self.position)

    def forward(self, z: np.ndarray) -> np.ndarray:
        buffer = z.astype(np.complex64).view(np.float32)
        self.fft.launch("forward", (1,), (1,), (buffer, self.table, self.n))
        return buffer.view(np.complex64)[self.position].astype(np.complex128)

    def inverse(self, spectrum: np.ndarray) -> np.ndarray:
        buffer = spectrum.astype(np.complex64)[self.bin].view(np.float32)
        self.fft.launch("inverse", (1,), (1,), (buffer, self.table, self.n))
        return buffer.view(np.complex64).astype(np.complex128) / self.n


@pytest.fixture(scope="module", params=SIZES)
def transform(fft: Emulated, request: pytest.FixtureRequest) -> Transform:
    return Transform(fft, request.param)


def noise(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n) + 1j * rng.standard_normal(n)).astype(np.complex64).astype(np.complex128)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt((np.abs(x) ** 2).mean()))


def test_both_directions_equal_numpy(transform: Transform) -> None:
    z = noise(transform.n)
    spectrum = np.fft.fft(z)
    assert rms(transform.forward(z) - spectrum) < 1.5e-7 * rms(spectrum)
    assert rms(transform.inverse(spectrum) - z) < 1.5e-7 * rms(z)


def test_order_is_a_permutation(transform: Transform) -> None:
    assert np.array_equal(transform.bin[transform.position], np.arange(transform.n))
    assert np.array_equal(np.sort(transform.bin), np.arange(transform.n))


def test_energy_is_kept(transform: Transform) -> None:
    z = noise(transform.n, 1)
    assert rms(transform.forward(z)) == pytest.approx(rms(z) * transform.n**0.5, rel=1e-7)


def test_an_impulse_has_a_flat_spectrum_and_a_constant_one_bin(transform: Transform) -> None:
    n, at = transform.n, min(3, transform.n - 1)
    turns = np.exp(-2j * np.pi * at * np.arange(n) / n)
    np.testing.assert_allclose(transform.forward(np.eye(1, n, at)[0]), turns, atol=4e-7)
    constant = transform.forward(np.full(n, 0.5 - 0.25j))
    rounded = 0.0 if n & (n - 1) == 0 else 1e-7 * n
    assert abs(constant[0] - (0.5 - 0.25j) * n) <= rounded and np.abs(constant[1:]).max() <= rounded


def test_linear(transform: Transform) -> None:
    a, b = noise(transform.n, 2), noise(transform.n, 3)
    both = transform.forward(2 * a - b)
    assert rms(both - (2 * transform.forward(a) - transform.forward(b))) < 5e-7 * rms(both)


def test_a_product_of_spectra_is_a_circular_convolution(transform: Transform) -> None:
    n, z = transform.n, noise(transform.n, 4)
    taps = np.zeros(n)
    np.add.at(taps, [0, 1, -1], [0.5, 0.25, 0.25])
    gain = (np.fft.fft(taps).real[transform.bin] / n).astype(np.float32)
    buffer = z.astype(np.complex64).view(np.float32)
    transform.fft.launch("convolve", (1,), (1,), (buffer, transform.table, gain, n))
    wanted = 0.5 * z + 0.25 * (np.roll(z, 1) + np.roll(z, -1))
    assert rms(buffer.view(np.complex64) - wanted) < 3e-7 * rms(wanted)


@pytest.mark.parametrize(
    ("n", "radices"),
    [(2, [2]), (64, [8, 8]), (128, [8, 4, 4]), (256, [8, 8, 4]), (200, [8, 5, 5]), (441, [7, 7, 3, 3]), (6, [2, 3])],
)  # fmt: skip
def test_passes(fft: Emulated, n: int, radices: list[int]) -> None:
    found = np.zeros(17, np.int32)
    fft.launch("plan", (1,), (1,), (found, n))
    assert found[1 : found[0] + 1].tolist() == radices == list(_fft.radices(n))
    assert _fft.radices(n * 11) == () and _fft.radices(0) == () and _fft.radices(1) == ()


def test_positions_are_those_of_the_extension(transform: Transform) -> None:
    assert np.array_equal(_fft.positions(transform.n), transform.position)
