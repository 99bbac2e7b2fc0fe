// CPU only: half the sample rate by overlap-save, two neighbouring blocks of a signal as the real and the imaginary
// part of one. The filter is real in both domains (its taps are symmetric, and a block begins at an output), so the
// parts do not mix: a spectrum is multiplied by real numbers and cut to half its length.
//
// The N samples of a block are sixteen sequences of N / 16: sample 16 n + l is in lane l, loaded as it lies. First an
// FFT of every sequence. Then, for each of its bins q, a transform of sixteen points across the lanes, of which only
// the bins q + N / 16 p for p = -4..3 are wanted, the filter, and one of eight points back. Last, inverse FFTs of the
// eight sequences 8 m + l of the result, which is stored as it lies. (Bailey, "FFTs in external or hierarchical
// memory", 1990; Markel, "FFT pruning", IEEE Trans. AU-19(4), 1971.) Against resample_fft.h, which has a block in each
// lane: 48 KiB of memory for a task in place of 1 MiB, half of the additions, no terms for the other half of a real
// spectrum.
#pragma once

#include "fft.h"
#include "resample_cpu.h"

constexpr int kHalveIn = 16, kHalveOut = 8;  // lanes
constexpr int kHalveGroup = 16;              // neighbouring bins, in the order of the FFT, share a part of the table
constexpr int kHalveTurns = 2 * kHalveIn * kHalveGroup, kHalveGains = kHalveOut * kHalveGroup;

struct FaHalves {
    FaFft fft;  // of a sequence: N / 16 points, a multiple of 64
    // (N / 256, kHalveTurns + kHalveGains), for each group of bins: exp(-2 pi i q l / N), (16 lanes, real and imaginary
    // part, group), and the filter at q + N / 16 p, (8, group), p = 0, 1, 2, 3, -4, -3, -2, -1.
    const float* factors;
};

// What is wanted soon, and better on its way while there is work: two blocks are some 100 short stretches of memory, of
// which none is long enough to be foreseen by the processor (a clip took half as long again without this).
struct FaAhead {
    const float* source;  // the next pair's samples
    long long samples;
    float* result;  // where this pair's outputs go
    long long outputs;
};

// The part [part, part + 1) / parts of it.
FA_HD void fa_fetch(const FaAhead& ahead, int part, int parts) {
    constexpr int kLine = 16;
    const long long until = ahead.samples * (part + 1) / parts, written = ahead.outputs * (part + 1) / parts;
    for (long long n = ahead.samples * part / parts; n < until; n += kLine) __builtin_prefetch(ahead.source + n, 0, 2);
    for (long long n = ahead.outputs * part / parts; n < written; n += kLine) __builtin_prefetch(ahead.result + n, 1);
}

// As many floats, aligned to 64 bytes, as fa_halve_pair needs: two blocks, and a tile of bins that lies in the caches.
inline long long fa_halve_room(const FaHalves& halves) { return 2LL * kHalveIn * halves.fft.size + 2 * kHalveIn * 16; }

template <class Piece>
FA_HD void fa_load(const float* from, Piece& piece) {
    memcpy(&piece, from, sizeof piece);
}

FA_HD void fa_transpose(fa_float4 (&square)[4]) { fa_transpose_four(square); }
FA_HD void fa_transpose(fa_float8 (&square)[8]) { fa_transpose_eight(square); }

// (kRows, kColumns) with rows `step` apart to (kColumns, kRows) with rows `to_step` apart, square by square.
template <class Square, int kRows, int kColumns>
FA_HD void fa_transpose_tile(const float* from, int step, float* to, int to_step) {
    constexpr int kSide = sizeof(Square) / sizeof(float);
    FA_UNROLL(4)
    for (int i = 0; i < kRows; i += kSide) {
        FA_UNROLL(4)
        for (int j = 0; j < kColumns; j += kSide) {
            Square square[kSide];
            FA_UNROLL(8)
            for (int k = 0; k < kSide; ++k) fa_load(from + (i + k) * step + j, square[k]);
            fa_transpose(square);
            FA_UNROLL(8)
            for (int k = 0; k < kSide; ++k) memcpy(to + (j + k) * to_step + i, &square[k], sizeof square[k]);
        }
    }
}

