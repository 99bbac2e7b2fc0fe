// Spectrograms on CUDA: a block takes a tile of neighbouring frames of one row through window, FFT, bank and logarithm,
// a group of them at a time, and writes the tile's bands together, so that neighbouring frames share a sector.
//
// At most kThreads * 8 complex points are in shared memory at a time: 8, 4 or 2 frames of 512, 1024 or 2048 samples, 8
// points a thread. The FFT of n / 2 points is Stockham's (self-sorting) in the passes of fft.h; each reads all its
// points into registers before any is written. Real and imaginary parts lie in arrays of their own. One body serves
// every length: where a kernel is for one of them its numbers are literals, so that loops and divisions fold.
#include "../spectral.h"

constexpr int kThreads = 256;

struct FaSpectralArguments {
    const float* x;        // (rows, length)
    void* y;               // (rows, bands, frames)
    const float* window;   // (width), halved
    const float* turns;    // (2, n): cos and sin, see fa_spectral_passes
    const float* weights;  // null: bins
    const int* first;
    const int* begin;
    FaFrames frames;
    FaLevel level;
    int bands, tile, narrow;
};

// A group of frames in shared memory. Rows lie 8 banks apart, so that the same bins of 4 frames are in different ones.
struct FaSpectralRoom {
    int points, group, stride;  // n_fft / 2; frames; floats from frame to frame
    float *re, *im;
};

// i / by for 0 <= i < 2^16 and 2 <= by < 2^13, exactly: magic is 2^32 / by, rounded up.
struct FaDivisor {
    int by;
    unsigned magic;
};
__device__ __forceinline__ FaDivisor fa_divisor(int by) { return {by, 0xffffffffu / static_cast<unsigned>(by) + 1u}; }
__device__ __forceinline__ int fa_quotient(int i, const FaDivisor& d) {
    return static_cast<int>(static_cast<unsigned long long>(static_cast<unsigned>(i)) * d.magic >> 32);
}

// The group's samples, times the window: even ones to re, odd ones to im.
__device__ __forceinline__ void fa_spectral_stage(const FaSpectralArguments& a, const FaSpectralRoom& room,
                                                  const float* row, int frame, int end) {
    const int length = static_cast<int>(a.frames.length);  // below 2^30: ops/spectral.py sees to it
    const int samples = 2 * room.points;
    const FaDivisor by_samples = fa_divisor(samples);
#pragma unroll 4
    for (int i = threadIdx.x; i < room.group * samples; i += kThreads) {
        const int group = fa_quotient(i, by_samples), n = i - group * samples;
        const int at = (frame + group) * static_cast<int>(a.frames.hop) - static_cast<int>(a.frames.lead) + n;
        float value = 0.0f;
        if (n < a.frames.width && frame + group < end && length > 0) {
            if (at >= 0 && at < length) {
                value = FA_LD(row + at);
            } else if (a.frames.reflect) {
                value = FA_LD(row + fa_reflected(at, length));
            }
            value *= FA_LD(a.window + n);
        }
        (n % 2 ? room.im : room.re)[group * room.stride + n / 2] = value;
    }
}

// x[r] times exp(-i r angle). Only first powers are in the table: the others are products, cheaper than reads.
template <int kRadix>
__device__ __forceinline__ void fa_spectral_turn(FaComplex<float> (&x)[kRadix], float cosine, float sine) {
    FaComplex<float> w[kRadix];
    w[1] = {cosine, -sine};
#pragma unroll
    for (int r = 2; r < kRadix; ++r) {
        const float half[2] = {w[r / 2].re, w[r / 2].im};
        w[r] = fa_turn<false>(w[r - r / 2], half);
    }
#pragma unroll
    for (int r = 1; r < kRadix; ++r) {
        const float factor[2] = {w[r].re, w[r].im};
        x[r] = fa_turn<false>(x[r], factor);
    }
}

