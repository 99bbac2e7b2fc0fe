// CPU only: one filter over one channel, by direct convolution or overlap-save (Stockham 1966). Both put stretches of
// the same channel side by side in the lanes of a vector, so that neither a row's company nor its thread touches a bit
// of it, and neither shifts samples across lanes: a window slides over whole vectors.
#pragma once

#include "fft.h"
#include "fir.h"

constexpr long long kFirChunk = 512;  // outputs of a stretch at a time in direct form: what it reads stays in L1 and L2

struct FaFir {
    const float* taps;  // 0..half, of sum 1 with their mirror images
    long long half;
    bool highpass;
    // Overlap-save only.
    int points;             // of a transform
    long long hop;          // outputs of a block, a multiple of 16, at most points - 2 * half
    const float* table;     // of fft.h
    const float* circular;  // (points): the taps as one period around 0, divided by points
    const float* silence;   // (points) zeros
    float* spectrum;        // (points) scratch
};

// A channel: x[t] is readable for t from -half to length + half + whatever the last stretches or blocks need.
struct FaFirLine {
    const float* x;
    float* y;  // may be where x was copied from
    long long length;
    float* work;  // 64-byte aligned scratch, fa_fir_work floats
};

template <class Piece>
struct FaHalf;
template <>
struct FaHalf<fa_float16> {
    typedef fa_float8 type;
};
template <>
struct FaHalf<fa_float8> {
    typedef fa_float4 type;
};
template <>
struct FaHalf<fa_float4> {
    typedef fa_float4 type;
};

// columns (count, kRows) from rows of `count` floats, a multiple of 16: a cache line of each row at a time.
template <int kRows>
FA_HD void fa_fir_gather(const float* const* rows, long long count, float* columns) {
    for (long long line = 0; line < count; line += 16, columns += 16 * kRows) {
        for (int r = 0; r < kRows; r += 4) {
            const float* row[4] = {rows[r] + line, rows[r + 1] + line, rows[r + 2] + line, rows[r + 3] + line};
            float* to = columns + r;
#pragma GCC unroll 4
            for (int n = 0; n < 16; n += 4, to += 4 * kRows) {
                fa_float4 tile[4];
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) memcpy(&tile[i], row[i] + n, sizeof tile[i]);
                fa_transpose_four(tile);
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) memcpy(to + i * kRows, &tile[i], sizeof tile[i]);
            }
        }
    }
}

// Four rows of the low-passed columns, 16 samples.
template <int kRows, bool kHighpass>
FA_HD void fa_fir_scatter_four(const float* columns, const float* const* x, float* const* y) {
#pragma GCC unroll 4
    for (int n = 0; n < 16; n += 4, columns += 4 * kRows) {
        fa_float4 tile[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) memcpy(&tile[i], columns + i * kRows, sizeof tile[i]);
        fa_transpose_four(tile);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            if constexpr (kHighpass) {
                fa_float4 sample;
                memcpy(&sample, x[i] + n, sizeof sample);
                tile[i] = sample - tile[i];
            }
            memcpy(y[i] + n, &tile[i], sizeof tile[i]);
        }
    }
}

// The low-passed columns (count, kRows), a multiple of 16, to outputs starts[row] + n, as far as they are below `end`.
template <int kRows>
FA_HD void fa_fir_scatter(const FaFirLine& line, bool highpass, const float* columns, long long count,
                          const long long* starts, long long end) {
    for (long long n = 0; n < count; n += 16, columns += 16 * kRows) {
        for (int r = 0; r < kRows; r += 4) {
            const float* x[4];
            float* y[4];
            float spill[4][16];
            bool whole = true;
            for (int i = 0; i < 4; ++i) {
                const long long t = fa_min(starts[r + i] + n, end);
                x[i] = line.x + t, y[i] = t + 16 <= end ? line.y + t : spill[i];
                whole = whole && t + 16 <= end;
            }
            if (highpass) {
                fa_fir_scatter_four<kRows, true>(columns + r, x, y);
            } else {
                fa_fir_scatter_four<kRows, false>(columns + r, x, y);
            }
            for (int i = 0; !whole && i < 4; ++i) {
                const long long t = fa_min(starts[r + i] + n, end);
                for (long long k = 0; t + 16 > end && t + k < end; ++k) line.y[t + k] = spill[i][k];
            }
        }
    }
}

// kTile neighbouring outputs of every lane; a pair of taps loads two new vectors for as many multiply-adds.
template <int kTile, class Piece>
FA_HD void fa_fir_tile(const Piece* x, const float* taps, long long half, Piece* y) {
    Piece sum[kTile] = {};
    long long j = half;
    for (; j % kTile; --j) {
        const Piece tap = fa_splat<Piece>(taps[j]);
#pragma GCC unroll 8
        for (int i = 0; i < kTile; ++i) sum[i] = fa_fir_term(sum[i], tap, x[i - j], x[i + j]);
    }
    Piece left[kTile], right[kTile];
#pragma GCC unroll 8
    for (int i = 0; i < kTile; ++i) left[i] = x[i - j], right[i] = x[i + j];
    for (; j > 0; j -= kTile) {
#pragma GCC unroll 8
        for (int step = 0; step < kTile; ++step) {
            const Piece tap = fa_splat<Piece>(taps[j - step]);
#pragma GCC unroll 8
            for (int i = 0; i < kTile; ++i) {
                sum[i] = fa_fir_term(sum[i], tap, left[(i + step) % kTile], right[(i + kTile - step) % kTile]);
            }
            left[step] = x[kTile + step - j];
            right[kTile - 1 - step] = x[j - step - 1];
        }
    }
    const Piece centre = fa_splat<Piece>(taps[0]);
#pragma GCC unroll 8
    for (int i = 0; i < kTile; ++i) y[i] = fa_fma(centre, x[i], sum[i]);
}

