// What a search of a time stretch computes of many candidates at once (CPU), mostly with candidates in the lanes.
#pragma once

#include <algorithm>
#include <type_traits>

#include "resample_cpu.h"
#include "wsola_cpu.h"

constexpr int kGroup = 4;                             // vectors of candidates per pass
constexpr int kCandidates = kGroup * kResampleLanes;  // candidates per pass
static_assert(kCandidates <= kSearchReadsOn);
constexpr int kBlock = 8;       // samples summed for the bounds; divides every overlap
constexpr int kAtOnce = 4;      // candidates whose estimates are made at once
constexpr int kMostKept = 256;  // candidates that the bounds may leave

// Squared distances between the tail and the kCandidates windows from `fresh` on, channels inside samples.
template <class Piece>
FA_HD void fa_distances(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                        float* result) {
    FaLanes<Piece> sums[kGroup], difference;
    for (int g = 0; g < kGroup; ++g) fa_clear(sums[g]);
    for (int i = 0; i < overlap; ++i) {
        for (long long c = 0; c < channels; ++c) {
            const float wanted = tail[c * stride + i];
            for (int g = 0; g < kGroup; ++g) {
                fa_load(fresh + c * stride + i + g * kResampleLanes, difference);
                for (Piece& piece : difference.piece) piece -= wanted;
                fa_add_product(sums[g], difference, difference);
            }
        }
    }
    memcpy(result, sums, sizeof sums);
}

// The squared distances again, roughly: fused, and in an order in which a vector of samples that is loaded serves
// kCount candidates' vectors (sample i of candidate c + 16 is sample i + 16 of candidate c). Of every kStep-th sample.
template <class Piece, int kStep, int kCount>
FA_HD void estimate_tile(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                         float* result) {
    FaLanes<Piece> sum[kCount], sample[kCount];
    FA_UNROLL(16) for (int n = 0; n < kCount; ++n) fa_clear(sum[n]);
    for (long long c = 0; c < channels; ++c, tail += stride, fresh += stride) {
        for (int r = 0; r < kResampleLanes; r += kStep) {
            FA_UNROLL(16) for (int n = 0; n + 1 < kCount; ++n) fa_load(fresh + r + n * kResampleLanes, sample[n]);
            for (int i = r; i < overlap; i += kResampleLanes) {
                fa_load(fresh + i + (kCount - 1) * kResampleLanes, sample[kCount - 1]);
                const float wanted = tail[i];
                FA_UNROLL(16) for (int n = 0; n < kCount; ++n) {
                    FA_UNROLL(16) for (int p = 0; p < FaLanes<Piece>::kPieces; ++p) {
                        const Piece difference = sample[n].piece[p] - wanted, before = sum[n].piece[p];
                        sum[n].piece[p] = fa_fma(difference, difference, before);
                    }
                }
                FA_UNROLL(16) for (int n = 0; n + 1 < kCount; ++n) sample[n] = sample[n + 1];
            }
        }
    }
    memcpy(result, sum, sizeof sum);
}

// estimates: room for `search` and 15 more.
template <class Piece, int kStep>
FA_HD void estimate_steps(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                          int search, float* estimates) {
    constexpr int many = sizeof(Piece) == 64 ? 7 : sizeof(Piece) == 32 ? 3 : 1, few = many / 2 > 1 ? many / 2 : 1;
    const int vectors = (search + kResampleLanes - 1) / kResampleLanes;
    for (int n = 0; n < vectors;) {
        const float* start = fresh + n * kResampleLanes;
        float* found = estimates + n * kResampleLanes;
        if (n + many <= vectors) {
            estimate_tile<Piece, kStep, many>(tail, start, stride, channels, overlap, found);
            n += many;
        } else if (n + few <= vectors) {
            estimate_tile<Piece, kStep, few>(tail, start, stride, channels, overlap, found);
            n += few;
        } else {
            estimate_tile<Piece, kStep, 1>(tail, start, stride, channels, overlap, found);
            ++n;
        }
    }
}

template <class Piece>
FA_HD void estimate_lanes(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                          int search, float* estimates) {
    estimate_steps<Piece, 1>(tail, fresh, stride, channels, overlap, search, estimates);
}

