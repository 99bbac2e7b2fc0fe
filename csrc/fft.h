// Complex FFT of n = 2^a 3^b 5^c 7^d points in passes of radix 8, 4, 2, 7, 5 and 3: decimation in frequency forwards
// (the spectrum is left in digit-reversed order) and decimation in time backwards (which takes that order), so that a
// product of spectra needs no reordering. Cooley & Tukey 1965; Gentleman & Sande 1966.
//
// Every function is a template over `Piece`: float for one transform, a vector of fa_simd.h for as many independent
// transforms as it has lanes.
//
//     FaFft fft;                                                      // once for each n; a kernel gets its own
//     fa_fft_plan(n, fft);
//     std::vector<float> table(fa_fft_table_size(fft));
//     fa_fft_fill_table(fft, table.data()), fft.table = table.data();
//
//     fa_fft_forward(fft, z);                 // bin k is now z[fa_fft_position(fft, k)]
//     fa_fft_inverse(fft, z);                 // n times the original
//     fa_fft_convolve(fft, z, multiply);      // both, with multiply(spectrum, position, count) in between
//
// Error: below 1.5e-7 rms relative to the rms of the spectrum for n <= 16384, twiddle factors rounded from float64.
#pragma once

#include "fa_compat.h"
#if !FA_CUDA
#include "fa_simd.h"  // before the templates: vectors have no namespace in which fa_fma could be found later
#endif

template <class Piece>
struct FaComplex {
    Piece re, im;
};

template <class Piece>
FA_HD FaComplex<Piece> operator+(const FaComplex<Piece>& a, const FaComplex<Piece>& b) {
    return {a.re + b.re, a.im + b.im};
}

template <class Piece>
FA_HD FaComplex<Piece> operator-(const FaComplex<Piece>& a, const FaComplex<Piece>& b) {
    return {a.re - b.re, a.im - b.im};
}

// a times (re, im), or its conjugate in the inverse.
template <bool kInverse, class Piece>
FA_HD FaComplex<Piece> fa_turn(const FaComplex<Piece>& a, const Piece& re, const Piece& im) {
    if constexpr (kInverse) return {fa_fma(a.re, re, a.im * im), fa_fma(a.im, re, -(a.re * im))};
    return {fa_fma(a.re, re, -(a.im * im)), fa_fma(a.re, im, a.im * re)};
}

// The same number w = (w[0], w[1]) for all lanes.
template <bool kInverse, class Piece>
FA_HD FaComplex<Piece> fa_turn(const FaComplex<Piece>& a, const float* w) {
    return fa_turn<kInverse>(a, fa_splat<Piece>(w[0]), fa_splat<Piece>(w[1]));
}

// -i a forwards, i a in the inverse.
template <bool kInverse, class Piece>
FA_HD FaComplex<Piece> fa_quarter_turn(const FaComplex<Piece>& a) {
    if constexpr (kInverse) return {-a.im, a.re};
    return {a.im, -a.re};
}

// Transforms of a radix's points, in place and in natural order.
template <bool kInverse, class Piece>
FA_HD void fa_dft(FaComplex<Piece> (&x)[2]) {
    const FaComplex<Piece> a = x[0];
    x[0] = a + x[1];
    x[1] = a - x[1];
}

template <bool kInverse, class Piece>
FA_HD void fa_dft(FaComplex<Piece> (&x)[4]) {
    const FaComplex<Piece> a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3];
    const FaComplex<Piece> d = fa_quarter_turn<kInverse>(x[1] - x[3]);
    x[0] = a + c, x[1] = b + d, x[2] = a - c, x[3] = b - d;
}

