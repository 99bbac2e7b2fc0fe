// The filters of repitch.h on vectors (CPU). A row is cut into kPieces pieces of equal length, and sample n of all of
// them lies side by side: a line of kPieces floats. So neighbours in time are neighbouring lines, no vector is read
// across two cache lines and none is shuffled; what lies between the filters stays in this order.
#pragma once

#include "fa_simd.h"
#include "repitch.h"

constexpr int kPieces = 16;

template <class Vector>
constexpr int kRepitchWidth = sizeof(Vector) / sizeof(float);

// As many whole numbers as a Vector has floats.
typedef int32_t fa_int16 __attribute__((vector_size(64)));
template <class Vector>
struct FaWhole;
template <>
struct FaWhole<fa_float4> {
    typedef fa_int4 type;
};
template <>
struct FaWhole<fa_float8> {
    typedef fa_int8 type;
};
template <>
struct FaWhole<fa_float16> {
    typedef fa_int16 type;
};

template <class Vector, class Number>
FA_HD Vector fa_line(const Number* source) {
    Vector value;
    memcpy(&value, source, sizeof value);
    return value;
}

// Calls body(first) for each vector of a line.
template <class Vector, class Body>
FA_HD void fa_across(const Body& body) {
    for (int first = 0; first < kPieces; first += kRepitchWidth<Vector>) body(first);
}

// ---- rows and lines ----

// lines (count, kPieces) from `count` samples of each piece, a multiple of 8, which lie in a row from at[piece] on.
template <class Vector>
FA_HD void to_lines_lanes(const float* const* at, int count, float* lines) {
    if constexpr (sizeof(Vector) == 16) {
        fa_side_by_side<kPieces>(at, count, lines);
    } else {
        for (int n = 0; n < count; n += 8) {
            FA_UNROLL(2) for (int p = 0; p < kPieces; p += 8) {
                fa_float8 tile[8];
                FA_UNROLL(8) for (int i = 0; i < 8; ++i) tile[i] = fa_line<fa_float8>(at[p + i] + n);
                fa_transpose_eight(tile);
                FA_UNROLL(8)
                for (int i = 0; i < 8; ++i) memcpy(lines + (n + i) * kPieces + p, &tile[i], sizeof tile[i]);
            }
        }
    }
}

// And back.
template <class Vector>
FA_HD void to_rows_lanes(const float* lines, int count, float* const* to) {
    if constexpr (sizeof(Vector) == 16) {
        for (int p = 0; p < kPieces; p += 4) fa_four_below_another<kPieces>(lines + p, count, to + p);
    } else {
        for (int p = 0; p < kPieces; p += 8) {
            for (int n = 0; n < count; n += 8) {
                fa_float8 tile[8];
                FA_UNROLL(8) for (int i = 0; i < 8; ++i) tile[i] = fa_line<fa_float8>(lines + (n + i) * kPieces + p);
                fa_transpose_eight(tile);
                FA_UNROLL(8) for (int i = 0; i < 8; ++i) memcpy(to[p + i] + n, &tile[i], sizeof tile[i]);
            }
        }
    }
}

// ---- the half-band ----

// Lines of sums that fit the registers beside two windows of as many samples.
template <class Vector>
constexpr int kHalfBandLines = sizeof(Vector) == 64 ? 8 : 4;

// y[n] = onto[n] + sum_k taps[k] x[n + k] for `count` lines n, a multiple of 8. onto may be null. The taps are
// symmetric: samples that meet equal taps are added first. Each line that is loaded serves kHalfBandLines sums.
template <class Vector>
FA_HD void half_band_lanes(const float* x, const float* taps, const float* onto, float* y, int count) {
    constexpr int tile = kHalfBandLines<Vector>;
    for (int n = 0; n < count; n += tile) {
        fa_across<Vector>([&](int first) __attribute__((always_inline)) {
            const float *head = x + n * kPieces + first, *end = head + (kHalfBandTaps - 1) * kPieces;
            Vector sum[tile], low[tile], high[tile];
            FA_UNROLL(8) for (int i = 0; i < tile; ++i) {
                sum[i] = onto ? fa_line<Vector>(onto + (n + i) * kPieces + first) : Vector{};
                low[i] = fa_line<Vector>(head + i * kPieces);
                high[i] = fa_line<Vector>(end + i * kPieces);
            }
            for (int r = 0; r < kHalfBandTaps / 2; r += tile) {
                FA_UNROLL(8) for (int k = r; k < r + tile; ++k) {
                    const Vector tap = fa_splat<Vector>(taps[k]);
                    FA_UNROLL(8) for (int i = 0; i < tile; ++i) sum[i] = fa_fma(low[i] + high[i], tap, sum[i]);
                    FA_UNROLL(8) for (int i = 0; i + 1 < tile; ++i) low[i] = low[i + 1];
                    FA_UNROLL(8) for (int i = tile - 1; i > 0; --i) high[i] = high[i - 1];
                    low[tile - 1] = fa_line<Vector>(head + (k + tile) * kPieces);
                    high[0] = fa_line<Vector>(end - (k + 1) * kPieces);
                }
            }
            FA_UNROLL(8) for (int i = 0; i < tile; ++i) memcpy(y + (n + i) * kPieces + first, &sum[i], sizeof sum[i]);
        });
    }
}

