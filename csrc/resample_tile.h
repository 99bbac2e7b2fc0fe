// CPU only: the sums of fa_dot for many outputs at once, bit by bit the same, without a sum across lanes for each.
//
// A tile is sixteen stretches of consecutive outputs. A stretch covers whole periods of the conversion, so that its
// n-th output has the same taps in all sixteen: the stretches lie side by side in the lanes of a vector. Four
// neighbouring outputs of each stretch share the loads of their samples. The sixteen lanes of fa_dot become sixteen
// passes over the window, one for every sixteenth sample; taps are stored in that order, with zeros where the four
// windows differ.
#pragma once

#include "resample_cpu.h"

constexpr int kTileStretches = 16;
constexpr int kTileOutputs = 4;  // of one stretch, computed together

struct FaTile {
    long long outputs;         // of each stretch
    long long hop;             // source samples from one stretch to the next
    long long samples;         // source samples that a stretch reads, a multiple of 4
    long long spread;          // no four neighbouring outputs have windows further apart
    long long steps;           // floats in a row of sorted taps
    const long long* offset;   // (outputs): where the window of an output begins in its stretch
    const float* const* taps;  // (outputs): its taps as (spread + 16, steps), where row r holds taps r - spread + 16 i
};

typedef int32_t fa_int4 __attribute__((vector_size(16)));

#if defined(__clang__)
#define FA_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define FA_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, fa_int4{i, j, k, l})
#endif

// x (samples, 16) from sixteen rows of `samples` floats.
FA_HD void fa_side_by_side(const float* const* rows, long long samples, float* x) {
    for (long long n = 0; n < samples; n += 4) {
        for (int s = 0; s < kTileStretches; s += 4) {
            fa_float4 a, b, c, d;
            memcpy(&a, rows[s] + n, sizeof a);
            memcpy(&b, rows[s + 1] + n, sizeof b);
            memcpy(&c, rows[s + 2] + n, sizeof c);
            memcpy(&d, rows[s + 3] + n, sizeof d);
            const fa_float4 ab = FA_SHUFFLE(a, b, 0, 4, 1, 5), ab2 = FA_SHUFFLE(a, b, 2, 6, 3, 7);
            const fa_float4 cd = FA_SHUFFLE(c, d, 0, 4, 1, 5), cd2 = FA_SHUFFLE(c, d, 2, 6, 3, 7);
            const fa_float4 columns[4] = {FA_SHUFFLE(ab, cd, 0, 1, 4, 5), FA_SHUFFLE(ab, cd, 2, 3, 6, 7),
                                          FA_SHUFFLE(ab2, cd2, 0, 1, 4, 5), FA_SHUFFLE(ab2, cd2, 2, 3, 6, 7)};
            for (int i = 0; i < 4; ++i) memcpy(x + (n + i) * kTileStretches + s, &columns[i], sizeof columns[i]);
        }
    }
}

// Outputs [first, first + 4) of all stretches. x: (samples, 16). y: (16, outputs).
template <class Piece>
FA_HD void fa_tile_outputs(const FaTile& tile, const float* x, long long first, float* y) {
    const long long* offset = tile.offset + first;
    const long long stride = tile.steps;
    const float* taps[kTileOutputs];
    for (int o = 0; o < kTileOutputs; ++o) {
        taps[o] = tile.taps[first + o] + (tile.spread - (offset[o] - offset[0])) * stride;
    }
    const float* samples = x + offset[0] * kTileStretches;
    FaLanes<Piece> parts[kTileOutputs][kResampleLanes];
    for (int pass = 0; pass < kResampleLanes; ++pass) {
        FaLanes<Piece> s0, s1, s2, s3, a;
        fa_clear(s0);
        fa_clear(s1);
        fa_clear(s2);
        fa_clear(s3);
        for (long long i = 0; i < stride; ++i) {
            fa_load(samples + i * kResampleLanes * kTileStretches, a);
            fa_add_product(s0, a, taps[0][i]);
            fa_add_product(s1, a, taps[1][i]);
            fa_add_product(s2, a, taps[2][i]);
            fa_add_product(s3, a, taps[3][i]);
        }
        // A later window meets lane (pass - distance) % 16 here. Turning the lanes round does not change their pairs.
        parts[0][pass] = s0;
        parts[1][pass] = s1;
        parts[2][pass] = s2;
        parts[3][pass] = s3;
        samples += kTileStretches;
        for (int o = 0; o < kTileOutputs; ++o) taps[o] += stride;
    }
    for (int o = 0; o < kTileOutputs; ++o) {
        for (int distance = kResampleLanes / 2; distance; distance /= 2) {
            for (int i = 0; i < distance; ++i) fa_add(parts[o][i], parts[o][i + distance]);
        }
        float values[kTileStretches];
        memcpy(values, &parts[o][0], sizeof values);
        for (int s = 0; s < kTileStretches; ++s) y[s * tile.outputs + first + o] = values[s];
    }
}

// All outputs of the tile whose first window begins at source sample `begin`. x: room for samples * 32 floats. False if
// one is not finite: the zeros among a window's taps may have met an Inf or NaN beside it.
template <class Piece>
FA_HD bool fa_run_tile(const FaTile& tile, const FaStretch& source, long long begin, float* x, float* y) {
    const float* rows[kTileStretches];
    for (int s = 0; s < kTileStretches; ++s) {
        rows[s] = fa_window(source, begin + s * tile.hop, tile.samples, x + (kTileStretches + s) * tile.samples);
    }
    fa_side_by_side(rows, tile.samples, x);
    for (long long o = 0; o < tile.outputs; o += kTileOutputs) {
        fa_tile_outputs<Piece>(tile, x, fa_min(o, tile.outputs - kTileOutputs),
                               y);  // the last four may overlap
    }
    int finite = 1;
    for (long long i = 0; i < kTileStretches * tile.outputs; ++i) finite &= fabsf(y[i]) <= 3.4028234663852886e38f;
    return finite != 0;
}
