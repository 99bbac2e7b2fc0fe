// Sample-rate conversion on CUDA. Sixteen threads share one output, as the sixteen lanes of the CPU's dot product do:
// taps and samples are read in whole 64-byte runs and both devices add in the same order.
#include "../resample.h"

// Sum over the sixteen threads of a half warp, in the order of fa_sum_lanes on the CPU.
__device__ __forceinline__ float fa_half_warp_sum(float value) {
    for (int distance = kResampleLanes / 2; distance; distance /= 2) {
        value = fa_add(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    return value;
}

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