// Two transforms of four, the second one turned by eighths.
template <bool kInverse, class Piece>
FA_HD void fa_dft(FaComplex<Piece> (&x)[8]) {
    FaComplex<Piece> even[4] = {x[0], x[2], x[4], x[6]}, odd[4] = {x[1], x[3], x[5], x[7]};
    fa_dft<kInverse>(even);
    fa_dft<kInverse>(odd);
    const FaComplex<Piece> one = odd[1] + fa_quarter_turn<kInverse>(odd[1]);
    const FaComplex<Piece> two = fa_quarter_turn<kInverse>(odd[2]);
    const FaComplex<Piece> three = fa_quarter_turn<kInverse>(odd[3]) - odd[3];
    const Piece root = fa_splat<Piece>(0.70710678118654752f), minus = fa_splat<Piece>(-0.70710678118654752f);
    x[0] = even[0] + odd[0], x[4] = even[0] - odd[0];
    x[1] = {fa_fma(one.re, root, even[1].re), fa_fma(one.im, root, even[1].im)};
    x[5] = {fa_fma(one.re, minus, even[1].re), fa_fma(one.im, minus, even[1].im)};
    x[2] = even[2] + two, x[6] = even[2] - two;
    x[3] = {fa_fma(three.re, root, even[3].re), fa_fma(three.im, root, even[3].im)};
    x[7] = {fa_fma(three.re, minus, even[3].re), fa_fma(three.im, minus, even[3].im)};
}

// An odd radix from the sums and differences of x[r] and x[R - r]; cosines and sines of 2 pi n / R, n = 1..R / 2.
template <bool kInverse, int R, class Piece>
FA_HD void fa_odd_dft(FaComplex<Piece> (&x)[R], const float (&cosine)[R / 2], const float (&sine)[R / 2]) {
    constexpr int kHalf = R / 2;
    FaComplex<Piece> sums[kHalf], differences[kHalf];
    const FaComplex<Piece> first = x[0];
    FA_UNROLL(3)
    for (int r = 0; r < kHalf; ++r) {
        sums[r] = x[r + 1] + x[R - 1 - r];
        differences[r] = fa_quarter_turn<kInverse>(x[r + 1] - x[R - 1 - r]);
        x[0] = x[0] + sums[r];
    }
    FA_UNROLL(3)
    for (int t = 1; t <= kHalf; ++t) {
        FaComplex<Piece> even = first, odd = {fa_splat<Piece>(0.0f), fa_splat<Piece>(0.0f)};
        FA_UNROLL(3)
        for (int r = 1; r <= kHalf; ++r) {
            const int turns = r * t % R, n = (turns > kHalf ? R - turns : turns) - 1;
            const Piece c = fa_splat<Piece>(cosine[n]), s = fa_splat<Piece>(turns > kHalf ? -sine[n] : sine[n]);
            even = {fa_fma(sums[r - 1].re, c, even.re), fa_fma(sums[r - 1].im, c, even.im)};
            odd = {fa_fma(differences[r - 1].re, s, odd.re), fa_fma(differences[r - 1].im, s, odd.im)};
        }
        x[t] = even + odd, x[R - t] = even - odd;
    }
}

template <bool kInverse, class Piece>
FA_HD void fa_dft(FaComplex<Piece> (&x)[3]) {
    fa_odd_dft<kInverse, 3>(x, {-0.5f}, {0.86602540378443865f});
}

template <bool kInverse, class Piece>
FA_HD void fa_dft(FaComplex<Piece> (&x)[5]) {
    fa_odd_dft<kInverse, 5>(x, {0.30901699437494742f, -0.80901699437494742f},
                            {0.95105651629515357f, 0.58778525229247313f});
}

template <bool kInverse, class Piece>
FA_HD void fa_dft(FaComplex<Piece> (&x)[7]) {
    fa_odd_dft<kInverse, 7>(x, {0.62348980185873353f, -0.22252093395631440f, -0.90096886790241913f},
                            {0.78183148246802981f, 0.97492791218182361f, 0.43388373911755812f});
}

constexpr int kFftMostPasses = 16;
constexpr int kFftRun = 128;  // complex numbers, of 128 bytes in sixteen lanes: half of the first cache

struct FaFft {
    int size, passes;
    int run;  // so many neighbours go through all the passes that stay among them while they are in the cache
    int radix[kFftMostPasses];
    const float* table;
};

