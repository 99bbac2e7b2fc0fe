// Spectrograms and banks of them on the CPU: tiles of 16 frames on threads; per-clip levels in a second pass.
#include <math.h>

#include <algorithm>

#include "../spectral_lanes.h"
#include "api.h"
#include "fft.h"
#include "parallel.h"
#include "room.h"

namespace {

constexpr int kLanes = 16;

template <class Piece>
FA_HD void run_tile_lanes(const FaSpectral& s, const float* x, void* y, bool narrow, long long begin, long long end,
                          float* room) {
    constexpr int kWidth = sizeof(Piece) / sizeof(float);
    for (long long frame = begin; frame < end; frame += kWidth) {
        if (narrow) {
            fa_spectral_tile<Piece>(s, x, static_cast<uint16_t*>(y), frame, end, room);
        } else {
            fa_spectral_tile<Piece>(s, x, static_cast<float*>(y), frame, end, room);
        }
    }
}

FA_BY_WIDTH(run_tile,
            (const FaSpectral& s, const float* x, void* y, bool narrow, long long begin, long long end, float* room),
            (s, x, y, narrow, begin, end, room))

// Of one clip: values below the largest minus top_db become that; then mean 0 and standard deviation 1, if asked.
FA_CLONES void settle(float* y, long long count, double top_db, bool normalise) {
    if (top_db >= 0.0) {
        float peak = y[0];
        for (long long i = 0; i < count; ++i) peak = y[i] > peak || !(y[i] == y[i]) ? y[i] : peak;
        const float floor = peak - static_cast<float>(top_db);
        for (long long i = 0; i < count; ++i) y[i] = y[i] < floor ? floor : y[i];
    }
    if (!normalise) return;
    double sums[8] = {}, squares[8] = {};
    for (long long i = 0; i < count; ++i) sums[i % 8] += static_cast<double>(y[i]);
    double mean = 0.0, square = 0.0;
    for (const double sum : sums) mean += sum / static_cast<double>(count);
    for (long long i = 0; i < count; ++i) {
        const double d = static_cast<double>(y[i]) - mean;
        squares[i % 8] += d * d;
    }
    for (const double sum : squares) square += sum / static_cast<double>(count);
    const double scale = 1.0 / std::max(sqrt(square), 1e-5);
    for (long long i = 0; i < count; ++i) y[i] = static_cast<float>((static_cast<double>(y[i]) - mean) * scale);
}

}  // namespace

void fa_spectral(const float* x, void* y, int narrow, const float* window, const float* weights, const int* first,
                 const int* begin, long long bands, long long rows, long long length, long long frames, long long hop,
                 long long lead, long long width, long long n_fft, int reflect, double gain, double offset,
                 double floor, double scale, double shift, int logarithm, int magnitude, long long threads) {
    const fa::Fft& fft = fa::fft_of(static_cast<int>(n_fft / 2));
    FaSpectral s = {};
    s.frames = {length, frames, hop, lead, static_cast<int>(width), static_cast<int>(n_fft), reflect};
    s.level = {static_cast<float>(gain),
               static_cast<float>(offset),
               static_cast<float>(floor),
               static_cast<float>(scale),
               static_cast<float>(shift),
               logarithm,
               magnitude};
    s.bank = {weights, first, begin, bands};
    s.window = window, s.fft = &fft.fft, s.turns = fft.turns.data(), s.position = fft.position.data();
    const long long total = rows * frames, tiles = (total + kLanes - 1) / kLanes;
    const long long floats = kLanes * (n_fft + n_fft / 2 + 4 + width + 4);
    fa::parallel_rows(tiles, threads, [&](long long tile) {
        const long long start = tile * kLanes;
        run_tile(s, x, y, narrow != 0, start, std::min(start + kLanes, total), fa::aligned_room(floats));
    });
}

void fa_spectral_settle(float* y, long long clips, long long count, double top_db, int normalise, long long threads) {
    if (count == 0) return;
    fa::parallel_rows(clips, threads, [&](long long clip) { settle(y + clip * count, count, top_db, normalise != 0); });
}
