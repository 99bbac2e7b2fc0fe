// Power spectra of frames and what is made of them: one real FFT of n samples as a complex one of n / 2 over (even,
// odd) samples, its untangling into powers, a bank of filters with one run of bins each, a logarithm.
//
// Functions over `Piece` take a float, or on the CPU a vector of fa_simd.h with one frame in each lane.
#pragma once

#include "fft.h"

// Frame i of a row covers samples [i * hop - lead, i * hop - lead + width); what lies outside the row is 0, or the
// row's mirror image (the edge sample not repeated). Behind the window the transform reads zeros.
struct FaFrames {
    long long length, frames, hop, lead;
    int width, n_fft, reflect;
};

// The value of a band: scale * ln(max(gain * x + offset, floor)) + shift, without logarithm gain * x + shift. An offset
// of exactly 1 keeps the digits of a small gain * x.
struct FaLevel {
    float gain, offset, floor, scale, shift;
    int logarithm, magnitude;  // magnitude: |X| instead of |X|^2 into the bank
};

// The sample of a row that stands at position `at` outside it.
template <class Int>
FA_HD Int fa_reflected(Int at, Int length) {
    if (length == 1) return 0;
    const Int period = 2 * (length - 1);
    at = at < 0 ? -at : at;
    at %= period;
    return at < length ? at : period - at;
}

// Bins k and n / 2 - k of a real signal's spectrum, times 2, as powers, from z[k] and y = z[n / 2 - k] of the complex
// transform. turn: sin and cos of 2 pi k / n. With sum = z + conj(y) and t = (sin + i cos) (z - conj(y)) the bins are
// sum - t and the conjugate of sum + t.
template <class Piece>
FA_HD void fa_real_powers(const FaComplex<Piece>& z, const FaComplex<Piece>& y, const float* turn, Piece& low,
                          Piece& high) {
    const Piece s = fa_splat<Piece>(turn[0]), c = fa_splat<Piece>(turn[1]);
    const FaComplex<Piece> sum = {z.re + y.re, z.im - y.im}, rest = {z.re - y.re, z.im + y.im};
    const FaComplex<Piece> t = {fa_fma(rest.re, s, -(rest.im * c)), fa_fma(rest.re, c, rest.im * s)};
    const FaComplex<Piece> a = sum - t, b = sum + t;
    low = fa_fma(a.re, a.re, a.im * a.im);
    high = fa_fma(b.re, b.re, b.im * b.im);
}

// Bins 0 and n / 2, times 2, as powers.
template <class Piece>
FA_HD void fa_real_ends(const FaComplex<Piece>& z, Piece& low, Piece& high) {
    const Piece two = fa_splat<Piece>(2.0f), a = (z.re + z.im) * two, b = (z.re - z.im) * two;
    low = a * a;
    high = b * b;
}

// Integers of the same width as the floats of a Piece.
template <class Piece>
struct FaBits {
    typedef int32_t type;
};
#if !FA_CUDA
typedef int32_t fa_bits16 __attribute__((vector_size(64)));
template <>
struct FaBits<fa_float4> {
    typedef fa_int4 type;
};
template <>
struct FaBits<fa_float8> {
    typedef fa_int8 type;
};
template <>
struct FaBits<fa_float16> {
    typedef fa_bits16 type;
};
#endif

template <class To, class From>
FA_HD To fa_same_bits(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class Piece>
FA_HD Piece fa_from_integers(const typename FaBits<Piece>::type& k) {
#if !FA_CUDA
    if constexpr (sizeof(Piece) > sizeof(float)) return __builtin_convertvector(k, Piece);
#endif
    if constexpr (sizeof(Piece) == sizeof(float)) return static_cast<float>(k);
}

// ln x for a normal x > 0, within 1.5 units of the last place (0.8 from x = 2 on); inf and NaN pass through. The
// mantissa in [sqrt(1/2), sqrt(2)) goes through the polynomial of Cephes' logf (S. Moshier).
template <class Piece>
FA_HD Piece fa_ln(const Piece& x) {
    typedef typename FaBits<Piece>::type Bits;
    const Bits bits = fa_same_bits<Bits>(x), above = bits - 0x3f3504f3;
    const Piece k = fa_from_integers<Piece>(above >> 23);
    const Piece f = fa_same_bits<Piece>(static_cast<Bits>(bits - (above & -0x800000))) - fa_splat<Piece>(1.0f);
    const Piece square = f * f;
    Piece p = fa_splat<Piece>(7.0376836292e-2f);
    p = fa_fma(p, f, fa_splat<Piece>(-1.1514610310e-1f));
    p = fa_fma(p, f, fa_splat<Piece>(1.1676998740e-1f));
    p = fa_fma(p, f, fa_splat<Piece>(-1.2420140846e-1f));
    p = fa_fma(p, f, fa_splat<Piece>(1.4249322787e-1f));
    p = fa_fma(p, f, fa_splat<Piece>(-1.6668057665e-1f));
    p = fa_fma(p, f, fa_splat<Piece>(2.0000714765e-1f));
    p = fa_fma(p, f, fa_splat<Piece>(-2.4999993993e-1f));
    p = fa_fma(p, f, fa_splat<Piece>(3.3333331174e-1f));
    Piece small = fa_fma(k, fa_splat<Piece>(-2.12194440e-4f), p * f * square);
    small = fa_fma(square, fa_splat<Piece>(-0.5f), small);
    const Piece y = fa_fma(k, fa_splat<Piece>(0.693359375f), f + small);
    return x < fa_splat<Piece>(3.4e38f) ? y : x;
}

// A band's value, of its power or magnitude.
template <class Piece>
FA_HD Piece fa_level(const FaLevel& level, const Piece& x) {
    const Piece gain = fa_splat<Piece>(level.gain), shift = fa_splat<Piece>(level.shift);
    if (!level.logarithm) return fa_fma(x, gain, shift);
    const Piece offset = fa_splat<Piece>(level.offset), floor = fa_splat<Piece>(level.floor);
    Piece value = fa_fma(x, gain, offset);
    Piece lost = fa_splat<Piece>(0.0f);
    if (level.offset == 1.0f) lost = (fa_fma(x, gain, offset - value)) / value;
    value = value < floor ? floor : value;
    return fa_fma(fa_ln(value) + lost, fa_splat<Piece>(level.scale), shift);
}

// The nearest bfloat16, ties to even.
FA_HD uint16_t fa_to_bfloat16(float value) {
    const uint32_t bits = fa_float_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0u;
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
