// Recursive filters on CUDA: a block per channel, kTile samples at a time. A section is linear, so the samples of a
// tile need not wait for each other: every thread runs its kPer samples from rest, a scan over the threads (Blelloch
// 1990; their common transition matrix is constant, so vectors alone are scanned) tells each the state it should have
// started from, and what that state adds to its samples is a table. All state is in double precision, in registers from
// section to section. A tile is read and written once, through shared memory.
// Cost: about 12 multiply-adds in double precision for a sample and section, 5 of them the recursion. Cards with a 32nd
// or 64th of the rate for them (sm_75, sm_86, sm_89) are bound by that, not by memory; but a state in float32 would
// leave 26 to 71 dB at 20 Hz from the second order on.
#include "../iir.h"

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPer = 8;  // samples a thread
constexpr int kTile = kThreads * kPer;
constexpr int kLevels = 5;  // of a warp's scan

// What a block knows of one section. With A the transition of one sample:
struct FaSectionTable {
    FaSection section;
    double output[kPer][2];   // first row of A^j: what a state adds to the j-th output from it
    FaMatrix level[kLevels];  // A^(kPer * 2^k)
    FaMatrix warp;            // A^(kPer * 32)
    double lane[4][32];       // A^(kPer * lane), number by number: consecutive lanes in consecutive banks
    double ends[kWarps][2];   // each warp's state at its end, had it started from rest
    double starts[2][2];      // the state at the start of the tile, of even and of odd tiles
};

static_assert(sizeof(FaSectionTable) == 1544, "tell _TABLE_BYTES of fastaug/ops/iir.py");

// Sample i of the tile in shared memory: one more slot after every kPer, so that both orders of access are spread over
// the banks.
__device__ __forceinline__ int fa_slot(int i) { return i + i / kPer; }

// By one warp.
__device__ __forceinline__ void fa_fill_table(const double* sos, FaSectionTable& table, int lane) {
    const FaSos s = {FA_LD(sos), FA_LD(sos + 1), FA_LD(sos + 2), FA_LD(sos + 3), FA_LD(sos + 4), FA_LD(sos + 5)};
    const FaSection section = fa_section(s);
    const FaMatrix once = fa_transition(section), thread = fa_power(once, kPer);
    if (lane < kPer) {
        const FaMatrix m = fa_power(once, lane);
        table.output[lane][0] = m.a, table.output[lane][1] = m.b;
    }
    if (lane < kLevels) table.level[lane] = fa_power(thread, 1 << lane);
    const FaMatrix mine = fa_power(thread, lane);
    table.lane[0][lane] = mine.a, table.lane[1][lane] = mine.b;
    table.lane[2][lane] = mine.c, table.lane[3][lane] = mine.d;
    if (lane == 0) {
        table.section = section;
        table.warp = fa_power(thread, 32);
        table.starts[0][0] = table.starts[0][1] = 0.0;
    }
}

// The state in which this thread's samples find the section, from the state (s1, s2) in which they would leave it had
// they found it at rest. One barrier; the state for the next tile goes to the other parity of `starts`.
__device__ __forceinline__ void fa_scan(FaSectionTable& table, int parity, double& s1, double& s2) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int k = 0; k < kLevels; ++k) {
        const double t1 = __shfl_up_sync(0xffffffffu, s1, 1 << k), t2 = __shfl_up_sync(0xffffffffu, s2, 1 << k);
        if (lane >= 1 << k) fa_add_product(table.level[k], t1, t2, s1, s2);
    }
    const double end1 = s1, end2 = s2;
    s1 = __shfl_up_sync(0xffffffffu, s1, 1);
    s2 = __shfl_up_sync(0xffffffffu, s2, 1);
    if (lane == 0) s1 = s2 = 0.0;
    if (lane == 31) table.ends[warp][0] = end1, table.ends[warp][1] = end2;
    __syncthreads();
    double w1 = table.starts[parity][0], w2 = table.starts[parity][1];  // the state at the start of this warp
    for (int w = 0; w < kWarps; ++w) {
        if (w == warp) {
            const FaMatrix m = {table.lane[0][lane], table.lane[1][lane], table.lane[2][lane], table.lane[3][lane]};
            fa_add_product(m, w1, w2, s1, s2);
            if (warp != kWarps - 1) return;
        }
        double next1 = table.ends[w][0], next2 = table.ends[w][1];
        fa_add_product(table.warp, w1, w2, next1, next2);
        w1 = next1, w2 = next2;
    }
    if (lane == 0) table.starts[parity ^ 1][0] = w1, table.starts[parity ^ 1][1] = w2;
}