template <class Piece>
FA_HD void bound_lanes(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                       int search, float* bounds) {
    estimate_steps<Piece, kBlock>(tail, fresh, stride, channels, overlap, search, bounds);
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// a plus the samples n behind it, of vectors a and b in a row.
template <int n>
FA_HD fa_float16 fa_plus_shifted(const fa_float16& a, const fa_float16& b) {
    typedef int32_t Whole __attribute__((vector_size(64)));
    return a + (fa_float16)__builtin_ia32_alignd512_mask((Whole)b, (Whole)a, n, (Whole)a, -1);
}
#endif

// The sum of kBlock samples from each of `count` on, and of the squares of these, to the end of a vector.
template <class Piece>
FA_HD void sum_blocks_lanes(const float* x, float* sums, int count, float& squares) {
    constexpr int lanes = sizeof(Piece) / sizeof(float);
    const auto at = [&](int n) __attribute__((always_inline)) {
        Piece value;
        memcpy(&value, x + n, sizeof value);
        return value;
    };
    static_assert(kBlock == 8);
    FaLanes<Piece> total;
    fa_clear(total);
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    if constexpr (sizeof(Piece) == 64) {  // each vector is read once and shifted: else most would straddle cache lines
        Piece one[2] = {at(0), at(lanes)}, two = fa_plus_shifted<1>(one[0], one[1]), third = at(2 * lanes);
        Piece next_two = fa_plus_shifted<1>(one[1], third), four = fa_plus_shifted<2>(two, next_two);
        for (int n = 0; n < count; n += lanes) {
            const Piece last = at(n + 3 * lanes), last_two = fa_plus_shifted<1>(third, last);
            const Piece next_four = fa_plus_shifted<2>(next_two, last_two), sum = fa_plus_shifted<4>(four, next_four);
            memcpy(sums + n, &sum, sizeof sum);
            total.piece[0] = fa_fma(one[0], one[0], total.piece[0]);
            one[0] = one[1], one[1] = third, third = last;
            next_two = last_two, four = next_four;
        }
        squares = fa_sum_lanes(total);
        return;
    }
#endif
    for (int n = 0; n < count; n += kResampleLanes) {
        for (int p = 0; p < FaLanes<Piece>::kPieces; ++p) {
            const int from = n + p * lanes;
            const Piece first = at(from);
            const Piece sum = ((first + at(from + 1)) + (at(from + 2) + at(from + 3))) +
                              ((at(from + 4) + at(from + 5)) + (at(from + 6) + at(from + 7)));
            memcpy(sums + from, &sum, sizeof sum);
            total.piece[p] = fa_fma(first, first, total.piece[p]);
        }
    }
    squares = fa_sum_lanes(total);
}

// Estimates for `count` offsets and as many more as make a multiple of kAtOnce, lanes along the samples: of few
// candidates.
template <class Piece>
FA_HD void estimate_some_lanes(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                               const int* offsets, int count, float* estimates) {
    using Part = std::conditional_t<sizeof(Piece) == 64, fa_float8, Piece>;
    constexpr int lanes = sizeof(Part) / sizeof(float);
    for (int from = 0; from < count; from += kAtOnce) {
        Part sum[kAtOnce];
        FA_UNROLL(4) for (int n = 0; n < kAtOnce; ++n) sum[n] = Part{};
        for (long long c = 0; c < channels; ++c) {
            const float *wanted_at = tail + c * stride, *at[kAtOnce];
            for (int n = 0; n < kAtOnce; ++n) at[n] = fresh + c * stride + offsets[from + n];
            for (int i = 0; i < overlap; i += lanes) {
                Part wanted, sample;
                memcpy(&wanted, wanted_at + i, sizeof wanted);
                FA_UNROLL(4) for (int n = 0; n < kAtOnce; ++n) {
                    memcpy(&sample, at[n] + i, sizeof sample);
                    const Part difference = sample - wanted;
                    sum[n] = fa_fma(difference, difference, sum[n]);
                }
            }
        }
        fa_float4 parts[lanes / 4][kAtOnce], total = {};
        for (int n = 0; n < kAtOnce; ++n) {
            float lane[lanes];
            memcpy(lane, &sum[n], sizeof lane);
            for (int part = 0; part < lanes / 4; ++part) memcpy(&parts[part][n], lane + 4 * part, 16);
        }
        for (int n = 0; n < kAtOnce; ++n) {
            for (int part = 1; part < lanes / 4; ++part) parts[0][n] += parts[part][n];
        }
        fa_transpose_four(parts[0]);
        for (int n = 0; n < kAtOnce; ++n) total += parts[0][n];
        memcpy(estimates + from, &total, sizeof total);
    }
}

// The first offset with the smallest distance among those whose estimate is not above `limit`. Comparisons with NaN are
// false: a NaN never wins, except at offset 0.
template <class Piece>
FA_HD void best_offset_lanes(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                             int search, const float* estimates, float limit, int& best) {
    float smallest = 0.0f;
    bool first = true;
    for (int start = 0; start < search; start += kCandidates) {
        const int count = search - start < kCandidates ? search - start : kCandidates;
        int hopeless = 0;
        for (int j = 0; j < count; ++j) hopeless += estimates[start + j] > limit;
        if (hopeless == count) continue;
        float found[kCandidates];
        fa_distances<Piece>(tail, fresh + start, stride, channels, overlap, found);
        for (int j = 0; j < count; ++j) {
            if (first || found[j] < smallest) {
                smallest = found[j];
                best = start + j;
            }
            first = false;
        }
    }
}

// A bit for each lane whose number is not above `bar`.
template <class Piece>
FA_HD unsigned fa_up_to(const float* numbers, const Piece& bar) {
    Piece value;
    memcpy(&value, numbers, sizeof value);
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    if constexpr (sizeof(Piece) == 64) {
        return static_cast<unsigned short>(__builtin_ia32_cmpps512_mask(value, bar, 18, -1, 4));  // ordered, no signal
    } else if constexpr (sizeof(Piece) == 32) {
        return static_cast<unsigned>(__builtin_ia32_movmskps256((fa_float8)(value <= bar)));
    } else {
        return static_cast<unsigned>(__builtin_ia32_movmskps((fa_float4)(value <= bar)));
    }
#else
    unsigned bits = 0;
    for (unsigned i = 0; i < sizeof(Piece) / sizeof(float); ++i) bits |= (value[i] <= bar[i] ? 1U : 0U) << i;
    return bits;
#endif
}

// The first of the smallest of `count` numbers, of which none is NaN.
template <class Piece>
FA_HD void find_least_lanes(const float* numbers, int count, int& found) {
    constexpr int lanes = sizeof(Piece) / sizeof(float);
    float least = numbers[0];
    int n = 0;
    if (count >= lanes) {
        Piece smallest, value;
        memcpy(&smallest, numbers, sizeof smallest);
        for (n = lanes; n + lanes <= count; n += lanes) {
            memcpy(&value, numbers + n, sizeof value);
            smallest = value < smallest ? value : smallest;
        }
        float lane[lanes];
        memcpy(lane, &smallest, sizeof lane);
        for (int distance = lanes / 2; distance; distance /= 2) {
            for (int i = 0; i < distance; ++i) lane[i] = std::min(lane[i], lane[i + distance]);
        }
        least = lane[0];
    }
    for (; n < count; ++n) least = std::min(least, numbers[n]);
    const Piece bar = fa_splat<Piece>(least);
    found = 0;
    for (n = 0; n < count; n += lanes) {
        const unsigned bits = fa_up_to(numbers + n, bar);
        if (!bits) continue;
        found = n + __builtin_ctz(bits);
        return;
    }
}

// The offsets whose bound is not above `bar`; those behind kMostKept at most to the end of a vector.
template <class Piece>
FA_HD void keep_lanes(const float* bounds, int count, float bar, int* offsets, int& kept) {
    constexpr int lanes = sizeof(Piece) / sizeof(float);
    const Piece bars = fa_splat<Piece>(bar);
    kept = 0;
    for (int start = 0; start < count && kept <= kMostKept; start += lanes) {
        unsigned bits = fa_up_to(bounds + start, bars);
        if (count - start < lanes) bits &= (1U << (count - start)) - 1;
        for (; bits; bits &= bits - 1) offsets[kept++] = start + __builtin_ctz(bits);
    }
}