// a times the complex numbers at w and w + kHalveGroup, or their conjugates.
template <bool kInverse, class Piece>
FA_HD FaComplex<Piece> fa_turn_each(const FaComplex<Piece>& a, const float* w) {
    Piece re, im;
    fa_load(w, re), fa_load(w + kHalveGroup, im);
    return fa_turn<kInverse>(a, re, im);
}

// x: sixteen lanes' numbers for the bins of one Piece. On return the first eight are those of the result.
template <class Piece>
FA_HD void fa_halve_across(FaComplex<Piece>* x, const float* turns, const float* gains) {
    // Bin p from those of the even and the odd lanes: even[p mod 8] + exp(-2 pi i p / 16) odd[p mod 8].
    constexpr float kCos[8] = {1.0f, 0.92387953251128674f, 0.70710678118654752f, 0.38268343236508977f,
                               0.0f, 0.38268343236508977f, 0.70710678118654752f, 0.92387953251128674f};
    constexpr float kSin[8] = {0.0f, -0.38268343236508977f, -0.70710678118654752f, -0.92387953251128674f,
                               1.0f, 0.92387953251128674f,  0.70710678118654752f,  0.38268343236508977f};
    FaComplex<Piece> even[8], odd[8];
    FA_UNROLL(8)
    for (int l = 0; l < 8; ++l) odd[l] = fa_turn_each<false>(x[2 * l + 1], turns + (2 * l + 1) * 2 * kHalveGroup);
    fa_dft<false>(odd);
    even[0] = x[0];
    FA_UNROLL(8)
    for (int l = 1; l < 8; ++l) even[l] = fa_turn_each<false>(x[2 * l], turns + 2 * l * 2 * kHalveGroup);
    fa_dft<false>(even);
    FA_UNROLL(8)
    for (int p = 0; p < 8; ++p) {
        const Piece c = fa_splat<Piece>(kCos[p]), s = fa_splat<Piece>(kSin[p]);
        const FaComplex<Piece> b = odd[p];
        FaComplex<Piece> bin = {fa_fma(-b.im, s, fa_fma(b.re, c, even[p].re)),
                                fa_fma(b.im, c, fa_fma(b.re, s, even[p].im))};
        if (p == 0) bin = even[0] + b;
        if (p == 4) bin = {even[4].re - b.im, even[4].im + b.re};
        Piece gain;
        fa_load(gains + p * kHalveGroup, gain);
        even[p] = {bin.re * gain, bin.im * gain};
    }
    fa_dft<true>(even);
    x[0] = even[0];
    FA_UNROLL(8)  // exp(2 pi i q l / (N / 2)): those of lane 2 l
    for (int l = 1; l < 8; ++l) x[l] = fa_turn_each<true>(even[l], turns + 2 * l * 2 * kHalveGroup);
}

// The FFT of the sequences in a Piece's lanes: the first pass, of radix 8, from where the samples lie.
template <class Piece>
FA_HD void fa_halve_forward(const FaFft& fft, const float* a, const float* b, FaComplex<Piece>* z) {
    const int stride = fft.size / 8;
    const float* w = fft.table;
    for (int j = 0; j < stride; ++j, w += 14) {
        FaComplex<Piece> x[8];
        FA_UNROLL(8)
        for (int r = 0; r < 8; ++r) {
            const int at = kHalveIn * (j + r * stride);
            fa_load(a + at, x[r].re), fa_load(b + at, x[r].im);
        }
        fa_dft<false>(x);
        z[j] = x[0];
        FA_UNROLL(8)
        for (int r = 1; r < 8; ++r) z[j + r * stride] = fa_turn<false>(x[r], w + 2 * (r - 1));
    }
    int length = stride, unused = 0;
    for (int pass = 1; pass < fft.passes - 1; length /= fft.radix[pass++]) {
        fa_fft_pass_of<false>(fft.radix[pass], z, 0, fft.size, length, fft.table + 2 * (fft.size - length));
    }
    fa_fft_leaves_of<true, false>(fft.radix[fft.passes - 1], z, 0, fft.size, unused);
}

