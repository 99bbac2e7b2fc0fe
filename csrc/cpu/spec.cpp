// Masks and warps of spectrograms on the CPU: a row on a thread, lines of frames in vectors.
#include "../spec.h"

#include <vector>

#include "../fa_simd.h"
#include "api.h"
#include "parallel.h"

namespace {

// Sixteen partial sums: rounding depends on the line alone, and the loop becomes vectors.
FA_CLONES double sum_of_line(const float* x, int64_t count) {
    double parts[16] = {};
    int64_t n = 0;
    for (; n + 16 <= count; n += 16)
        for (int k = 0; k < 16; ++k) parts[k] += static_cast<double>(x[n + k]);
    double sum = 0.0;
    for (; n < count; ++n) sum += static_cast<double>(x[n]);
    for (double part : parts) sum += part;
    return sum;
}

// Stretches of `count` numbers, one in each of `lines` lines of `stride`.
FA_CLONES void fill_stretches(float* y, int64_t lines, int64_t stride, int64_t count, float value) {
    for (; lines > 0; --lines, y += stride) {
        for (int64_t n = 0; n < count; ++n) y[n] = value;
    }
}

// Mask m as [begin, begin + count) within an axis.
struct Stretch {
    int64_t begin, count;

    Stretch(const FaIntervals& masks, int64_t m, int64_t size) : begin(fa_clamp<int64_t>(masks.start[m], 0, size)) {
        const int64_t left = masks.start[m] - begin;  // negative where it begins before the axis
        count = fa_clamp<int64_t>(masks.size[m] + left, 0, size - begin);
    }
};

void mask_row(float* y, int64_t channels, int64_t bins, int64_t frames, const FaIntervals& freq,
              const FaIntervals& time, int64_t row, float fill) {
    for (int64_t m = row * freq.count; m < (row + 1) * freq.count; ++m) {
        const Stretch mask(freq, m, bins);
        fill_stretches(y + mask.begin * frames, channels, bins * frames, mask.count * frames, fill);
    }
    for (int64_t m = row * time.count; m < (row + 1) * time.count; ++m) {
        const Stretch mask(time, m, frames);
        if (mask.count) fill_stretches(y + mask.begin, channels * bins, frames, mask.count, fill);
    }
}

// Taps of every output of an axis, tap k of output i at [k * count + i].
struct Axis {
    std::vector<int> index;
    std::vector<float> weight;

    Axis(const float* positions, const long long* range, int64_t count, int64_t size, bool cubic)
        : index(static_cast<size_t>(4 * count)), weight(static_cast<size_t>(4 * count)) {
        const int low = range ? static_cast<int>(range[0]) : 0;
        const int high = range ? static_cast<int>(range[1]) : static_cast<int>(size - 1);
        for (int64_t i = 0; i < count; ++i) {
            const FaTaps taps = fa_taps(positions[i], low, high, static_cast<int>(size), cubic);
            for (int64_t k = 0; k < 4; ++k) {
                index[static_cast<size_t>(k * count + i)] = taps.index[k];
                weight[static_cast<size_t>(k * count + i)] = taps.weight[k];
            }
        }
    }
};

FA_CLONES void warp_line(const float* x, float* y, int64_t count, const int* index, const float* weight) {
    for (int64_t n = 0; n < count; ++n) {
        float sum = 0.0f;
        for (int64_t k = 0; k < 4; ++k) {
            const float w = weight[k * count + n], product = w * x[index[k * count + n]];
            sum += w == 0.0f ? 0.0f : product;
        }
        y[n] = sum;
    }
}

// y = sum of w[k] * lines[k], lines of weight 0 left out.
FA_CLONES void mix_lines(const float* const lines[4], const float* w, float* y, int64_t count) {
    for (int64_t n = 0; n < count; ++n) {
        float sum = 0.0f;
        for (int k = 0; k < 4; ++k) {
            const float product = w[k] * lines[k][n];
            sum += w[k] == 0.0f ? 0.0f : product;
        }
        y[n] = sum;
    }
}

}  // namespace

void fa_spec_mask(const float* x, float* y, const long long* freq_start, const long long* freq_size,
                  long long freq_count, const long long* time_start, const long long* time_size, long long time_count,
                  double fill, int mean, const long long* valid, const unsigned char* active, long long rows,
                  long long channels, long long bins, long long frames, long long threads) {
    const FaIntervals freq = {freq_start, freq_size, freq_count}, time = {time_start, time_size, time_count};
    const int64_t lines = channels * bins;
    fa::parallel_rows(rows, threads, [&](int64_t row) {
        const float* from = x + row * lines * frames;
        float* to = y + row * lines * frames;
        if (x != y) memcpy(to, from, sizeof(float) * static_cast<size_t>(lines * frames));
        if (active && !active[row]) return;
        double value = fill;
        if (mean) {
            const int64_t sound = valid ? fa_clamp<int64_t>(valid[row], 0, frames) : frames;
            value = 0.0;
            for (int64_t line = 0; line < lines; ++line) value += sum_of_line(from + line * frames, sound);
            value /= static_cast<double>(fa_max<int64_t>(lines * sound, 1));
        }
        mask_row(to, channels, bins, frames, freq, time, row, static_cast<float>(value));
    });
}

void fa_spec_warp(const float* x, float* y, const float* freq_at, const long long* freq_range, const float* time_at,
                  const long long* time_range, int cubic, const unsigned char* active, long long rows,
                  long long channels, long long bins, long long frames, long long threads) {
    fa::parallel_rows(rows, threads, [&](int64_t row) {
        const int64_t size = channels * bins * frames;
        const float* from = x + row * size;
        float* to = y + row * size;
        if (active && !active[row]) {
            memcpy(to, from, sizeof(float) * static_cast<size_t>(size));
            return;
        }
        const Axis time(time_at + row * frames, time_range ? time_range + 2 * row : nullptr, frames, frames, cubic);
        const Axis freq(freq_at + (freq_at ? row * bins : 0), freq_range ? freq_range + 2 * row : nullptr,
                        freq_at ? bins : 0, bins, cubic);
        std::vector<float> warped(freq_at ? static_cast<size_t>(bins * frames) : 0);
        for (int64_t channel = 0; channel < channels; ++channel, from += bins * frames, to += bins * frames) {
            float* lines = freq_at ? warped.data() : to;
            for (int64_t f = 0; f < bins; ++f)
                warp_line(from + f * frames, lines + f * frames, frames, time.index.data(), time.weight.data());
            if (!freq_at) continue;
            for (int64_t f = 0; f < bins; ++f) {
                const float* taken[4];
                float weights[4];
                for (int64_t k = 0; k < 4; ++k) {
                    taken[k] = lines + freq.index[static_cast<size_t>(k * bins + f)] * frames;
                    weights[k] = freq.weight[static_cast<size_t>(k * bins + f)];
                }
                mix_lines(taken, weights, to + f * frames, frames);
            }
        }
    });
}
