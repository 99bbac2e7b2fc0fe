"""csrc/fft.h on single floats, as a kernel would use it, against numpy in float64. Its vectors carry the filters of
tests/test_ops_fir.py."""

from __future__ import annotations

import numpy as np
import pytest

from emulation import Emulated, emulate_source
from fastaug.ops._cuda import _sources_hash

SOURCE = """
#include "fft.h"
extern "C" __global__ void table(float* factors, int n) { fa_fft_fill_table(n, factors); }
extern "C" __global__ void bins(int* bin, int* position, int n) {
    for (int i = 0; i < n; ++i) bin[i] = fa_fft_bin(i, n), position[i] = fa_fft_position(i, n);
}
extern "C" __global__ void forward(float* z, const float* factors, int n) {
    fa_fft_forward(reinterpret_cast<FaComplex<float>*>(z), n, factors);
}
extern "C" __global__ void inverse(float* z, const float* factors, int n) {
    fa_fft_inverse(reinterpret_cast<FaComplex<float>*>(z), n, factors);
}
extern "C" __global__ void convolve(float* z, const float* factors, const float* gain, int n) {
    fa_fft_convolve(reinterpret_cast<FaComplex<float>*>(z), n, factors,
                    [gain](FaComplex<float>* bins, int position, int count) {
                        for (int i = 0; i < count; ++i) {
                            bins[i].re *= gain[position + i];
                            bins[i].im *= gain[position + i];
                        }
                    });
}
extern "C" __global__ void two_real(const float* z, float* spectra) {
    const auto* bins = reinterpret_cast<const FaComplex<float>*>(z);
    auto* out = reinterpret_cast<FaComplex<float>*>(spectra);
    fa_fft_two_real(bins[0], bins[1], out[0], out[1]);
}
"""
SIZES = [64, 128, 256, 512, 1024, 2048, 4096, 8192]


@pytest.fixture(scope="module")
def fft() -> Emulated:
    return emulate_source(f"// {_sources_hash()}{SOURCE}")


class Transform:
    """One size: arrays of complex128 in, numpy's order out."""

    def __init__(self, fft: Emulated, n: int) -> None:
        leaf = 4 if n.bit_length() % 2 else 8
        self.fft, self.n, self.table = fft, n, np.zeros(2 * (n - leaf), np.float32)
        self.bin, self.position = np.zeros(n, np.int32), np.zeros(n, np.int32)
        fft.launch("table", (1,), (1,), (self.table, n))
        fft.launch("bins", (1,), (1,), (self.bin, self.position, n))

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
    impulse = np.eye(1, transform.n, 3)[0]
    turns = np.exp(-2j * np.pi * 3 * np.arange(transform.n) / transform.n)
    np.testing.assert_allclose(transform.forward(impulse), turns, atol=4e-7)
    constant = transform.forward(np.full(transform.n, 0.5 - 0.25j))
    assert constant[0] == (0.5 - 0.25j) * transform.n and not constant[1:].any()


def test_linear(transform: Transform) -> None:
    a, b = noise(transform.n, 2), noise(transform.n, 3)
    both = transform.forward(2 * a - b)
    assert rms(both - (2 * transform.forward(a) - transform.forward(b))) < 5e-7 * rms(both)


def test_a_product_of_spectra_is_a_circular_convolution(transform: Transform) -> None:
    n, z = transform.n, noise(transform.n, 4)
    taps = np.zeros(n)
    taps[[0, 1, -1]] = 0.5, 0.25, 0.25
    gain = (np.fft.fft(taps).real[transform.bin] / n).astype(np.float32)
    buffer = z.astype(np.complex64).view(np.float32)
    transform.fft.launch("convolve", (1,), (1,), (buffer, transform.table, gain, n))
    wanted = 0.5 * z + 0.25 * (np.roll(z, 1) + np.roll(z, -1))
    assert rms(buffer.view(np.complex64) - wanted) < 3e-7 * rms(wanted)


def test_two_real_signals_in_one(fft: Emulated) -> None:
    a, b = np.random.default_rng(5).standard_normal((2, 64))
    both, spectra = np.fft.fft(a + 1j * b), np.zeros(4, np.float32)
    fft.launch("two_real", (1,), (1,), (both[[5, -5]].astype(np.complex64).view(np.float32), spectra))
    np.testing.assert_allclose(spectra.view(np.complex64), [np.fft.fft(a)[5], np.fft.fft(b)[5]], rtol=1e-6)
