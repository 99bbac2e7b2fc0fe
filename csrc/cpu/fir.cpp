// Windowed-sinc filters on the CPU: direct convolution, outputs on lanes, each in the same order as a plain loop.
#include "../fir.h"

#include <algorithm>
#include <vector>

#include "../fa_simd.h"
#include "api.h"
#include "parallel.h"

namespace {

typedef float Vector __attribute__((vector_size(64)));
constexpr int kVectors = 4;
constexpr int kTile = kVectors * 16;  // outputs per pass over the taps

struct Filter {
    std::vector<float> taps;  // 0..half
    long long half = -1;
    float scale = 0.0f;  // one over the sum of all taps
};

Filter design(double cutoff, long long zeros) {
    Filter filter;
    filter.half = fa_fir_half(cutoff, zeros);
    double sum = 0.0;
    for (long long n = 0; n <= filter.half; ++n) {
        const double tap = fa_fir_tap(cutoff, filter.half, n);
        sum += n ? 2.0 * tap : tap;
        filter.taps.push_back(static_cast<float>(tap));
    }
    filter.scale = filter.half < 0 ? 0.0f : static_cast<float>(1.0 / sum);
    return filter;
}

FA_HD void load(const float* source, Vector& value) { memcpy(&value, source, sizeof value); }

// kTile outputs around `x`, whose neighbours within `half` (and the tile) are readable.
FA_HD void convolve_tile(const float* x, float* y, const float* taps, long long half, float scale, bool highpass) {
    Vector sums[kVectors] = {};
    for (long long j = half; j > 0; --j) {
        const float tap = taps[j];
        for (int v = 0; v < kVectors; ++v) {
            Vector left, right;
            load(x - j + 16 * v, left);
            load(x + j + 16 * v, right);
            sums[v] += tap * (left + right);
        }
    }
    float total[kTile];
    memcpy(total, sums, sizeof sums);
    for (int i = 0; i < kTile; ++i) y[i] = fa_fir_finish(total[i], taps[0], x[i], scale, highpass);
}

FA_CLONES void convolve(const float* padded, float* y, long long length, const float* taps, long long half, float scale,
                        bool highpass) {
    long long t = 0;
    for (; t + kTile <= length; t += kTile) convolve_tile(padded + half + t, y + t, taps, half, scale, highpass);
    if (t < length) {
        float last[kTile];
        convolve_tile(padded + half + t, last, taps, half, scale, highpass);
        std::copy(last, last + (length - t), y + t);
    }
}

void filter_channel(const float* x, float* y, long long length, const Filter& filter, bool highpass,
                    std::vector<float>& padded) {
    if (filter.half < 0) {
        for (long long t = 0; t < length; ++t) y[t] = highpass ? x[t] : 0.0f;
        return;
    }
    padded.assign(static_cast<size_t>(length + 2 * filter.half + kTile), x[length - 1]);
    std::fill(padded.begin(), padded.begin() + filter.half, x[0]);
    std::copy(x, x + length, padded.begin() + filter.half);
    convolve(padded.data(), y, length, filter.taps.data(), filter.half, filter.scale, highpass);
}

}  // namespace

void fa_windowed_sinc(const float* x, float* y, const double* cutoff, const unsigned char* highpass,
                      const unsigned char* active, long long rows, long long channels, long long length,
                      long long zeros, long long threads) {
    if (length == 0) return;
    fa::parallel_rows(rows, threads, [&](long long row) {
        const float* in = x + row * channels * length;
        float* out = y + row * channels * length;
        if (active && !active[row]) {
            std::copy(in, in + channels * length, out);
            return;
        }
        const Filter filter = design(cutoff[row], zeros);
        std::vector<float> padded;
        for (long long c = 0; c < channels; ++c) {
            filter_channel(in + c * length, out + c * length, length, filter, highpass[row] != 0, padded);
        }
    });
}