// One pass: butterflies of kRadix points points / kRadix apart, behind `done` points already transformed. turns: the
// cosines of 2 pi j / (done kRadix), j < done; the sines `all` further on.
template <int kRadix>
__device__ __forceinline__ void fa_spectral_pass(const FaSpectralRoom& room, const float* turns, int all, int done) {
    constexpr int kEach = (8 + kRadix - 1) / kRadix;
    const int apart = room.points / kRadix, count = room.group * apart;
    const FaDivisor by_apart = fa_divisor(apart), by_done = fa_divisor(done);
    FaComplex<float> x[kEach][kRadix];
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        const int i = e * kThreads + static_cast<int>(threadIdx.x), group = fa_quotient(i, by_apart);
        const int j = i - group * apart, base = group * room.stride + j;
        if (i < count) {
#pragma unroll
            for (int r = 0; r < kRadix; ++r) x[e][r] = {room.re[base + r * apart], room.im[base + r * apart]};
            if (done > 1) {
                const float* turn = turns + (j - fa_quotient(j, by_done) * done);
                fa_spectral_turn(x[e], FA_LD(turn), FA_LD(turn + all));
            }
            fa_dft<false>(x[e]);
        }
    }
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        const int i = e * kThreads + static_cast<int>(threadIdx.x), group = fa_quotient(i, by_apart);
        const int j = i - group * apart, block = done > 1 ? fa_quotient(j, by_done) : j;
        const int to = group * room.stride + block * done * (kRadix - 1) + j;
        if (i < count) {
#pragma unroll
            for (int r = 0; r < kRadix; ++r) {
                room.re[to + r * done] = x[e][r].re;
                room.im[to + r * done] = x[e][r].im;
            }
        }
    }
    __syncthreads();
}

// All passes. radices: a hexadecimal digit each, the first one lowest; literals, or 0 for what the argument says. The
// tables of those behind the first follow each other; those of 2 pi k / n_fft, k <= n_fft / 4, which the return value
// points to, are the last.
template <int kRadices>
__device__ __forceinline__ const float* fa_spectral_passes(const FaSpectralRoom& room, const float* turns, int all,
                                                           int done) {
    if constexpr (kRadices == 0) {
        return turns;
    } else {
        fa_spectral_pass<kRadices % 16>(room, turns, all, done);
        return fa_spectral_passes<kRadices / 16>(room, turns + (done > 1 ? done : 0), all, done * (kRadices % 16));
    }
}

__device__ __forceinline__ const float* fa_spectral_passes_of(const FaSpectralRoom& room, const float* turns, int all,
                                                              int radices) {
    int done = 1;
#pragma unroll 1
    for (; radices; radices >>= 4) {
        const int radix = radices & 15;
        if (radix == 8) fa_spectral_pass<8>(room, turns, all, done);
        if (radix == 4) fa_spectral_pass<4>(room, turns, all, done);
        if (radix == 2) fa_spectral_pass<2>(room, turns, all, done);
        if (radix == 3) fa_spectral_pass<3>(room, turns, all, done);
        if (radix == 5) fa_spectral_pass<5>(room, turns, all, done);
        if (radix == 7) fa_spectral_pass<7>(room, turns, all, done);
        turns += done > 1 ? done : 0;
        done *= radix;
    }
    return turns;
}

// Powers (or magnitudes) in place of the transform: bin k in re[k], bin n / 2 in im[0]. turns: cosines of 2 pi k /
// n_fft, the sines `all` further on.
__device__ __forceinline__ void fa_spectral_powers(const FaSpectralRoom& room, const float* turns, int all,
                                                   int magnitude) {
    const int pairs = room.points / 2 + 1;
    const FaDivisor by_pairs = fa_divisor(pairs);
    for (int i = threadIdx.x; i < room.group * pairs; i += kThreads) {
        const int group = fa_quotient(i, by_pairs), base = group * room.stride, k = i - group * pairs;
        const int mirror = k ? room.points - k : 0;
        const FaComplex<float> z = {room.re[base + k], room.im[base + k]};
        const FaComplex<float> y = {room.re[base + mirror], room.im[base + mirror]};
        const float turn[2] = {FA_LD(turns + k + all), FA_LD(turns + k)};
        float low, high;
        if (k) {
            fa_real_powers(z, y, turn, low, high);
        } else {
            fa_real_ends(z, low, high);
        }
        if (magnitude) low = sqrtf(low), high = sqrtf(high);
        room.re[base + k] = low;
        (k ? room.re[base + mirror] : room.im[base]) = high;
    }
}

