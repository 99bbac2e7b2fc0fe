// Complex FFT of a power of two, 64 to 65536 points: radix 4, decimation in frequency forwards (the spectrum is left in
// digit-reversed order) and decimation in time backwards (which takes that order), so that a product of spectra needs
// no reordering. Cooley & Tukey 1965; Gentleman & Sande 1966.
//
// Every function is a template over `Piece`: float for one transform, a vector of fa_simd.h for as many independent
// transforms as it has lanes. Two real signals go as the real and the imaginary part of one complex transform: a filter
// with a real response keeps them apart by itself, fa_fft_two_real separates their spectra.
//
//     std::vector<float> table(fa_fft_table_size(n));     fa_fft_fill_table(n, table.data());   // once for each n
//     fa_fft_forward(z, n, table.data());                 // z[p] is now bin fa_fft_bin(p, n)
//     fa_fft_inverse(z, n, table.data());                 // n times the original
//     fa_fft_convolve(z, n, table.data(), multiply);      // both, with multiply(spectrum, p, count) in between
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

// The last stage forwards, the first backwards: a transform of 4 or 8 points without twiddle factors.
FA_HD constexpr int fa_fft_leaf(int n) {
    while (n > 8) n /= 4;
    return n;
}

// Stages of 4 * leaf, 16 * leaf, .. n points follow each other; one of m points has six floats (the powers 1, 2, 3 of
// exp(-2 pi i j / m)) for each of its m / 4 butterflies, and begins at m / 2 - 2 * leaf.
FA_HD constexpr int fa_fft_table_size(int n) { return 2 * (n - fa_fft_leaf(n)); }

inline void fa_fft_fill_table(int n, float* table) {
    for (int m = 4 * fa_fft_leaf(n); m <= n; m *= 4) {
        float* factor = table + m / 2 - 2 * fa_fft_leaf(n);
        for (int j = 0; j < m / 4; ++j) {
            for (int power = 1; power <= 3; ++power, factor += 2) {
                const double angle = 2.0 * FA_PI * static_cast<double>(power * j) / m;
                factor[0] = static_cast<float>(cos(angle));
                factor[1] = static_cast<float>(-sin(angle));
            }
        }
    }
}

// The bin that fa_fft_forward leaves at `position`, and its inverse.
FA_HD int fa_fft_bin(int position, int n) {
    int bin = 0, place = 1;
    for (const int leaf = fa_fft_leaf(n); n > leaf; n /= 4, place *= 4) {
        bin += position / (n / 4) * place;
        position %= n / 4;
    }
    return bin + position * place;
}

FA_HD int fa_fft_position(int bin, int n) {
    int position = 0;
    for (const int leaf = fa_fft_leaf(n); n > leaf; n /= 4, bin /= 4) position += bin % 4 * (n / 4);
    return position + bin;
}

template <class Piece>
FA_HD FaComplex<Piece> operator+(const FaComplex<Piece>& a, const FaComplex<Piece>& b) {
    return {a.re + b.re, a.im + b.im};
}

template <class Piece>
FA_HD FaComplex<Piece> operator-(const FaComplex<Piece>& a, const FaComplex<Piece>& b) {
    return {a.re - b.re, a.im - b.im};
}

// a + i b and a - i b.
template <class Piece>
FA_HD FaComplex<Piece> fa_plus_i(const FaComplex<Piece>& a, const FaComplex<Piece>& b) {
    return {a.re - b.im, a.im + b.re};
}

template <class Piece>
FA_HD FaComplex<Piece> fa_minus_i(const FaComplex<Piece>& a, const FaComplex<Piece>& b) {
    return {a.re + b.im, a.im - b.re};
}

// A number in every lane, by way of an array: GCC inserts element after element where it lowers vector arithmetic.
template <class Piece>
FA_HD Piece fa_splat(float value) {
    if constexpr (sizeof(Piece) == sizeof(float)) {
        return value;
    } else {
        float all[sizeof(Piece) / sizeof(float)];
        for (float& element : all) element = value;
        Piece result;
        memcpy(&result, all, sizeof result);
        return result;
    }
}

// a * w and a * conj(w).
template <class Piece>
FA_HD FaComplex<Piece> fa_twiddle(const FaComplex<Piece>& a, const float* w) {
    const Piece re = fa_splat<Piece>(w[0]), im = fa_splat<Piece>(w[1]);
    return {fa_fma(a.re, re, -(a.im * im)), fa_fma(a.re, im, a.im * re)};
}

template <class Piece>
FA_HD FaComplex<Piece> fa_untwiddle(const FaComplex<Piece>& a, const float* w) {
    const Piece re = fa_splat<Piece>(w[0]), im = fa_splat<Piece>(w[1]);
    return {fa_fma(a.re, re, a.im * im), fa_fma(a.im, re, -(a.re * im))};
}

