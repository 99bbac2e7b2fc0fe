// Spectrograms on CUDA: a block takes a tile of neighbouring frames of one row through window, FFT, bank and logarithm,
// a group of them at a time, and writes the tile's bands together, so that neighbouring frames share a sector.
//
// kThreads * 8 complex points are in shared memory at a time: 8, 4 or 2 frames of 512, 1024 or 2048 samples, 8 points a
// thread. The FFT of n / 2 points is Stockham's (self-sorting) in passes of radix 8 and 4; each pass reads all its
// points into registers before any is written. Real and imaginary parts lie in arrays of their own.
#include "../spectral.h"

constexpr int kThreads = 256;
constexpr int kSkew = 8;  // floats between frames, so that the same bins of 4 frames lie in different banks

struct FaSpectralArguments {
    const float* x;        // (rows, length)
    void* y;               // (rows, bands, frames)
    const float* window;   // (width), halved
    const float* turns;    // (2, n): cos and sin, in the order of fa_spectral_turns
    const float* weights;  // null: bins
    const int* first;
    const int* begin;
    FaFrames frames;
    FaLevel level;
    int bands, tile, narrow;
};

template <int kPoints>
struct FaSpectralRoom {
    static constexpr int kStride = kPoints + kSkew, kGroup = kThreads * 8 / kPoints;
    float re[kGroup * kStride], im[kGroup * kStride];
};

// The group's samples, times the window: even ones to re, odd ones to im.
template <int kPoints>
__device__ __forceinline__ void fa_spectral_stage(const FaSpectralArguments& a, FaSpectralRoom<kPoints>& room,
                                                  const float* row, int frame, int end) {
    const int length = static_cast<int>(a.frames.length);  // below 2^30: ops/spectral.py sees to it
    constexpr int kSamples = 2 * kPoints, kTurns = FaSpectralRoom<kPoints>::kGroup * kSamples / kThreads;
#pragma unroll 4
    for (int turn = 0; turn < kTurns; ++turn) {
        const int i = turn * kThreads + static_cast<int>(threadIdx.x), group = i / kSamples, n = i % kSamples;
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
        (n % 2 ? room.im : room.re)[group * FaSpectralRoom<kPoints>::kStride + n / 2] = value;
    }
}

__device__ __forceinline__ void fa_spectral_dft(FaComplex<float> (&x)[8]) { fa_fft_eight(x); }
__device__ __forceinline__ void fa_spectral_dft(FaComplex<float> (&x)[4]) { fa_fft_four(x[0], x[1], x[2], x[3]); }

// Where the angles 2 pi j / (done * radix), j < done, of the pass behind `done` points begin; those of 2 pi k / n_fft,
// k <= n_fft / 4, follow the last pass. Only first powers: the others are products, cheaper than reads.
template <int kPoints>
struct FaSpectralTurns {
    static constexpr int kRest = kPoints == 1024 ? 8 + 64 + 256 : 8 + 64, kAll = kRest + kPoints / 2 + 1;
    static __device__ __forceinline__ int pass(int done) { return done == 8 ? 0 : done == 64 ? 8 : 72; }
};

// x[r] times exp(-i r angle).
template <int kRadix>
__device__ __forceinline__ void fa_spectral_turn(FaComplex<float> (&x)[kRadix], float cosine, float sine) {
    FaComplex<float> w[kRadix];
    w[1] = {cosine, -sine};
#pragma unroll
    for (int r = 2; r < kRadix; ++r) {
        const float half[2] = {w[r / 2].re, w[r / 2].im};
        w[r] = fa_twiddle(w[r - r / 2], half);
    }
#pragma unroll
    for (int r = 1; r < kRadix; ++r) {
        const float factor[2] = {w[r].re, w[r].im};
        x[r] = fa_twiddle(x[r], factor);
    }
}

// One pass: butterflies of kRadix points kPoints / kRadix apart, behind kDone points already transformed.
template <int kPoints, int kRadix, int kDone>
__device__ __forceinline__ void fa_spectral_pass(const float* turns, FaSpectralRoom<kPoints>& room) {
    constexpr int kApart = kPoints / kRadix, kEach = 8 / kRadix;
    FaComplex<float> x[kEach][kRadix];
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        const int i = e * kThreads + static_cast<int>(threadIdx.x), base = i / kApart * (kPoints + kSkew),
                  j = i % kApart;
#pragma unroll
        for (int r = 0; r < kRadix; ++r) x[e][r] = {room.re[base + j + r * kApart], room.im[base + j + r * kApart]};
        if constexpr (kDone > 1) {
            const float* turn = turns + FaSpectralTurns<kPoints>::pass(kDone) + j % kDone;
            fa_spectral_turn(x[e], FA_LD(turn), FA_LD(turn + FaSpectralTurns<kPoints>::kAll));
        }
        fa_spectral_dft(x[e]);
    }
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        const int i = e * kThreads + static_cast<int>(threadIdx.x), base = i / kApart * (kPoints + kSkew),
                  j = i % kApart;
        const int to = base + j / kDone * kDone * kRadix + j % kDone;
#pragma unroll
        for (int r = 0; r < kRadix; ++r) {
            room.re[to + r * kDone] = x[e][r].re;
            room.im[to + r * kDone] = x[e][r].im;
        }
    }
    __syncthreads();
}

