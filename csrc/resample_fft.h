// CPU only: sample-rate conversion by overlap-save. A block of source samples goes through a real FFT, its spectrum is
// multiplied by the filter's and cut or padded to the other rate's length, and an inverse FFT of that length gives the
// block's outputs. Sixteen blocks lie side by side in the lanes of a vector.
//
// Blocks lie on a grid of output indices that does not depend on the range asked for, and lanes do not mix: an output's
// bits depend on its block's source samples alone. The two FFTs are complex ones of half the length over (even, odd)
// samples (Press et al., Numerical Recipes, 12.3); untangling, filter and tangling are one step of four products.
// Decimation in frequency, then in time: the spectrum stays in digit-reversed order, which tables of indices undo.
#pragma once

#include "resample_cpu.h"

constexpr int kFftLanes = kResampleLanes;
constexpr int kFftComplex = 2 * kFftLanes;  // floats of one complex number in all lanes: real parts, imaginary parts
constexpr int kFftMostPasses = 16;

// A complex FFT of mixed radices. twiddles: for each pass of length > radix, (length / radix, radix - 1, 2).
struct FaFft {
    long long size;
    int passes;
    int radix[kFftMostPasses];
    const float* twiddles;
};

// Outputs [block * outputs, (block + 1) * outputs) come from source samples from block * hop - lead on.
struct FaBlocks {
    FaFft forward, inverse;  // complex sizes: half the numbers of real samples
    long long outputs, hop, lead;
    // Number k of the spectrum of (even, odd) outputs, stored at target[k], is the sum over four terms:
    // c0 Z[i0] + c1 conj(Z[i1]) + c2 Z[i2] + c3 conj(Z[i3]), Z the spectrum of (even, odd) source samples.
    const int32_t* target;   // (inverse.size)
    const int32_t* sources;  // (inverse.size, 4)
    const float* factors;    // (inverse.size, 4, 2)
};

template <class V>
struct FaPair {
    V re, im;
};

template <class V>
FA_HD V fa_all(float value) {
    return V{} + value;
}

template <class V>
FA_HD FaPair<V> fa_load_pair(const float* from) {
    FaPair<V> value;
    memcpy(&value.re, from, sizeof(V));
    memcpy(&value.im, from + kFftLanes, sizeof(V));
    return value;
}

template <class V>
FA_HD void fa_store_pair(float* to, const FaPair<V>& value) {
    memcpy(to, &value.re, sizeof(V));
    memcpy(to + kFftLanes, &value.im, sizeof(V));
}

template <class V>
FA_HD FaPair<V> operator+(const FaPair<V>& a, const FaPair<V>& b) {
    return {a.re + b.re, a.im + b.im};
}

template <class V>
FA_HD FaPair<V> operator-(const FaPair<V>& a, const FaPair<V>& b) {
    return {a.re - b.re, a.im - b.im};
}

// -i a forwards, i a in the inverse.
template <bool kInverse, class V>
FA_HD FaPair<V> fa_quarter_turn(const FaPair<V>& a) {
    if constexpr (kInverse) return {-a.im, a.re};
    return {a.im, -a.re};
}

// a times w = (w[0], w[1]), or its conjugate in the inverse.
template <bool kInverse, class V>
FA_HD FaPair<V> fa_turn(const FaPair<V>& a, const float* w) {
    const V c = fa_all<V>(w[0]), s = fa_all<V>(kInverse ? -w[1] : w[1]);
    return {fa_fma(a.re, c, -(a.im * s)), fa_fma(a.re, s, a.im * c)};
}

// sum + a * factor
template <class V>
FA_HD FaPair<V> fa_add_scaled(const FaPair<V>& sum, const FaPair<V>& a, float factor) {
    const V f = fa_all<V>(factor);
    return {fa_fma(a.re, f, sum.re), fa_fma(a.im, f, sum.im)};
}

template <bool kInverse, class V>
FA_HD void fa_dft(FaPair<V> (&x)[2]) {
    const FaPair<V> a = x[0];
    x[0] = a + x[1];
    x[1] = a - x[1];
}

template <bool kInverse, class V>
FA_HD void fa_dft(FaPair<V> (&x)[4]) {
    const FaPair<V> a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3];
    const FaPair<V> d = fa_quarter_turn<kInverse>(x[1] - x[3]);
    x[0] = a + c;
    x[1] = b + d;
    x[2] = a - c;
    x[3] = b - d;
}

