#include "noise.h"

#include "../fa_simd.h"
#include "../normal.h"

namespace {

constexpr int kLanes = 8;    // partial sums of a row, combined in a fixed order: the same bits for any thread count
constexpr int kBlocks = 16;  // Philox blocks computed side by side
constexpr int kTile = 4 * kBlocks;

FA_CLONES FaSums sums(const float* x, int64_t n, double shift) {
    double first[kLanes] = {}, second[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const double d = static_cast<double>(x[i + lane]) - shift;
            first[lane] += d;
            second[lane] += d * d;
        }
    }
    FaSums total = {0.0, 0.0};
    for (int lane = 0; lane < kLanes; ++lane) {
        total.first += first[lane];
        total.second += second[lane];
    }
    for (; i < n; ++i) fa_noise_accumulate(total, x[i], shift);
    return total;
}

// Box and Muller's normals are most of the work; what follows them only where there is something to follow.
template <bool Bare>
FA_HD void add_channel(const float* x, float* y, int64_t length, float sigma, float limit, FaLevel after, uint32_t key0,
                       uint32_t key1, uint32_t stream, uint32_t channel) {
    const auto noisy = [=](float sample, float z) {
        const float sum = sample + sigma * z;
        return Bare ? sum : fa_level_sample(fa_limit(sum, limit), after);
    };
    for (int64_t start = 0; start < length; start += kTile) {
        float z[kTile];
        for (int j = 0; j < kBlocks; ++j) {
            const FaNormals four = fa_normals(key0, key1, stream, channel, start / 4 + j);
            z[4 * j] = four.z0;
            z[4 * j + 1] = four.z1;
            z[4 * j + 2] = four.z2;
            z[4 * j + 3] = four.z3;
        }
        if (start + kTile <= length) {
            FA_SAME_OR_APART
            for (int i = 0; i < kTile; ++i) y[start + i] = noisy(x[start + i], z[i]);
        } else {
            FA_SAME_OR_APART
            for (int i = 0; start + i < length; ++i) y[start + i] = noisy(x[start + i], z[i]);
        }
    }
}

FA_CLONES void add_bare(const float* x, float* y, int64_t length, float sigma, const uint32_t* key, uint32_t channel) {
    add_channel<true>(x, y, length, sigma, 0.0f, {}, key[0], key[1], key[2], channel);
}

FA_CLONES void add_and_level(const float* x, float* y, int64_t length, float sigma, float limit, FaLevel after,
                             const uint32_t* key, uint32_t channel) {
    add_channel<false>(x, y, length, sigma, limit, after, key[0], key[1], key[2], channel);
}

}  // namespace

FaSums fa::noise_sums(const float* x, int64_t n, double shift) { return sums(x, n, shift); }

void fa::add_noise(const float* x, float* y, int64_t length, float sigma, float limit, FaLevel after,
                   const long long* key, uint32_t channel) {
    const uint32_t words[3] = {static_cast<uint32_t>(key[0]), static_cast<uint32_t>(key[1]),
                               static_cast<uint32_t>(key[2])};
    if (limit == fa_no_limit() && fa_is_plain(after)) return add_bare(x, y, length, sigma, words, channel);
    add_and_level(x, y, length, sigma, limit, after, words, channel);
}
