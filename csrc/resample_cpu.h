// CPU only: the dot products of resample.h, lanes in vector registers.
#pragma once

#include "fa_simd.h"
#include "resample.h"

// Loads by memcpy: sources are unaligned. Written to a reference, since a vector return value has no stable ABI.
template <class Piece>
FA_HD void fa_load(const float* source, FaLanes<Piece>& value) {
    for (int i = 0; i < value.kPieces; ++i) memcpy(&value.piece[i], source + i * 16 / value.kPieces, sizeof(Piece));
}

template <class Piece>
FA_HD void fa_clear(FaLanes<Piece>& value) {
    for (int i = 0; i < value.kPieces; ++i) value.piece[i] = Piece{};
}

template <class Piece>
FA_HD void fa_add_product(FaLanes<Piece>& sum, const FaLanes<Piece>& a, const FaLanes<Piece>& b) {
    for (int i = 0; i < sum.kPieces; ++i) sum.piece[i] += a.piece[i] * b.piece[i];
}

template <class Piece>
FA_HD void fa_add_product(FaLanes<Piece>& sum, const FaLanes<Piece>& a, float b) {
    for (int i = 0; i < sum.kPieces; ++i) sum.piece[i] += a.piece[i] * b;
}

template <class Piece>
FA_HD void fa_add(FaLanes<Piece>& sum, const FaLanes<Piece>& a) {
    for (int i = 0; i < sum.kPieces; ++i) sum.piece[i] += a.piece[i];
}

template <class Piece>
FA_HD float fa_sum_lanes(const FaLanes<Piece>& sums) {
    float lane[kResampleLanes];
    memcpy(lane, &sums, sizeof lane);
    for (int distance = kResampleLanes / 2; distance; distance /= 2) {
        for (int i = 0; i < distance; ++i) lane[i] += lane[i + distance];
    }
    return lane[0];
}

template <class Piece>
FA_HD float fa_dot(const float* x, const float* taps, long long width) {
    FaLanes<Piece> sums, a, b;
    fa_clear(sums);
    for (long long j = 0; j < width; j += kResampleLanes) {
        fa_load(x + j, a);
        fa_load(taps + j, b);
        fa_add_product(sums, a, b);
    }
    return fa_sum_lanes(sums);
}

// Four outputs that share one phase: the taps are loaded once. Each sum is the one that fa_dot computes.
template <class Piece>
FA_HD void fa_dot4(const float* x, long long hop, const float* taps, long long width, float* y, long long y_hop) {
    FaLanes<Piece> s0, s1, s2, s3, h, a;
    fa_clear(s0);
    fa_clear(s1);
    fa_clear(s2);
    fa_clear(s3);
    for (long long j = 0; j < width; j += kResampleLanes) {
        fa_load(taps + j, h);
        fa_load(x + j, a);
        fa_add_product(s0, a, h);
        fa_load(x + hop + j, a);
        fa_add_product(s1, a, h);
        fa_load(x + 2 * hop + j, a);
        fa_add_product(s2, a, h);
        fa_load(x + 3 * hop + j, a);
        fa_add_product(s3, a, h);
    }
    y[0] = fa_sum_lanes(s0);
    y[y_hop] = fa_sum_lanes(s1);
    y[2 * y_hop] = fa_sum_lanes(s2);
    y[3 * y_hop] = fa_sum_lanes(s3);
}

// Taps from the quadratics of one interval of the interpolated table (3, width).
template <class Piece>
FA_HD float fa_dot_interpolated(const float* x, const float* table, long long width, float fraction) {
    FaLanes<Piece> sums, a, c0, c1, c2;
    fa_clear(sums);
    for (long long j = 0; j < width; j += kResampleLanes) {
        fa_load(x + j, a);
        fa_load(table + j, c0);
        fa_load(table + width + j, c1);
        fa_load(table + 2 * width + j, c2);
        for (int i = 0; i < sums.kPieces; ++i) {
            sums.piece[i] += a.piece[i] * (c0.piece[i] + fraction * (c1.piece[i] + fraction * c2.piece[i]));
        }
    }
    return fa_sum_lanes(sums);
}

// Four outputs in the same interval: its quadratics are loaded once. Each sum is the one that fa_dot_interpolated
// computes.
template <class Piece>
FA_HD void fa_dot_interpolated4(const float* const (&x)[4], const float* table, long long width,
                                const float (&fraction)[4], float (&y)[4]) {
    FaLanes<Piece> s0, s1, s2, s3, a, c0, c1, c2;
    fa_clear(s0);
    fa_clear(s1);
    fa_clear(s2);
    fa_clear(s3);
    const auto add = [&](FaLanes<Piece>& sum, const float* from, float at) __attribute__((always_inline)) {
        fa_load(from, a);
        for (int i = 0; i < sum.kPieces; ++i) {
            sum.piece[i] += a.piece[i] * (c0.piece[i] + at * (c1.piece[i] + at * c2.piece[i]));
        }
    };
    for (long long j = 0; j < width; j += kResampleLanes) {
        fa_load(table + j, c0);
        fa_load(table + width + j, c1);
        fa_load(table + 2 * width + j, c2);
        add(s0, x[0] + j, fraction[0]);
        add(s1, x[1] + j, fraction[1]);
        add(s2, x[2] + j, fraction[2]);
        add(s3, x[3] + j, fraction[3]);
    }
    y[0] = fa_sum_lanes(s0);
    y[1] = fa_sum_lanes(s1);
    y[2] = fa_sum_lanes(s2);
    y[3] = fa_sum_lanes(s3);
}

// A stretch of a signal: x holds its samples [start, start + count); all others are zero.
struct FaStretch {
    const float* x;
    long long start;
    long long count;
};

// The samples [first, first + width): in place if x holds them all, else copied between zeros into `scratch`.
FA_HD const float* fa_window(const FaStretch& source, long long first, long long width, float* scratch) {
    const long long offset = first - source.start;
    if (offset >= 0 && offset + width <= source.count) return source.x + offset;
    const long long low = fa_min(fa_max(-offset, 0LL), width);
    const long long high = fa_max(fa_min(source.count - offset, width), low);
    for (long long j = 0; j < low; ++j) scratch[j] = 0.0f;
    for (long long j = low; j < high; ++j) scratch[j] = source.x[offset + j];
    for (long long j = high; j < width; ++j) scratch[j] = 0.0f;
    return scratch;
}

// The interpolated table of one filter, (kResamplePhases, 3, 2 * half). `ends`: 2 * half doubles of scratch.
FA_HD void fa_fill_table(const FaPrototype& prototype, double scale, long long half, double* ends, float* table) {
    const long long width = 2 * half;
    const double step = 1.0 / kResamplePhases;
    for (long long j = 0; j < width; ++j) ends[j] = fa_tap(prototype, scale, half, j, 0.0);
    for (long long phase = 0; phase < kResamplePhases; ++phase) {
        const double left = static_cast<double>(phase) * step;
        for (long long j = 0; j < width; ++j) {
            const double middle = fa_tap(prototype, scale, half, j, left + 0.5 * step);
            const double right = fa_tap(prototype, scale, half, j, left + step);
            fa_table_entry(ends[j], middle, right, width, j, table + phase * 3 * width);
            ends[j] = right;
        }
    }
}
