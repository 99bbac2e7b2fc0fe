// Time stretch and pitch shift on CUDA. The segments of an example follow one another, so one block does them all, each
// thread trying four neighbouring candidates at a time; blocks of other examples fill the multiprocessor. A pitch shift
// is resampled by blocks of kPitchOutputs outputs, with what lies between the two filters in shared memory.
#include "../repitch.h"
#include "../wsola.h"

constexpr int kThreads = 128;

// The channels of one example; zeros outside the signal.
struct FaWsolaSource {
    const float* x;
    long long channels, length;

    __device__ __forceinline__ float at(long long channel, long long t) const {
        return t >= 0 && t < length ? FA_LD(x + channel * length + t) : 0.0f;
    }
};

// Squared distance between the tail and the window at `fresh`, channels inside samples, in the CPU's order.
__device__ __forceinline__ float fa_wsola_distance(const FaWsolaSource& x, long long tail, long long fresh,
                                                   int overlap) {
    float sum = 0.0f;
    for (int i = 0; i < overlap; ++i) {
        for (long long c = 0; c < x.channels; ++c) {
            const float difference = fa_add(x.at(c, fresh + i), -x.at(c, tail + i));
            sum = fa_add(sum, fa_mul(difference, difference));
        }
    }
    return sum;
}

// The tail and the search window of one or two channels in shared memory: (channels, tail | window).
struct FaWsolaStage {
    float* tails;
    float* windows;
    int overlap, reach;  // reach: samples of a window, a multiple of 4

    __device__ __forceinline__ void fill(const FaWsolaSource& x, long long tail, long long window) const {
        for (int c = 0; c < x.channels; ++c) {
            for (int i = threadIdx.x; i < overlap; i += blockDim.x) tails[c * overlap + i] = x.at(c, tail + i);
            for (int i = threadIdx.x; i < reach; i += blockDim.x) windows[c * reach + i] = x.at(c, window + i);
        }
    }
};

// Four neighbouring candidates' distances: eight samples serve sixteen squares. Overlaps are multiples of 8.
template <int kChannels>
__device__ __forceinline__ void fa_wsola_four(const FaWsolaStage& stage, int offset, float (&sum)[4]) {
    float x[kChannels][8];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
        const float4 first = *reinterpret_cast<const float4*>(stage.windows + c * stage.reach + offset);
        x[c][0] = first.x, x[c][1] = first.y, x[c][2] = first.z, x[c][3] = first.w;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[j] = 0.0f;
    for (int i = 0; i < stage.overlap; i += 4) {
        float wanted[kChannels][4];
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
            const float4 next = *reinterpret_cast<const float4*>(stage.windows + c * stage.reach + offset + i + 4);
            const float4 tail = *reinterpret_cast<const float4*>(stage.tails + c * stage.overlap + i);
            x[c][4] = next.x, x[c][5] = next.y, x[c][6] = next.z, x[c][7] = next.w;
            wanted[c][0] = tail.x, wanted[c][1] = tail.y, wanted[c][2] = tail.z, wanted[c][3] = tail.w;
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
            for (int c = 0; c < kChannels; ++c) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float difference = fa_add(x[c][k + j], -wanted[c][k]);
                    sum[j] = fa_add(sum[j], fa_mul(difference, difference));
                }
            }
        }
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
#pragma unroll
            for (int j = 0; j < 4; ++j) x[c][j] = x[c][j + 4];
        }
    }
}

struct FaWsolaBest {
    float distance[kThreads];
    int offset[kThreads];
    int hopeless, chosen;
};

// Of the candidates that a thread tries, in rising order: the first with the smallest distance. A NaN never wins.
struct FaWsolaChoice {
    float smallest;
    int offset;
    bool hopeless;  // the distance of offset 0 is NaN, and nothing is smaller than that

    __device__ __forceinline__ void consider(float distance, int candidate) {
        hopeless = hopeless || (candidate == 0 && distance != distance);
        if (distance < smallest) {
            smallest = distance;
            offset = candidate;
        }
    }
};