template <bool kInverse, class V>
FA_HD void fa_dft(FaPair<V> (&x)[8]) {
    FaPair<V> even[4] = {x[0], x[2], x[4], x[6]}, odd[4] = {x[1], x[3], x[5], x[7]};
    fa_dft<kInverse>(even);
    fa_dft<kInverse>(odd);
    const V root = fa_all<V>(0.70710678118654752f);
    const FaPair<V> turned1 = fa_quarter_turn<kInverse>(odd[1]), turned3 = fa_quarter_turn<kInverse>(odd[3]);
    const FaPair<V> one = odd[1] + turned1, three = turned3 - odd[3];
    const FaPair<V> two = fa_quarter_turn<kInverse>(odd[2]);
    x[0] = even[0] + odd[0];
    x[4] = even[0] - odd[0];
    x[1] = {fa_fma(one.re, root, even[1].re), fa_fma(one.im, root, even[1].im)};
    x[5] = {fa_fma(one.re, -root, even[1].re), fa_fma(one.im, -root, even[1].im)};
    x[2] = even[2] + two;
    x[6] = even[2] - two;
    x[3] = {fa_fma(three.re, root, even[3].re), fa_fma(three.im, root, even[3].im)};
    x[7] = {fa_fma(three.re, -root, even[3].re), fa_fma(three.im, -root, even[3].im)};
}

// An odd radix from the sums and differences of x[r] and x[R - r]; cosines and sines of 2 pi n / R, n = 1..R / 2.
template <bool kInverse, int R, class V>
FA_HD void fa_odd_dft(FaPair<V> (&x)[R], const float* cosine, const float* sine) {
    constexpr int kHalf = R / 2;
    FaPair<V> sums[kHalf], differences[kHalf];
    const FaPair<V> first = x[0];
    FaPair<V> total = first;
#pragma GCC unroll 4
    for (int r = 0; r < kHalf; ++r) {
        sums[r] = x[r + 1] + x[R - 1 - r];
        differences[r] = fa_quarter_turn<kInverse>(x[r + 1] - x[R - 1 - r]);
        total = total + sums[r];
    }
    x[0] = total;
#pragma GCC unroll 4
    for (int t = 1; t <= kHalf; ++t) {
        FaPair<V> even = first, odd = {V{}, V{}};
#pragma GCC unroll 4
        for (int r = 1; r <= kHalf; ++r) {
            const int turns = r * t % R;
            const bool mirrored = turns > kHalf;
            const int n = (mirrored ? R - turns : turns) - 1;
            even = fa_add_scaled(even, sums[r - 1], cosine[n]);
            odd = fa_add_scaled(odd, differences[r - 1], mirrored ? -sine[n] : sine[n]);
        }
        x[t] = even + odd;
        x[R - t] = even - odd;
    }
}

template <bool kInverse, class V>
FA_HD void fa_dft(FaPair<V> (&x)[3]) {
    constexpr float cosine[] = {-0.5f}, sine[] = {0.86602540378443865f};
    fa_odd_dft<kInverse, 3>(x, cosine, sine);
}

template <bool kInverse, class V>
FA_HD void fa_dft(FaPair<V> (&x)[5]) {
    constexpr float cosine[] = {0.30901699437494742f, -0.80901699437494742f};
    constexpr float sine[] = {0.95105651629515357f, 0.58778525229247313f};
    fa_odd_dft<kInverse, 5>(x, cosine, sine);
}

template <bool kInverse, class V>
FA_HD void fa_dft(FaPair<V> (&x)[7]) {
    constexpr float cosine[] = {0.62348980185873353f, -0.22252093395631440f, -0.90096886790241913f};
    constexpr float sine[] = {0.78183148246802981f, 0.97492791218182361f, 0.43388373911755812f};
    fa_odd_dft<kInverse, 7>(x, cosine, sine);
}

