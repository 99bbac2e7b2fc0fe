// How loud the noise of a row is: what the CPU loop and the CUDA kernels of add_noise share.
#pragma once

#include "fa_compat.h"

enum FaNoiseMode {
    FA_NOISE_SIGMA = 0,      // level is the standard deviation of the noise
    FA_NOISE_SNR_DB = 1,     // level is 20 log10(rms of the row / standard deviation of the noise)
    FA_NOISE_STD_RATIO = 2,  // level is the standard deviation of the noise over that of the row (n - 1 form)
};

// Sums over a row of (x - shift) and its square, in float64.
struct FaSums {
    double first, second;
};

// The standard deviation is computed around the row's first sample: a constant row gives exactly 0.
FA_HD double fa_noise_shift(int mode, float first_sample) {
    return mode == FA_NOISE_STD_RATIO ? static_cast<double>(first_sample) : 0.0;
}

FA_HD void fa_noise_accumulate(FaSums& sums, float x, double shift) {
    const double d = static_cast<double>(x) - shift;
    sums.first += d;
    sums.second += d * d;
}

// The standard deviation of the noise for a row of n samples; 0 for the n - 1 form of a single sample.
FA_HD float fa_noise_scale(FaSums sums, int64_t n, float level, int mode) {
    const double count = static_cast<double>(n);
    if (mode == FA_NOISE_SNR_DB) {
        const double db_to_log = -0.11512925464970228420;  // -ln(10) / 20
        return static_cast<float>(sqrt(sums.second / count) * exp(db_to_log * static_cast<double>(level)));
    }
    if (mode == FA_NOISE_STD_RATIO) {
        if (n < 2) return 0.0f;
        const double variance = (sums.second - sums.first * sums.first / count) / (count - 1.0);
        return static_cast<float>((variance < 0.0 ? 0.0 : sqrt(variance)) * static_cast<double>(level));
    }
    return level;
}
