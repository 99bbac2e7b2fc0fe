// Sample-rate conversion on CUDA, in direct form: three kernels for one ratio, the first that fits (see _launch in
// fastaug/ops/resample.py), and one for a ratio in every row. The CPU filters most ratios by FFT instead, so the two
// devices agree to 110 dB; in fa_resample_kernel, which takes what the others cannot, they agree bit by bit.
#include "../resample.h"

// Outputs of one thread: neighbours in fa_decimate_kernel (odd, so that the threads of a warp meet different banks),
// whole periods apart in fa_polyphase_kernel.
constexpr int kDecimateOutputs = 7;
constexpr int kPolyphaseOutputs = 4;

// x: rows of `stride` samples of which `count`, starting at source position x_start, are given. y: (rows, length),
// outputs [start, start + length) of one in `down`. taps: (down, steps), those of every `down`-th sample, zeros at the
// end up to a multiple of 7 steps. Shared: the sources of a block, every `down`-th sample side by side, (down, pitch).
// A thread's seven outputs share six of their seven samples with each next step: one is read, seven products are made.
// Grid: rows * ceil(length / (7 * blockDim.x)) blocks.
extern "C" __global__ void __launch_bounds__(128)
    fa_decimate_kernel(const float* x, float* y, long long stride, long long count, long long x_start, long long start,
                       long long length, long long down, const float* taps, long long half, int steps, int pitch) {
    FA_DYNAMIC_SHARED(float, samples);
    const int tile = kDecimateOutputs * blockDim.x, phases = static_cast<int>(down);
    const long long tiles = (length + tile - 1) / tile, row = blockIdx.x / tiles, first = blockIdx.x % tiles * tile;
    const long long begin = (start + first) * down - half + 1 - x_start;
    const float* source = x + row * stride;
    for (int i = threadIdx.x; i < phases * pitch; i += blockDim.x) {
        const long long from = begin + i;
        samples[i % phases * pitch + i / phases] = from >= 0 && from < count ? FA_LD(source + from) : 0.0f;
    }
    __syncthreads();
    const int mine = kDecimateOutputs * threadIdx.x;
    float sums[kDecimateOutputs] = {}, window[kDecimateOutputs];
    for (int phase = 0; phase < phases; ++phase) {
        const float* line = samples + phase * pitch + mine;
        const float* tap = taps + phase * steps;
#pragma unroll
        for (int r = 0; r < kDecimateOutputs; ++r) window[r] = line[r];
        for (int step = 0; step < steps; step += kDecimateOutputs) {
#pragma unroll
            for (int u = 0; u < kDecimateOutputs; ++u) {
                const float factor = FA_LD(tap + step + u);
#pragma unroll
                for (int r = 0; r < kDecimateOutputs; ++r) {
                    sums[r] = fa_fma(window[(u + r) % kDecimateOutputs], factor, sums[r]);
                }
                window[u] = line[step + u + kDecimateOutputs];
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kDecimateOutputs; ++r) samples[mine + r] = sums[r];
    __syncthreads();
    for (int i = threadIdx.x; i < tile && first + i < length; i += blockDim.x) {
        FA_ST(y + row * length + first + i, samples[i]);
    }
}

// Outputs of up / down. taps: (2 * half, up), column n for the outputs n, n + up, ...; tile: outputs from a thread's
// one to its next, a multiple of `up` and at most blockDim.x. Shared: the sources of a block, `room` floats.
// Grid: rows * ceil((length + start % up) / (4 * tile)) blocks.
extern "C" __global__ void __launch_bounds__(1024)
    fa_polyphase_kernel(const float* x, float* y, long long stride, long long count, long long x_start, long long start,
                        long long length, long long up, long long down, const float* taps, long long half, int tile,
                        int room) {
    FA_DYNAMIC_SHARED(float, samples);
    const long long from_period = start / up * up, total = start + length;
    const long long tiles = (total - from_period + kPolyphaseOutputs * tile - 1) / (kPolyphaseOutputs * tile);
    const long long row = blockIdx.x / tiles;
    const long long first = from_period + blockIdx.x % tiles * kPolyphaseOutputs * tile;
    const long long begin = first / up * down - half + 1;
    const float* source = x + row * stride;
    for (int i = threadIdx.x; i < room; i += blockDim.x) {
        const long long from = begin + i - x_start;
        samples[i] = from >= 0 && from < count ? FA_LD(source + from) : 0.0f;
    }
    __syncthreads();
    if (threadIdx.x >= tile) return;
    const int column = threadIdx.x % static_cast<int>(up), periods = static_cast<int>(up);
    const float* mine = samples + threadIdx.x * down / up;
    const int hop = static_cast<int>(tile / up * down), width = static_cast<int>(2 * half);
    float sums[kPolyphaseOutputs] = {};
    for (int j = 0; j < width; ++j) {
        const float factor = FA_LD(taps + j * periods + column);
#pragma unroll
        for (int r = 0; r < kPolyphaseOutputs; ++r) sums[r] = fa_fma(mine[j + r * hop], factor, sums[r]);
    }
#pragma unroll
    for (int r = 0; r < kPolyphaseOutputs; ++r) {
        const long long k = first + threadIdx.x + static_cast<long long>(r) * tile;
        if (k >= start && k < total) FA_ST(y + row * length + (k - start), sums[r]);
    }
}

// Sum over the sixteen threads of a half warp, in the order of fa_sum_lanes on the CPU.
__device__ __forceinline__ float fa_half_warp_sum(float value) {
    for (int distance = kResampleLanes / 2; distance; distance /= 2) {
        value = fa_add(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    return value;
}

// Sixteen threads share one output, as the sixteen lanes of the CPU's dot product do: taps and samples are read in
// whole 64-byte runs and both devices add in the same order.
// x: rows of `stride` samples of which `count`, starting at source position x_start, are given. y: (rows, length).
// Grid: ceil(rows * length * 16 / blockDim.x) blocks.
extern "C" __global__ void fa_resample_kernel(const float* x, float* y, long long rows, long long stride,
                                              long long count, long long x_start, long long start, long long length,
                                              long long up, long long down, const float* taps, long long half,
                                              int interpolated) {
    const long long thread = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const long long output = thread / kResampleLanes;
    const long long lane = thread % kResampleLanes;
    const bool inside = output < rows * length;
    const long long row = inside ? output / length : 0;
    const long long k = inside ? start + output % length : start;
    const long long width = 2 * half;
    const FaPosition at = interpolated ? fa_interpolated_position(k, up, down) : fa_exact_position(k, up, down);
    const float* table = taps + at.phase * width * (interpolated ? 3 : 1);
    const float* source = x + row * stride;
    const long long first = at.index - half + 1 - x_start;
    float sum = 0.0f;
    for (long long j = lane; j < width; j += kResampleLanes) {
        const long long from = first + j;
        const float sample = from >= 0 && from < count ? FA_LD(source + from) : 0.0f;
        float tap = FA_LD(table + j);
        if (interpolated) {
            const float slope = fa_add(FA_LD(table + width + j), fa_mul(at.fraction, FA_LD(table + 2 * width + j)));
            tap = fa_add(tap, fa_mul(at.fraction, slope));
        }
        sum = fa_add(sum, fa_mul(sample, tap));
    }
    sum = fa_half_warp_sum(sum);
    if (inside && lane == 0) FA_ST(y + output, sum);
}

// Intervals per zero crossing of the cubic table, and source samples held at a time.
constexpr int kResampleCubics = 16;
constexpr int kResampleChunk = 1024;

// Any ratio in any row. x: (rows, channels, length); y: (rows, channels, out_length), zeros behind each row's
// ceil(length * to / from) outputs, a copy at equal rates, NaN in a row with a rate below 1. cubics: (intervals, 4),
// the low-pass on one side. Each thread has one output; its taps are read off the cubics at steps in fixed point, 32
// bits behind the point. Grid: rows * channels * ceil(out_length / 256) blocks of 256 threads; shared: the cubics, then
// a chunk of samples.
extern "C" __global__ void __launch_bounds__(256)
    fa_resample_rows_kernel(const float* x, float* y, const long long* from_rates, const long long* to_rates,
                            long long channels, long long length, long long out_length, const float* cubics,
                            long long intervals) {
    FA_DYNAMIC_SHARED(float4, table);
    float* chunk = reinterpret_cast<float*>(table + intervals);
    const long long blocks = (out_length + blockDim.x - 1) / blockDim.x, signal = blockIdx.x / blocks;
    const long long first = blockIdx.x % blocks * blockDim.x, k = first + threadIdx.x;
    const long long from = FA_LD(from_rates + signal / channels), to = FA_LD(to_rates + signal / channels);
    const bool nonsense = from < 1 || to < 1;
    const long long count = nonsense ? 0 : fa_min((length * to + from - 1) / from, out_length);
    if (first >= count) {
        if (k < out_length) FA_ST(y + signal * out_length + k, nonsense ? fa_bits_to_float(0x7fc00000u) : 0.0f);
        return;
    }
    if (from == to) {
        if (k < out_length) FA_ST(y + signal * out_length + k, k < count ? FA_LD(x + signal * length + k) : 0.0f);
        return;
    }
    for (long long i = threadIdx.x; i < intervals; i += blockDim.x) {
        table[i] = FA_LD(reinterpret_cast<const float4*>(cubics) + i);
    }
    const double scale = to < from ? static_cast<double>(to) / static_cast<double>(from) : 1.0;
    const double fine = scale * kResampleCubics;
    const long long reach = static_cast<long long>(static_cast<double>(intervals) / fine) + 1;
    const long long index = k * from / to;
    const double u = static_cast<double>(k * from % to) / static_cast<double>(to);
    const long long step = static_cast<long long>(fine * 4294967296.0);
    // The sources of this block, cut at the signal's ends: outside, all samples are zero.
    const long long last = fa_min(first + blockDim.x, count) - 1;
    const long long low = fa_max(first * from / to - reach, 0ll), high = fa_min(last * from / to + reach + 1, length);
    const float* source = x + signal * length;
    float sum = 0.0f;
    for (long long base = low; base < high; base += kResampleChunk) {
        __syncthreads();
        for (int i = threadIdx.x; i < kResampleChunk; i += blockDim.x) {
            chunk[i] = base + i < length ? FA_LD(source + base + i) : 0.0f;
        }
        __syncthreads();
        const long long begin = fa_max(base, index - reach), end = fa_min(base + kResampleChunk, index + reach + 1);
        long long at = static_cast<long long>((static_cast<double>(begin - index) - u) * fine * 4294967296.0);
        for (long long i = begin; i < end; ++i, at += step) {
            const long long distance = at < 0 ? -at : at;
            const int interval = static_cast<int>(distance >> 32);
            if (interval >= intervals) continue;
            const float v = static_cast<float>(static_cast<uint32_t>(distance)) * 2.3283064365386963e-10f;
            const float4 c = table[interval];
            const float tap = fa_fma(fa_fma(fa_fma(c.w, v, c.z), v, c.y), v, c.x);
            sum = fa_fma(chunk[i - base], tap, sum);
        }
    }
    if (k < out_length) FA_ST(y + signal * out_length + k, k < count ? sum * static_cast<float>(scale) : 0.0f);
}