// The group's bands into out (bands, tile + 1).
__device__ __forceinline__ void fa_spectral_bands(const FaSpectralArguments& a, const FaSpectralRoom& room, float* out,
                                                  int column) {
    for (int i = threadIdx.x; i < a.bands * room.group; i += kThreads) {
        const int band = i / room.group, group = i - band * room.group, base = group * room.stride;
        const int from = a.weights ? a.begin[band] : 0, count = a.weights ? a.begin[band + 1] - from : 1;
        const int bin = a.weights ? a.first[band] : band;
        float sum = 0.0f;
        for (int n = 0; n < count; ++n) {
            const float power = bin + n < room.points ? room.re[base + bin + n] : room.im[base];
            sum = fa_fma(a.weights ? a.weights[from + n] : 1.0f, power, sum);
        }
        out[band * (a.tile + 1) + column + group] = fa_level(a.level, sum);
    }
}

template <int kRadices>
__device__ __forceinline__ void fa_spectral_block(const FaSpectralArguments& a, int points, int radices, int group,
                                                  int all) {
    FA_DYNAMIC_SHARED(float, shared);
    const int stride = (points + 31) / 32 * 32 + 8;
    const FaSpectralRoom room = {points, group, stride, shared, shared + group * stride};
    float* out = shared + 2 * group * stride;
    const int frames = static_cast<int>(a.frames.frames), tiles = (frames + a.tile - 1) / a.tile;
    const long long row = static_cast<int>(blockIdx.x) / tiles;
    const int start = static_cast<int>(blockIdx.x) % tiles * a.tile, end = fa_min(start + a.tile, frames);
    for (int frame = start; frame < end; frame += group) {
        fa_spectral_stage(a, room, a.x + row * a.frames.length, frame, end);
        __syncthreads();
        const float* turns = kRadices ? fa_spectral_passes<kRadices>(room, a.turns, all, 1)
                                      : fa_spectral_passes_of(room, a.turns, all, radices);
        fa_spectral_powers(room, turns, all, a.level.magnitude);
        __syncthreads();
        fa_spectral_bands(a, room, out, frame - start);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < a.bands * a.tile; i += kThreads) {
        const int band = i / a.tile, column = i % a.tile;
        if (start + column >= end) continue;
        const long long to = (row * a.bands + band) * frames + start + column;
        const float value = out[band * (a.tile + 1) + column];
        if (a.narrow) {
            FA_ST(static_cast<uint16_t*>(a.y) + to, fa_to_bfloat16(value));
        } else {
            FA_ST(static_cast<float*>(a.y) + to, value);
        }
    }
}

// Grid: rows * ceil(frames / tile) blocks of 256 threads; shared memory: 2 group strides and (bands, tile + 1) floats.
// group divides the tile; radices, group and turn_count are those of ops/spectral.py, which the kernels of one length
// know by themselves.
#define FA_SPECTRAL_PARAMETERS                                                                                      \
    const float *x, void *y, const float *window, const float *turns, const float *weights, const int *first,       \
        const int *begin, long long length, long long frames, long long hop, long long lead, int width, int n_fft,  \
        int reflect, float gain, float offset, float floor, float scale, float shift, int logarithm, int magnitude, \
        int bands, int tile, int narrow, int radices, int group, int turn_count
#define FA_SPECTRAL_ARGUMENTS                                   \
    {x,                                                         \
     y,                                                         \
     window,                                                    \
     turns,                                                     \
     weights,                                                   \
     first,                                                     \
     begin,                                                     \
     {length, frames, hop, lead, width, n_fft, reflect},        \
     {gain, offset, floor, scale, shift, logarithm, magnitude}, \
     bands,                                                     \
     tile,                                                      \
     narrow}
extern "C" __global__ void __launch_bounds__(256) fa_spectral_512_kernel(FA_SPECTRAL_PARAMETERS) {
    fa_spectral_block<0x488>(FA_SPECTRAL_ARGUMENTS, 256, 0, 8, 8 + 64 + 129);
}
extern "C" __global__ void __launch_bounds__(256) fa_spectral_1024_kernel(FA_SPECTRAL_PARAMETERS) {
    fa_spectral_block<0x888>(FA_SPECTRAL_ARGUMENTS, 512, 0, 4, 8 + 64 + 257);
}
extern "C" __global__ void __launch_bounds__(256, 2) fa_spectral_2048_kernel(FA_SPECTRAL_PARAMETERS) {
    fa_spectral_block<0x4488>(FA_SPECTRAL_ARGUMENTS, 1024, 0, 2, 8 + 64 + 256 + 513);
}
extern "C" __global__ void __launch_bounds__(256) fa_spectral_kernel(FA_SPECTRAL_PARAMETERS) {
    fa_spectral_block<0>(FA_SPECTRAL_ARGUMENTS, n_fft / 2, radices, group, turn_count);
}
