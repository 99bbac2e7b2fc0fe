// Windowed-sinc filters on CUDA: a block computes kTile outputs of one channel. The taps come in chunks, computed in
// place by the block's threads (double precision, as on the CPU), with the two stretches of signal that they touch.
#include "../fir.h"

constexpr int kThreads = 256;
constexpr int kOutputs = 4;  // per thread, kThreads apart
constexpr int kTile = kThreads * kOutputs;
constexpr int kChunk = 512;  // taps
constexpr int kSpan = kTile + kChunk;

__device__ __forceinline__ double fa_block_sum(double value, double* partial) {
    partial[threadIdx.x] = value;
    for (int distance = kThreads / 2; distance; distance /= 2) {
        __syncthreads();
        if (threadIdx.x < distance) partial[threadIdx.x] += partial[threadIdx.x + distance];
    }
    __syncthreads();
    return partial[0];
}

// Reads `count` samples from `first` on, the edge samples repeated outside the signal.
__device__ __forceinline__ void fa_fir_stage(const float* x, long long length, long long first, int count,
                                             float* stretch) {
    for (int i = threadIdx.x; i < count; i += kThreads) {
        stretch[i] = FA_LD(x + fa_clamp<long long>(first + i, 0, length - 1));
    }
}

// x, y: (rows, channels, length). Grid: rows * channels * ceil(length / 1024) blocks of 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    fa_windowed_sinc_kernel(const float* x, float* y, const double* cutoff, const unsigned char* highpass,
                            const unsigned char* active, long long channels, long long length, long long zeros) {
    __shared__ float taps[kChunk], left[kSpan], right[kSpan];
    __shared__ double partial[kThreads];
    const long long tiles = (length + kTile - 1) / kTile, row = blockIdx.x / tiles / channels;
    const long long begin = blockIdx.x % tiles * kTile, channel = blockIdx.x / tiles;
    const float* in = x + channel * length;
    float* out = y + channel * length;
    const bool copied = active && !active[row];
    const double f = cutoff[row];
    const long long half = copied ? -1 : fa_fir_half(f, zeros);

    float sums[kOutputs] = {};
    double tap_sum = 0.0;
    for (long long high = half; high > 0; high -= kChunk) {
        const int n = static_cast<int>(fa_min<long long>(kChunk, high));  // taps high, high - 1, .. high - n + 1
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += kThreads) {
            const double tap = fa_fir_tap(f, half, high - i);
            tap_sum += 2.0 * tap;
            taps[i] = static_cast<float>(tap);
        }
        fa_fir_stage(in, length, begin - high, kTile + n, left);
        fa_fir_stage(in, length, begin + high - n + 1, kTile + n, right);
        __syncthreads();
#pragma unroll 2  // more spills on sm_75
        for (int i = 0; i < n; ++i) {
            const float tap = taps[i];
#pragma unroll
            for (int o = 0; o < kOutputs; ++o) {
                const int at = threadIdx.x + o * kThreads;
                sums[o] = fa_fir_term(sums[o], tap, left[at + i], right[at + n - 1 - i]);
            }
        }
    }
    const double total = fa_block_sum(tap_sum, partial) + 2.0 * f;
    const float scale = half < 0 ? 0.0f : static_cast<float>(1.0 / total);
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) {
        const long long t = begin + threadIdx.x + o * kThreads;
        if (t >= length) continue;
        const float sample = FA_LD(in + t);
        const float silent = highpass[row] ? sample : 0.0f;
        const float filtered =
            half < 0 ? silent : fa_fir_finish(sums[o], static_cast<float>(2.0 * f), sample, scale, highpass[row]);
        FA_ST(out + t, copied ? sample : filtered);
    }
}
