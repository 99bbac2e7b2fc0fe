// Reverb on CUDA: one block per channel (or pair of channels) of an example, its delay lines in dynamic shared memory,
// or in global memory where they do not fit. A step is as many samples, up to 64, as fit into the shortest delay.
// Stages run on successive steps, so that one barrier a step suffices: four warps compute four combs each, then a warp
// a side the allpasses, then the outputs are written. Four more warps take turns at global memory: what one of them
// loads it uses four steps later.
//
// The limit is shared memory: 2 numbers of 4 bytes for each of 24 lines a sample. Hence the sums over combs in
// registers; the damping along segments of four samples, so that only its ends need a scan over lanes (as in
// csrc/reverb_lanes.h); and lines kept as four interleaved rings, where neighbouring lanes, a segment apart, read
// neighbouring numbers.
#include "../reverb.h"

constexpr int kSides = 2;
constexpr int kStep = 64;  // samples, at most
constexpr int kWarp = 32;
constexpr int kTurns = 2;      // warps that take turns at loading and storing
constexpr int kWarpCombs = 4;  // combs of one warp
constexpr int kCombWarps = kSides * kReverbCombs / kWarpCombs;
constexpr int kThreads = 256;     // kWarp * (kCombWarps + kSides + kTurns)
constexpr int kPhaseStride = 24;  // 8 modulo 32: samples one after another fall into banks of their own
constexpr unsigned kAll = 0xffffffffu;

struct FaReverbShared {
    FaReverbCoefficients coefficients;
    int delays[kSides][kReverbLines];
    // By parity of the step. heard and sums are in phases: see fa_reverb_at.
    float heard[2][kSides][4 * kPhaseStride];
    float sums[2][kSides][kCombWarps / kSides][4 * kPhaseStride];
    float wet[2][kSides][kStep];
};

// Where sample n of a step lies: number n / kPhases of phase n % kPhases.
template <int kPhases>
__device__ __forceinline__ int fa_reverb_at(int n) {
    return n % kPhases * kPhaseStride + n / kPhases;
}

// Numbers that a comb's rings take: kPhases rings of delay / kPhases + 1 segments, and a copy of the first.
__device__ __forceinline__ int fa_reverb_room(int line, int delay, int phases) {
    return line < kReverbCombs ? phases * (delay / phases + 2) : delay;
}

// Geometry of a unit, the same in all threads.
struct FaReverbPlan {
    long long length, steps;
    float damping, feedback, wet_gain;
    long long pre_delay;
    int mode, sides, channels, clip, wet_only;
    int width;  // lanes of a comb; a step is `width` segments of kPhases samples
};

__device__ __forceinline__ int fa_reverb_offset(const FaReverbShared& shared, int side, int line, int phases) {
    int offset = 0;
    for (int s = 0; s <= side; ++s) {
        const int end = s == side ? line : kReverbLines;
        for (int i = 0; i < end; ++i) offset += fa_reverb_room(i, shared.delays[s][i], phases);
    }
    return offset;
}

// One lane's share of one comb: kPhases samples a step.
template <int kPhases>
struct FaReverbComb {
    float* ring;
    int capacity, at;           // in segments
    int rest;                   // of the delay, in samples
    float x_before, deviation;  // of the segment before the step's first (in its lane)

    // Reads the delayed samples: those of phase j < rest come from the slot that will be written, others from the next.
    __device__ __forceinline__ void read(float* out) const {
#pragma unroll
        for (int j = 0; j < kPhases; ++j) {
            const int from = j - rest;
            out[j] = from < 0 ? ring[(from + kPhases) * (capacity + 1) + at] : ring[from * (capacity + 1) + at + 1];
        }
    }

    __device__ __forceinline__ void write(const float* in, int width) {
#pragma unroll
        for (int j = 0; j < kPhases; ++j) {
            ring[j * (capacity + 1) + at] = in[j];
            if (at == 0) ring[j * (capacity + 1) + capacity] = in[j];
        }
        at += width;
        at = at < capacity ? at : at - capacity;
    }
};

// The value of the lane before; of the group's last lane for its first.
__device__ __forceinline__ float fa_reverb_rotate(float value, int lane, int width) {
    return __shfl_sync(kAll, value, (lane - 1) & (width - 1), width);
}

