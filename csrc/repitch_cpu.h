// CPU only: one row of the resampling of a pitch shift.
#pragma once

#include "repitch.h"

// Samples that must be readable on both sides of the source: zeros.
long long fa_repitch_margin(double factor);

// Floats in the table of a factor, and the table. All factors above 1 have the same.
long long fa_repitch_entries(double factor);
void fa_repitch_table(const FaShortFilter& filter, double factor, float* table);

// Outputs up to which a row with a factor below 1 needs no table.
constexpr int kRepitchShort = 32;

// y[m] = x at m / factor, m < length. x: source sample 0 of `count`. half_band: kHalfBandTaps taps with sum 1. table:
// null where it is not needed.
void fa_repitch_row(const float* x, long long count, float* y, long long length, double factor, const float* half_band,
                    const FaShortFilter& filter, const float* table);