// One butterfly: numbers `stride` apart, twiddled behind a forward one and before an inverse one.
template <class V, int R, bool kInverse, bool kTwiddled>
FA_HD void fa_butterfly(float* data, long long stride, const float* w) {
    for (int lane = 0; lane < kFftLanes; lane += static_cast<int>(sizeof(V) / sizeof(float))) {
        FaPair<V> x[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) x[r] = fa_load_pair<V>(data + r * stride * kFftComplex + lane);
        if constexpr (kInverse && kTwiddled) {
#pragma GCC unroll 8
            for (int r = 1; r < R; ++r) x[r] = fa_turn<true>(x[r], w + 2 * (r - 1));
        }
        fa_dft<kInverse>(x);
        if constexpr (!kInverse && kTwiddled) {
#pragma GCC unroll 8
            for (int r = 1; r < R; ++r) x[r] = fa_turn<false>(x[r], w + 2 * (r - 1));
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) fa_store_pair(data + r * stride * kFftComplex + lane, x[r]);
    }
}

// One pass over `size` numbers: butterflies within runs of `length`.
template <class V, int R, bool kInverse>
FA_HD void fa_fft_pass(float* data, long long size, long long length, const float* twiddles) {
    const long long stride = length / R;
    for (long long group = 0; group < size; group += length) {
        float* run = data + group * kFftComplex;
        if (stride == 1) {
            fa_butterfly<V, R, kInverse, false>(run, 1, nullptr);
            continue;
        }
        for (long long j = 0; j < stride; ++j) {
            fa_butterfly<V, R, kInverse, true>(run + j * kFftComplex, stride, twiddles + j * 2 * (R - 1));
        }
    }
}

template <class V, bool kInverse>
FA_HD void fa_fft_pass_of(int radix, float* data, long long size, long long length, const float* twiddles) {
    if (radix == 8) return fa_fft_pass<V, 8, kInverse>(data, size, length, twiddles);
    if (radix == 4) return fa_fft_pass<V, 4, kInverse>(data, size, length, twiddles);
    if (radix == 2) return fa_fft_pass<V, 2, kInverse>(data, size, length, twiddles);
    if (radix == 3) return fa_fft_pass<V, 3, kInverse>(data, size, length, twiddles);
    if (radix == 5) return fa_fft_pass<V, 5, kInverse>(data, size, length, twiddles);
    return fa_fft_pass<V, 7, kInverse>(data, size, length, twiddles);
}

// In place; natural to digit-reversed order.
template <class V>
FA_HD void fa_fft_forward(const FaFft& fft, float* data) {
    const float* twiddles = fft.twiddles;
    long long length = fft.size;
    for (int pass = 0; pass < fft.passes; ++pass) {
        const int radix = fft.radix[pass];
        fa_fft_pass_of<V, false>(radix, data, fft.size, length, twiddles);
        twiddles += length / radix * 2 * (radix - 1);
        length /= radix;
    }
}

// In place, without the factor 1 / size; digit-reversed to natural order.
template <class V>
FA_HD void fa_fft_inverse(const FaFft& fft, float* data) {
    const float* twiddles = fft.twiddles;
    long long length = fft.size;
    for (int pass = 0; pass < fft.passes; ++pass) {
        twiddles += length / fft.radix[pass] * 2 * (fft.radix[pass] - 1);
        length /= fft.radix[pass];
    }
    for (int pass = fft.passes - 1; pass >= 0; --pass) {
        const int radix = fft.radix[pass];
        twiddles -= length * 2 * (radix - 1);
        length *= radix;
        fa_fft_pass_of<V, true>(radix, data, fft.size, length, twiddles);
    }
}

// The filter: spectrum (forward.size, 2, 16) to result (inverse.size, 2, 16).
template <class V>
FA_HD void fa_filter_spectrum(const FaBlocks& blocks, const float* spectrum, float* result) {
    for (long long k = 0; k < blocks.inverse.size; ++k) {
        const int32_t* at = blocks.sources + 4 * k;
        const float* factor = blocks.factors + 8 * k;
        for (int lane = 0; lane < kFftLanes; lane += static_cast<int>(sizeof(V) / sizeof(float))) {
            FaPair<V> sum = {V{}, V{}};
#pragma GCC unroll 4
            for (int term = 0; term < 4; ++term) {
                FaPair<V> z = fa_load_pair<V>(spectrum + at[term] * static_cast<long long>(kFftComplex) + lane);
                if (term % 2) z.im = -z.im;
                const V c = fa_all<V>(factor[2 * term]), s = fa_all<V>(factor[2 * term + 1]);
                sum = {fa_fma(z.im, -s, fa_fma(z.re, c, sum.re)), fa_fma(z.im, c, fa_fma(z.re, s, sum.im))};
            }
            fa_store_pair(result + blocks.target[k] * static_cast<long long>(kFftComplex) + lane, sum);
        }
    }
}

