// Windowed-sinc filters on CUDA: a block computes kTile outputs of one channel, a thread kOutputs neighbours of them
// from windows in its registers: a read of shared memory for three multiply-adds, where floating-point units set the
// pace. The taps come in chunks, computed in place by the block's threads, with the two stretches of signal that they
// touch.
#include "../fir.h"

constexpr int kThreads = 256;
constexpr int kOutputs = 9;  // odd: threads that read so far apart meet in no bank of shared memory
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

// x, y: (rows, channels, length). Grid: rows * channels * ceil(length / 2304) blocks of 256 threads.
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
    const int mine = threadIdx.x * kOutputs;
    for (long long high = half; high > 0; high -= kChunk) {
        const int n = static_cast<int>(fa_min<long long>(kChunk, high));  // taps high, high - 1, .. high - n + 1
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += kThreads) {
            taps[i] = fa_fir_tap(f, half, high - i);
            tap_sum += 2.0 * taps[i];
        }
        fa_fir_stage(in, length, begin - high, kTile + n, left);
        fa_fir_stage(in, length, begin + high - n, kTile + n, right);
        __syncthreads();
        fa_fir_pairs<kOutputs>(left + mine, right + mine + n, taps, n, sums);
    }
    const float centre = static_cast<float>(2.0 * f);
    const double total = fa_block_sum(tap_sum, partial) + centre;
    const float scale = half < 0 ? 0.0f : static_cast<float>(1.0 / total);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) left[mine + i] = sums[i];
    __syncthreads();
    for (int i = threadIdx.x; i < kTile && begin + i < length; i += kThreads) {
        const float sample = FA_LD(in + begin + i);
        const float low = half < 0 ? 0.0f : fa_mul(fa_fma(centre, sample, left[i]), scale);
        FA_ST(out + begin + i, copied ? sample : highpass[row] ? sample - low : low);
    }
}