// Four-point transforms in place: x0..x3 in natural order, e^- forwards.
template <class Piece>
FA_HD void fa_fft_four(FaComplex<Piece>& a, FaComplex<Piece>& b, FaComplex<Piece>& c, FaComplex<Piece>& d) {
    const FaComplex<Piece> even = a + c, odd = a - c, sum = b + d, difference = b - d;
    a = even + sum, b = fa_minus_i(odd, difference), c = even - sum, d = fa_plus_i(odd, difference);
}

template <class Piece>
FA_HD void fa_fft_four_inverse(FaComplex<Piece>& a, FaComplex<Piece>& b, FaComplex<Piece>& c, FaComplex<Piece>& d) {
    fa_fft_four(a, d, c, b);
    const FaComplex<Piece> swap = b;
    b = d, d = swap;
}

// Eight points: two transforms of four, of sums and of differences turned by eighths.
template <class Piece>
FA_HD void fa_fft_eight(FaComplex<Piece>* z) {
    const Piece root = fa_splat<Piece>(0.70710678118654752f);
    const FaComplex<Piece> d0 = z[0] - z[4], d1 = z[1] - z[5], d2 = z[2] - z[6], d3 = z[3] - z[7];
    FaComplex<Piece> e0 = z[0] + z[4], e1 = z[1] + z[5], e2 = z[2] + z[6], e3 = z[3] + z[7];
    fa_fft_four(e0, e1, e2, e3);
    FaComplex<Piece> o0 = d0, o1 = {(d1.re + d1.im) * root, (d1.im - d1.re) * root};
    FaComplex<Piece> o2 = {d2.im, -d2.re}, o3 = {(d3.im - d3.re) * root, -((d3.re + d3.im) * root)};
    fa_fft_four(o0, o1, o2, o3);
    z[0] = e0, z[1] = o0, z[2] = e1, z[3] = o1, z[4] = e2, z[5] = o2, z[6] = e3, z[7] = o3;
}

template <class Piece>
FA_HD void fa_fft_eight_inverse(FaComplex<Piece>* z) {
    const Piece root = fa_splat<Piece>(0.70710678118654752f);
    FaComplex<Piece> e0 = z[0], e1 = z[2], e2 = z[4], e3 = z[6], o0 = z[1], o1 = z[3], o2 = z[5], o3 = z[7];
    fa_fft_four_inverse(e0, e1, e2, e3);
    fa_fft_four_inverse(o0, o1, o2, o3);
    const FaComplex<Piece> d1 = {(o1.re - o1.im) * root, (o1.re + o1.im) * root};
    const FaComplex<Piece> d2 = {-o2.im, o2.re}, d3 = {-((o3.re + o3.im) * root), (o3.re - o3.im) * root};
    z[0] = e0 + o0, z[1] = e1 + d1, z[2] = e2 + d2, z[3] = e3 + d3;
    z[4] = e0 - o0, z[5] = e1 - d1, z[6] = e2 - d2, z[7] = e3 - d3;
}

// One stage over the m points of z. factors: those of this stage.
template <class Piece>
FA_HD void fa_fft_split(FaComplex<Piece>* z, int m, const float* factors) {
    const int quarter = m / 4;
    for (int j = 0; j < quarter; ++j, factors += 6) {
        FaComplex<Piece> a = z[j], b = z[j + quarter], c = z[j + 2 * quarter], d = z[j + 3 * quarter];
        fa_fft_four(a, b, c, d);
        z[j] = a;
        z[j + quarter] = fa_twiddle(b, factors);
        z[j + 2 * quarter] = fa_twiddle(c, factors + 2);
        z[j + 3 * quarter] = fa_twiddle(d, factors + 4);
    }
}

template <class Piece>
FA_HD void fa_fft_merge(FaComplex<Piece>* z, int m, const float* factors) {
    const int quarter = m / 4;
    for (int j = 0; j < quarter; ++j, factors += 6) {
        FaComplex<Piece> a = z[j], b = fa_untwiddle(z[j + quarter], factors);
        FaComplex<Piece> c = fa_untwiddle(z[j + 2 * quarter], factors + 2);
        FaComplex<Piece> d = fa_untwiddle(z[j + 3 * quarter], factors + 4);
        fa_fft_four_inverse(a, b, c, d);
        z[j] = a, z[j + quarter] = b, z[j + 2 * quarter] = c, z[j + 3 * quarter] = d;
    }
}

