// Reverb on CUDA: one block per channel (or pair of channels) of an example, a warp per comb filter and one per chain
// of allpasses, each advancing up to 32 samples at a time. Three stages run on successive steps (combs, allpasses,
// output), so one barrier a step suffices. The delay lines live in dynamic shared memory, or in `scratch` where they do
// not fit.
#include "../reverb.h"

constexpr int kStep = 32;  // samples per step: a warp
constexpr int kSides = 2;

struct FaReverbShared {
    int delays[kSides][kReverbLines];
    float combs[2][kSides][kReverbCombs][kStep];  // by parity of the step
    float wet[2][kSides][kStep];
};

// One-pole low-pass s[n] = (1 - d) x[n] + d s[n - 1] over a warp's lanes: a scan in five steps (Blelloch 1990).
__device__ __forceinline__ float fa_reverb_damp(float x, float previous, float damping, int lane) {
    float value = (1.0f - damping) * x, power = damping;
    for (int distance = 1; distance < kStep; distance *= 2) {
        const float before = __shfl_up_sync(0xffffffffu, value, distance);
        if (lane >= distance) value += power * before;
        power *= power;
    }
    float carry = damping, base = damping;  // damping ^ (lane + 1)
    for (int bit = lane; bit; bit >>= 1) {
        if (bit & 1) carry *= base;
        base *= base;
    }
    return value + carry * previous;
}

// The unit's two channels and what they contribute.
struct FaReverbUnit {
    const float* left;
    const float* right;
    long long length;
    int mode, clip;

    __device__ __forceinline__ float heard(int side, long long t) const {
        if (t < 0 || t >= length) return 0.0f;
        const float a = fa_reverb_limit(FA_LD(left + t), clip);
        return fa_reverb_input(mode, side, a, right == left ? a : fa_reverb_limit(FA_LD(right + t), clip));
    }
};

// A delay line as a ring of its own length: the slot read for sample t is the slot written for it.
struct FaReverbRing {
    float* buffer;
    int delay, position;

    __device__ __forceinline__ int slot(int ahead) const {
        const int at = position + ahead;  // ahead < delay
        return at < delay ? at : at - delay;
    }
};

__device__ __forceinline__ FaReverbRing fa_reverb_ring(const FaReverbShared& shared, float* lines, int side, int line) {
    int offset = 0;
    for (int s = 0; s <= side; ++s) {
        for (int i = 0; i < (s == side ? line : kReverbLines); ++i) offset += shared.delays[s][i];
    }
    return {lines + offset, shared.delays[side][line], 0};
}

// A warp's part of the comb stage: all steps of one comb. The next step's delayed samples are read ahead, which is safe
// while a step is at most half the shortest delay.
struct FaReverbComb {
    FaReverbRing ring;
    float state, ahead;

    __device__ __forceinline__ void step(FaReverbShared& shared, const FaReverbUnit& unit,
                                         const FaReverbCoefficients& c, int side, int line, int lane, int size,
                                         long long block) {
        const float out = ahead;
        const int slot = ring.slot(lane);
        ring.position = ring.slot(size);
        if (lane < size) ahead = ring.buffer[ring.slot(lane)];
        const float x = unit.heard(side, block * size + lane - c.pre_delay);
        const float damped = fa_reverb_damp(lane < size ? out : 0.0f, state, c.damping, lane);
        state = __shfl_sync(0xffffffffu, damped, size - 1);
        if (lane < size) {
            ring.buffer[slot] = x + c.feedback * damped;
            shared.combs[block & 1][side][line][lane] = out;
        }
    }
};

struct FaReverbAllpasses {
    FaReverbRing rings[kReverbAllpasses];

    __device__ __forceinline__ void step(FaReverbShared& shared, const FaReverbCoefficients& c, int side, int lane,
                                         int size, long long block) {
        if (lane >= size) return;
        float value = 0.0f;
        for (int i = 0; i < kReverbCombs; ++i) value += shared.combs[block & 1][side][i][lane];
#pragma unroll
        for (int i = 0; i < kReverbAllpasses; ++i) {
            FaReverbRing& ring = rings[i];
            const int slot = ring.slot(lane);
            const float out = ring.buffer[slot];
            ring.buffer[slot] = value + 0.5f * out;
            value = out - value;
            ring.position = ring.slot(size);
        }
        shared.wet[block & 1][side][lane] = value * c.wet_gain;
    }
};

