// The filters of repitch.h for rows of few samples (CPU), whose lanes are neighbouring outputs. The half-band and the
// flattening filter are one filter at the doubled rate here: more products an output than in repitch_lanes.h, but none
// for the history of a piece.
#pragma once

#include <type_traits>

#include "repitch_lanes.h"

constexpr int kCombinedReach = kHalfBandTaps - 1 + kFlatReach;  // taps on either side of the middle one
constexpr int kCombinedRoom = 128;                              // kCombinedReach, and zeros for whole vectors
constexpr int kMostTiles = 4;

// The combined filter around its middle, at all places of the doubled rate, at even and at odd ones: tap 2 u - 1.
struct FaCombined {
    float half_band[kHalfBandTaps];  // that it was made from
    float taps[2 * kCombinedRoom], even[2 * kCombinedRoom], odd[2 * kCombinedRoom];
};

// Places of a vector of outputs behind the first, in whole samples and in units of 2^-kFractionBits samples.
struct FaBehind {
    int64_t step;  // in units of 2^-kPositionBits samples
    alignas(64) int32_t lines[kPieces], fractions[kPieces];

    FA_HD explicit FaBehind(int64_t by) : step(by) {
        constexpr int64_t unit = int64_t{1} << kPositionBits;
        for (int n = 0; n < kPieces; ++n) {
            lines[n] = static_cast<int32_t>(n * step >> kPositionBits);
            fractions[n] = static_cast<int32_t>((n * step & (unit - 1)) >> (kPositionBits - kFractionBits));
        }
    }
};

// x[places], places from 0 on: below twice as many as there are lanes if `near`.
template <class Vector>
FA_HD Vector fa_pick(const float* x, const typename FaWhole<Vector>::type& places, bool near) {
    constexpr int width = kRepitchWidth<Vector>;
#if !defined(__clang__)
    if constexpr (width > 4) {
        if (near) return __builtin_shuffle(fa_line<Vector>(x), fa_line<Vector>(x + width), places);
    }
#endif
    (void)near;
    float picked[width];
    int32_t place[width];
    memcpy(place, &places, sizeof place);
    for (int i = 0; i < width; ++i) picked[i] = x[place[i]];
    return fa_line<Vector>(picked);
}

// The short filter of a row: `count` outputs from position `start` on, in units of 2^-kPositionBits samples, and as
// many more as make whole vectors.
template <class Vector, int kCount>
FA_HD void fa_short_row(const float* x, int64_t start, const FaBehind& behind, int count, const float* coefficients,
                        int pairs, float* y) {
    using Whole = typename FaWhole<Vector>::type;
    constexpr int width = kRepitchWidth<Vector>;
    constexpr int32_t unit = 1 << kFractionBits;
    const bool near = behind.lines[width - 1] + 1 < 2 * width;
    for (int n = 0; n < count; n += width) {
        const int64_t first = start + n * behind.step, line = first >> kPositionBits;
        const int64_t fraction = (first - (line << kPositionBits)) >> (kPositionBits - kFractionBits);
        const Whole at = fa_line<Whole>(behind.fractions) + static_cast<int32_t>(fraction);
        const Whole places = fa_line<Whole>(behind.lines) + (at >> kFractionBits);
        const Vector place = fa_fma(__builtin_convertvector(at & (unit - 1), Vector), fa_splat<Vector>(-2.0f / unit),
                                    fa_splat<Vector>(1.0f));
        Vector sum[kCount];
        FA_UNROLL(16) for (int q = 0; q < kCount; ++q) sum[q] = Vector{};
        const float* coefficient = coefficients;
        for (int j = 0; j < pairs; ++j) {
            const Vector left = fa_pick<Vector>(x + line - j, places, near),
                         right = fa_pick<Vector>(x + line + 1 + j, places, near);
            const Vector added = right + left, apart = right - left;
            FA_UNROLL(16) for (int q = 0; q < kCount; ++q, ++coefficient) {
                sum[q] = fa_fma(q % 2 ? apart : added, fa_splat<Vector>(*coefficient), sum[q]);
            }
        }
        const Vector value = fa_short_value(sum, place);
        memcpy(y + n, &value, sizeof value);
    }
}