// Lanes of the result that are one vector.
template <class Piece>
struct FaHalveResult {
    using Vector = fa_float8;
};
template <>
struct FaHalveResult<fa_float4> {
    using Vector = fa_float4;
};

// Two blocks of N samples to two of N / 2: sample 8 m + l of a is in room[h][m][0][i], of b in room[h][m][1][i], l =
// kOut h + i, an array (8 / kOut, N / 16, 2, kOut) with as many lanes kOut as Piece has, but at most 8.
template <class Piece>
FA_HD void fa_halve_pair(const FaHalves& halves, const float* a, const float* b, const FaAhead& ahead, float* room) {
    using Out = typename FaHalveResult<Piece>::Vector;
    constexpr int kIn = sizeof(Piece) / sizeof(float), kOut = sizeof(Out) / sizeof(float);
    const int size = halves.fft.size;
    FA_UNROLL(4)
    for (int h = 0; h < kHalveIn / kIn; ++h) {
        fa_halve_forward(halves.fft, a + kIn * h, b + kIn * h, reinterpret_cast<FaComplex<Piece>*>(room) + h * size);
    }
    float* tile = room + 2 * kHalveIn * size;
    for (int q = 0; q < size; q += kIn) {
        fa_fetch(ahead, q / kIn, size / kIn);
        FA_UNROLL(4)
        for (int h = 0; h < kHalveIn / kIn; ++h) {
            const float* z = room + (h * size + q) * 2 * kIn;
            float* lanes = tile + h * kIn * 2 * kIn;
            fa_transpose_tile<Out, kIn, kIn>(z, 2 * kIn, lanes, 2 * kIn);
            fa_transpose_tile<Out, kIn, kIn>(z + kIn, 2 * kIn, lanes + kIn, 2 * kIn);
        }
        const float* factors = halves.factors + q / kHalveGroup * (kHalveTurns + kHalveGains) + q % kHalveGroup;
        fa_halve_across(reinterpret_cast<FaComplex<Piece>*>(tile), factors, factors + kHalveTurns);
        FA_UNROLL(2)  // over bins that have been read: at the same place, or behind it where the result is narrower
        for (int h = 0; h < kHalveOut / kOut; ++h) {
            const float* lanes = tile + h * kOut * 2 * kIn;
            float* u = room + (h * size + q) * 2 * kOut;
            fa_transpose_tile<Out, kOut, kIn>(lanes, 2 * kIn, u, 2 * kOut);
            fa_transpose_tile<Out, kOut, kIn>(lanes + kIn, 2 * kIn, u + kOut, 2 * kOut);
        }
    }
    FA_UNROLL(2)
    for (int h = 0; h < kHalveOut / kOut; ++h) {
        fa_fft_inverse(halves.fft, reinterpret_cast<FaComplex<Out>*>(room) + h * size);
    }
}

// Outputs [begin, end) of the two blocks, multiples of 8, behind each other, and NaN if one of them is not finite, else
// 0. room: as fa_halve_pair leaves it.
template <class Piece>
FA_HD void fa_halve_outputs(const FaHalves& halves, const float* room, int begin, int end, float* y, float* sick) {
    using Out = typename FaHalveResult<Piece>::Vector;
    constexpr int kOut = sizeof(Out) / sizeof(float);
    Out sum = {};
    for (int part = 0; part < 2; ++part) {
        for (int m = begin / kHalveOut; m < end / kHalveOut; ++m) {
            FA_UNROLL(2)
            for (int h = 0; h < kHalveOut / kOut; ++h, y += kOut) {
                Out value;
                fa_load(room + ((h * halves.fft.size + m) * 2 + part) * kOut, value);
                sum += value * fa_splat<Out>(0.0f);
                memcpy(y, &value, sizeof value);
            }
        }
    }
    *sick = 0.0f;
    for (int i = 0; i < kOut; ++i) *sick += sum[i];
}
