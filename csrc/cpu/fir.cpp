// Windowed-sinc filters on the CPU: the design of the taps, the choice between direct form and overlap-save, the rows.
#include <math.h>

#include <algorithm>
#include <vector>

#include "../fir_lanes.h"
#include "api.h"
#include "fft.h"
#include "parallel.h"

namespace {

constexpr int kSmallest = 256, kSizes = 7;  // transforms of 256 to 16384 points

// Nanoseconds on a Zen 4 core (AVX-512), above what every channel costs: a transform of 16 real blocks of 256, 512, ..
// points, there and back, with what goes in and out; and sixteen outputs in direct form, a part for every pair of taps.
// The choice never depends on the machine; the last bits do, as its vectors decide which blocks share a transform.
constexpr double kTransformCost[kSizes] = {2500, 4900, 11600, 27000, 57000, 120000, 270000};
constexpr double kOutputCost = 4.3, kTapCost = 0.325;

// cos and sin of 1, 2, .. 8 times a number of half turns. Only the first come from the library, which takes longer than
// the filter of a short clip; sums of angles give the others.
FA_HD void eight_angles(double half_turns, double* cosine, double* sine) {
    cosine[0] = fa_cos_pi(half_turns), sine[0] = fa_sin_pi(half_turns);
    for (int n = 1; n < 8; ++n) {
        const int a = n / 2, b = n - 1 - a;  // (a + 1) + (b + 1) = n + 1: three sums from the first to any
        cosine[n] = cosine[a] * cosine[b] - sine[a] * sine[b];
        sine[n] = sine[a] * cosine[b] + cosine[a] * sine[b];
    }
}

// Taps 0..half in double precision, those of fa_fir_tap before they have unit sum, and that sum. Sines and cosines of
// eight taps at a time turn on by a fixed angle: rounding grows by 1e-16 a turn.
FA_CLONES void fill_taps(double cutoff, long long half, double* taps, double& sum) {
    constexpr int kPhases = 8;
    const double angles[2] = {2.0 * cutoff, 1.0 / static_cast<double>(half)};  // in half turns
    double cosine[2][kPhases], sine[2][kPhases], turn_cosine[2], turn_sine[2], place[kPhases], sums[kPhases] = {};
    for (int a = 0; a < 2; ++a) {
        eight_angles(angles[a], cosine[a], sine[a]);
        turn_cosine[a] = cosine[a][kPhases - 1], turn_sine[a] = sine[a][kPhases - 1];
    }
    for (int i = 0; i < kPhases; ++i) place[i] = FA_PI * (i + 1);
    taps[0] = 2.0 * cutoff;
    for (long long n = 1; n <= half; n += kPhases) {
        for (int i = 0; i < kPhases; ++i) {
            taps[n + i] = (0.5 + 0.5 * cosine[1][i]) * sine[0][i] / place[i];
            place[i] += FA_PI * kPhases;
        }
        for (int a = 0; a < 2; ++a) {
            for (int i = 0; i < kPhases; ++i) {
                const double c = cosine[a][i], s = sine[a][i];
                cosine[a][i] = c * turn_cosine[a] - s * turn_sine[a];
                sine[a][i] = s * turn_cosine[a] + c * turn_sine[a];
            }
        }
    }
    for (long long n = half + 1; n < half + kPhases; ++n) taps[n] = 0.0;  // the last turn went beyond the end
    for (long long n = 1; n <= half; n += kPhases) {
        for (int i = 0; i < kPhases; ++i) sums[i] += taps[n + i];
    }
    sum = taps[0];
    for (double part : sums) sum += 2.0 * part;
}

// Memory of a thread, kept from row to row.
struct Scratch {
    std::vector<double> exact;
    std::vector<float> taps, circular, silence, spectrum, copy, edges, work;
};

constexpr size_t kKept = size_t{8} << 20;  // bytes; a longer channel or filter gives its memory back

// The cheapest way to filter `length` samples: sets points (0: direct form) and hop.
void choose(FaFir& fir, long long length) {
    double best = kOutputCost + kTapCost * static_cast<double>(fir.half);
    best *= static_cast<double>(length) / 16.0;
    fir.points = 0, fir.hop = 0;
    for (int size = 0; size < kSizes; ++size) {
        const int points = kSmallest << size;
        const long long hop = (points - 2 * fir.half) / 16 * 16;
        if (hop < points / 8) continue;
        const long long blocks = (length + hop - 1) / hop + 2;
        const double cost = static_cast<double>((blocks + 15) / 16) * kTransformCost[size];
        if (cost < best) best = cost, fir.points = points, fir.hop = hop;
    }
}

FaFir design(double cutoff, long long half, bool highpass, long long length, Scratch& scratch) {
    FaFir fir = {};
    fir.half = half, fir.highpass = highpass;
    const size_t count = static_cast<size_t>(half) + 1;
    scratch.exact.resize(count + 8);
    double sum;
    fill_taps(cutoff, half, scratch.exact.data(), sum);
    scratch.taps.resize(count);
    for (size_t n = 0; n < count; ++n) scratch.taps[count - 1 - n] = static_cast<float>(scratch.exact[n] / sum);
    fir.taps = scratch.taps.data();
    choose(fir, length);
    if (!fir.points) return fir;
    const size_t points = static_cast<size_t>(fir.points);
    scratch.circular.assign(points, 0.0f);
    for (size_t n = 0; n < count; ++n) {
        const float tap = scratch.taps[count - 1 - n] / static_cast<float>(points);
        scratch.circular[n] = scratch.circular[n ? points - n : 0] = tap;
    }
    scratch.silence.assign(points, 0.0f);
    scratch.spectrum.resize(points);
    fir.circular = scratch.circular.data(), fir.silence = scratch.silence.data();
    fir.spectrum = scratch.spectrum.data(), fir.fft = &fa::fft_of(fir.points).fft;
    return fir;
}

// The largest magnitude is enough to say that no block needs a look of its own.
FA_CLONES bool tame(const float* x, long long count) {
    int wild = 0;
    for (long long i = 0; i < count; ++i) wild |= !(fabsf(x[i]) < 1e12f);
    return wild == 0;
}

template <class Piece>
FA_HD void filter_channel_lanes(const FaFir& fir, const FaFirLine& line, bool checked) {
    fa_fir_channel<Piece>(fir, line, checked);
}

FA_BY_WIDTH(filter_channel, (const FaFir& fir, const FaFirLine& line, bool checked), (fir, line, checked))

void run_channel(const FaFir& fir, const float* x, float* y, long long length, Scratch& scratch) {
    const bool checked = !tame(x, length);  // reads x in order, which the memory likes better than many streams
    if (x == y) {
        scratch.copy.assign(x, x + length);
        x = scratch.copy.data();
    }
    // Blocks in 32 rows at most; stretches of direct form in 16, with their results.
    const size_t window = std::max(static_cast<size_t>(fir.points), static_cast<size_t>(2 * fir.half + kFirChunk + 16));
    scratch.edges.resize(32 * window);
    scratch.work.resize(32 * window + 16);
    const size_t misaligned = reinterpret_cast<uintptr_t>(scratch.work.data()) / sizeof(float) % 16;
    float* work = scratch.work.data() + (16 - misaligned) % 16;
    filter_channel(fir, {x, y, length, work, scratch.edges.data()}, checked);
}

// Channels of at most kShort samples: most taps meet an edge sample, which repeats, and are added up beforehand.
constexpr int kShort = 32;

void run_short(const float* x, float* y, double cutoff, long long half, bool highpass, long long channels, int length,
               Scratch& scratch) {
    scratch.exact.resize(static_cast<size_t>(half) + 9);
    double *taps = scratch.exact.data(), sum, beyond[kShort + 1];  // beyond[d]: the sum of taps d, d + 1, ..
    fill_taps(cutoff, half, taps, sum);
    const int reach = static_cast<int>(std::min<long long>(half, length));
    for (int d = 0; d <= reach; ++d) {
        taps[d] /= sum;
        beyond[d] = d ? beyond[d - 1] - taps[d - 1] : 0.5 + 0.5 * taps[0];  // the sum of all is 1
    }
    float kept[kShort];
    for (long long c = 0; c < channels; ++c, x += length, y += length) {
        std::copy(x, x + length, kept);
        for (int t = 0; t < length; ++t) {
            double low = t < reach ? beyond[t + 1] * static_cast<double>(kept[0]) : 0.0;
            for (int j = std::max(0, t - reach); j <= std::min(length - 1, t + reach); ++j) {
                low += taps[j < t ? t - j : j - t] * static_cast<double>(kept[j]);
            }
            if (length - t <= reach) low += beyond[length - t] * static_cast<double>(kept[length - 1]);
            y[t] = highpass ? kept[t] - static_cast<float>(low) : static_cast<float>(low);
        }
    }
}

void run_row(const float* x, float* y, double cutoff, bool highpass, long long channels, long long length,
             long long zeros) {
    const long long half = fa_fir_half(cutoff, zeros);
    if (half < 0) {
        if (!highpass) std::fill(y, y + channels * length, 0.0f);
        if (highpass && x != y) std::copy(x, x + channels * length, y);
        return;
    }
    if (length == 1) {  // the same number everywhere: the gain at 0 Hz, 1 or 0
        for (long long c = 0; c < channels; ++c) y[c] = highpass ? x[c] - x[c] : x[c];
        return;
    }
    thread_local Scratch scratch;
    if (length <= kShort) {
        run_short(x, y, cutoff, half, highpass, channels, static_cast<int>(length), scratch);
    } else {
        const FaFir fir = design(cutoff, half, highpass, length, scratch);
        for (long long c = 0; c < channels; ++c) run_channel(fir, x + c * length, y + c * length, length, scratch);
    }
    if ((scratch.copy.size() + 2 * scratch.work.size() + 3 * scratch.exact.size()) * sizeof(float) > kKept)
        scratch = {};
}

}  // namespace

void fa_windowed_sinc(const float* x, float* y, const double* cutoff, const unsigned char* highpass,
                      const unsigned char* active, long long rows, long long channels, long long length,
                      long long zeros, long long threads) {
    if (length == 0) return;
    fa::parallel_rows(rows, threads, [&](long long row) {
        const float* in = x + row * channels * length;
        float* out = y + row * channels * length;
        if (!active || active[row]) {
            run_row(in, out, cutoff[row], highpass[row] != 0, channels, length, zeros);
        } else if (in != out) {
            std::copy(in, in + channels * length, out);
        }
    });
}
