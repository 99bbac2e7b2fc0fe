// The noise of one row on the CPU, for the fused pointwise pass.
#pragma once

#include "../noise.h"
#include "../pointwise.h"

// Before a loop whose input and output are the same array or two that do not overlap: GCC's own check for overlap sends
// the first kind to scalar code.
#if defined(__clang__)
#define FA_SAME_OR_APART _Pragma("clang loop vectorize(assume_safety)")
#else
#define FA_SAME_OR_APART _Pragma("GCC ivdep")
#endif

namespace fa {

// Sums over n samples around `shift`, in an order that depends on n alone.
FaSums noise_sums(const float* x, int64_t n, double shift);

// y = after(clip(x + sigma * noise)) for one channel; x and y may be the same.
void add_noise(const float* x, float* y, int64_t length, float sigma, float limit, FaLevel after, const long long* key,
               uint32_t channel);

}  // namespace fa