// Direct form of outputs [begin, end): each lane a stretch of them.
template <class Piece>
FA_HD void fa_fir_direct(const FaFir& fir, const FaFirLine& line, long long begin, long long end) {
    constexpr int kLanes = sizeof(Piece) / sizeof(float), kTile = sizeof(Piece) == 64 ? 8 : 4;
    const long long hop = ((end - begin + kLanes - 1) / kLanes + 15) / 16 * 16;
    for (long long first = 0; first < hop; first += kFirChunk) {
        const long long count = fa_min(kFirChunk, hop - first), read = (count + 2 * fir.half + 15) / 16 * 16;
        const float* rows[kLanes];
        long long starts[kLanes];
        for (int r = 0; r < kLanes; ++r) {
            starts[r] = fa_min(begin + hop * r + first, end);
            rows[r] = line.x + starts[r] - fir.half;
        }
        fa_fir_gather<kLanes>(rows, read, line.work);
        Piece* x = reinterpret_cast<Piece*>(line.work);
        Piece* y = x + read;
        for (long long n = 0; n < count; n += kTile) {
            fa_fir_tile<kTile>(x + fir.half + n, fir.taps, fir.half, y + n);
        }
        fa_fir_scatter<kLanes>(line, fir.highpass, reinterpret_cast<float*>(y), count, starts, end);
    }
}

// True if a transform of these samples neither meets a NaN or Inf nor overflows to one: its outputs would all be NaN,
// where the filter spreads one over its own length only.
FA_HD bool fa_fir_tame(const float* x, long long count) {
    float energy = 0.0f;
    for (long long i = 0; i < count; ++i) energy += x[i] * x[i];
    return energy < 1e34f;
}

// Overlap-save of as many blocks from `block` on as one transform takes: two in each lane, as real and imaginary part,
// which a real spectrum keeps apart. In the first group one lane holds the taps and gives the spectrum of the filter.
// The symmetric taps stand around 0, so that block samples [half, points - half) come out right. Returns the next
// block.
template <class Piece>
FA_HD long long fa_fir_group(const FaFir& fir, const FaFirLine& line, long long block, bool checked) {
    constexpr int kLanes = sizeof(Piece) / sizeof(float), kRows = 2 * kLanes;
    const bool first = block == 0;
    const float* rows[kRows];
    long long starts[kRows];
    for (int r = 0; r < kRows; ++r) {
        starts[r] = line.length;
        rows[r] = first && r == kLanes - 1 ? fir.circular : fir.silence;
        const long long begin = block * fir.hop;
        if ((first && r % kLanes == kLanes - 1) || begin >= line.length) continue;
        ++block;
        if (checked && !fa_fir_tame(line.x + begin - fir.half, fir.points)) {
            fa_fir_direct<Piece>(fir, line, begin, fa_min(begin + fir.hop, line.length));
            continue;
        }
        starts[r] = begin;
        rows[r] = line.x + begin - fir.half;
    }
    fa_fir_gather<kRows>(rows, fir.points, line.work);
    float* spectrum = fir.spectrum;
    fa_fft_convolve(reinterpret_cast<FaComplex<Piece>*>(line.work), fir.points, fir.table,
                    [first, spectrum](FaComplex<Piece>* bins, int position, int count) {
                        for (int i = 0; i < count; ++i) {
                            float* gain = spectrum + position + i;
                            if (first) {
                                float lanes[kLanes];
                                memcpy(lanes, &bins[i].re, sizeof lanes);
                                *gain = lanes[kLanes - 1];
                            }
                            const Piece all = fa_splat<Piece>(*gain);
                            bins[i].re *= all, bins[i].im *= all;
                        }
                    });
    fa_fir_scatter<kRows>(line, fir.highpass, line.work + fir.half * kRows, fir.hop, starts, line.length);
    return block;
}

// A whole channel. checked: it has samples that could make fa_fir_tame false.
template <class Piece>
FA_HD void fa_fir_channel(const FaFir& fir, const FaFirLine& line, bool checked) {
    typedef typename FaHalf<Piece>::type Half;
    if (!fir.points) return fa_fir_direct<Piece>(fir, line, 0, line.length);
    const long long blocks = (line.length + fir.hop - 1) / fir.hop;
    for (long long block = 0; block < blocks;) {
        const long long left = blocks - block + (block ? 0 : 2);
        if (left <= static_cast<long long>(2 * sizeof(Half) / sizeof(float))) {
            block = fa_fir_group<Half>(fir, line, block, checked);
        } else {
            block = fa_fir_group<Piece>(fir, line, block, checked);
        }
    }
}
