// CPU only: one row of the resampling of a pitch shift.
#pragma once

#include "repitch.h"

// Samples that must be readable on both sides of the source: zeros.
long long fa_repitch_margin(double factor);

// y[m] = x at m / factor, m < length. x: source sample 0. half_band: kHalfBandTaps taps with sum 1.
void fa_repitch_row(const float* x, float* y, long long length, double factor, const float* half_band);
