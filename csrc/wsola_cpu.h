// CPU only: the search of a time stretch.
#pragma once

#include "wsola.h"

constexpr int kSearchReadsOn = 64;  // samples behind the last window that a search may read

// Searches of one row after another.
struct FaWsolaSearch {
    const FaWsola w;
    const long long channels;
    float* const memory;
    int failed = 0, unbounded = 0;  // searches in a row in which bounds were of no use; searches still to do without

    // Floats at `memory`.
    static long long room(const FaWsola& w, long long channels);

    // The first offset from `fresh` on whose window of `overlap` samples is nearest to that at `tail`: sums of squares
    // over samples and, inside, channels, in float32, term after term.
    // Channel c lies c * stride samples behind the first.
    int best(const float* tail, const float* fresh, long long stride);

  private:
    int best_in_bounds(const float* tail, const float* fresh, long long stride) const;
};
