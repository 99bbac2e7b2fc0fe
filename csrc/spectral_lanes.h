// CPU only: one tile of a spectrogram. As many frames as a vector has lanes go through window, FFT, bank and logarithm
// side by side while they are in the cache: 8 n_fft bytes a lane. Lanes do not mix, so that a frame's bits depend on
// its samples alone, wherever its tile begins.
#pragma once

#include "spectral.h"

struct FaBank {
    // Band b is the sum of weights[begin[b] + i] times bin first[b] + i, up to begin[b + 1]; null: bins as they are.
    const float* weights;
    const int32_t* first;
    const int32_t* begin;
    long long bands;
};

struct FaSpectral {
    FaFrames frames;
    FaLevel level;
    FaBank bank;
    const float* window;      // (width, then zeros to a multiple of 4), halved: the FFT gives twice the bins
    const FaFft* fft;         // of n_fft / 2 points
    const float* turns;       // (n_fft / 4 + 1, 2): sin and cos of 2 pi k / n_fft
    const int32_t* position;  // (n_fft / 2) of each bin in the transform
};

// Samples of frame `index` of a row: in place, or copied to `room`.
FA_HD const float* fa_frame(const FaFrames& f, const float* row, long long index, long long padded, float* room) {
    const long long first = index * f.hop - f.lead;
    if (first >= 0 && first + padded <= f.length) return row + first;
    for (long long i = 0; i < padded; ++i) {
        const long long at = first + i;
        const bool inside = at >= 0 && at < f.length;
        room[i] = i >= f.width || f.length == 0 || !(inside || f.reflect) ? 0.0f
                  : inside                                                ? row[at]
                                                                          : row[fa_reflected(at, f.length)];
    }
    return room;
}

// powers (n_fft / 2 + 1) in natural order from the transform's digit-reversed bins.
template <class Piece>
FA_HD void fa_powers(const FaSpectral& s, const FaComplex<Piece>* z, Piece* powers) {
    const int half = s.frames.n_fft / 2;
    fa_real_ends(z[0], powers[0], powers[half]);
    for (int k = 1; k <= half / 2; ++k) {
        fa_real_powers(z[s.position[k]], z[s.position[half - k]], s.turns + 2 * k, powers[k], powers[half - k]);
    }
    if (s.level.magnitude) {
        for (int k = 0; k <= half; ++k) {
            for (unsigned i = 0; i < sizeof(Piece) / sizeof(float); ++i) powers[k][i] = sqrtf(powers[k][i]);
        }
    }
}

template <class Piece>
FA_HD Piece fa_band(const FaBank& bank, long long band, const Piece* powers) {
    if (!bank.weights) return powers[band];
    const Piece* bin = powers + bank.first[band];
    const float *weight = bank.weights + bank.begin[band], *end = bank.weights + bank.begin[band + 1];
    Piece sum = {};
    for (; weight < end; ++weight, ++bin) sum = fa_fma(fa_splat<Piece>(*weight), *bin, sum);
    return sum;
}

// Where a lane's frame goes: y[band * frames] for every band.
struct FaStretch {
    long long to;
    int lane, count;
};

template <class Number, class Piece>
FA_HD void fa_store_lanes(Number* y, const Piece& value, const FaStretch& stretch) {
    constexpr int kLanes = sizeof(Piece) / sizeof(float);
    Number all[kLanes];
    if constexpr (sizeof(Number) == sizeof(float)) {
        memcpy(all, &value, sizeof value);
    } else {
        float wide[kLanes];
        memcpy(wide, &value, sizeof value);
        for (int i = 0; i < kLanes; ++i) all[i] = fa_to_bfloat16(wide[i]);
    }
    if (stretch.count == kLanes) {
        memcpy(y + stretch.to, all, sizeof all);
    } else {
        for (int i = 0; i < stretch.count; ++i) y[stretch.to + i] = all[stretch.lane + i];
    }
}

// Frames [begin, begin + lanes) of all rows' frames in a line, as far as `end`. Room: (n_fft + n_fft / 2 + 4) vectors,
// and a window for each lane.
template <class Piece, class Number>
FA_HD void fa_spectral_tile(const FaSpectral& s, const float* x, Number* y, long long begin, long long end,
                            float* room) {
    constexpr int kLanes = sizeof(Piece) / sizeof(float);
    const FaFrames& f = s.frames;
    const long long bands = s.bank.bands, padded = (f.width + 3) / 4 * 4;
    const int count = static_cast<int>(fa_min<long long>(kLanes, end - begin));
    Piece* columns = reinterpret_cast<Piece*>(room);
    Piece* powers = columns + (f.n_fft + 3) / 4 * 4;
    float* edges = reinterpret_cast<float*>(powers + f.n_fft / 2 + 1);
    const float* rows[kLanes];
    FaStretch stretches[kLanes];
    int stretch = -1;
    for (int i = 0; i < kLanes; ++i) {
        const long long frame = begin + (i < count ? i : 0), row = frame / f.frames, index = frame % f.frames;
        rows[i] = fa_frame(f, x + row * f.length, index, padded, edges + padded * i);
        if (i >= count) continue;
        if (i == 0 || index == 0) stretches[++stretch] = {row * bands * f.frames + index, i, 0};
        ++stretches[stretch].count;
    }
    fa_side_by_side<kLanes, true>(rows, padded, room, s.window);
    for (long long n = padded; n < f.n_fft; ++n) columns[n] = Piece{};
    FaComplex<Piece>* z = reinterpret_cast<FaComplex<Piece>*>(columns);
    fa_fft_forward(*s.fft, z);
    fa_powers(s, z, powers);
    for (long long band = 0; band < bands; ++band) {
        const Piece value = fa_level(s.level, fa_band(s.bank, band, powers));
        for (int i = 0; i <= stretch; ++i) fa_store_lanes(y + band * f.frames, value, stretches[i]);
    }
}