// The damping of out, then feedback and input: what goes into the ring. The low-pass s[n] = x[n] + d (s[n-1] - x[n])
// runs from s = x before each segment; the deviation s - x there is added from a scan (Blelloch 1990) over the lanes
// before, as far as d^32.
template <int kPhases>
__device__ __forceinline__ void fa_reverb_damp(FaReverbComb<kPhases>& comb, const float* out, float* in, float d,
                                               float feedback, int lane, int width) {
    constexpr int kLevels = kPhases == 4 ? 3 : 4;
    const int quad = lane & (width - 1);
    const float last = fa_reverb_rotate(out[kPhases - 1], lane, width);
    float state = quad ? last : comb.x_before;
    comb.x_before = last;
    float power = 1.0f;
#pragma unroll
    for (int j = 0; j < kPhases; ++j) {
        state = out[j] + d * (state - out[j]);
        in[j] += feedback * state;
        power *= d;
    }
    float scan = state - out[kPhases - 1];
    if (quad == 0) scan += power * comb.deviation;
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
        const float before = __shfl_up_sync(kAll, scan, 1 << level, width);
        if (quad >= 1 << level) scan += power * before;
        power *= power;
    }
    const float ends = fa_reverb_rotate(scan, lane, width);
    float deviation = feedback * (quad ? ends : comb.deviation);
    comb.deviation = ends;
#pragma unroll
    for (int j = 0; j < kPhases; ++j) {
        deviation *= d;
        in[j] += deviation;
    }
}

// A warp's four combs: `width` lanes for each, so that with 16 lanes two of them wait for a second turn.
template <int kPhases>
__device__ __forceinline__ void fa_reverb_combs(FaReverbShared& shared, float* lines, const FaReverbPlan& plan,
                                                int warp, int lane) {
    const int side = warp / (kCombWarps / kSides), width = plan.width, quad = lane & (width - 1);
    const int turns = width == 16 ? 2 : 1,
              heard_side = plan.mode == kReverbPair || plan.mode == kReverbMixed ? side : 0;
    FaReverbComb<kPhases> combs[2];
    bool used[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        const int comb = k * 2 + lane / width;
        used[k] = k < turns && comb < kWarpCombs;
        const int line = used[k] ? warp % (kCombWarps / kSides) * kWarpCombs + comb : 0;
        const int delay = shared.delays[side][line];
        combs[k].ring = lines + fa_reverb_offset(shared, side, line, kPhases);
        combs[k].capacity = delay / kPhases + 1;
        combs[k].at = quad;
        combs[k].rest = delay % kPhases;
        combs[k].x_before = combs[k].deviation = 0.0f;
    }
    for (long long step = 0; step < plan.steps; ++step) {
        const float* heard = shared.heard[step & 1][heard_side];
        float out[2][kPhases], in[2][kPhases], sum[kPhases];
#pragma unroll
        for (int k = 0; k < 2; ++k) {
#pragma unroll
            for (int j = 0; j < kPhases; ++j) {
                out[k][j] = 0.0f;
                in[k][j] = heard[j * kPhaseStride + quad];
            }
            if (used[k]) combs[k].read(out[k]);
        }
        __syncwarp();  // a lane writes what its neighbour has read
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            if (k >= turns) continue;
            fa_reverb_damp<kPhases>(combs[k], out[k], in[k], plan.damping, plan.feedback, lane, width);
            if (used[k]) combs[k].write(in[k], width);
        }
#pragma unroll
        for (int j = 0; j < kPhases; ++j) {
            sum[j] = out[0][j] + out[1][j];
            for (int distance = width; distance < kWarp; distance *= 2) {
                sum[j] += __shfl_xor_sync(kAll, sum[j], distance);
            }
            if (lane < width) shared.sums[step & 1][side][warp % 2][j * kPhaseStride + quad] = sum[j];
        }
        __syncthreads();
    }
}

// The allpasses of a side, on rings of their own lengths: the slot read for a sample is the slot written for it.
template <int kPhases>
__device__ __forceinline__ void fa_reverb_allpasses(FaReverbShared& shared, float* lines, const FaReverbPlan& plan,
                                                    int side, int lane) {
    const int size = plan.width * kPhases;
    float* rings[kReverbAllpasses];
    int delays[kReverbAllpasses], at[kReverbAllpasses];
#pragma unroll
    for (int i = 0; i < kReverbAllpasses; ++i) {
        rings[i] = lines + fa_reverb_offset(shared, side, kReverbCombs + i, kPhases);
        delays[i] = shared.delays[side][kReverbCombs + i];
        at[i] = 0;
    }
    for (long long step = 0; step < plan.steps; ++step) {
#pragma unroll
        for (int n = lane; n < kStep; n += kWarp) {
            if (n >= size) continue;
            const float* sums = shared.sums[step & 1][side][0];
            float value = sums[fa_reverb_at<kPhases>(n)] + sums[4 * kPhaseStride + fa_reverb_at<kPhases>(n)];
#pragma unroll
            for (int i = 0; i < kReverbAllpasses; ++i) {
                const int slot = at[i] + n < delays[i] ? at[i] + n : at[i] + n - delays[i];
                const float out = rings[i][slot];
                rings[i][slot] = value + 0.5f * out;
                value = out - value;
            }
            shared.wet[step & 1][side][n] = value * plan.wet_gain;
        }
#pragma unroll
        for (int i = 0; i < kReverbAllpasses; ++i) {
            at[i] += size;
            at[i] = at[i] < delays[i] ? at[i] : at[i] - delays[i];
        }
        __syncthreads();
    }
}

