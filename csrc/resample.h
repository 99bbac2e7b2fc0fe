// Band-limited interpolation: y[k] = sum_j x[i - H + 1 + j] h((j - H + 1) - u), where i + u is the source position of
// output k and h a Kaiser-windowed sinc of half width H. Method: Smith & Gossett, "A flexible sampling-rate conversion
// method", ICASSP 1984; window: Kaiser & Schafer, IEEE Trans. ASSP-28(1), 1980.
// Positions are exact integers and every sum runs in an order that is fixed by the output's index, so an output sample
// does not depend on the range in which it was asked for. The CPU takes ratios of small factors by FFT (resample_fft.h)
// and CUDA adds in other orders where that is faster: the devices agree to 110 dB.
#pragma once

#include "fa_compat.h"

// Lanes of the dot product: tap j belongs to lane j % 16; the lanes are summed pairwise at distance 8, 4, 2, 1.
constexpr int kResampleLanes = 16;
// Intervals per source sample of the interpolated tap table; each holds a quadratic (error below -130 dB).
constexpr int kResamplePhases = 64;

// A windowed-sinc low-pass: samples of it at x = -1, 0, 1, ... in steps of 1 / density, zeros from `support` on.
struct FaPrototype {
    const double* samples;
    long long density;
    double support;
};

struct FaPosition {
    long long index;  // source sample at or before the output
    long long phase;  // row of the tap table
    float fraction;   // position inside that row's interval; 0 for an exact polyphase table
};

// Output k of a conversion by up/down (coprime): source position k * down / up, one table row per phase.
FA_HD FaPosition fa_exact_position(long long k, long long up, long long down) {
    const long long numerator = k * down;
    return {numerator / up, numerator % up, 0.0f};
}

// The same position against a table of kResamplePhases intervals, for ratios with too many phases to tabulate.
FA_HD FaPosition fa_interpolated_position(long long k, long long up, long long down) {
    const long long numerator = k * down;
    const long long scaled = (numerator % up) * kResamplePhases;
    return {numerator / up, scaled / up,
            static_cast<float>(static_cast<double>(scaled % up) / static_cast<double>(up))};
}

// The prototype at x >= 0, by 4-point Lagrange interpolation.
FA_HD double fa_prototype(const FaPrototype& prototype, double x) {
    if (!(x < prototype.support)) return 0.0;
    const double scaled = fa_mul(x, static_cast<double>(prototype.density));
    const long long index = static_cast<long long>(scaled);
    const double u = fa_add(scaled, -static_cast<double>(index));
    const double* m = prototype.samples + index;  // m[1] is the value at `index`
    const double before = u + 1.0, after = u - 1.0, last = u - 2.0;
    const double outer = fa_add(fa_mul(fa_mul(before, fa_mul(u, after)), FA_LD(m + 3)),
                                -fa_mul(fa_mul(u, fa_mul(after, last)), FA_LD(m)));
    const double inner = fa_add(fa_mul(fa_mul(before, fa_mul(after, last)), FA_LD(m + 1)),
                                -fa_mul(fa_mul(before, fa_mul(u, last)), FA_LD(m + 2)));
    return fa_add(fa_mul(outer, 1.0 / 6.0), fa_mul(inner, 0.5));
}

// Tap j of a filter at source position u in [0, 1], for cutoff `scale` <= 1 (relative to the source's Nyquist).
FA_HD double fa_tap(const FaPrototype& prototype, double scale, long long half, long long j, double u) {
    const double t = fabs(fa_add(static_cast<double>(j - half + 1), -u));
    return fa_mul(scale, fa_prototype(prototype, fa_mul(t, scale)));
}

// One entry of the interpolated table (kResamplePhases, 3, width): the quadratic of tap j through its values at both
// ends and in the middle of one interval. `row` points at the interval's three rows.
FA_HD void fa_table_entry(double left, double middle, double right, long long width, long long j, float* row) {
    FA_ST(row + j, static_cast<float>(left));
    FA_ST(row + width + j, static_cast<float>(fa_add(fa_mul(4.0, middle), -fa_add(fa_mul(3.0, left), right))));
    FA_ST(row + 2 * width + j, static_cast<float>(fa_mul(2.0, fa_add(fa_add(left, right), -fa_mul(2.0, middle)))));
}
