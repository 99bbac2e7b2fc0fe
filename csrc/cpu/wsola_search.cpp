// The search of a time stretch. It chooses by the sums of a plain loop, as CUDA does, but computes few of them: lower
// bounds leave some candidates, estimates of these mostly one.
#include <algorithm>

#include "../wsola_lanes.h"

namespace {

constexpr int kMostFailed = 4;  // after n searches in a row where they leave too many, 2^n - 2 do without

FA_BY_WIDTH(estimate,
            (const float* tail, const float* fresh, long long stride, long long channels, int overlap, int search,
             float* estimates),
            (tail, fresh, stride, channels, overlap, search, estimates))
FA_BY_WIDTH(bound,
            (const float* tail, const float* fresh, long long stride, long long channels, int overlap, int search,
             float* bounds),
            (tail, fresh, stride, channels, overlap, search, bounds))
FA_BY_WIDTH(sum_blocks, (const float* x, float* sums, int count, float& squares), (x, sums, count, squares))
FA_BY_WIDTH(estimate_some,
            (const float* tail, const float* fresh, long long stride, long long channels, int overlap,
             const int* offsets, int count, float* estimates),
            (tail, fresh, stride, channels, overlap, offsets, count, estimates))
FA_BY_WIDTH(best_offset,
            (const float* tail, const float* fresh, long long stride, long long channels, int overlap, int search,
             const float* estimates, float limit, int& best),
            (tail, fresh, stride, channels, overlap, search, estimates, limit, best))
FA_BY_WIDTH(find_least, (const float* numbers, int count, int& found), (numbers, count, found))
FA_BY_WIDTH(keep, (const float* bounds, int count, float bar, int* offsets, int& kept),
            (bounds, count, bar, offsets, kept))

// NaN if the first is, else the smallest number.
FA_CLONES void find_smallest(const float* estimates, int count, float& smallest) {
    float found = estimates[0];
    for (int i = 1; i < count; ++i) found = estimates[i] < found ? estimates[i] : found;
    smallest = found;
}

FA_CLONES void count_up_to(const float* estimates, int count, float limit, int& found) {
    found = 0;
    for (int i = 0; i < count; ++i) found += estimates[i] <= limit;
}

// The offset that is wanted is the first whose distance, summed in float32 term after term as sox and the CUDA kernel
// sum it, is smallest. Two sums of the same `terms` squares, in whatever order, differ by at most the factor (1 + g) /
// (1 - g) with g = (terms + 4) 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 4.2), and
// by what squares below the normal range lose. So that offset is among those with an estimate up to this limit, given
// the estimate of any. A NaN makes the limit one, and a sum that may overflow makes it infinite.
struct Margins {
    double terms, g;

    double tiny() const { return terms * 0x1p-120; }
    float limit(float smallest) const {
        const double above = smallest * (1.0 + 8.0 * g) + (g < 0.01 ? tiny() : INFINITY);
        return smallest == 0.0f ? 0.0f : static_cast<float>(above * (1.0 + 0x1p-22));
    }
};

int round_up(int count) { return (count + kResampleLanes - 1) / kResampleLanes * kResampleLanes; }

}  // namespace

long long FaWsolaSearch::room(const FaWsola& w, long long channels) {
    return 2LL * round_up(w.search) + channels * (2LL * round_up(w.overlap) + round_up(w.search) + kSearchReadsOn);
}