// What a loading warp holds from one of its turns to the next: two samples a lane, of both channels.
struct FaReverbHeld {
    float heard[kSides][2], dry[kSides][2];
};

// Samples t of both channels, 0 outside.
__device__ __forceinline__ void fa_reverb_load(const FaReverbPlan& plan, const float* in, long long t, float& left,
                                               float& right) {
    left = right = 0.0f;
    if (t < 0 || t >= plan.length) return;
    left = right = fa_reverb_limit(FA_LD(in + t), plan.clip);
    if (plan.channels == 2) right = fa_reverb_limit(FA_LD(in + plan.length + t), plan.clip);
}

// A turn in step `step`: writes the output of two steps ago, hands out what the combs hear in the next step, and loads
// for the next turn.
template <int kPhases>
__device__ __forceinline__ void fa_reverb_turn(FaReverbShared& shared, const FaReverbPlan& plan, FaReverbHeld& held,
                                               const float* in, float* out, long long step, int lane) {
    const int size = plan.width * kPhases;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        const int n = lane + k * kWarp;
        if (n >= size) continue;
        const long long t = (step - 2) * size + n;
        if (t >= 0 && t < plan.length) {
            const float wet0 = shared.wet[step & 1][0][n], wet1 = shared.wet[step & 1][plan.sides - 1][n];
            FA_ST(out + t, fa_reverb_output(plan.mode, 0, held.dry[0][k], wet0, wet1, plan.clip));
            if (plan.channels == 2) {
                FA_ST(out + plan.length + t, fa_reverb_output(plan.mode, 1, held.dry[1][k], wet0, wet1, plan.clip));
            }
        }
        shared.heard[(step + 1) & 1][0][fa_reverb_at<kPhases>(n)] = held.heard[0][k];
        shared.heard[(step + 1) & 1][1][fa_reverb_at<kPhases>(n)] = held.heard[1][k];
        float left, right;
        fa_reverb_load(plan, in, (step + 1 + kTurns) * size + n - plan.pre_delay, left, right);
        held.heard[0][k] = fa_reverb_input(plan.mode, 0, left, right);
        held.heard[1][k] = fa_reverb_input(plan.mode, 1, left, right);
        if (!plan.wet_only) {
            fa_reverb_load(plan, in, (step - 2 + kTurns) * size + n, held.dry[0][k], held.dry[1][k]);
        }
    }
}

// One unit. Every warp passes the same number of barriers: 1 + kTurns before its first step or after its last.
template <int kPhases>
__device__ __forceinline__ void fa_reverb_unit(FaReverbShared& shared, float* lines, const FaReverbPlan& plan,
                                               const float* in, float* out) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const long long first = -1 - kTurns, end = plan.steps + 2;  // of the loading warps
    if (warp < kCombWarps) {
        for (long long step = first; step < 0; ++step) __syncthreads();
        if (warp / (kCombWarps / kSides) < plan.sides) {
            fa_reverb_combs<kPhases>(shared, lines, plan, warp, lane);
        } else {
            for (long long step = 0; step < plan.steps; ++step) __syncthreads();
        }
        for (long long step = plan.steps; step < end; ++step) __syncthreads();
    } else if (warp < kCombWarps + kSides) {
        for (long long step = first; step < 1; ++step) __syncthreads();
        if (warp - kCombWarps < plan.sides) {
            fa_reverb_allpasses<kPhases>(shared, lines, plan, warp - kCombWarps, lane);
        } else {
            for (long long step = 0; step < plan.steps; ++step) __syncthreads();
        }
        for (long long step = plan.steps + 1; step < end; ++step) __syncthreads();
    } else {
        FaReverbHeld held = {};
        for (long long step = first; step < end; ++step) {
            if ((step & (kTurns - 1)) == warp - kCombWarps - kSides) {
                fa_reverb_turn<kPhases>(shared, plan, held, in, out, step, lane);
            }
            __syncthreads();
        }
    }
}