#if !FA_CUDA  // kernels are given their passes and tables
// All but the table. False where n has a prime factor above 7.
inline bool fa_fft_plan(int n, FaFft& fft) {
    int twos = 0, odd[kFftMostPasses], odds = 0;
    int rest = n;
    for (; rest > 1 && rest % 2 == 0; rest /= 2) ++twos;
    for (int radix = 7; radix > 1; radix -= 2) {
        for (; rest > 1 && rest % radix == 0 && odds < kFftMostPasses; rest /= radix) odd[odds++] = radix;
    }
    if (n < 2 || rest != 1) return false;
    fft = {n, 0, 1, {}, nullptr};
    const int fours = twos % 3 == 2 ? 1 : twos % 3 == 1 && twos > 1 ? 2 : 0;
    int eights = (twos - 2 * fours) / 3;
    if ((twos == 1) + eights + fours + odds > kFftMostPasses) return false;
    for (; eights; --eights) fft.radix[fft.passes++] = 8;
    for (int i = 0; i < fours; ++i) fft.radix[fft.passes++] = 4;
    if (twos == 1) fft.radix[fft.passes++] = 2;
    for (int i = 0; i < odds; ++i) fft.radix[fft.passes++] = odd[i];
    for (int pass = fft.passes - 1; pass >= 0; --pass) {
        if (pass < fft.passes - 1 && fft.run * fft.radix[pass] > kFftRun) break;
        fft.run *= fft.radix[pass];
    }
    return true;
}

// A pass over `length` neighbours at a time has, for each of its length / radix butterflies, the powers 1, .., radix -
// 1 of exp(-2 pi i j / length), and begins at 2 (size - length); the last one has none.
inline int fa_fft_table_size(const FaFft& fft) { return 2 * (fft.size - fft.radix[fft.passes - 1]); }

inline void fa_fft_fill_table(const FaFft& fft, float* table) {
    int length = fft.size;
    for (int pass = 0; pass < fft.passes - 1; length /= fft.radix[pass++]) {
        for (int j = 0; j < length / fft.radix[pass]; ++j) {
            for (int power = 1; power < fft.radix[pass]; ++power, table += 2) {
                const double angle = 2.0 * FA_PI * static_cast<double>(power * j) / length;
                table[0] = static_cast<float>(cos(angle)), table[1] = static_cast<float>(-sin(angle));
            }
        }
    }
}

// Where fa_fft_forward leaves a bin.
inline int fa_fft_position(const FaFft& fft, int bin) {
    int position = 0, stride = fft.size;
    for (int pass = 0; pass < fft.passes; bin /= fft.radix[pass++]) {
        stride /= fft.radix[pass];
        position += bin % fft.radix[pass] * stride;
    }
    return position;
}
#endif

// Butterflies of `length` neighbours, in [begin, end): twiddled behind a forward one and before an inverse one.
template <bool kInverse, int R, class Piece>
FA_HD void fa_fft_pass(FaComplex<Piece>* z, int begin, int end, int length, const float* factors) {
    const int stride = length / R;
    for (FaComplex<Piece>* at = z + begin; at < z + end; at += length) {
        const float* w = factors;
        for (int j = 0; j < stride; ++j, w += 2 * (R - 1)) {
            FaComplex<Piece> x[R];
            FA_UNROLL(8)
            for (int r = 0; r < R; ++r) x[r] = at[j + r * stride];
            if constexpr (kInverse) {
                FA_UNROLL(8)
                for (int r = 1; r < R; ++r) x[r] = fa_turn<true>(x[r], w + 2 * (r - 1));
            }
            fa_dft<kInverse>(x);
            if constexpr (!kInverse) {
                FA_UNROLL(8)
                for (int r = 1; r < R; ++r) x[r] = fa_turn<false>(x[r], w + 2 * (r - 1));
            }
            FA_UNROLL(8)
            for (int r = 0; r < R; ++r) at[j + r * stride] = x[r];
        }
    }
}

template <bool kInverse, class Piece>
FA_HD void fa_fft_pass_of(int radix, FaComplex<Piece>* z, int begin, int end, int length, const float* factors) {
    if (radix == 8) return fa_fft_pass<kInverse, 8>(z, begin, end, length, factors);
    if (radix == 4) return fa_fft_pass<kInverse, 4>(z, begin, end, length, factors);
    if (radix == 2) return fa_fft_pass<kInverse, 2>(z, begin, end, length, factors);
    if (radix == 3) return fa_fft_pass<kInverse, 3>(z, begin, end, length, factors);
    if (radix == 5) return fa_fft_pass<kInverse, 5>(z, begin, end, length, factors);
    return fa_fft_pass<kInverse, 7>(z, begin, end, length, factors);
}