template <class Vector>
FA_HD void short_row_lanes(const float* x, int64_t start, const FaBehind& behind, int count, const float* coefficients,
                           int pairs, int degree, float* y) {
    if (degree == kHighDegree)
        fa_short_row<Vector, kHighDegree + 1>(x, start, behind, count, coefficients, pairs, y);
    else
        fa_short_row<Vector, kLowDegree + 1>(x, start, behind, count, coefficients, pairs, y);
}

// y[i] = sum_c values[c] taps[first + i - kHop c], or that more, for i < kTiles vectors. Vectors whose outputs are as
// far apart as the values they meet share the loads of the taps. Taps beyond `reach` are zeros, and so are values below
// 0 and from `count` on.
template <class Vector, int kTiles, int kHop>
FA_HD void fa_products_tile(const float* values, int count, const float* taps, int reach, int first, bool more,
                            float* y) {
    constexpr int width = kRepitchWidth<Vector>, apart = width / kHop;
    const int lowest = (first - reach) >> (kHop - 1), highest = (first + width - 1 + reach) >> (kHop - 1);
    const int from = fa_max(lowest, -(kTiles - 1) * apart), to = fa_min(highest + 1, count);
    Vector sum[kTiles];
    FA_UNROLL(4) for (int b = 0; b < kTiles; ++b) sum[b] = more ? fa_line<Vector>(y + b * width) : Vector{};
    for (int c = from; c < to; ++c) {
        const Vector tap = fa_line<Vector>(taps + first - kHop * c);
        FA_UNROLL(4) for (int b = 0; b < kTiles; ++b) {
            sum[b] = fa_fma(fa_splat<Vector>(values[c + b * apart]), tap, sum[b]);
        }
    }
    FA_UNROLL(4) for (int b = 0; b < kTiles; ++b) memcpy(y + b * width, &sum[b], sizeof sum[b]);
}

// The same for `outputs` i and as many more as make whole vectors.
template <class Vector, int kHop>
FA_HD void fa_products(const float* values, int count, const float* taps, int reach, int first, bool more, int outputs,
                       float* y) {
    constexpr int width = kRepitchWidth<Vector>;
    int i = 0;
    const auto tile = [&](auto tiles) __attribute__((always_inline)) {
        constexpr int many = decltype(tiles)::value;
        fa_products_tile<Vector, many, kHop>(values, count, taps, reach, first + i, more, y + i);
        i += many * width;
    };
    while (i < outputs) {
        if (outputs - i > 3 * width)
            tile(std::integral_constant<int, kMostTiles>());
        else if (outputs - i > width)
            tile(std::integral_constant<int, 2>());
        else
            tile(std::integral_constant<int, 1>());
    }
}

// Pitch up: outputs from the half outputs at even and at odd places, of which number 0 is `first` outputs from the
// first one.
template <class Vector>
FA_HD void halve_lanes(const FaCombined& filter, const float* even, const float* odd, int count, int first, int outputs,
                       float* y) {
    constexpr int reach = kCombinedReach / 2 + 1;
    fa_products<Vector, 1>(even, count, filter.even + kCombinedRoom, reach, -first, false, outputs, y);
    fa_products<Vector, 1>(odd, count, filter.odd + kCombinedRoom, reach, -first, true, outputs, y);
}

// Pitch down: samples of the doubled rate from `first` on.
template <class Vector>
FA_HD void double_rate_lanes(const FaCombined& filter, const float* x, int count, int first, int outputs, float* y) {
    fa_products<Vector, 2>(x, count, filter.taps + kCombinedRoom, kCombinedReach, first, false, outputs, y);
}