// Computes coefficients (by one thread: they take double precision) and delays; returns the longest step that no line
// is shorter than: a power of two.
__device__ __forceinline__ int fa_reverb_prepare(FaReverbShared& shared, const FaReverbSettings& s, int mode,
                                                 double rate, int sides) {
    for (int i = threadIdx.x; i < sides * kReverbLines; i += blockDim.x) {
        const int side = mode == kReverbPair ? 0 : i / kReverbLines;
        shared.delays[i / kReverbLines][i % kReverbLines] = fa_reverb_delay(i % kReverbLines, side, s, rate);
    }
    if (threadIdx.x == blockDim.x - 1) shared.coefficients = fa_reverb_coefficients(s, rate);
    __syncthreads();
    int size = kStep;
    for (int i = 0; i < sides * kReverbLines; ++i) {
        while (size > shared.delays[i / kReverbLines][i % kReverbLines]) size /= 2;
    }
    return size;
}

// x, y: (rows, channels, length). settings: (rows, 6).
struct FaReverbArguments {
    const float* x;
    float* y;
    const float* settings;
    const unsigned char* active;
    long long channels, length;
    double rate;
    int wet_only, clip, adjoint;
};

template <bool kShortDelays>
__device__ __forceinline__ void fa_reverb_block(FaReverbShared& shared, float* lines, const FaReverbArguments& a) {
    const long long units = (a.channels + 1) / 2, row = blockIdx.x / units, first = blockIdx.x % units * 2;
    const bool two = first + 1 < a.channels;
    const float* in = a.x + (row * a.channels + first) * a.length;
    float* out = a.y + (row * a.channels + first) * a.length;
    if (a.active && !a.active[row]) {
        for (long long i = threadIdx.x; i < (two ? 2 : 1) * a.length; i += blockDim.x) FA_ST(out + i, FA_LD(in + i));
        return;
    }
    const float* p = a.settings + 6 * row;
    const FaReverbSettings s = {p[0], p[1], p[2], a.channels > 2 ? 0.0f : p[3], p[4], p[5]};
    const int mode = fa_reverb_mode(s.stereo_depth > 0.0f, two, a.adjoint);
    const int sides = mode == kReverbSingle ? 1 : 2;
    const int size = fa_reverb_prepare(shared, s, mode, a.rate, sides), phases = size >= 4 ? 4 : 1;
    const FaReverbCoefficients& c = shared.coefficients;
    const FaReverbPlan plan = {a.length,    (a.length + size - 1) / size,
                               c.damping,   c.feedback,
                               c.wet_gain,  c.pre_delay,
                               mode,        sides,
                               two ? 2 : 1, a.clip,
                               a.wet_only,  size / phases};
    const int numbers = fa_reverb_offset(shared, sides - 1, kReverbLines, phases);
    for (int i = threadIdx.x; i < numbers; i += blockDim.x) lines[i] = 0.0f;
    __syncthreads();
    if constexpr (kShortDelays) {
        if (phases == 1) {
            fa_reverb_unit<1>(shared, lines, plan, in, out);
            return;
        }
    }
    fa_reverb_unit<4>(shared, lines, plan, in, out);
}

// Grid: rows * ceil(channels / 2) blocks of 256 threads: warps 0 to 3 are combs, 4 and 5 allpasses, 6 and 7 load and
// store. Delay lines in dynamic shared memory. No delay may be shorter than 4 samples.
extern "C" __global__ void __launch_bounds__(kThreads, 4)
    fa_reverb_kernel(const float* x, float* y, const float* settings, const unsigned char* active, long long channels,
                     long long length, double rate, int wet_only, int clip, int adjoint) {
    __shared__ FaReverbShared shared;
    FA_DYNAMIC_SHARED(float, lines);
    fa_reverb_block<false>(shared, lines, {x, y, settings, active, channels, length, rate, wet_only, clip, adjoint});
}

// The same with delay lines in global memory, `stride` floats for each block, and any delay.
extern "C" __global__ void __launch_bounds__(kThreads)
    fa_reverb_scratch_kernel(const float* x, float* y, const float* settings, const unsigned char* active,
                             float* scratch, long long stride, long long channels, long long length, double rate,
                             int wet_only, int clip, int adjoint) {
    __shared__ FaReverbShared shared;
    fa_reverb_block<true>(shared, scratch + blockIdx.x * stride,
                          {x, y, settings, active, channels, length, rate, wet_only, clip, adjoint});
}