// The stages take a run of 16 leaves at a time through all levels while it is in the cache: before a run, the larger
// stages that begin there; after it, those that end there.
template <class Piece>
FA_HD void fa_fft_descend(FaComplex<Piece>* z, int begin, int run, int n, const float* table) {
    const int leaf = run / 16;
    for (int m = n; m > leaf; m /= 4) {
        if (begin % m && m >= run) continue;
        const int end = begin + (m < run ? run : 1);
        for (int at = begin; at < end; at += m) fa_fft_split(z + at, m, table + m / 2 - 2 * leaf);
    }
}

template <class Piece>
FA_HD void fa_fft_ascend(FaComplex<Piece>* z, int begin, int run, int n, const float* table) {
    const int leaf = run / 16;
    for (int m = 4 * leaf; m <= n; m *= 4) {
        if ((begin + run) % m) return;
        const int first = m < run ? begin : begin + run - m;
        for (int at = first; at < begin + run; at += m) fa_fft_merge(z + at, m, table + m / 2 - 2 * leaf);
    }
}

// Copies `count` points; leaves are worked on in registers.
template <int kLeaf, class Piece>
FA_HD void fa_fft_copy(const FaComplex<Piece>* from, FaComplex<Piece>* to) {
#pragma GCC unroll 8
    for (int i = 0; i < kLeaf; ++i) to[i] = from[i];
}

// The leaves of a run. multiply(spectrum, position, count): `count` neighbouring bins, in place; null when one
// direction only is asked for.
template <int kLeaf, bool kForward, bool kInverse, class Piece, class Multiply>
FA_HD void fa_fft_leaves(FaComplex<Piece>* z, int begin, int end, Multiply& multiply) {
    for (int at = begin; at < end; at += kLeaf) {
        FaComplex<Piece> leaf[kLeaf];
        fa_fft_copy<kLeaf>(z + at, leaf);
        if constexpr (kForward && kLeaf == 4) fa_fft_four(leaf[0], leaf[1], leaf[2], leaf[3]);
        if constexpr (kForward && kLeaf == 8) fa_fft_eight(leaf);
        if constexpr (kForward && kInverse) multiply(leaf, at, kLeaf);
        if constexpr (kInverse && kLeaf == 4) fa_fft_four_inverse(leaf[0], leaf[1], leaf[2], leaf[3]);
        if constexpr (kInverse && kLeaf == 8) fa_fft_eight_inverse(leaf);
        fa_fft_copy<kLeaf>(leaf, z + at);
    }
}

template <int kLeaf, bool kForward, bool kInverse, class Piece, class Multiply>
FA_HD void fa_fft_run(FaComplex<Piece>* z, int n, const float* table, Multiply& multiply) {
    const int run = 16 * kLeaf;
    for (int begin = 0; begin < n; begin += run) {
        if constexpr (kForward) fa_fft_descend(z, begin, run, n, table);
        fa_fft_leaves<kLeaf, kForward, kInverse>(z, begin, begin + run, multiply);
        if constexpr (kInverse) fa_fft_ascend(z, begin, run, n, table);
    }
}

template <class Piece>
FA_HD void fa_fft_forward(FaComplex<Piece>* z, int n, const float* table) {
    int unused = 0;
    if (fa_fft_leaf(n) == 4) return fa_fft_run<4, true, false>(z, n, table, unused);
    fa_fft_run<8, true, false>(z, n, table, unused);
}

template <class Piece>
FA_HD void fa_fft_inverse(FaComplex<Piece>* z, int n, const float* table) {
    int unused = 0;
    if (fa_fft_leaf(n) == 4) return fa_fft_run<4, false, true>(z, n, table, unused);
    fa_fft_run<8, false, true>(z, n, table, unused);
}

// Forwards, multiply(spectrum, position, count) on every bin while it is in registers, backwards: n times the product.
template <class Piece, class Multiply>
FA_HD void fa_fft_convolve(FaComplex<Piece>* z, int n, const float* table, Multiply multiply) {
    if (fa_fft_leaf(n) == 4) return fa_fft_run<4, true, true>(z, n, table, multiply);
    fa_fft_run<8, true, true>(z, n, table, multiply);
}

// The spectra a, b at one bin of two real signals, from that bin and its mirror image (n - bin) % n of a + i b.
template <class Piece>
FA_HD void fa_fft_two_real(const FaComplex<Piece>& bin, const FaComplex<Piece>& mirror, FaComplex<Piece>& a,
                           FaComplex<Piece>& b) {
    const Piece half = fa_splat<Piece>(0.5f);
    a = {(bin.re + mirror.re) * half, (bin.im - mirror.im) * half};
    b = {(bin.im + mirror.im) * half, (mirror.re - bin.re) * half};
}