// Powers (or magnitudes) in place of the transform: bin k in re[k], bin n / 2 in im[0].
template <int kPoints>
__device__ __forceinline__ void fa_spectral_powers(const FaSpectralArguments& a, FaSpectralRoom<kPoints>& room) {
    constexpr int kStride = FaSpectralRoom<kPoints>::kStride, kPairs = kPoints / 2 + 1;
    for (int i = threadIdx.x; i < FaSpectralRoom<kPoints>::kGroup * kPairs; i += kThreads) {
        const int base = i / kPairs * kStride, k = i % kPairs, mirror = k ? kPoints - k : 0;
        const FaComplex<float> z = {room.re[base + k], room.im[base + k]};
        const FaComplex<float> y = {room.re[base + mirror], room.im[base + mirror]};
        const float* angle = a.turns + FaSpectralTurns<kPoints>::kRest + k;
        const float turn[2] = {FA_LD(angle + FaSpectralTurns<kPoints>::kAll), FA_LD(angle)};
        float low, high;
        if (k) {
            fa_real_powers(z, y, turn, low, high);
        } else {
            fa_real_ends(z, low, high);
        }
        if (a.level.magnitude) low = sqrtf(low), high = sqrtf(high);
        room.re[base + k] = low;
        (k ? room.re[base + mirror] : room.im[base]) = high;
    }
}

// The group's bands into out (bands, tile + 1).
template <int kPoints>
__device__ __forceinline__ void fa_spectral_bands(const FaSpectralArguments& a, const FaSpectralRoom<kPoints>& room,
                                                  float* out, int column) {
    constexpr int kGroup = FaSpectralRoom<kPoints>::kGroup, kStride = FaSpectralRoom<kPoints>::kStride;
    for (int i = threadIdx.x; i < a.bands * kGroup; i += kThreads) {
        const int band = i / kGroup, base = i % kGroup * kStride;
        const int from = a.weights ? a.begin[band] : 0, count = a.weights ? a.begin[band + 1] - from : 1;
        const int bin = a.weights ? a.first[band] : band;
        float sum = 0.0f;
        for (int n = 0; n < count; ++n) {
            const float power = bin + n < kPoints ? room.re[base + bin + n] : room.im[base];
            sum = fa_fma(a.weights ? a.weights[from + n] : 1.0f, power, sum);
        }
        out[band * (a.tile + 1) + column + i % kGroup] = fa_level(a.level, sum);
    }
}

template <int kPoints>
__device__ __forceinline__ void fa_spectral_block(const FaSpectralArguments& a) {
    FA_DYNAMIC_SHARED(float, shared);
    FaSpectralRoom<kPoints>& room = *reinterpret_cast<FaSpectralRoom<kPoints>*>(shared);
    float* out = shared + sizeof(room) / sizeof(float);
    const int frames = static_cast<int>(a.frames.frames), tiles = (frames + a.tile - 1) / a.tile;
    const long long row = static_cast<int>(blockIdx.x) / tiles;
    const int start = static_cast<int>(blockIdx.x) % tiles * a.tile, end = fa_min(start + a.tile, frames);
    for (int frame = start; frame < end; frame += FaSpectralRoom<kPoints>::kGroup) {
        fa_spectral_stage(a, room, a.x + row * a.frames.length, frame, end);
        __syncthreads();
        fa_spectral_pass<kPoints, 8, 1>(a.turns, room);
        fa_spectral_pass<kPoints, 8, 8>(a.turns, room);
        if constexpr (kPoints == 512) fa_spectral_pass<kPoints, 8, 64>(a.turns, room);
        if constexpr (kPoints != 512) fa_spectral_pass<kPoints, 4, 64>(a.turns, room);
        if constexpr (kPoints == 1024) fa_spectral_pass<kPoints, 4, 256>(a.turns, room);
        fa_spectral_powers(a, room);
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

// Grid: rows * ceil(frames / tile) blocks of 256 threads; shared memory: the room and (bands, tile + 1) floats.
#define FA_SPECTRAL_PARAMETERS                                                                                     \
    const float *x, void *y, const float *window, const float *turns, const float *weights, const int *first,      \
        const int *begin, long long length, long long frames, long long hop, long long lead, int width, int n_fft, \
        int reflect, float gain, float offset, float floor, float scale, int logarithm, int magnitude, int bands,  \
        int tile, int narrow
#define FA_SPECTRAL_ARGUMENTS                            \
    {x,                                                  \
     y,                                                  \
     window,                                             \
     turns,                                              \
     weights,                                            \
     first,                                              \
     begin,                                              \
     {length, frames, hop, lead, width, n_fft, reflect}, \
     {gain, offset, floor, scale, logarithm, magnitude}, \
     bands,                                              \
     tile,                                               \
     narrow}
extern "C" __global__ void __launch_bounds__(256) fa_spectral_512_kernel(FA_SPECTRAL_PARAMETERS) {
    fa_spectral_block<256>(FA_SPECTRAL_ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256) fa_spectral_1024_kernel(FA_SPECTRAL_PARAMETERS) {
    fa_spectral_block<512>(FA_SPECTRAL_ARGUMENTS);
}
extern "C" __global__ void __launch_bounds__(256, 2) fa_spectral_2048_kernel(FA_SPECTRAL_PARAMETERS) {
    fa_spectral_block<1024>(FA_SPECTRAL_ARGUMENTS);
}
