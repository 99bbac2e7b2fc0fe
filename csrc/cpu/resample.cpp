// Sample-rate conversion on the CPU: rows on threads; outputs or taps on lanes.
#include <memory>
#include <vector>

#include "../resample_cpu.h"
#include "../resample_tile.h"
#include "api.h"
#include "parallel.h"

namespace {

constexpr long long kLeastStretch = 128;  // outputs: below, putting the samples side by side costs too much

struct Ratio {
    long long up, down;
};

// Outputs of one stretch of a tile.
long long stretch_outputs(Ratio ratio) { return (kLeastStretch + ratio.up - 1) / ratio.up * ratio.up; }

// The tile for outputs from `start` on, and the lists that it points at. sorted: (up, spread + 16, steps).
class Tiling {
  public:
    Tiling(long long start, Ratio ratio, long long half, const float* sorted, long long spread) {
        tile_.outputs = stretch_outputs(ratio);
        tile_.hop = tile_.outputs / ratio.up * ratio.down;
        tile_.spread = spread;
        tile_.steps = (2 * half + spread + kResampleLanes - 1) / kResampleLanes;
        const long long first = fa_exact_position(start, ratio.up, ratio.down).index;
        for (long long o = 0; o < tile_.outputs; ++o) {
            const FaPosition at = fa_exact_position(start + o, ratio.up, ratio.down);
            offsets_.push_back(at.index - first);
            taps_.push_back(sorted + at.phase * (spread + kResampleLanes) * tile_.steps);
        }
        tile_.samples = (offsets_.back() + tile_.steps * kResampleLanes + 3) / 4 * 4;
        tile_.offset = offsets_.data();
        tile_.taps = taps_.data();
    }
    Tiling(const Tiling&) = delete;

    const FaTile& tile() const { return tile_; }

  private:
    FaTile tile_;
    std::vector<long long> offsets_;
    std::vector<const float*> taps_;
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

template <class Piece>
FA_HD void run_tile_lanes(const FaTile& tile, const FaStretch& source, long long begin, float* x, float* y,
                          bool& finite) {
    finite = fa_run_tile<Piece>(tile, source, begin, x, y);
}

FA_BY_WIDTH(resample_exact,
            (const FaStretch& source, float* y, long long start, long long length, Ratio ratio, const float* taps,
             long long half, float* scratch),
            (source, y, start, length, ratio, taps, half, scratch))
FA_BY_WIDTH(resample_interpolated,
            (const FaStretch& source, float* y, long long start, long long length, Ratio ratio, const float* taps,
             long long half, float* scratch),
            (source, y, start, length, ratio, taps, half, scratch))
FA_BY_WIDTH(run_tile, (const FaTile& tile, const FaStretch& source, long long begin, float* x, float* y, bool& finite),
            (tile, source, begin, x, y, finite))

// resample_exact, by tiles as far as they go.
void resample_tiled(const FaTile& tile, FaStretch source, float* y, long long start, long long length, Ratio ratio,
                    const float* taps, long long half) {
    std::vector<float> room(static_cast<size_t>(tile.samples * 2 * kTileStretches));
    const long long size = tile.outputs * kTileStretches;
    long long k = 0;
    for (; k + size <= length; k += size) {
        const long long begin = fa_exact_position(start + k, ratio.up, ratio.down).index - half + 1;
        bool finite = true;
        run_tile(tile, source, begin, room.data(), y + k, finite);
        if (!finite) resample_exact(source, y + k, start + k, size, ratio, taps, half, room.data());
    }
    resample_exact(source, y + k, start + k, length - k, ratio, taps, half, room.data());
}

}  // namespace

void fa_resample_table(const double* master, long long density, double support, double scale, long long half,
                       float* table) {
    std::vector<double> ends(static_cast<size_t>(2 * half));
    fa_fill_table({master, density, support}, scale, half, ends.data(), table);
}

void fa_resample(const float* x, float* y, long long rows, long long stride, long long count, long long x_start,
                 long long start, long long length, long long up, long long down, const float* taps, long long half,
                 int interpolated, const float* sorted, long long spread, long long threads) {
    const Ratio ratio = {up, down};
    std::unique_ptr<Tiling> tiling;
    if (sorted && length >= stretch_outputs(ratio) * kTileStretches) {
        tiling = std::make_unique<Tiling>(start, ratio, half, sorted, spread);
    }
    fa::parallel_rows(rows, threads, [&](long long row) {
        const FaStretch source = {x + row * stride, x_start, count};
        float* out = y + row * length;
        if (tiling) return resample_tiled(tiling->tile(), source, out, start, length, ratio, taps, half);
        std::vector<float> scratch(static_cast<size_t>(2 * half));
        auto* function = interpolated ? resample_interpolated : resample_exact;
        function(source, out, start, length, ratio, taps, half, scratch.data());
    });
}
