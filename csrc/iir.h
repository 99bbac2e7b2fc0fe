// Recursive filters as cascades of sections of second order: their design, and one section as a recursion in double
// precision, which is what 20 Hz at 96 kHz needs: the poles lie 1e-3 from the unit circle, their coefficients' sum
// 1e-6.
#pragma once

#include "fa_compat.h"

// y[n] = b0 x[n] + b1 x[n - 1] + b2 x[n - 2] - a1 y[n - 1] - a2 y[n - 2], all divided by a0. Six numbers in memory, in
// the order of scipy.signal's "sos".
struct FaSos {
    double b0, b1, b2, a0, a1, a2;
};

constexpr int kSosNumbers = 6;
constexpr int kIirLargestOrder = 16;
constexpr int kIirMostSections = 16;
constexpr double kIirEdge = 1e-7;  // a cutoff as close as this to 0 or to half the rate is taken as there

FA_HD double fa_sos_number(const FaSos& sos, int i) {
    return i == 0 ? sos.b0 : i == 1 ? sos.b1 : i == 2 ? sos.b2 : i == 3 ? sos.a0 : i == 4 ? sos.a1 : sos.a2;
}

// Sine and cosine of pi * frequency, both exact next to 0 and to 1/2.
struct FaAngle {
    double sine, cosine;
};

FA_HD FaAngle fa_iir_angle(double frequency) { return {fa_sin_pi(frequency), fa_sin_pi(0.5 - frequency)}; }

// Section `index` of the Butterworth filter of `order`, from the least resonant on; an odd order begins with its
// section of first order. Bilinear transform with the cutoff (fraction of the rate, -3 dB) prewarped: with s, c = sin,
// cos of pi * cutoff, K = s / c, everything is multiplied by c or c^2, so that no tangent overflows and no 1 - cos
// cancels. First order: K / (K + 1) and (K - 1) / (K + 1), the allpass form of Zoelzer, DAFX, 2.2 (essentia's LowPass,
// HighPass).
FA_HD FaSos fa_butterworth_section(double cutoff, bool highpass, int order, int index) {
    if (!(cutoff > kIirEdge)) return {highpass ? 1.0 : 0.0, 0.0, 0.0, 1.0, 0.0, 0.0};
    if (cutoff > 0.5 - kIirEdge) return {highpass ? 0.0 : 1.0, 0.0, 0.0, 1.0, 0.0, 0.0};
    const FaAngle w = fa_iir_angle(cutoff);
    if (order % 2 != 0 && index == 0) {
        const double a0 = w.sine + w.cosine, b0 = (highpass ? w.cosine : w.sine) / a0;
        return {b0, highpass ? -b0 : b0, 0.0, 1.0, (w.sine - w.cosine) / a0, 0.0};
    }
    const int pair = order / 2 - 1 - (order % 2 != 0 ? index - 1 : index);
    const double inverse_q = 2.0 * fa_sin_pi((2.0 * pair + 1.0) / (2.0 * order));
    const double alpha = w.sine * w.cosine * inverse_q, a0 = 1.0 + alpha;
    const double b0 = (highpass ? w.cosine * w.cosine : w.sine * w.sine) / a0;
    const double a1 = 2.0 * (w.sine + w.cosine) * (w.sine - w.cosine) / a0;
    return {b0, highpass ? -2.0 * b0 : 2.0 * b0, b0, 1.0, a1, (1.0 - alpha) / a0};
}

// R. Bristow-Johnson, "Cookbook formulae for audio equalizer biquad filter coefficients": BPF (0 dB peak gain), notch,
// peakingEQ, lowShelf, highShelf. At 0 and at half the rate: what they tend to.
enum FaBiquadKind : int { kBandPass = 0, kNotch = 1, kPeaking = 2, kLowShelf = 3, kHighShelf = 4 };

