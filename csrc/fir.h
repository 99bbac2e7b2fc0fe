// Zero-phase windowed-sinc low-pass as julius defines it (julius/lowpass.py): a Hann window over `zeros` zero
// crossings, unit gain at 0 Hz, the edge samples repeated outside the signal. High-pass: the signal minus its low-pass.
#pragma once

#include "fa_compat.h"
#if !FA_CUDA
#include "fa_simd.h"  // before the templates: vectors have no namespace in which fa_fma could be found later
#endif

constexpr long long kFirLargestHalf = 1 << 20;

// Taps on each side of the centre: int(zeros / cutoff / 2); -1 for a cutoff of zero, whose low-pass is silence. The
// factor keeps a cutoff that was rounded to float32 from losing a tap where the exact quotient is an integer.
FA_HD long long fa_fir_half(double cutoff, long long zeros) {
    if (!(cutoff > 0.0)) return -1;
    const double half = static_cast<double>(zeros) / cutoff / 2.0 * (1.0 + 1.2e-7);
    return half < static_cast<double>(kFirLargestHalf) ? static_cast<long long>(half) : kFirLargestHalf;
}

// sin(pi x) of a small x. CUDA's own needs no stack for argument reduction.
FA_HD float fa_sin_pi_small(float x) {
#if FA_CUDA
    return sinpif(x);
#else
    return static_cast<float>(fa_sin_pi(x));
#endif
}

// Tap n of 1..half, to be divided by the sum of all taps, within 3e-7 of itself. cutoff: a fraction of the sample rate.
// Only the reduction of the angle needs double precision, of which most GPUs have little; the CPU has its own loop.
FA_HD float fa_fir_tap(double cutoff, long long half, long long n) {
    const double half_turns = 2.0 * cutoff * static_cast<double>(n), whole = rint(half_turns);
    const float sine = fa_sin_pi_small(static_cast<float>(half_turns - whole));
    const float fade = fa_sin_pi_small(0.5f * static_cast<float>(half - n) / static_cast<float>(half));
    const float lobe = fade * fade * sine / (static_cast<float>(FA_PI) * static_cast<float>(n));
    return static_cast<long long>(whole) % 2 ? -lobe : lobe;
}

// Adds `pairs` terms of the folded sum to kTile neighbouring outputs, from the outermost tap inwards: of output i, term
// s is taps[s] * (left[i + s] + right[i - s]). Two windows slide through registers, so that two samples and a tap read
// serve kTile multiply-adds. Number: float, or a vector of as many independent lines.
template <int kTile, class Number>
FA_HD void fa_fir_pairs(const Number* left, const Number* right, const float* taps, int pairs, Number* sums) {
    int s = 0;
    for (; (pairs - s) % kTile; ++s) {
        const Number tap = fa_splat<Number>(taps[s]);
        FA_UNROLL(16)
        for (int i = 0; i < kTile; ++i) sums[i] = fa_fma(tap, left[i + s] + right[i - s], sums[i]);
    }
    if (s == pairs) return;
    Number rising[kTile], falling[kTile];
    FA_UNROLL(16)
    for (int i = 0; i < kTile; ++i) rising[i] = left[i + s], falling[i] = right[i - s];
    for (; s < pairs; s += kTile) {
        FA_UNROLL(16)
        for (int step = 0; step < kTile; ++step) {
            const Number tap = fa_splat<Number>(taps[s + step]);
            FA_UNROLL(16)
            for (int i = 0; i < kTile; ++i) {
                const Number both = rising[(i + step) % kTile] + falling[(i + kTile - step) % kTile];
                sums[i] = fa_fma(tap, both, sums[i]);
            }
            rising[step] = left[s + step + kTile];
            falling[kTile - 1 - step] = right[-s - step - 1];
        }
    }
}