template <int kChannels>
__device__ __forceinline__ void fa_wsola_try(const FaWsolaStage& stage, int search, FaWsolaChoice& choice) {
    for (int offset = 4 * static_cast<int>(threadIdx.x); offset < search; offset += 4 * kThreads) {
        float sum[4];
        fa_wsola_four<kChannels>(stage, offset, sum);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (offset + j < search) choice.consider(sum[j], offset + j);
        }
    }
}

// The offset that the block settles on, the same for all threads.
__device__ __forceinline__ int fa_wsola_settle(const FaWsolaChoice& choice, FaWsolaBest& best) {
    best.distance[threadIdx.x] = choice.smallest;
    best.offset[threadIdx.x] = choice.offset;
    if (threadIdx.x == 0) best.hopeless = choice.hopeless;
    __syncthreads();
    for (int count = kThreads / 2; count; count /= 2) {
        if (threadIdx.x < count) {
            const int other = threadIdx.x + count;
            const float a = best.distance[threadIdx.x], b = best.distance[other];
            if (b < a || (b == a && best.offset[other] < best.offset[threadIdx.x])) {
                best.distance[threadIdx.x] = b;
                best.offset[threadIdx.x] = best.offset[other];
            }
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) best.chosen = best.hopeless ? 0 : best.offset[0];
    __syncthreads();
    return best.chosen;
}

// The first offset with the smallest distance.
__device__ __forceinline__ int fa_wsola_search(const FaWsolaSource& x, const FaWsolaStage& stage, long long tail,
                                               long long window, int overlap, int search, FaWsolaBest& best) {
    FaWsolaChoice choice = {fa_bits_to_float(0x7f800000u), 4 * static_cast<int>(threadIdx.x), false};
    if (stage.tails) {
        stage.fill(x, tail, window);
        __syncthreads();
        if (x.channels == 1)
            fa_wsola_try<1>(stage, search, choice);
        else
            fa_wsola_try<2>(stage, search, choice);
    } else {
        for (int offset = threadIdx.x; offset < search; offset += kThreads) {
            choice.consider(fa_wsola_distance(x, tail, window + offset, overlap), offset);
        }
    }
    return fa_wsola_settle(choice, best);
}

// y: (rows, channels, room), zeros behind each row's own length; NaN in rows that do not fit. Rows that are inactive or
// have factor 1 are copied if `copy`, else left alone. Grid: rows blocks of kThreads. Dynamic shared memory if `staged`
// (one or two channels): channels * (2 * overlap + search + 8) floats.
extern "C" __global__ void __launch_bounds__(kThreads)
    fa_wsola_kernel(const float* x, float* y, const double* factors, const unsigned char* active, long long channels,
                    long long length, long long room, double rate, int copy, int staged) {
    __shared__ FaWsolaBest best;
    FA_DYNAMIC_SHARED(float, memory);
    const long long row = blockIdx.x;
    const double factor = factors[row];
    const FaWsola w = fa_wsola_geometry(rate);
    const FaWsolaSource source = {x + row * channels * length, channels, length};
    float* out = y + row * channels * room;
    const bool same = (active && !active[row]) || factor == 1.0;
    if (same && !copy) return;
    const long long n = same ? fa_min(length, room) : fa_wsola_length(length, factor);
    const bool nonsense = !same && (n > room || !(factor > 0.0));
    const float filler = nonsense ? fa_bits_to_float(0x7fc00000u) : 0.0f;
    for (long long c = 0; c < channels; ++c) {
        for (long long t = threadIdx.x; t < room; t += blockDim.x) {
            if (nonsense || t >= n)
                FA_ST(out + c * room + t, filler);
            else if (same)
                FA_ST(out + c * room + t, source.at(c, t));
        }
    }
    if (same || nonsense) return;
    const int reach = (w.search + 3) / 4 * 4 + w.overlap + 4;
    const FaWsolaStage stage = {staged ? memory + channels * reach : nullptr, memory, w.overlap, reach};
    long long begin = 0;
    for (long long k = 0, done = 0; done < n; ++k, done += w.hop()) {
        const long long tail = begin + w.hop(), window = fa_wsola_window(w, factor, k);
        begin = window + (k ? fa_wsola_search(source, stage, tail, window, w.overlap, w.search, best) : w.search / 2);
        const int count = static_cast<int>(fa_min<long long>(w.hop(), n - done));
        for (long long c = 0; c < channels; ++c) {
            for (int i = threadIdx.x; i < count; i += blockDim.x) {
                float sample = source.at(c, begin + i);
                if (k && i < w.overlap) sample = fa_wsola_fade(source.at(c, tail + i), sample, i, w.overlap);
                FA_ST(out + c * room + done + i, sample);
            }
        }
    }
}

// A row of a pitch shift.
struct FaPitchRow {
    FaRepitch plan;
    long long samples;  // of the stretched signal
    bool same, nonsense;
};

__device__ __forceinline__ FaPitchRow fa_pitch_row(double factor, const unsigned char* active, long long row,
                                                   long long length, long long room) {
    const bool same = (active && !active[row]) || factor == 1.0;
    if (same || !(factor > 0.0)) return {{}, 0, same, !same};
    const long long samples = fa_wsola_length(length, factor);
    return {fa_repitch(factor), samples, false, samples > room};
}

// A thread's outputs of the half-band are sixteen apart, so that its samples serve several (see the CPU). With seven of
// them, the two halves of a warp read different banks.
constexpr int kSums = 7;
constexpr int kPitchMade = kThreads * kSums;            // 896 outputs of the half-band
constexpr int kPitchRead = kPitchMade + kHalfBandTaps;  // its samples
constexpr int kPitchOutputs = 864;                      // of a block, and what they read when pitched down
constexpr int kPitchRaw = 2 * (kPitchRead + kFlatReach);

struct FaPitchShared {
    alignas(16) float coefficient[kMostPairs * (kHighDegree + 4)];  // those of a pair of taps padded to whole float4s
    float value[kMostPairs * (kHighDegree + 1)];
    float read[kPitchRead];    // pitch down: the source; pitch up: the flattened odd half outputs
    float doubled[kPitchRaw];  // pitch down: the doubled rate; pitch up: half outputs
    float taps[kHalfBandTaps];
};

// The polynomials of this row's taps: values at the nodes, then coefficients. The caller waits before it reads them.
template <int kCount>
__device__ __forceinline__ void fa_pitch_fit(const FaRepitch& plan, FaPitchShared& shared) {
    constexpr int room = (kCount + 3) / 4 * 4;
    for (int n = threadIdx.x; n < plan.pairs * kCount; n += kThreads) {
        const double distance = n / kCount + 0.5 + 0.5 * fa_short_node(n % kCount, kCount);
        const float argument[1] = {fa_short_argument(plan, distance)};
        float tap[1];
        fa_short_bessel(argument, tap);
        shared.value[n] = tap[0] * fa_short_height(plan);
    }
    __syncthreads();
    for (int n = threadIdx.x; n < plan.pairs * kCount; n += kThreads) {
        const int j = n / kCount, p = n - j * kCount;
        float sum = 0.0f;
#pragma unroll 1
        for (int i = 0; i < kCount; ++i) {
            sum = fa_fma(shared.value[j * kCount + i], fa_short_weight(p, i, kCount), sum);
        }
        shared.coefficient[j * room + p] = sum;
    }
}

// Positions in 2^-40 samples: exact enough over a block, and not in float64, which most GPUs are slow at.
constexpr int kPitchFraction = 40;

struct FaPitchPlaces {
    long long origin, start, step;  // of output n: sample origin + ((start + n step) >> kPitchFraction)

    __device__ __forceinline__ FaPitchPlaces(long long first, double by) {
        const double position = fa_mul(static_cast<double>(first), by), whole = floor(position);
        constexpr double unit = 1ll << kPitchFraction;
        origin = static_cast<long long>(whole);
        start = static_cast<long long>((position - whole) * unit);
        step = static_cast<long long>(by * unit + 0.5);
    }
};

// Output n of the short filter.
template <int kCount, class Source>
__device__ __forceinline__ float fa_pitch_short(const Source& source, const FaPitchPlaces& places, int n,
                                                const float* coefficient, int pairs) {
    constexpr int room = (kCount + 3) / 4 * 4;
    const long long fixed = places.start + n * places.step, t = places.origin + (fixed >> kPitchFraction);
    const uint32_t fraction = static_cast<uint32_t>(fixed >> (kPitchFraction - 24)) & 0xffffffu;
    const float v = fa_fma(static_cast<float>(fraction), -1.0f / 8388608.0f, 1.0f);
    float sum[room];
#pragma unroll
    for (int p = 0; p < kCount; ++p) sum[p] = 0.0f;
#pragma unroll 1
    for (int j = 0; j < pairs; ++j) {
        const float left = source(t - j), right = source(t + 1 + j), added = right + left, apart = right - left;
#pragma unroll
        for (int p = 0; p < room; p += 4) {
            const float4 c = *reinterpret_cast<const float4*>(coefficient + j * room + p);
            const float four[4] = {c.x, c.y, c.z, c.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (p + i < kCount) sum[p + i] = fa_fma(i % 2 ? apart : added, four[i], sum[p + i]);
            }
        }
    }
    float value = sum[kCount - 1];
#pragma unroll
    for (int p = kCount - 2; p >= 0; --p) value = fa_fma(value, v, sum[p]);
    return value;
}

// The flattening filter around x[0].
__device__ __forceinline__ float fa_pitch_flat(const float* x) {
    constexpr float taps[] = FA_FLAT_TAPS;
    float sum = x[0] * taps[0];
#pragma unroll
    for (int k = 1; k <= kFlatReach; ++k) sum = fa_fma(x[-k] + x[k], taps[k], sum);
    return sum;
}

// put(n, sum_k taps[k] x[n + k]) for n < kPitchMade.
template <class Put>
__device__ __forceinline__ void fa_pitch_half_band(const float* x, const float* taps, const Put& put) {
    const int first = threadIdx.x / 16 * 16 * kSums + threadIdx.x % 16;
    float sum[kSums], sample[kSums];
#pragma unroll
    for (int n = 0; n < kSums; ++n) sum[n] = 0.0f;
#pragma unroll 1
    for (int r = 0; r < 16; ++r) {
#pragma unroll
        for (int n = 0; n + 1 < kSums; ++n) sample[n] = x[first + r + 16 * n];
#pragma unroll
        for (int k = 0; k < kHalfBandTaps; k += 16) {
            sample[kSums - 1] = x[first + r + k + 16 * (kSums - 1)];
            const float tap = taps[r + k];
#pragma unroll
            for (int n = 0; n < kSums; ++n) sum[n] = fa_fma(sample[n], tap, sum[n]);
#pragma unroll
            for (int n = 0; n + 1 < kSums; ++n) sample[n] = sample[n + 1];
        }
    }
#pragma unroll
    for (int n = 0; n < kSums; ++n) put(first + 16 * n, sum[n]);
}

struct FaPitchSource {
    const float* x;
    long long samples;

    __device__ __forceinline__ float operator()(long long t) const {
        return t >= 0 && t < samples ? FA_LD(x + t) : 0.0f;
    }
};

// Outputs [m, m + count) of one channel. doubled[s] is half output s + 2 (m - half the taps) - kFlatReach.
template <int kCount>
__device__ __forceinline__ void fa_pitch_up(const FaPitchSource& source, float* y, long long m, int count,
                                            const FaPitchRow& row, FaPitchShared& shared) {
    constexpr int before = kHalfBandTaps / 2;
    fa_pitch_fit<kCount>(row.plan, shared);
    __syncthreads();
    const FaPitchPlaces places(2 * (m - before) - kFlatReach, row.plan.step);
    for (int s = threadIdx.x; s < kPitchRaw; s += kThreads) {
        shared.doubled[s] = fa_pitch_short<kCount>(source, places, s, shared.coefficient, row.plan.pairs);
    }
    __syncthreads();
    for (int n = threadIdx.x; n < kPitchRead; n += kThreads) {
        shared.read[n] = n < kPitchRead - 1 ? fa_pitch_flat(shared.doubled + kFlatReach + 2 * n + 1) : 0.0f;
    }
    __syncthreads();
    fa_pitch_half_band(shared.read, shared.taps, [&](int n, float sum) {
        if (n < count) FA_ST(y + m + n, fa_pitch_flat(shared.doubled + kFlatReach + 2 * (n + before)) + sum);
    });
}

__device__ __forceinline__ void fa_pitch_down(const FaPitchSource& source, float* y, long long m, int count,
                                              const FaPitchRow& row, FaPitchShared& shared) {
    constexpr int before = kHalfBandTaps / 2 - 1, length = 2 * kPitchMade, turns = length / kThreads;
    fa_pitch_fit<kLowDegree + 1>(row.plan, shared);
    const FaPitchPlaces places(m, row.plan.step);
    const long long begin = places.origin / 2 - (kFlatReach + 4) / 2;  // in source samples
    for (int i = threadIdx.x; i < kPitchRead; i += kThreads) shared.read[i] = source(begin - before + i);
    __syncthreads();
    fa_pitch_half_band(shared.read, shared.taps, [&](int n, float sum) {
        shared.doubled[2 * n] = shared.read[before + n];
        shared.doubled[2 * n + 1] = sum;
    });
    __syncthreads();
    float flat[turns];
#pragma unroll
    for (int i = 0; i < turns; ++i) {
        const int n = threadIdx.x + i * kThreads;
        flat[i] = n >= kFlatReach && n < length - kFlatReach ? fa_pitch_flat(shared.doubled + n) : 0.0f;
    }
    __syncthreads();  // or a neighbour would read what is flat already
#pragma unroll
    for (int i = 0; i < turns; ++i) shared.doubled[threadIdx.x + i * kThreads] = flat[i];
    __syncthreads();
    const float* doubled = shared.doubled;
    const auto from = [doubled, begin](long long t) { return doubled[t - 2 * begin]; };
    for (int i = threadIdx.x; i < count; i += kThreads) {
        FA_ST(y + m + i, fa_pitch_short<kLowDegree + 1>(from, places, i, shared.coefficient, row.plan.pairs));
    }
}

// y: (rows, channels, length) from stretched: (rows, channels, room). Grid: rows * channels * ceil(length /
// kPitchOutputs) blocks of kThreads.
extern "C" __global__ void __launch_bounds__(kThreads, 6)
    fa_pitch_resample_kernel(const float* x, const float* stretched, float* y, const double* factors,
                             const unsigned char* active, const float* half_band, long long channels, long long length,
                             long long room) {
    __shared__ FaPitchShared shared;
    const long long tiles = (length + kPitchOutputs - 1) / kPitchOutputs, channel = blockIdx.x / tiles;
    const long long row = channel / channels, m = (blockIdx.x - channel * tiles) * kPitchOutputs;
    const int count = static_cast<int>(fa_min<long long>(kPitchOutputs, length - m));
    const FaPitchRow pitch = fa_pitch_row(factors[row], active, row, length, room);
    float* out = y + channel * length;
    if (pitch.same || pitch.nonsense) {
        for (int i = threadIdx.x; i < count; i += kThreads) {
            FA_ST(out + m + i, pitch.same ? FA_LD(x + channel * length + m + i) : fa_bits_to_float(0x7fc00000u));
        }
        return;
    }
    for (int i = threadIdx.x; i < kHalfBandTaps; i += kThreads) shared.taps[i] = FA_LD(half_band + i);
    const FaPitchSource source = {stretched + channel * room, pitch.samples};
    if (factors[row] > 1.0)
        fa_pitch_down(source, out, m, count, pitch, shared);
    else if (pitch.plan.degree() == kHighDegree)
        fa_pitch_up<kHighDegree + 1>(source, out, m, count, pitch, shared);
    else
        fa_pitch_up<kLowDegree + 1>(source, out, m, count, pitch, shared);
}
