// The fused pointwise pass and echo on CUDA. A block handles 4096 samples of one line (row and channel), neighbouring
// threads neighbouring samples.
#include "../pointwise.h"

#include "../noise.h"
#include "../normal.h"

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTile = 4096;

__device__ __forceinline__ double fa_warp_sum(double value) {
    for (int distance = 16; distance; distance /= 2) value += __shfl_down_sync(0xffffffffu, value, distance);
    return value;
}

// Sums of one tile of one line of a noisy row, after its window and first level, in a tree that depends on the tile
// alone; other rows are left out. Grid: rows * channels * ceil(out_length / 4096) blocks of 256 threads.
// x: (rows, channels, length). sums: (rows, channels * tiles, 2). Further arguments as of fa_pointwise_kernel.
extern "C" __global__ void fa_noise_sums_kernel(const float* x, double* sums, const long long* starts,
                                                const unsigned char* flip, const float* factor,
                                                const unsigned char* active, int clip, const unsigned char* noisy,
                                                const long long* valid, int mode, long long channels, long long length,
                                                long long out_length) {
    __shared__ double first[kWarps];
    __shared__ double second[kWarps];
    const long long tiles = (out_length + kTile - 1) / kTile, line = blockIdx.x / tiles, row = line / channels;
    if (noisy != nullptr && FA_LD(noisy + row) == 0) return;
    const long long sound = valid == nullptr ? out_length : fa_clamp<long long>(FA_LD(valid + row), 0, out_length);
    const long long begin = blockIdx.x % tiles * kTile, end = fa_min(begin + kTile, sound);
    const long long start = starts == nullptr ? 0 : FA_LD(starts + row);
    const FaLevel level = fa_level_of_row({flip, factor, active, clip != 0}, row);
    const FaOverlap inside = fa_overlap(0, out_length, length, start);
    const auto sample = [&](long long of_line, long long t) {
        return fa_level_sample(t >= inside.begin && t < inside.end ? FA_LD(x + of_line * length + start + t) : 0.0f,
                               level);
    };
    const double shift = fa_noise_shift(mode, sample(row * channels, 0));
    FaSums mine = {0.0, 0.0};
    for (long long t = begin + threadIdx.x; t < end; t += kThreads) fa_noise_accumulate(mine, sample(line, t), shift);
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

// The row's sums from its tiles', by the first warp. The result is valid in thread 0.
__device__ __forceinline__ FaSums fa_add_tiles(const double* sums, long long tiles) {
    FaSums total = {0.0, 0.0};
    for (long long i = threadIdx.x; i < tiles; i += 32) {
        const double2 tile = FA_LD(reinterpret_cast<const double2*>(sums) + i);
        total.first += tile.x;
        total.second += tile.y;
    }
    total.first = fa_warp_sum(total.first);
    total.second = fa_warp_sum(total.second);
    return total;
}

// y = after(clip(before(window of x) + sigma * noise)); whatever is null does not happen.
// x: (rows, channels, length). y: (rows, channels, out_length). starts, flip..., keys (rows, 3), noise_level, noisy,
// valid: (rows,). sums: what fa_noise_sums_kernel left, or null. Grid and block as there.
// With noise a thread computes four neighbouring samples of it, then the warp passes them through shared memory, so
// that its global accesses are consecutive whatever the alignment of the row.
extern "C" __global__ void fa_pointwise_kernel(const float* x, float* y, const long long* starts,
                                               const unsigned char* flip, const float* factor,
                                               const unsigned char* active, int clip, const long long* keys,
                                               const float* noise_level, const unsigned char* noisy,
                                               const long long* valid, const double* sums, int mode, int clip_noise,
                                               const unsigned char* flip_after, const float* factor_after,
                                               const unsigned char* active_after, int clip_after, long long channels,
                                               long long length, long long out_length) {
    __shared__ float4 noise[kThreads];
    __shared__ float shared_sigma;
    const long long tiles = (out_length + kTile - 1) / kTile, line = blockIdx.x / tiles, row = line / channels;
    const long long begin = blockIdx.x % tiles * kTile, end = fa_min(begin + kTile, out_length);
    const long long start = starts == nullptr ? 0 : FA_LD(starts + row);
    const FaOverlap inside = fa_overlap(begin, end, length, start);
    const FaLevel before = fa_level_of_row({flip, factor, active, clip != 0}, row);
    const FaLevel after = fa_level_of_row({flip_after, factor_after, active_after, clip_after != 0}, row);
    const bool plain = fa_is_plain(before), plain_after = fa_is_plain(after);
    const float* in = x + line * length + start;
    float* out = y + line * out_length;
    const auto sample = [&](long long t) {
        const float value = t >= inside.begin && t < inside.end ? FA_LD(in + t) : 0.0f;
        return plain ? value : fa_level_sample(value, before);
    };
    const auto store = [&](long long t, float value) {
        FA_ST(out + t, plain_after ? value : fa_level_sample(value, after));
    };
    if (keys == nullptr || (noisy != nullptr && FA_LD(noisy + row) == 0)) {
        for (long long t = begin + threadIdx.x; t < end; t += kThreads) store(t, sample(t));
        return;
    }
    const long long sound = valid == nullptr ? out_length : fa_clamp<long long>(FA_LD(valid + row), 0, out_length);
    if (threadIdx.x < 32) {
        FaSums total = {0.0, 0.0};
        if (mode != FA_NOISE_SIGMA) total = fa_add_tiles(sums + 2 * row * channels * tiles, channels * tiles);
        if (threadIdx.x == 0) shared_sigma = fa_noise_scale(total, channels * sound, FA_LD(noise_level + row), mode);
    }
    __syncthreads();
    const float sigma = shared_sigma, limit = clip_noise ? 1.0f : fa_no_limit();
    const uint32_t key0 = static_cast<uint32_t>(FA_LD(keys + 3 * row));
    const uint32_t key1 = static_cast<uint32_t>(FA_LD(keys + 3 * row + 1));
    const uint32_t stream = static_cast<uint32_t>(FA_LD(keys + 3 * row + 2));
    const uint32_t channel = static_cast<uint32_t>(line % channels);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float* warp_noise = reinterpret_cast<const float*>(noise + 32 * warp);
    for (long long tile = begin + 128 * warp; tile < end; tile += 4 * kThreads) {
        const FaNormals z = fa_normals(key0, key1, stream, channel, tile / 4 + lane);
        noise[threadIdx.x] = make_float4(z.z0, z.z1, z.z2, z.z3);
        __syncwarp();
        for (int part = 0; part < 4; ++part) {
            const long long t = tile + 32 * part + lane;
            if (t < end) {
                const float value = sample(t);
                store(t, t < sound ? fa_limit(value + sigma * warp_noise[32 * part + lane], limit) : value);
            }
        }
        __syncwarp();
    }
}

// x, y: (rows, channels, length). offset, dry, wet: (rows,). active: (rows,) or null.
// Grid: rows * channels * ceil(length / 4096) blocks of 256 threads.
extern "C" __global__ void fa_echo_kernel(const float* x, float* y, const long long* offset, const float* dry,
                                          const float* wet, const unsigned char* active, long long channels,
                                          long long length) {
    const long long tiles = (length + kTile - 1) / kTile, line = blockIdx.x / tiles, row = line / channels;
    const long long start = blockIdx.x % tiles * kTile, end = fa_min(start + kTile, length);
    const bool on = active == nullptr || FA_LD(active + row) != 0;
    const float dry_level = FA_LD(dry + row), wet_level = FA_LD(wet + row);
    const long long shift = fa_negative(FA_LD(offset + row));
    const FaOverlap sound = fa_overlap(start, end, length, shift);
    const float* in = x + line * length;
    for (long long t = start + threadIdx.x; t < end; t += kThreads) {
        const float sample = FA_LD(in + t);
        const float delayed = on && t >= sound.begin && t < sound.end ? FA_LD(in + t + shift) : 0.0f;
        FA_ST(y + line * length + t, on ? fa_echo_sample(sample, delayed, dry_level, wet_level) : sample);
    }
}
