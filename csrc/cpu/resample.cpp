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

template <class Piece>
FA_HD void resample_interpolated_lanes(const FaStretch& source, float* y, long long start, long long length,
                                       Ratio ratio, const float* table, long long half, float* scratch) {
    const long long width = 2 * half;
    for (long long k = 0; k < length; ++k) {
        const FaPosition at = fa_interpolated_position(start + k, ratio.up, ratio.down);
        const float* window = fa_window(source, at.index - half + 1, width, scratch);
        y[k] = fa_dot_interpolated<Piece>(window, table + at.phase * 3 * width, width, at.fraction);
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
        std::vector<float> scratch(static_cast<size_t>(2 * half));
        auto* function = interpolated ? resample_interpolated : resample_exact;
        function(source, out, start, length, ratio, taps, half, scratch.data());
    });
}