FA_HD FaSos fa_biquad(int kind, double frequency, double q, double gain_db) {
    const bool bottom = !(frequency > kIirEdge), top = frequency > 0.5 - kIirEdge;
    const double a = exp(gain_db * 0.057564627324851142);  // 10^(gain_db / 40)
    if (bottom || top) {
        const bool raised = (kind == kLowShelf && top) || (kind == kHighShelf && bottom);
        return {kind == kBandPass ? 0.0 : raised ? a * a : 1.0, 0.0, 0.0, 1.0, 0.0, 0.0};
    }
    const FaAngle w = fa_iir_angle(frequency);
    const double cosine = (w.cosine + w.sine) * (w.cosine - w.sine), alpha = w.sine * w.cosine / q;
    FaSos s;
    if (kind == kBandPass) {
        s = {alpha, 0.0, -alpha, 1.0 + alpha, -2.0 * cosine, 1.0 - alpha};
    } else if (kind == kNotch) {
        s = {1.0, -2.0 * cosine, 1.0, 1.0 + alpha, -2.0 * cosine, 1.0 - alpha};
    } else if (kind == kPeaking) {
        s = {1.0 + alpha * a, -2.0 * cosine, 1.0 - alpha * a, 1.0 + alpha / a, -2.0 * cosine, 1.0 - alpha / a};
    } else {  // the high shelf is the low shelf with the sign of the cosine turned
        const double c = kind == kLowShelf ? cosine : -cosine, turn = kind == kLowShelf ? 2.0 : -2.0;
        const double up = a + 1.0, down = a - 1.0, slope = 2.0 * sqrt(a) * alpha;
        s = {a * (up - down * c + slope), turn * a * (down - up * c), a * (up - down * c - slope),
             up + down * c + slope,       -turn * (down + up * c),    up + down * c - slope};
    }
    return {s.b0 / s.a0, s.b1 / s.a0, s.b2 / s.a0, 1.0, s.a1 / s.a0, s.a2 / s.a0};
}

// The section as it is run. Transposed direct form II, y = b0 x + s1, s1' = b1 x - a1 y + s2, s2' = b2 x - a2 y, with y
// put into the other two lines: the output then is off the recursion's critical path.
//   s1[n + 1] = c1 x[n] - a1 s1[n] + s2[n]        c1 = b1 - a1 b0
//   s2[n + 1] = c2 x[n] - a2 s1[n]                c2 = b2 - a2 b0
struct FaSection {
    double b0, c1, c2, minus_a1, minus_a2;
};

FA_HD FaSection fa_section(const FaSos& s) {
    const double b0 = s.b0 / s.a0, a1 = s.a1 / s.a0, a2 = s.a2 / s.a0;
    return {b0, fa_fma(-a1, b0, s.b1 / s.a0), fa_fma(-a2, b0, s.b2 / s.a0), -a1, -a2};
}

// Both poles inside the unit circle (the triangle of a1 and a2), and all numbers finite.
FA_HD bool fa_stable(const FaSection& s) {
    const bool finite = s.b0 - s.b0 == 0.0 && s.c1 - s.c1 == 0.0 && s.c2 - s.c2 == 0.0;
    return finite && s.minus_a2 < 1.0 && s.minus_a2 > -1.0 && fabs(s.minus_a1) < 1.0 - s.minus_a2;
}

FA_HD bool fa_first_order(const FaSection& s) { return s.c2 == 0.0 && s.minus_a2 == 0.0; }

FA_HD double fa_section_output(const FaSection& s, double x, double s1) { return fa_fma(s.b0, x, s1); }

// The state after one sample.
FA_HD void fa_section_step(const FaSection& s, double x, double& s1, double& s2) {
    const double before = s1;
    s1 = fa_fma(s.minus_a1, before, fa_fma(s.c1, x, s2));
    s2 = fa_fma(s.minus_a2, before, s.c2 * x);
}

// The state transition without input: a 2 x 2 matrix, and products of it.
struct FaMatrix {
    double a, b, c, d;  // rows (a, b), (c, d)
};

FA_HD FaMatrix fa_transition(const FaSection& s) { return {s.minus_a1, 1.0, s.minus_a2, 0.0}; }

FA_HD FaMatrix fa_product(const FaMatrix& m, const FaMatrix& n) {
    return {fa_fma(m.a, n.a, m.b * n.c), fa_fma(m.a, n.b, m.b * n.d), fa_fma(m.c, n.a, m.d * n.c),
            fa_fma(m.c, n.b, m.d * n.d)};
}

FA_HD FaMatrix fa_power(FaMatrix base, int exponent) {
    FaMatrix result = {1.0, 0.0, 0.0, 1.0};
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) result = fa_product(result, base);
        base = fa_product(base, base);
    }
    return result;
}

// (s1, s2) += m (t1, t2)
FA_HD void fa_add_product(const FaMatrix& m, double t1, double t2, double& s1, double& s2) {
    s1 = fa_fma(m.a, t1, fa_fma(m.b, t2, s1));
    s2 = fa_fma(m.c, t1, fa_fma(m.d, t2, s2));
}