__device__ __forceinline__ int fa_reverb_prepare(FaReverbShared& shared, float* lines, const FaReverbSettings& s,
                                                 int mode, double rate, int sides) {
    for (int i = threadIdx.x; i < sides * kReverbLines; i += blockDim.x) {
        const int side = mode == kReverbPair ? 0 : i / kReverbLines;
        shared.delays[i / kReverbLines][i % kReverbLines] = fa_reverb_delay(i % kReverbLines, side, s, rate);
    }
    __syncthreads();
    int total = 0, shortest = 2 * kStep;
    for (int i = 0; i < sides * kReverbLines; ++i) {
        const int delay = shared.delays[i / kReverbLines][i % kReverbLines];
        total += delay;
        shortest = fa_min(shortest, delay);
    }
    for (int i = threadIdx.x; i < total; i += blockDim.x) lines[i] = 0.0f;
    __syncthreads();
    return shortest / 2;
}

// x, y: (rows, channels, length). settings: (rows, 6). Grid: rows * ceil(channels / 2) blocks of 576 threads: warps
// 0..15 are combs, 16 and 17 allpasses and output. scratch: null, or scratch_stride floats for each block.
extern "C" __global__ void __launch_bounds__(576)
    fa_reverb_kernel(const float* x, float* y, const float* settings, const unsigned char* active, float* scratch,
                     long long scratch_stride, long long channels, long long length, double rate, int wet_only,
                     int clip, int adjoint) {
    __shared__ FaReverbShared shared;
    FA_DYNAMIC_SHARED(float, dynamic);
    const long long units = (channels + 1) / 2, row = blockIdx.x / units, first = blockIdx.x % units * 2;
    const bool two = first + 1 < channels;
    const float* in = x + (row * channels + first) * length;
    float* out = y + (row * channels + first) * length;
    if (active && !active[row]) {
        for (long long i = threadIdx.x; i < (two ? 2 : 1) * length; i += blockDim.x) FA_ST(out + i, FA_LD(in + i));
        return;
    }
    const float* p = settings + 6 * row;
    const FaReverbSettings s = {p[0], p[1], p[2], channels > 2 ? 0.0f : p[3], p[4], p[5]};
    const FaReverbCoefficients c = fa_reverb_coefficients(s, rate);
    const int mode = fa_reverb_mode(s.stereo_depth > 0.0f, two, adjoint);
    const int sides = mode == kReverbSingle ? 1 : 2;
    const FaReverbUnit unit = {in, two ? in + length : in, length, mode, clip};
    float* lines = scratch ? scratch + blockIdx.x * scratch_stride : dynamic;
    const int size = fa_reverb_prepare(shared, lines, s, mode, rate, sides);

    const int lane = threadIdx.x % kStep, warp = threadIdx.x / kStep;
    const bool is_comb = warp < kSides * kReverbCombs;
    const int side = is_comb ? warp / kReverbCombs : warp - kSides * kReverbCombs;
    FaReverbComb comb = {{lines, 1, 0}, 0.0f, 0.0f};
    FaReverbAllpasses chain = {};
    if (side < sides && is_comb) comb.ring = fa_reverb_ring(shared, lines, side, warp % kReverbCombs);
    if (side < sides && !is_comb) {
#pragma unroll
        for (int i = 0; i < kReverbAllpasses; ++i) {
            chain.rings[i] = fa_reverb_ring(shared, lines, side, kReverbCombs + i);
        }
    }
    const long long steps = (length + size - 1) / size;
    for (long long step = 0; step < steps + 2; ++step) {
        if (is_comb) {
            if (side < sides && step < steps) {
                comb.step(shared, unit, c, side, warp % kReverbCombs, lane, size, step);
            }
        } else {
            const long long t = (step - 2) * size + lane;
            if (step >= 2 && side < (two ? 2 : 1) && lane < size && t < length) {
                const float* wet0 = shared.wet[step & 1][0];
                const float* wet1 = shared.wet[step & 1][sides - 1];
                const float dry = wet_only ? 0.0f : fa_reverb_limit(FA_LD(in + side * length + t), clip);
                FA_ST(out + side * length + t, fa_reverb_output(mode, side, dry, wet0[lane], wet1[lane], clip));
            }
            if (side < sides && step >= 1 && step <= steps) chain.step(shared, c, side, lane, size, step - 1);
        }
        __syncthreads();
    }
}