// ---- the flattening filter ----

// A line of either phase of the doubled rate: what lies at whole samples, what lies between, n - 3 ... n + 3 of both.
template <class Vector>
FA_HD Vector fa_flat_line(const Vector* own, const Vector* other) {
    constexpr float taps[] = FA_FLAT_TAPS;
    Vector sum = own[3] * fa_splat<Vector>(taps[0]), second = (other[2] + other[3]) * fa_splat<Vector>(taps[1]);
    FA_UNROLL(4) for (int k = 1; k <= 3; ++k) {
        sum = fa_fma(own[3 - k] + own[3 + k], fa_splat<Vector>(taps[2 * k]), sum);
        if (k < 3) second = fa_fma(other[2 - k] + other[3 + k], fa_splat<Vector>(taps[2 * k + 1]), second);
    }
    return sum + second;
}

// put(n, first, even, odd) for `count` lines of both phases, a multiple of 4, from lines n ... n + 6 of both.
template <class Vector, class Put>
FA_HD void fa_flatten(const float* even, const float* odd, int count, const Put& put) {
    constexpr int tile = sizeof(Vector) == 64 ? 4 : 1;
    fa_across<Vector>([&](int first) __attribute__((always_inline)) {
        for (int n = 0; n < count; n += tile) {
            Vector e[tile + 6], o[tile + 6];
            FA_UNROLL(16) for (int i = 0; i < tile + 6; ++i) e[i] = fa_line<Vector>(even + (n + i) * kPieces + first);
            FA_UNROLL(16) for (int i = 0; i < tile + 6; ++i) o[i] = fa_line<Vector>(odd + (n + i) * kPieces + first);
            FA_UNROLL(4) for (int i = 0; i < tile; ++i) {
                put(n + i, first, fa_flat_line(e + i, o + i), fa_flat_line(o + i, e + i + 1));
            }
        }
    });
}

template <class Vector>
FA_HD void flatten_lanes(const float* even, const float* odd, float* flat_even, float* flat_odd, int count) {
    fa_flatten<Vector>(even, odd, count, [&](int n, int first, const Vector& e, const Vector& o) {
        memcpy(flat_even + n * kPieces + first, &e, sizeof e);
        memcpy(flat_odd + n * kPieces + first, &o, sizeof o);
    });
}

// Both phases by turns: from a whole sample on, in pieces whose `late` is not 0 from the one between on. `last` is the
// line between before, and then the last one.
template <class Vector>
FA_HD void flatten_doubled_lanes(const float* even, const float* odd, const int32_t* late, float* last, float* doubled,
                                 int count) {
    fa_flatten<Vector>(even, odd, count, [&](int n, int first, const Vector& e, const Vector& o) {
        const auto begins_late = fa_line<typename FaWhole<Vector>::type>(late + first) != 0;
        const Vector before = fa_line<Vector>(last + first);
        const Vector a = begins_late ? e : before, b = begins_late ? o : e;
        memcpy(doubled + (2 * n - 1) * kPieces + first, &a, sizeof a);
        memcpy(doubled + 2 * n * kPieces + first, &b, sizeof b);
        memcpy(last + first, &o, sizeof o);
    });
}

// ---- the short filter ----

constexpr int kMostCount = kHighDegree + 1;
constexpr int kFractionBits = 25;
constexpr int kPositionBits = 44;
constexpr int kAnchored = 80;  // positions from one anchor on

// degree + 1 coefficients for each pair of taps, each in a whole line; and how far output n lies behind an anchor, in
// samples and in units of 2^-kFractionBits samples.
struct FaShortFilter {
    int64_t step;  // in units of 2^-kPositionBits samples
    int pairs, degree;
    int32_t lines[kAnchored], fractions[kAnchored];
    alignas(64) float coefficient[kMostPairs * kMostCount * kPieces];
};

// An anchor: where it lies in each piece behind line `line`, in units of 2^-kFractionBits samples. That is at least
// `fraction`, and less than a sample more.
struct FaAnchor {
    alignas(64) int32_t places[kPieces];
    int32_t fraction;
    const float* line;
};

// The polynomial of an even degree at `place`.
template <class Vector, int kCount>
FA_HD Vector fa_short_value(const Vector (&coefficient)[kCount], const Vector& place) {
    static_assert(kCount % 2, "an even degree");
    const Vector square = place * place;
    Vector even = coefficient[kCount - 1], odd = coefficient[kCount - 2];
    FA_UNROLL(16) for (int q = kCount - 3; q > 0; q -= 2) {
        even = fa_fma(even, square, coefficient[q]);
        if (q > 1) odd = fa_fma(odd, square, coefficient[q - 1]);
    }
    return fa_fma(odd, place, fa_fma(even, square, coefficient[0]));
}

