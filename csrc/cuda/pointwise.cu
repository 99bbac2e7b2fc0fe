// Scale, echo and crop on CUDA. A block handles 4096 samples of one row or line, neighbouring threads neighbouring
// samples.
#include "../pointwise.h"

constexpr int kThreads = 256;
constexpr int kTile = 4096;

// x, y: (rows, n). factor: (rows,). active: (rows,) or null. Grid: rows * ceil(n / 4096) blocks of 256 threads.
extern "C" __global__ void fa_scale_kernel(const float* x, float* y, const float* factor, const unsigned char* active,
                                           long long n, int clip) {
    const long long tiles = (n + kTile - 1) / kTile, row = blockIdx.x / tiles;
    const long long start = blockIdx.x % tiles * kTile, end = fa_min(start + kTile, n);
    const bool on = active == nullptr || FA_LD(active + row) != 0;
    const float by = FA_LD(factor + row);
    for (long long t = start + threadIdx.x; t < end; t += kThreads) {
        const float sample = FA_LD(x + row * n + t);
        FA_ST(y + row * n + t, on ? fa_scale_sample(sample, by, clip != 0) : sample);
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

// x: (rows, channels, length). y: (rows, channels, out_length). starts: (rows,).
// Grid: rows * channels * ceil(out_length / 4096) blocks of 256 threads.
extern "C" __global__ void fa_crop_kernel(const float* x, float* y, const long long* starts, long long channels,
                                          long long length, long long out_length) {
    const long long tiles = (out_length + kTile - 1) / kTile, line = blockIdx.x / tiles;
    const long long begin = blockIdx.x % tiles * kTile, end = fa_min(begin + kTile, out_length);
    const long long start = FA_LD(starts + line / channels);
    const FaOverlap sound = fa_overlap(begin, end, length, start);
    for (long long t = begin + threadIdx.x; t < end; t += kThreads) {
        const bool inside = t >= sound.begin && t < sound.end;
        FA_ST(y + line * out_length + t, inside ? FA_LD(x + line * length + start + t) : 0.0f);
    }
}