// kPer consecutive samples through one section, in place.
__device__ __forceinline__ void fa_run_section(FaSectionTable& table, int parity, double* x) {
    const FaSection section = table.section;
    double s1 = 0.0, s2 = 0.0;
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
        const double y = fa_section_output(section, x[j], s1);
        fa_section_step(section, x[j], s1, s2);
        x[j] = y;
    }
    fa_scan(table, parity, s1, s2);
#pragma unroll
    for (int j = 0; j < kPer; ++j) x[j] = fa_fma(table.output[j][0], s1, fa_fma(table.output[j][1], s2, x[j]));
}

// x, y: (rows, channels, length). sos: (rows, count, 6). Grid: rows * channels blocks of 256 threads; shared memory:
// count * sizeof(FaSectionTable).
extern "C" __global__ void __launch_bounds__(256)
    fa_sos_filter_kernel(const float* x, float* y, const double* sos, const unsigned char* active, long long channels,
                         long long length, int count) {
    __shared__ float staged[kTile + kThreads];
    FA_DYNAMIC_SHARED(FaSectionTable, tables);
    const long long row = blockIdx.x / channels;
    const float* in = x + blockIdx.x * length;
    float* out = y + blockIdx.x * length;
    const int me = static_cast<int>(threadIdx.x);
    if (active && !FA_LD(active + row)) {
        for (long long t = me; t < length; t += kThreads) FA_ST(out + t, FA_LD(in + t));
        return;
    }
    for (int s = me / 32; s < count; s += kWarps) {
        fa_fill_table(sos + (row * count + s) * kSosNumbers, tables[s], me % 32);
    }
    float ahead[kPer];  // the next tile, on its way while this one is computed
#pragma unroll
    for (int k = 0; k < kPer; ++k) {
        const int i = me + k * kThreads;
        ahead[k] = i < length ? FA_LD(in + i) : 0.0f;
    }
    int parity = 0;
    for (long long tile = 0; tile < length; tile += kTile, parity ^= 1) {
#pragma unroll
        for (int k = 0; k < kPer; ++k) staged[fa_slot(me + k * kThreads)] = ahead[k];
#pragma unroll
        for (int k = 0; k < kPer; ++k) {
            const long long t = tile + kTile + me + k * kThreads;
            ahead[k] = t < length ? FA_LD(in + t) : 0.0f;
        }
        __syncthreads();
        double samples[kPer];
        float* const mine = staged + fa_slot(me * kPer);
#pragma unroll
        for (int j = 0; j < kPer; ++j) samples[j] = static_cast<double>(mine[j]);
        for (int s = 0; s < count; ++s) fa_run_section(tables[s], parity, samples);
#pragma unroll
        for (int j = 0; j < kPer; ++j) mine[j] = static_cast<float>(samples[j]);
        __syncthreads();
        // A thread stores from, and stages the next tile into, the same slots: no barrier in between.
#pragma unroll
        for (int k = 0; k < kPer; ++k) {
            const long long t = tile + me + k * kThreads;
            if (t < length) FA_ST(out + t, staged[fa_slot(me + k * kThreads)]);
        }
    }
}

// sos: (rows, sections, 6). A thread a number: blocks of 128.
extern "C" __global__ void fa_butterworth_kernel(const double* cutoff, const unsigned char* highpass, double* sos,
                                                 long long rows, int order) {
    const int sections = (order + 1) / 2;
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const long long row = i / kSosNumbers / sections;
    if (row >= rows) return;
    const int section = static_cast<int>(i / kSosNumbers % sections);
    const FaSos designed = fa_butterworth_section(FA_LD(cutoff + row), FA_LD(highpass + row) != 0, order, section);
    FA_ST(sos + i, fa_sos_number(designed, static_cast<int>(i % kSosNumbers)));
}

// sos: (rows, 6). A thread a number: blocks of 128.
extern "C" __global__ void fa_biquads_kernel(const double* frequency, const double* q, const double* gain_db,
                                             double* sos, long long rows, int kind) {
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const long long row = i / kSosNumbers;
    if (row >= rows) return;
    const FaSos designed = fa_biquad(kind, FA_LD(frequency + row), FA_LD(q + row), FA_LD(gain_db + row));
    FA_ST(sos + i, fa_sos_number(designed, static_cast<int>(i % kSosNumbers)));
}