typedef int32_t fa_int4 __attribute__((vector_size(16)));

#if defined(__clang__)
#define FA_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define FA_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, fa_int4{i, j, k, l})
#endif

// x (samples, 16) from sixteen rows of `samples` floats.
FA_HD void fa_side_by_side(const float* const* rows, long long samples, float* x) {
    for (long long n = 0; n < samples; n += 4) {
        for (int s = 0; s < kFftLanes; s += 4) {
            fa_float4 a, b, c, d;
            memcpy(&a, rows[s] + n, sizeof a);
            memcpy(&b, rows[s + 1] + n, sizeof b);
            memcpy(&c, rows[s + 2] + n, sizeof c);
            memcpy(&d, rows[s + 3] + n, sizeof d);
            const fa_float4 ab = FA_SHUFFLE(a, b, 0, 4, 1, 5), ab2 = FA_SHUFFLE(a, b, 2, 6, 3, 7);
            const fa_float4 cd = FA_SHUFFLE(c, d, 0, 4, 1, 5), cd2 = FA_SHUFFLE(c, d, 2, 6, 3, 7);
            const fa_float4 columns[4] = {FA_SHUFFLE(ab, cd, 0, 1, 4, 5), FA_SHUFFLE(ab, cd, 2, 3, 6, 7),
                                          FA_SHUFFLE(ab2, cd2, 0, 1, 4, 5), FA_SHUFFLE(ab2, cd2, 2, 3, 6, 7)};
            for (int i = 0; i < 4; ++i) memcpy(x + (n + i) * kFftLanes + s, &columns[i], sizeof columns[i]);
        }
    }
}

// Sixteen rows of `samples` floats from x (samples, 16), both multiples of 4.
FA_HD void fa_one_below_the_other(const float* x, long long samples, float* const* rows) {
    for (long long n = 0; n < samples; n += 4) {
        for (int s = 0; s < kFftLanes; s += 4) {
            fa_float4 a, b, c, d;
            memcpy(&a, x + n * kFftLanes + s, sizeof a);
            memcpy(&b, x + (n + 1) * kFftLanes + s, sizeof b);
            memcpy(&c, x + (n + 2) * kFftLanes + s, sizeof c);
            memcpy(&d, x + (n + 3) * kFftLanes + s, sizeof d);
            const fa_float4 ab = FA_SHUFFLE(a, b, 0, 4, 1, 5), ab2 = FA_SHUFFLE(a, b, 2, 6, 3, 7);
            const fa_float4 cd = FA_SHUFFLE(c, d, 0, 4, 1, 5), cd2 = FA_SHUFFLE(c, d, 2, 6, 3, 7);
            const fa_float4 columns[4] = {FA_SHUFFLE(ab, cd, 0, 1, 4, 5), FA_SHUFFLE(ab, cd, 2, 3, 6, 7),
                                          FA_SHUFFLE(ab2, cd2, 0, 1, 4, 5), FA_SHUFFLE(ab2, cd2, 2, 3, 6, 7)};
            for (int i = 0; i < 4; ++i) memcpy(rows[s + i] + n, &columns[i], sizeof columns[i]);
        }
    }
}

// Sixteen blocks: their source samples (2 forward.size each) to their outputs, each row with room for a multiple of 4.
// room: (forward.size + inverse.size) * 32 floats, aligned to 64 bytes. sick[lane] is NaN where an output is not
// finite: a NaN or Inf, or an overflow, has spread over the whole block; else 0.
template <class Piece>
FA_HD void fa_run_blocks(const FaBlocks& blocks, const float* const* inputs, float* room, float* const* rows,
                         float* sick) {
    float* result = room + blocks.forward.size * kFftComplex;
    fa_side_by_side(inputs, 2 * blocks.forward.size, room);
    fa_fft_forward<Piece>(blocks.forward, room);
    fa_filter_spectrum<Piece>(blocks, room, result);
    fa_fft_inverse<Piece>(blocks.inverse, result);
    FaLanes<Piece> sum, value;
    fa_clear(sum);
    for (long long n = 0; n < blocks.outputs; ++n) {
        fa_load(result + n * kFftLanes, value);
        fa_add_product(sum, value, 0.0f);
    }
    memcpy(sick, &sum, sizeof sum);
    fa_one_below_the_other(result, (blocks.outputs + 3) / 4 * 4, rows);
}
