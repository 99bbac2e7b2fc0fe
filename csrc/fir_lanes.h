// CPU only: one filter over one channel, by direct convolution or overlap-save (Stockham 1966). Both put stretches of
// the same channel side by side in the lanes of a vector, so that neither a row's company nor its thread touches a bit
// of it, and neither shifts samples across lanes: a window slides over whole vectors.
#pragma once

#include "fft.h"
#include "fir.h"

constexpr long long kFirChunk = 512;  // outputs of a stretch at a time in direct form: what it reads stays in L1 and L2

struct FaFir {
    const float* taps;  // half, .., 1, 0: of sum 1 with their mirror images
    long long half;
    bool highpass;
    int points;  // of a transform; 0: direct form
    // Overlap-save only.
    const FaFft* fft;
    long long hop;          // outputs of a block, a multiple of 16, at most points - 2 * half
    const float* circular;  // (points): the taps as one period around 0, divided by points
    const float* silence;   // (points) zeros
    float* spectrum;        // (points) scratch
};

// A channel. Where x and y share memory, x is a copy.
struct FaFirLine {
    const float* x;
    float* y;
    long long length;
    float* work;   // columns, 64-byte aligned
    float* edges;  // room for a window of every row of the columns
};

// Samples [first, first + count) of a channel whose edge samples repeat outside it: in place, or copied to `room`.
FA_HD const float* fa_fir_window(const FaFirLine& line, long long first, long long count, float* room) {
    if (first >= 0 && first + count <= line.length) return line.x + first;
    for (long long i = 0; i < count; ++i) room[i] = line.x[fa_clamp<long long>(first + i, 0, line.length - 1)];
    return room;
}

// For groups of 16 blocks or fewer, which narrower vectors make anyway.
template <class Piece>
struct FaHalf {
    typedef Piece type;
};
template <>
struct FaHalf<fa_float16> {
    typedef fa_float8 type;
};

// The low-passed columns (count, kRows), a multiple of 16, to outputs starts[row] + n, as far as they are below `end`.
// The rows are first put together in `room`: as many streams of write misses at once would cost more than the filter.
template <int kRows>
FA_HD void fa_fir_scatter(const FaFirLine& line, bool highpass, const float* columns, long long count,
                          const long long* starts, long long end, float* room) {
    for (int r = 0; r < kRows; r += 4) {
        float* const together[4] = {room, room + count, room + 2 * count, room + 3 * count};
        fa_four_below_another<kRows>(columns + r, count, together);
        for (int i = 0; i < 4; ++i) {
            const long long kept = fa_min(count, end - starts[r + i]);
            const float* FA_RESTRICT x = line.x + starts[r + i];
            const float* FA_RESTRICT low = room + i * count;
            float* FA_RESTRICT y = line.y + starts[r + i];
            if (highpass) {
                for (long long n = 0; n < kept; ++n) y[n] = x[n] - low[n];
            } else {
                for (long long n = 0; n < kept; ++n) y[n] = low[n];
            }
        }
    }
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
            rows[r] = fa_fir_window(line, starts[r] - fir.half, read, line.edges + read * r);
        }
        fa_side_by_side<kLanes>(rows, read, line.work);
        Piece* x = reinterpret_cast<Piece*>(line.work);
        Piece* y = x + read;
        for (long long n = 0; n < count; n += kTile) {
            Piece sums[kTile] = {};
            const Piece* at = x + n;
            fa_fir_pairs<kTile>(at, at + 2 * fir.half, fir.taps, static_cast<int>(fir.half), sums);
            const Piece centre = fa_splat<Piece>(fir.taps[fir.half]);
            FA_UNROLL(8)
            for (int i = 0; i < kTile; ++i) y[n + i] = fa_fma(centre, at[fir.half + i], sums[i]);
        }
        fa_fir_scatter<kLanes>(line, fir.highpass, reinterpret_cast<float*>(y), count, starts, end, line.edges);
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
    long long starts[kRows], wild[kRows], wild_count = 0;
    for (int r = 0; r < kRows; ++r) {
        starts[r] = line.length;
        rows[r] = first && r == kLanes - 1 ? fir.circular : fir.silence;
        const long long begin = block * fir.hop;
        if ((first && r % kLanes == kLanes - 1) || begin >= line.length) continue;
        ++block;
        const float* window = fa_fir_window(line, begin - fir.half, fir.points, line.edges + r * fir.points);
        if (checked && !fa_fir_tame(window, fir.points)) {
            wild[wild_count++] = begin;
        } else {
            starts[r] = begin, rows[r] = window;
        }
    }
    fa_side_by_side<kRows>(rows, fir.points, line.work);
    float* spectrum = fir.spectrum;
    fa_fft_convolve(*fir.fft, reinterpret_cast<FaComplex<Piece>*>(line.work),
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
    fa_fir_scatter<kRows>(line, fir.highpass, line.work + fir.half * kRows, fir.hop, starts, line.length, line.edges);
    for (int i = 0; i < wild_count; ++i) {
        fa_fir_direct<Piece>(fir, line, wild[i], fa_min(wild[i] + fir.hop, line.length));
    }
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
