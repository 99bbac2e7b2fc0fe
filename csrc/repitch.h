// The resampling of a pitch shift: output m is the value at source position m / factor, below 0.91 of the lower of the
// two Nyquist frequencies. One sharp filter at an arbitrary ratio would need some hundred taps of its own for every
// output; two filters share the work. The sharp one is a fixed half-band, which only halves or doubles a rate; the one
// at the arbitrary ratio sees twice the rate that it needs and is short (Crochiere & Rabiner, "Multirate Digital Signal
// Processing", 1983, section 6.3: the transition band that a first stage leaves to a second).
// Pitch down (factor > 1): the half-band puts a sample between any two, the short filter reads at 2 m / factor.
// Pitch up (factor < 1): the short filter reads at half outputs, m / (2 factor), the half-band takes every other away.
// So what lies between 0.91 and 1 of the lower Nyquist frequency fades out, and leaves an image that fades with it.
#pragma once

#include "fa_compat.h"

// Taps of the half-band between its samples, at -39.5 ... 39.5; the others are 1 in the middle and 0.
constexpr int kHalfBandTaps = 80;
// Intervals between two samples in which the short filter is tabulated; between them it is linear (images at -108 dB
// for a tone at the highest frequency, less by 12 dB for each octave below).
constexpr int kShortPhases = 512;
constexpr int kShortSupport = 8;  // half length in half outputs (pitch up), in half source samples (pitch down)

// The short filter at x = 0, 1, 2, ... in steps of 1 / density, two zeros from kShortSupport on.
struct FaShortFilter {
    const float* samples;
    long long density;
};

struct FaShortPosition {
    int index, phase;  // sample at or before the position, counted from a base; row of the table
    float fraction;    // between that row and the next
};

// Read step, scale of the filter's axis and gain for a stretch factor.
struct FaRepitch {
    double step, scale;
    float gain;

    // Taps of the short filter in source samples, rounded up to whole lanes.
    FA_HD int width() const {
        const int needed = static_cast<int>(2.0 * kShortSupport / scale + 0.999999);
        return (needed + 15) / 16 * 16;
    }
};

FA_HD FaRepitch fa_repitch(double factor) {
    if (factor > 1.0) return {2.0 / factor, 1.0, 1.0f};
    return {1.0 / factor, 2.0 * factor, static_cast<float>(factor)};  // half the gain: the half-band adds two values
}

// The position of output k (or k + 0.5) as base + index + (phase + fraction) / kShortPhases; base: an integer below.
FA_HD FaShortPosition fa_short_position(double k, double step, double base) {
    const double position = fa_add(fa_mul(k, step), -base);
    const int index = static_cast<int>(position);
    const double scaled = fa_mul(fa_add(position, -static_cast<double>(index)), static_cast<double>(kShortPhases));
    const int phase = static_cast<int>(scaled);
    return {index, phase, static_cast<float>(fa_add(scaled, -static_cast<double>(phase)))};
}

// Tap j < width of the table's row `phase` <= kShortPhases.
FA_HD float fa_short_tap(const FaShortFilter& filter, const FaRepitch& plan, int width, int phase, int j) {
    const double t = static_cast<double>(j - width / 2 + 1) - static_cast<double>(phase) * (1.0 / kShortPhases);
    const double end = static_cast<double>(kShortSupport * filter.density);
    const double at = fa_min(fabs(t) * (plan.scale * static_cast<double>(filter.density)), end);
    const int index = static_cast<int>(at);
    const float u = static_cast<float>(at - static_cast<double>(index)), left = FA_LD(filter.samples + index);
    const float slope = fa_add(FA_LD(filter.samples + index + 1), -left);
    return fa_mul(plan.gain, fa_add(left, fa_mul(u, slope)));
}
