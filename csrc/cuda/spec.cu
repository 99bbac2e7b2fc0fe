// Masks and warps of spectrograms on CUDA. A block handles 4096 neighbouring elements of one row.
#include "../spec.h"

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTile = 4096;

// Means of the valid frames of each row, in a tree that depends on the row alone. Grid: rows blocks of 256 threads.
// x: (rows, lines, frames). means: (rows,). valid: (rows,) frames, or null for all.
extern "C" __global__ void fa_spec_mean_kernel(const float* x, float* means, const long long* valid,
                                               const unsigned char* active, long long lines, long long frames) {
    __shared__ double parts[kWarps];
    const long long row = blockIdx.x;
    if (active != nullptr && FA_LD(active + row) == 0) return;
    const long long sound = valid == nullptr ? frames : fa_clamp<long long>(FA_LD(valid + row), 0, frames);
    double sum = 0.0;
    if (sound == frames) {
        for (long long i = threadIdx.x; i < lines * frames; i += kThreads)
            sum += static_cast<double>(FA_LD(x + row * lines * frames + i));
    } else {
        for (long long line = threadIdx.x / 32; line < lines; line += kWarps)
            for (long long n = threadIdx.x % 32; n < sound; n += 32)
                sum += static_cast<double>(FA_LD(x + (row * lines + line) * frames + n));
    }
    for (int distance = 16; distance; distance /= 2) sum += __shfl_down_sync(0xffffffffu, sum, distance);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0.0;
        for (int warp = 0; warp < kWarps; ++warp) total += parts[warp];
        FA_ST(means + row, static_cast<float>(total / static_cast<double>(fa_max<long long>(lines * sound, 1))));
    }
}

// y = x, but `fill`, or the row's mean, where a bin or a frame is covered. x, y: (rows, channels, bins, frames); where
// they are one, only what is covered is touched.
// freq_start, freq_size: (rows, freq_count), time likewise. means: (rows,) or null. active: (rows,) or null.
// Grid: rows * ceil(channels * bins * frames / 4096) blocks of 256 threads.
extern "C" __global__ void fa_spec_mask_kernel(const float* x, float* y, const long long* freq_start,
                                               const long long* freq_size, long long freq_count,
                                               const long long* time_start, const long long* time_size,
                                               long long time_count, double fill, const float* means,
                                               const unsigned char* active, long long channels, long long bins,
                                               long long frames) {
    const long long size = channels * bins * frames, tiles = (size + kTile - 1) / kTile, row = blockIdx.x / tiles;
    const long long begin = blockIdx.x % tiles * kTile, end = fa_min(begin + kTile, size);
    const FaIntervals freq = {freq_start, freq_size, freq_count}, time = {time_start, time_size, time_count};
    const bool on = active == nullptr || FA_LD(active + row) != 0;
    const float value = means == nullptr || !on ? static_cast<float>(fill) : FA_LD(means + row);
    for (long long i = begin + threadIdx.x; i < end; i += kThreads) {
        const bool covered = on && (fa_covers(freq, row, i / frames % bins) || fa_covers(time, row, i % frames));
        if (covered || x != y) FA_ST(y + row * size + i, covered ? value : FA_LD(x + row * size + i));
    }
}

// Each output from up to 4 x 4 neighbours of its position: along time first, then along frequency, as on the CPU.
// freq_at: (rows, bins) or null; time_at: (rows, frames). freq_range, time_range: (rows, 2) or null. Grid as above.
extern "C" __global__ void fa_spec_warp_kernel(const float* x, float* y, const float* freq_at,
                                               const long long* freq_range, const float* time_at,
                                               const long long* time_range, int cubic, const unsigned char* active,
                                               long long channels, long long bins, long long frames) {
    const long long size = channels * bins * frames, tiles = (size + kTile - 1) / kTile, row = blockIdx.x / tiles;
    const long long begin = blockIdx.x % tiles * kTile, end = fa_min(begin + kTile, size);
    const bool on = active == nullptr || FA_LD(active + row) != 0;
    const int last_bin = static_cast<int>(bins - 1), last_frame = static_cast<int>(frames - 1);
    const int low = time_range == nullptr ? 0 : static_cast<int>(FA_LD(time_range + 2 * row));
    const int high = time_range == nullptr ? last_frame : static_cast<int>(FA_LD(time_range + 2 * row + 1));
    const int bottom = freq_range == nullptr ? 0 : static_cast<int>(FA_LD(freq_range + 2 * row));
    const int top = freq_range == nullptr ? last_bin : static_cast<int>(FA_LD(freq_range + 2 * row + 1));
    for (long long i = begin + threadIdx.x; i < end; i += kThreads) {
        if (!on) {
            FA_ST(y + row * size + i, FA_LD(x + row * size + i));
            continue;
        }
        const long long n = i % frames, line = i / frames, f = line % bins;
        const float* plane = x + row * size + (line - f) * frames;
        const FaTaps time = fa_taps(FA_LD(time_at + row * frames + n), low, high, last_frame + 1, cubic != 0);
        float columns[4] = {};
        FaTaps freq = {{static_cast<int>(f), 0, 0, 0}, {1.0f, 0.0f, 0.0f, 0.0f}};
        if (freq_at != nullptr) freq = fa_taps(FA_LD(freq_at + row * bins + f), bottom, top, last_bin + 1, cubic != 0);
        FA_UNROLL(4)
        for (int j = 0; j < 4; ++j) {
            if (freq.weight[j] == 0.0f) continue;
            float values[4];
            FA_UNROLL(4)
            for (int k = 0; k < 4; ++k)
                values[k] = time.weight[k] == 0.0f ? 0.0f : FA_LD(plane + freq.index[j] * frames + time.index[k]);
            columns[j] = fa_tap_sum(values, time.weight);
        }
        FA_ST(y + row * size + i, freq_at == nullptr ? columns[0] : fa_tap_sum(columns, freq.weight));
    }
}
