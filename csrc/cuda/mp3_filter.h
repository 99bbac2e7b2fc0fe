// From lines in shared memory to samples: alias reduction and IMDCT (a warp a granule, lane = subband), synthesis
// window.
#pragma once

#include "mp3_block.h"

__constant__ FaMp3Hybrid kHybrid = fa_mp3_hybrid();

// Butterflies between subbands `lane` and `lane + 1` of a granule.
__device__ __forceinline__ void fa_reduce_alias(const FaBlock& b, const FaSide& side, int granule) {
    const int lane = threadIdx.x % 32;
    if (lane == 31) return;
    if (side.block == 2 && (!side.mixed || lane > 0)) return;  // short blocks: none; mixed ones: between the long two
    float* const rows = b.lines + granule * kGranule + lane;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float cs = FA_LD(&b.tables->alias[0][i]), ca = FA_LD(&b.tables->alias[1][i]);
        float &upper = rows[(17 - i) * kMp3Pitch], &lower = rows[i * kMp3Pitch + 1];
        const float high = upper, low = lower;
        upper = high * cs - low * ca;
        lower = low * cs + high * ca;
    }
}

// The windowed outputs of a block: Half 0 the first 18 of them, Half 1 the others, which belong to the next granule.
// They are stored where `to` points, or added to what is there.
template <int Half>
__device__ __forceinline__ void fa_long_block(const float (&in)[18], int block, float* to, bool add) {
    const float* const window = kHybrid.window[block] + 18 * Half;
#pragma unroll 3
    for (int n = 0; n < 9; ++n) {  // all of them at once would take more registers than three blocks leave
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < 18; ++k) sum = fa_fma(in[k], kHybrid.wide[n + 9 * Half][k], sum);
        float &first = to[n * kMp3Pitch], &mirror = to[(17 - n) * kMp3Pitch];  // odd about 8.5, even about 26.5
        const float a = sum * window[n], b = sum * (Half ? window[17 - n] : -window[17 - n]);
        first = add ? first + a : a;
        mirror = add ? mirror + b : b;
    }
}

template <int Half>
__device__ __forceinline__ void fa_short_blocks(const float (&in)[18], float* to, bool add) {
    if (!add) {
        for (int i = 0; i < 18; ++i) to[i * kMp3Pitch] = 0.0f;
    }
    const float* const window = kHybrid.window[2];
#pragma unroll
    for (int w = 0; w < 3; ++w) {
#pragma unroll
        for (int n = 0; n < 6; ++n) {
            const int i = n < 3 ? n : n + 3, mirror = n < 3 ? 5 - i : 17 - i, at = 6 + 6 * w + (n < 3 ? 0 : 6);
            if (at / 18 != Half) continue;
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < 6; ++k) sum = fa_fma(in[3 * k + w], kHybrid.narrow[n][k], sum);
            to[(6 + 6 * w + i - 18 * Half) * kMp3Pitch] += sum * window[i];
            to[(6 + 6 * w + mirror - 18 * Half) * kMp3Pitch] += sum * (n < 3 ? -window[mirror] : window[mirror]);
        }
    }
}

// What a lane transforms: a subband of its warp's granule, and that of the right channel where it has other blocks.
struct FaSubband {
    float in[18], other[18];
    bool two;
};

__device__ __forceinline__ void fa_load_rows(const FaBlock& b, int granule, float (&to)[18]) {
    const float* const from = b.lines + granule * kGranule + threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < 18; ++k) to[k] = from[k * kMp3Pitch];
}

// Lines of a granule to registers: its rows are free then.
__device__ __forceinline__ void fa_take_subband(const FaBlock& b, int granule, FaSubband& s) {
    fa_fill_gains(b, granule);
    __syncwarp();
    fa_mark_bands(b, granule);
    __syncwarp();
    fa_place_lines(b, granule, false);
    __syncwarp();
    fa_reduce_alias(b, b.sides[fa_main_side(b, granule)], granule);
    __syncwarp();
    fa_load_rows(b, granule, s.in);
    s.two = fa_two_transforms(b, granule);
    if (!s.two) return;
    __syncwarp();
    fa_place_lines(b, granule, true);
    __syncwarp();
    fa_reduce_alias(b, b.sides[2 * granule + 1], granule);
    __syncwarp();
    fa_load_rows(b, granule, s.other);
}

// Half 0 fills the granule's own rows, Half 1 adds to the next one's.
template <int Half>
__device__ __forceinline__ void fa_transform(const FaBlock& b, int granule, FaSubband& s) {
    const int lane = threadIdx.x % 32;
    float* const to = b.lines + (granule + Half) * kGranule + lane;
#pragma unroll 1
    for (int part = 0; part < (s.two ? 2 : 1); ++part) {
        const FaSide& side = b.sides[part ? 2 * granule + 1 : fa_main_side(b, granule)];
        const bool low = side.mixed && side.block && lane < 2;  // long, with the normal window
        const bool add = Half || part;
        if (side.block == 2 && !low)
            fa_short_blocks<Half>(s.in, to, add);
        else
            fa_long_block<Half>(s.in, low ? 0 : side.block, to, add);
        if (!s.two) break;
#pragma unroll
        for (int k = 0; k < 18; ++k) {
            const float kept = s.in[k];
            s.in[k] = s.other[k];
            s.other[k] = kept;
        }
    }
}

// Subband samples of a slot become A and B of the synthesis (mp3_tables.h), in place.
__device__ __forceinline__ void fa_matrix(const FaBlock& b, int slot, const float (&coefficients)[16]) {
    const int lane = threadIdx.x % 32;
    float* const row = b.lines + slot * kMp3Pitch;
    const float turn = (slot & 1) && (lane & 1) ? -1.0f : 1.0f;  // frequency inversion: a granule has 18 slots
    row[lane] *= turn;
    __syncwarp();
    const float mine = row[lane], mirrored = row[31 - lane];
    __syncwarp();
    row[lane] = lane < 16 ? mine + mirrored : mirrored - mine;  // sums of k and 31 - k, then differences, backwards
    __syncwarp();
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < 16; ++k) sum = fa_fma(row[lane & 1 ? 31 - k : k], coefficients[k], sum);
    __syncwarp();
    row[lane] = sum;
}

// One of the 32 samples of a slot.
__device__ __forceinline__ float fa_sample(const FaBlock& b, int slot, const float (&taps)[16]) {
    const int output = threadIdx.x % 32, lane = output > 16 ? 32 - output : output % 16;
    const float* const even = b.lines + slot * kMp3Pitch + lane;
    const float* const odd = b.lines + (slot - 1) * kMp3Pitch + (output ? 16 + lane : 0);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        sum = fa_fma(even[-2 * i * kMp3Pitch], taps[2 * i], sum);
        sum = fa_fma(odd[-2 * i * kMp3Pitch], taps[2 * i + 1], sum);
    }
    return sum;
}

// From the subband samples of the block's granules to samples of the crop.
__device__ __forceinline__ void fa_synthesis(const FaBlock& b, const float (*constants)[32], bool window, int from,
                                             int stop, long long at, long long count, float* y) {
    const int lane = threadIdx.x % 32;
    float values[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) values[i] = FA_LD(&constants[i][lane]);
    for (int slot = from + threadIdx.x / 32; slot < stop; slot += kGranules) {
        if (!window) {
            fa_matrix(b, slot, values);
            continue;
        }
        const float sample = fa_sample(b, slot, values);
        const long long t = at + (slot - 36) * 32 + lane;
        if (t >= 0 && t < count) FA_ST(y + t, sample);
    }
}
