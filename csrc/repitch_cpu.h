// CPU only: one row of the resampling of a pitch shift.
#pragma once

#include "repitch.h"

// Rows of at most so many samples go through repitch_short_lanes.h, longer ones through repitch_lanes.h, which makes
// 1920 outputs in the time of 641. Which of the two depends on nothing else.
constexpr long long kShortRow = 1024;

// Samples that must be readable on both sides of the source: zeros.
long long fa_repitch_margin(double factor, long long length);

// y[m] = x at m / factor, m < length. x: source sample 0 of `count`. half_band: kHalfBandTaps taps with sum 1.
void fa_repitch_row(const float* x, long long count, float* y, long long length, double factor, const float* half_band);

// The two ways: x and y as above, coefficients of fa_repitch_fit.
void fa_repitch_long(const float* x, float* y, long long length, double factor, const float* coefficient,
                     const float* half_band);
void fa_repitch_short(const float* x, int count, float* y, int length, double factor, const float* coefficient,
                      const float* half_band);
long long fa_repitch_long_margin(double factor);
long long fa_repitch_short_margin(double factor);

constexpr int kMostCoefficients = kMostPairs * (kHighDegree + 1);

// degree + 1 coefficients for each pair of taps: `room` (kMostCoefficients) or numbers that are kept.
const float* fa_repitch_fit(const FaRepitch& plan, float* room);