// kOutputs lines of outputs, which share the loads of the coefficients. kPairs: of taps; 0 if not known.
template <class Vector, int kCount, int kPairs, int kOutputs>
FA_HD void fa_short_lines(const FaAnchor& anchor, const FaShortFilter& filter, int n, int first, float* y) {
    using Whole = typename FaWhole<Vector>::type;
    constexpr int32_t unit = 1 << kFractionBits;
    const int pairs = kPairs ? kPairs : filter.pairs;
    Vector sum[kOutputs][kCount], place[kOutputs];
    Whole next[kOutputs];                       // -1 in pieces whose outputs lie behind the next line
    Vector before[kOutputs], behind[kOutputs];  // the lines last read on both sides
    const float* line[kOutputs];
    FA_UNROLL(4) for (int b = 0; b < kOutputs; ++b) {
        FA_UNROLL(16) for (int q = 0; q < kCount; ++q) sum[b][q] = Vector{};
        const int32_t fraction = anchor.fraction + filter.fractions[n + b], whole = fraction >> kFractionBits;
        const Whole at = fa_line<Whole>(anchor.places + first) + (filter.fractions[n + b] - (whole << kFractionBits));
        next[b] = at >= unit;
        place[b] = fa_fma(__builtin_convertvector(at & (unit - 1), Vector), fa_splat<Vector>(-2.0f / unit),
                          fa_splat<Vector>(1.0f));
        line[b] = anchor.line + (filter.lines[n + b] + whole) * kPieces + first;
        before[b] = behind[b] = fa_line<Vector>(line[b] + kPieces);
    }
    const float* coefficient = filter.coefficient + first;
    FA_UNROLL(4) for (int j = 0; j < pairs; ++j) {
        Vector added[kOutputs], apart[kOutputs];
        FA_UNROLL(4) for (int b = 0; b < kOutputs; ++b) {
            const Vector low = fa_line<Vector>(line[b] - j * kPieces),
                         high = fa_line<Vector>(line[b] + (j + 2) * kPieces);
            const Vector left = next[b] ? before[b] : low, right = next[b] ? high : behind[b];
            added[b] = right + left, apart[b] = right - left;
            before[b] = low, behind[b] = high;
        }
        FA_UNROLL(16) for (int q = 0; q < kCount; ++q, coefficient += kPieces) {
            Vector tap = fa_line<Vector>(coefficient);
            if (kOutputs > 1) fa_in_register(tap);
            FA_UNROLL(4) for (int b = 0; b < kOutputs; ++b) {
                sum[b][q] = fa_fma(q % 2 ? apart[b] : added[b], tap, sum[b][q]);
            }
        }
    }
    FA_UNROLL(4) for (int b = 0; b < kOutputs; ++b) {
        const Vector value = fa_short_value(sum[b], place[b]);
        memcpy(y + b * kPieces, &value, sizeof value);
    }
}

// Outputs from ... to - 1 behind an anchor, an even number: to the lines y, or by turns to these and `other`.
template <class Vector, int kCount, int kPairs>
FA_HD void fa_short_outputs(const FaAnchor& anchor, const FaShortFilter& filter, int from, int to, float* y,
                            float* other) {
    constexpr int outputs = sizeof(Vector) == 64 ? 2 : 1;
    fa_across<Vector>([&](int first) __attribute__((always_inline)) {
        float *even = y + first, *odd = (other ? other : y + kPieces) + first;
        const int hop = other ? kPieces : 2 * kPieces;
        for (int n = from; n < to; n += 2, even += hop, odd += hop) {
            float lines[2 * kPieces];
            FA_UNROLL(2) for (int b = 0; b < 2; b += outputs) {
                fa_short_lines<Vector, kCount, kPairs, outputs>(anchor, filter, n + b, first, lines + b * kPieces);
            }
            memcpy(even, lines, sizeof(Vector));
            memcpy(odd, lines + kPieces, sizeof(Vector));
        }
    });
}

template <class Vector>
FA_HD void short_filter_lanes(const FaAnchor& anchor, const FaShortFilter& filter, int from, int to, float* y,
                              float* other) {
    constexpr int low = kLowDegree + 1, high = kHighDegree + 1;
    if (filter.degree == kHighDegree && filter.pairs == 2)
        fa_short_outputs<Vector, high, 2>(anchor, filter, from, to, y, other);
    else if (filter.degree == kHighDegree && filter.pairs == 3)
        fa_short_outputs<Vector, high, 3>(anchor, filter, from, to, y, other);
    else if (filter.degree == kHighDegree)
        fa_short_outputs<Vector, high, 4>(anchor, filter, from, to, y, other);
    else if (filter.pairs == 4)
        fa_short_outputs<Vector, low, 4>(anchor, filter, from, to, y, other);
    else
        fa_short_outputs<Vector, low, 0>(anchor, filter, from, to, y, other);
}
