// Sample-rate conversion on the CPU, output by output: rows on threads, taps on lanes. For the ratios that
// resample_fft.cpp cannot do, and for its blocks that hold a NaN or Inf.
#include <vector>

#include "../resample_cpu.h"
#include "api.h"
#include "parallel.h"

namespace {

struct Ratio {
    long long up, down;
};

// Outputs [start, start + length) of one row, each with its own row of the table (up, width).
template <class Piece>
FA_HD void resample_exact_lanes(const FaStretch& source, float* y, long long start, long long length, Ratio ratio,
                                const float* taps, long long half, float* scratch) {
    const long long width = 2 * half;
    long long k = 0;
    const long long group = 4 * ratio.up;
    // Whole groups inside the source: outputs k, k + up, k + 2 up, k + 3 up share their taps.
    for (; k + group <= length; k += group) {
        const long long first = fa_exact_position(start + k, ratio.up, ratio.down).index - half + 1 - source.start;
        const long long last =
            fa_exact_position(start + k + group - 1, ratio.up, ratio.down).index + half - source.start;
        if (first >= 0 && last < source.count) {
            for (long long i = 0; i < ratio.up; ++i) {
                const FaPosition at = fa_exact_position(start + k + i, ratio.up, ratio.down);
                fa_dot4<Piece>(source.x + (at.index - half + 1 - source.start), ratio.down, taps + at.phase * width,
                               width, y + k + i, ratio.up);
            }
        } else {
            for (long long i = k; i < k + group; ++i) {
                const FaPosition at = fa_exact_position(start + i, ratio.up, ratio.down);
                y[i] = fa_dot<Piece>(fa_window(source, at.index - half + 1, width, scratch), taps + at.phase * width,
                                     width);
            }
        }
    }
    for (; k < length; ++k) {
        const FaPosition at = fa_exact_position(start + k, ratio.up, ratio.down);
        y[k] = fa_dot<Piece>(fa_window(source, at.index - half + 1, width, scratch), taps + at.phase * width, width);
    }
}

constexpr int kSorted = 1024;  // outputs that are put in the order of their intervals at a time

// At most kSorted outputs, by intervals of the table: neighbours there share its quadratics.
template <class Piece>
FA_HD void resample_sorted_lanes(const FaStretch& source, float* y, long long start, int length, Ratio ratio,
                                 const float* table, long long half, float* scratch) {
    const long long width = 2 * half;
    int begins[kResamplePhases + 1] = {}, order[kSorted], next[kResamplePhases];
    FaPosition at[kSorted];
    for (int k = 0; k < length; ++k) {
        at[k] = fa_interpolated_position(start + k, ratio.up, ratio.down);
        ++begins[at[k].phase + 1];
    }
    for (int phase = 0; phase < kResamplePhases; ++phase) {
        begins[phase + 1] += begins[phase];
        next[phase] = begins[phase];
    }
    for (int k = 0; k < length; ++k) order[next[at[k].phase]++] = k;
    for (int phase = 0; phase < kResamplePhases; ++phase) {
        for (int first = begins[phase]; first < begins[phase + 1]; first += 4) {
            const float* windows[4];
            float fractions[4], values[4];
            const int count = fa_min(4, begins[phase + 1] - first);
            for (int i = 0; i < 4; ++i) {
                const FaPosition& own = at[order[first + fa_min(i, count - 1)]];
                windows[i] = i < count ? fa_window(source, own.index - half + 1, width, scratch + i * width)
                                       : windows[count - 1];
                fractions[i] = own.fraction;
            }
            fa_dot_interpolated4<Piece>(windows, table + phase * 3 * width, width, fractions, values);
            for (int i = 0; i < count; ++i) y[order[first + i]] = values[i];
        }
    }
}

template <class Piece>
FA_HD void resample_interpolated_lanes(const FaStretch& source, float* y, long long start, long long length,
                                       Ratio ratio, const float* table, long long half, float* scratch) {
    for (long long k = 0; k < length; k += kSorted) {
        resample_sorted_lanes<Piece>(source, y + k, start + k, static_cast<int>(fa_min<long long>(kSorted, length - k)),
                                     ratio, table, half, scratch);
    }
}

FA_BY_WIDTH(resample_exact,
            (const FaStretch& source, float* y, long long start, long long length, Ratio ratio, const float* taps,
             long long half, float* scratch),
            (source, y, start, length, ratio, taps, half, scratch))
FA_BY_WIDTH(resample_interpolated,
            (const FaStretch& source, float* y, long long start, long long length, Ratio ratio, const float* taps,
             long long half, float* scratch),
            (source, y, start, length, ratio, taps, half, scratch))

}  // namespace

void fa_resample_table(const double* master, long long density, double support, double scale, long long half,
                       float* table) {
    std::vector<double> ends(static_cast<size_t>(2 * half));
    fa_fill_table({master, density, support}, scale, half, ends.data(), table);
}

void fa_resample(const float* x, float* y, long long rows, long long stride, long long count, long long x_start,
                 long long start, long long length, long long up, long long down, const float* taps, long long half,
                 int interpolated, long long threads) {
    const Ratio ratio = {up, down};
    fa::parallel_rows(rows, threads, [&](long long row) {
        const FaStretch source = {x + row * stride, x_start, count};
        float* out = y + row * length;
        std::vector<float> scratch(static_cast<size_t>(8 * half));
        auto* function = interpolated ? resample_interpolated : resample_exact;
        function(source, out, start, length, ratio, taps, half, scratch.data());
    });
}
