// The resampling of a pitch shift: output m is the value at source position m / factor, below 0.91 of the lower of the
// two Nyquist frequencies. One sharp filter at an arbitrary ratio would need some hundred taps of its own for every
// output; three filters share the work. The sharp one is a fixed half-band, which only halves or doubles a rate; the
// one at the arbitrary ratio sees twice the rate that it needs and is short (Crochiere & Rabiner, "Multirate Digital
// Signal Processing", 1983, section 6.3: the transition band that a first stage leaves to a second).
// Pitch down (factor > 1): the half-band puts a sample between any two, the short filter reads at 2 m / factor.
// Pitch up (factor < 1): the short filter reads at half outputs, m / (2 factor), the half-band takes every other away.
// So what lies between 0.91 and 1 of the lower Nyquist frequency fades out, and leaves an image that fades with it.
// The short filter only rejects: it is Kaiser and Bessel's kernel, as in a non-uniform Fourier transform (Jackson et
// al., IEEE Trans. Medical Imaging 10, 1991), with 7 taps where a flat one needs 16. A third filter of fixed taps at
// the same, doubled rate lifts what it bends down. Its taps are polynomials of the position between two samples
// (Farrow, ISCAS 1988), so outputs lie in lanes or threads, and no table of phases is filled or read.
#pragma once

#include "fa_compat.h"

// Taps of the half-band between its samples, at -39.5 ... 39.5; the others are 1 in the middle and 0.
constexpr int kHalfBandTaps = 80;

// Length of the short filter in half outputs (pitch up) or half source samples (pitch down), and its shape: images of
// what the half-band leaves lie at -115 dB, the least for this length.
constexpr double kShortLength = 7.0, kShortShape = 16.38, kShortHeight = 1290979.2106931026;
// Polynomials of each tap, off by -116 dB for a filter that is not shortened (factor > 1 or < 0.5), by -114 dB at half
// its length.
constexpr int kLowDegree = 6, kHighDegree = 8;
constexpr int kMostPairs = 15;  // of taps, at three octaves up

// The filter at the doubled rate that makes the product with the short one flat to 1e-6 below 0.4575 of its Nyquist
// frequency: the middle and one side (minimax, by iterated weights: Lawson 1961).
constexpr int kFlatReach = 6;
#define FA_FLAT_TAPS \
    {1.97790444f, -1.09684598f, 0.464300841f, -0.159222364f, 0.0423807763f, -0.00784581061f, 7.63853081e-4f}

// Read step, scale of the short filter's axis and its gain for a stretch factor.
struct FaRepitch {
    double step, scale, gain;
    int pairs;  // of taps: a sample on either side of the position

    FA_HD int degree() const { return scale > 1.0 ? kHighDegree : kLowDegree; }
    FA_HD int coefficients() const { return pairs * (degree() + 1); }
};

FA_HD FaRepitch fa_repitch(double factor) {
    // Half the gain on the way up: the half-band adds two values.
    const double scale = factor > 1.0 ? 1.0 : 2.0 * factor, gain = factor > 1.0 ? 1.0 : factor;
    const double reach = 0.5 * kShortLength / scale;
    const int pairs = static_cast<int>(fa_min(reach + 0.999999, static_cast<double>(kMostPairs)));
    return {factor > 1.0 ? 2.0 / factor : 0.5 / factor, scale, gain, pairs};
}

// Terms of the power series below: the next one is at most 2e-11 of the sum.
constexpr int kShortTerms = 24;

// I_0(shape * sqrt(z)) by its power series in nested form, where z = 1 - (2 t / length)^2 = q / (shape / 2)^2. It goes
// on smoothly behind the end of the kernel (z < 0), at a millionth of its height, so no polynomial has to follow an
// edge. Number: float or a vector.
template <class Number, int kCount>
FA_HD void fa_short_bessel(const Number (&q)[kCount], Number (&sum)[kCount]) {
    FA_UNROLL(4) for (int i = 0; i < kCount; ++i) sum[i] = Number{} + 1.0f;
#if FA_CUDA
#pragma unroll 1
#endif
    for (int k = kShortTerms; k > 0; --k) {
        const float square = 1.0f / static_cast<float>(k * k);
        FA_UNROLL(4) for (int i = 0; i < kCount; ++i) sum[i] = q[i] * square * sum[i] + 1.0f;
    }
}

// q at a distance from the position, in samples; and what makes I_0 of it a tap.
FA_HD float fa_short_argument(const FaRepitch& plan, double distance) {
    const double x = plan.scale * distance * (2.0 / kShortLength);
    return static_cast<float>(0.25 * kShortShape * kShortShape * (1.0 - x * x));
}

FA_HD float fa_short_height(const FaRepitch& plan) { return static_cast<float>(plan.gain / kShortHeight); }

// A pair's taps lie j + (1 + v) / 2 samples away from the position, v in [-1, 1]. Node i of the interpolation through
// `count` points, and what its value gives to the coefficient of v^p.
FA_HD double fa_short_node(int i, int count) { return fa_cos_pi((i + 0.5) / count); }

FA_HD float fa_short_weight(int p, int i, int count) {
    double total = 0.0;
#if FA_CUDA
#pragma unroll 1
#endif
    for (int q = p; q < count; q += 2) {
        // v^p in Chebyshev's polynomial T_q, which is q / 2 sum_r (-1)^r (q - r - 1)! / (r! (q - 2 r)!) (2 v)^(q - 2
        // r).
        const int r = (q - p) / 2;
        double term = q ? 0.5 * q : 1.0;
        for (int n = 2; n <= q - r - 1; ++n) term *= n;
        for (int n = 2; n <= r; ++n) term /= n;
        for (int n = 1; n <= p; ++n) term *= 2.0 / n;
        total += (r % 2 ? -term : term) * fa_cos_pi(q * (i + 0.5) / count) * (q ? 2.0 : 1.0) / count;
    }
    return static_cast<float>(total);
}
