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

// sin(pi x) and cos(pi x). CUDA's own need no stack for their argument reduction; hosts have none.
FA_HD double fa_sin_pi(double x) {
#if FA_CUDA
    return sinpi(x);
#else
    return sin(FA_PI * (x - 2.0 * rint(0.5 * x)));
#endif
}

FA_HD double fa_cos_pi(double x) {
#if FA_CUDA
    return cospi(x);
#else
    return cos(FA_PI * (x - 2.0 * rint(0.5 * x)));
#endif
}

// Tap n of -half..half, to be divided by the sum of all taps. cutoff: a fraction of the sample rate.
FA_HD double fa_fir_tap(double cutoff, long long half, long long n) {
    if (n == 0) return 2.0 * cutoff;
    const double t = static_cast<double>(n), half_turns = 2.0 * cutoff * t;
    const double window = 0.5 + 0.5 * fa_cos_pi(t / static_cast<double>(half));
    return 2.0 * cutoff * window * fa_sin_pi(half_turns) / (FA_PI * half_turns);
}

// One term of the folded sum, taken from the outermost tap inwards. Number: float or a vector of floats.
template <class Number>
FA_HD Number fa_fir_term(const Number& sum, const Number& tap, const Number& left, const Number& right) {
    return fa_fma(tap, left + right, sum);
}

FA_HD float fa_fir_finish(float sum, float centre_tap, float x, float scale, bool highpass) {
    const float low = fa_mul(fa_fma(centre_tap, x, sum), scale);
    return highpass ? x - low : low;
}
