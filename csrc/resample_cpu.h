// CPU only: the dot products of resample.h, lanes in vector registers.
#pragma once

#include "fa_simd.h"
#include "resample.h"

typedef float fa_float16 __attribute__((vector_size(64)));

// Loads by memcpy: sources are unaligned. Written to a reference, since a vector return value has no stable ABI.
FA_HD void fa_load(const float* source, fa_float16& value) { memcpy(&value, source, sizeof value); }

FA_HD float fa_sum_lanes(const fa_float16& sums) {
    float lane[kResampleLanes];
    memcpy(lane, &sums, sizeof sums);
    for (int distance = kResampleLanes / 2; distance; distance /= 2) {
        for (int i = 0; i < distance; ++i) lane[i] += lane[i + distance];
    }
    return lane[0];
}

FA_HD float fa_dot(const float* x, const float* taps, long long width) {
    fa_float16 sums = {};
    for (long long j = 0; j < width; j += kResampleLanes) {
        fa_float16 a, b;
        fa_load(x + j, a);
        fa_load(taps + j, b);
        sums += a * b;
    }
    return fa_sum_lanes(sums);
}

// Four outputs that share one phase: the taps are loaded once. Each sum is the one that fa_dot computes.
FA_HD void fa_dot4(const float* x, long long hop, const float* taps, long long width, float* y, long long y_hop) {
    fa_float16 s0 = {}, s1 = {}, s2 = {}, s3 = {};
    for (long long j = 0; j < width; j += kResampleLanes) {
        fa_float16 h, a, b, c, d;
        fa_load(taps + j, h);
        fa_load(x + j, a);
        fa_load(x + hop + j, b);
        fa_load(x + 2 * hop + j, c);
        fa_load(x + 3 * hop + j, d);
        s0 += a * h;
        s1 += b * h;
        s2 += c * h;
        s3 += d * h;
    }
    y[0] = fa_sum_lanes(s0);
    y[y_hop] = fa_sum_lanes(s1);
    y[2 * y_hop] = fa_sum_lanes(s2);
    y[3 * y_hop] = fa_sum_lanes(s3);
}

// Taps from the quadratics of one interval of the interpolated table (3, width).
FA_HD float fa_dot_interpolated(const float* x, const float* table, long long width, float fraction) {
    fa_float16 sums = {};
    for (long long j = 0; j < width; j += kResampleLanes) {
        fa_float16 a, c0, c1, c2;
        fa_load(x + j, a);
        fa_load(table + j, c0);
        fa_load(table + width + j, c1);
        fa_load(table + 2 * width + j, c2);
        sums += a * (c0 + fraction * (c1 + fraction * c2));
    }
    return fa_sum_lanes(sums);
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
    for (long long j = 0; j < width; ++j) {
        const long long at = offset + j;
        scratch[j] = at >= 0 && at < source.count ? source.x[at] : 0.0f;
    }
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
