// The resampling of a pitch shift of rows of few samples on the CPU.
#include <algorithm>

#include "../repitch_cpu.h"
#include "../repitch_short_lanes.h"

namespace {

FA_BY_WIDTH(short_row,
            (const float* x, int64_t start, const FaBehind& behind, int count, const float* coefficients, int pairs,
             int degree, float* y),
            (x, start, behind, count, coefficients, pairs, degree, y))
FA_BY_WIDTH(halve,
            (const FaCombined& filter, const float* even, const float* odd, int count, int first, int outputs,
             float* y),
            (filter, even, odd, count, first, outputs, y))
FA_BY_WIDTH(double_rate, (const FaCombined& filter, const float* x, int count, int first, int outputs, float* y),
            (filter, x, count, first, outputs, y))

void combine(const float* half_band, FaCombined& filter) {
    constexpr float flat[] = FA_FLAT_TAPS;
    filter = {};
    std::copy_n(half_band, kHalfBandTaps, filter.half_band);
    float* taps = filter.taps + kCombinedRoom;
    for (int i = -kFlatReach; i <= kFlatReach; ++i) {
        taps[i] += flat[std::abs(i)];
        for (int k = 0; k < kHalfBandTaps; ++k) taps[2 * k + 1 - kHalfBandTaps + i] += half_band[k] * flat[std::abs(i)];
    }
    for (int u = -kCombinedReach / 2; u <= kCombinedReach / 2 + 1; ++u) {
        filter.even[kCombinedRoom + u] = taps[2 * u];
        filter.odd[kCombinedRoom + u] = taps[2 * u - 1];
    }
}

const FaCombined& combined(const float* half_band) {
    thread_local FaCombined filter;  // as for the last row: it would take longer than the row of one sample
    if (memcmp(filter.half_band, half_band, sizeof filter.half_band) != 0) combine(half_band, filter);
    return filter;
}

constexpr int kVectors = kMostTiles * kPieces;  // numbers that whole vectors may make or read behind the last

// Pitch up: the half outputs that are not 0, and the combined filter over them.
void decimate(const float* x, int count, float* y, int length, const FaRepitch& plan, int64_t step,
              const float* coefficients, const FaCombined& filter) {
    constexpr int room = kShortRow + 2 * kMostPairs + 3 * kVectors;
    alignas(64) float halves[2][room];
    const double pairs_apart = 2.0 * plan.step;  // samples between two half outputs at even places
    const int first = -static_cast<int>(plan.pairs / pairs_apart) - 1;
    const int made = static_cast<int>((count + plan.pairs) / pairs_apart) + 2 - first;  // `length` and a few more
    const FaBehind behind(2 * step);
    for (int odd = 0; odd < 2; ++odd) {
        std::fill_n(halves[odd], kVectors, 0.0f);
        std::fill_n(halves[odd] + kVectors + made, 2 * kVectors, 0.0f);
        short_row(x, (2 * first + odd) * step, behind, made, coefficients, plan.pairs, plan.degree(),
                  halves[odd] + kVectors);
    }
    halve(filter, halves[0] + kVectors, halves[1] + kVectors, made, first, length, y);
}

// Pitch down: the combined filter at the doubled rate, and the short filter over that.
void interpolate(const float* x, int count, float* y, int length, const FaRepitch& plan, int64_t step,
                 const float* coefficients, const FaCombined& filter) {
    constexpr int room = 2 * kShortRow + 2 * kMostPairs + 3 * kVectors;
    alignas(64) float doubled[room];
    const int first = 1 - plan.pairs, last = static_cast<int>((length - 1) * step >> kPositionBits) + plan.pairs;
    const int made = last + 1 - first;
    std::fill_n(doubled + made, 2 * kVectors, 0.0f);
    double_rate(filter, x, count, first, made, doubled);
    short_row(doubled - first, 0, FaBehind(step), length, coefficients, plan.pairs, plan.degree(), y);
}

}  // namespace

long long fa_repitch_short_margin(double factor) {
    const FaRepitch plan = fa_repitch(factor);
    return static_cast<long long>((kPieces + 2) * 2.0 * plan.step) + 2 * plan.pairs + kVectors;
}

void fa_repitch_short(const float* x, int count, float* y, int length, double factor, const float* coefficients,
                      const float* half_band) {
    alignas(64) float out[kShortRow + kVectors];
    const FaRepitch plan = fa_repitch(factor);
    const int64_t step = static_cast<int64_t>(plan.step * static_cast<double>(int64_t{1} << kPositionBits) + 0.5);
    const auto run = factor > 1.0 ? interpolate : decimate;
    run(x, count, out, length, plan, step, coefficients, combined(half_band));
    std::copy_n(out, length, y);
}