int FaWsolaSearch::best(const float* tail, const float* fresh, long long stride) {
    if (unbounded == 0) {
        const int found = best_in_bounds(tail, fresh, stride);
        if (found >= 0) {
            failed = 0;
            return found;
        }
        failed = std::min(failed + 1, kMostFailed);
        unbounded = (1 << failed) - 2;
    } else {
        --unbounded;
    }
    const double terms = static_cast<double>(w.overlap) * static_cast<double>(channels);
    const Margins margins{terms, (terms + 4.0) * 0x1p-24};
    float smallest, *estimates = memory;
    estimate(tail, fresh, stride, channels, w.overlap, w.search, estimates);
    find_smallest(estimates, w.search, smallest);
    // Mostly one is near. An estimate is 0 or NaN exactly where the sum is.
    const float limit = margins.limit(smallest);
    int near = 0, best = 0;
    count_up_to(estimates, w.search, limit, near);
    if (near == 1 || limit == 0.0f) {
        while (!(estimates[best] <= limit)) ++best;
        return best;
    }
    best_offset(tail, fresh, stride, channels, w.overlap, w.search, estimates, limit, best);
    return best;
}

// The squared sum of a block's differences is at most kBlock times the sum of their squares (Cauchy and Schwarz), so
// squared distances of block sums are lower bounds, in a kBlock-th of the terms. -1 if they leave too many.
int FaWsolaSearch::best_in_bounds(const float* tail, const float* fresh, long long stride) const {
    float *estimates = memory, *bounds = estimates + round_up(w.search), *sums = bounds + round_up(w.search);
    const long long own = round_up(w.overlap), sums_stride = 2 * own + round_up(w.search) + kSearchReadsOn;
    double tail_squares = 0.0, fresh_squares = 0.0;
    for (long long c = 0; c < channels; ++c) {
        float squares;
        sum_blocks(tail + c * stride, sums + c * sums_stride, w.overlap, squares);
        tail_squares += squares;
        sum_blocks(fresh + c * stride, sums + c * sums_stride + own, w.search + w.overlap, squares);
        fresh_squares += squares;
    }
    if (!(tail_squares + fresh_squares < 1e36)) return -1;  // no overflow and no NaN below
    bound(sums, sums + own, sums_stride, channels, w.overlap, w.search, bounds);
    int nearest;
    find_least(bounds, w.search, nearest);

    const double terms = static_cast<double>(w.overlap) * static_cast<double>(channels);
    const Margins margins{terms, (terms + 4.0) * 0x1p-24};
    int offsets[kMostKept + kResampleLanes + kAtOnce], kept;
    float found[kMostKept + kAtOnce];
    for (int n = 0; n < kAtOnce; ++n) offsets[n] = std::clamp(nearest + n - 1, 0, w.search - 1);
    estimate_some(tail, fresh, stride, channels, w.overlap, offsets, kAtOnce, found);
    float smallest = *std::min_element(found, found + kAtOnce);
    // Three additions and the difference round a block's sums by little more than 4 * 2^-24 of its magnitudes' sum.
    const double norms = sqrt(tail_squares) + sqrt(fresh_squares);
    const double reach = sqrt(margins.limit(smallest) + margins.tiny()) + 0x1.4p-22 * norms;
    const double bar = kBlock * reach * reach * (1.0 + 8.0 * margins.g) + margins.tiny();
    if (!(bar < 1e38)) return -1;
    keep(bounds, w.search, static_cast<float>(bar * (1.0 + 0x1p-22)), offsets, kept);
    if (kept == 0 || kept > std::min(kMostKept, w.search / 3)) return -1;
    for (int n = 0; n < kAtOnce; ++n) offsets[kept + n] = offsets[kept - 1];
    estimate_some(tail, fresh, stride, channels, w.overlap, offsets, kept, found);
    smallest = *std::min_element(found, found + kept);
    const float limit = margins.limit(smallest);
    int near = 0, best = 0;
    for (int n = kept - 1; n >= 0; --n) {
        if (found[n] > limit) continue;
        ++near;
        best = offsets[n];
    }
    if (near == 1 || limit == 0.0f) return best;
    std::fill(estimates, estimates + w.search, INFINITY);
    for (int n = 0; n < kept; ++n) estimates[offsets[n]] = found[n];
    best_offset(tail, fresh, stride, channels, w.overlap, w.search, estimates, limit, best);
    return best;
}
