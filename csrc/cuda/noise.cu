// add_noise on CUDA: fa_noise_sums_kernel (only when the level is relative to the row), then fa_noise_kernel.
#include "../noise.h"
#include "../normal.h"

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kSegment = 4096;  // samples of a row per block of the sums; of a channel per block of the noise

__device__ __forceinline__ double fa_warp_sum(double value) {
    for (int distance = 16; distance; distance /= 2) value += __shfl_down_sync(0xffffffffu, value, distance);
    return value;
}

// Sums of one segment of one row, in a tree that depends on the segment alone. Grid: rows * segments blocks of 256.
// x: (rows, n). sums: (rows, segments, 2).
extern "C" __global__ void fa_noise_sums_kernel(const float* x, double* sums, long long n, long long segments,
                                                int mode) {
    __shared__ double first[kWarps];
    __shared__ double second[kWarps];
    const long long row = blockIdx.x / segments;
    const long long start = blockIdx.x % segments * kSegment;
    const long long end = fa_min(start + kSegment, n);
    const double shift = fa_noise_shift(mode, FA_LD(x + row * n));
    FaSums mine = {0.0, 0.0};
    for (long long i = start + threadIdx.x; i < end; i += kThreads)
        fa_noise_accumulate(mine, FA_LD(x + row * n + i), shift);
    mine.first = fa_warp_sum(mine.first);
    mine.second = fa_warp_sum(mine.second);
    if (threadIdx.x % 32 == 0) {
        first[threadIdx.x / 32] = mine.first;
        second[threadIdx.x / 32] = mine.second;
    }
    __syncthreads();
    if (threadIdx.x < 2) {  // one thread for each of the two sums: their stores are adjacent
        const double* parts = threadIdx.x == 0 ? first : second;
        double total = 0.0;
        for (int warp = 0; warp < kWarps; ++warp) total += parts[warp];
        FA_ST(sums + 2 * static_cast<long long>(blockIdx.x) + threadIdx.x, total);
    }
}

// The row's sums from its segments', by the first warp. The result is valid in thread 0.
__device__ __forceinline__ FaSums fa_add_segments(const double* sums, long long segments) {
    FaSums total = {0.0, 0.0};
    for (long long i = threadIdx.x; i < segments; i += 32) {
        const double2 segment = FA_LD(reinterpret_cast<const double2*>(sums) + i);
        total.first += segment.x;
        total.second += segment.y;
    }
    total.first = fa_warp_sum(total.first);
    total.second = fa_warp_sum(total.second);
    return total;
}

// y = x + scale * noise. Grid: rows * channels * ceil(length / 4096) blocks of 256 threads.
// x, y: (rows, channels, length). keys: (rows, 3). level: (rows,). active: (rows,) or null. sums: (rows, segments, 2).
// A thread computes four neighbouring samples of noise, then the warp passes them through shared memory, so that its
// global accesses are consecutive whatever the alignment of the row.
extern "C" __global__ void fa_noise_kernel(const float* x, float* y, const long long* keys, const float* level,
                                           const unsigned char* active, const double* sums, long long channels,
                                           long long length, long long segments, int mode) {
    __shared__ float4 noise[kThreads];
    __shared__ float shared_scale;
    const long long tiles = (length + kSegment - 1) / kSegment;
    const long long line = blockIdx.x / tiles;  // row * channels + channel
    const long long row = line / channels;
    const long long start = blockIdx.x % tiles * kSegment;
    const long long end = fa_min(start + kSegment, length);
    const bool on = active == nullptr || FA_LD(active + row) != 0;
    if (threadIdx.x < 32) {
        FaSums total = {0.0, 0.0};
        if (on && mode != FA_NOISE_SIGMA) total = fa_add_segments(sums + row * segments * 2, segments);
        if (threadIdx.x == 0) shared_scale = fa_noise_scale(total, channels * length, FA_LD(level + row), mode);
    }
    __syncthreads();
    const float scale = shared_scale;
    const uint32_t key0 = static_cast<uint32_t>(FA_LD(keys + 3 * row));
    const uint32_t key1 = static_cast<uint32_t>(FA_LD(keys + 3 * row + 1));
    const uint32_t stream = static_cast<uint32_t>(FA_LD(keys + 3 * row + 2));
    const uint32_t channel = static_cast<uint32_t>(line % channels);
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    const float* warp_noise = reinterpret_cast<const float*>(noise + 32 * warp);
    for (long long tile = start + 128 * warp; tile < end; tile += 4 * kThreads) {
        if (on) {
            const FaNormals z = fa_normals(key0, key1, stream, channel, tile / 4 + lane);
            noise[threadIdx.x] = make_float4(z.z0, z.z1, z.z2, z.z3);
        }
        __syncwarp();
        for (int part = 0; part < 4; ++part) {
            const long long i = tile + 32 * part + lane;
            if (i < end) {
                const float sample = FA_LD(x + line * length + i);
                FA_ST(y + line * length + i, on ? sample + scale * warp_noise[32 * part + lane] : sample);
            }
        }
        __syncwarp();
    }
}