// The last pass forwards, the first backwards: neighbours, without twiddle factors. multiply(spectrum, position,
// count): `count` neighbouring bins, in place; not called when one direction only is asked for.
template <bool kForward, bool kInverse, int R, class Piece, class Multiply>
FA_HD void fa_fft_leaves(FaComplex<Piece>* z, int begin, int end, Multiply& multiply) {
    for (int at = begin; at < end; at += R) {
        FaComplex<Piece> leaf[R];
        FA_UNROLL(8)
        for (int i = 0; i < R; ++i) leaf[i] = z[at + i];
        if constexpr (kForward) fa_dft<false>(leaf);
        if constexpr (kForward && kInverse) multiply(leaf, at, R);
        if constexpr (kInverse) fa_dft<true>(leaf);
        FA_UNROLL(8)
        for (int i = 0; i < R; ++i) z[at + i] = leaf[i];
    }
}

template <bool kForward, bool kInverse, class Piece, class Multiply>
FA_HD void fa_fft_leaves_of(int radix, FaComplex<Piece>* z, int begin, int end, Multiply& multiply) {
    if (radix == 8) return fa_fft_leaves<kForward, kInverse, 8>(z, begin, end, multiply);
    if (radix == 4) return fa_fft_leaves<kForward, kInverse, 4>(z, begin, end, multiply);
    if (radix == 2) return fa_fft_leaves<kForward, kInverse, 2>(z, begin, end, multiply);
    if (radix == 3) return fa_fft_leaves<kForward, kInverse, 3>(z, begin, end, multiply);
    if (radix == 5) return fa_fft_leaves<kForward, kInverse, 5>(z, begin, end, multiply);
    return fa_fft_leaves<kForward, kInverse, 7>(z, begin, end, multiply);
}

// Before a run, the longer passes that begin there; after it, those that end there.
template <class Piece>
FA_HD void fa_fft_descend(const FaFft& fft, FaComplex<Piece>* z, int begin) {
    int length = fft.size;
    for (int pass = 0; pass < fft.passes - 1; length /= fft.radix[pass++]) {
        if (begin % length) continue;
        const int end = begin + fa_max(length, fft.run);
        fa_fft_pass_of<false>(fft.radix[pass], z, begin, end, length, fft.table + 2 * (fft.size - length));
    }
}

template <class Piece>
FA_HD void fa_fft_ascend(const FaFft& fft, FaComplex<Piece>* z, int end) {
    int length = fft.radix[fft.passes - 1];
    for (int pass = fft.passes - 2; pass >= 0; --pass) {
        length *= fft.radix[pass];
        if (end % length) return;
        const int begin = end - fa_max(length, fft.run);
        fa_fft_pass_of<true>(fft.radix[pass], z, begin, end, length, fft.table + 2 * (fft.size - length));
    }
}

template <bool kForward, bool kInverse, class Piece, class Multiply>
FA_HD void fa_fft_all(const FaFft& fft, FaComplex<Piece>* z, Multiply& multiply) {
    for (int begin = 0; begin < fft.size; begin += fft.run) {
        const int end = begin + fft.run;
        if constexpr (kForward) fa_fft_descend(fft, z, begin);
        fa_fft_leaves_of<kForward, kInverse>(fft.radix[fft.passes - 1], z, begin, end, multiply);
        if constexpr (kInverse) fa_fft_ascend(fft, z, end);
    }
}

template <class Piece>
FA_HD void fa_fft_forward(const FaFft& fft, FaComplex<Piece>* z) {
    int unused = 0;
    fa_fft_all<true, false>(fft, z, unused);
}

template <class Piece>
FA_HD void fa_fft_inverse(const FaFft& fft, FaComplex<Piece>* z) {
    int unused = 0;
    fa_fft_all<false, true>(fft, z, unused);
}

// Forwards, multiply(spectrum, position, count) on every bin while it is in registers, backwards: n times the product.
template <class Piece, class Multiply>
FA_HD void fa_fft_convolve(const FaFft& fft, FaComplex<Piece>* z, Multiply multiply) {
    fa_fft_all<true, true>(fft, z, multiply);
}
