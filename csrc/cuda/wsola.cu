// Time stretch and pitch shift on CUDA. The segments of an example follow one another, so one block does them all, its
// threads trying one candidate each; the resampling of a pitch shift has sixteen threads for every output sample.
#include "../resample.h"
#include "../wsola.h"

constexpr int kSearchThreads = 384;

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

struct FaWsolaBest {
    float distance[kSearchThreads];
    int offset[kSearchThreads];
    int chosen;
};

// The first offset with the smallest distance, the same for all threads. A NaN never wins, except at offset 0, where
// nothing is smaller than it.
__device__ __forceinline__ int fa_wsola_search(const FaWsolaSource& x, long long tail, long long window, int overlap,
                                               int search, FaWsolaBest& best) {
    const float infinity = fa_bits_to_float(0x7f800000u);
    float smallest = infinity;
    int found = threadIdx.x;
    bool hopeless = false;
    for (int offset = threadIdx.x; offset < search; offset += blockDim.x) {
        const float distance = fa_wsola_distance(x, tail, window + offset, overlap);
        hopeless = hopeless || (offset == 0 && distance != distance);
        if (distance < smallest) {
            smallest = distance;
            found = offset;
        }
    }
    best.distance[threadIdx.x] = smallest;
    best.offset[threadIdx.x] = found;
    __syncthreads();
    for (int count = blockDim.x; count > 1;) {
        const int rest = (count + 1) / 2;
        const int other = threadIdx.x + rest;
        if (threadIdx.x < rest && other < count) {
            const float a = best.distance[threadIdx.x], b = best.distance[other];
            if (b < a || (b == a && best.offset[other] < best.offset[threadIdx.x])) {
                best.distance[threadIdx.x] = b;
                best.offset[threadIdx.x] = best.offset[other];
            }
        }
        count = rest;
        __syncthreads();
    }
    if (threadIdx.x == 0) best.chosen = hopeless ? 0 : best.offset[0];
    __syncthreads();
    return best.chosen;
}

// y: (rows, channels, room), zeros behind each row's own length; NaN in rows that do not fit. Rows that are inactive or
// have factor 1 are copied if `copy`, else left alone. Grid: rows blocks of 384 threads.
extern "C" __global__ void __launch_bounds__(384)
    fa_wsola_kernel(const float* x, float* y, const double* factors, const unsigned char* active, long long channels,
                    long long length, long long room, double rate, int copy) {
    __shared__ FaWsolaBest best;
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
    long long begin = 0;
    for (long long k = 0, done = 0; done < n; ++k, done += w.hop()) {
        const long long tail = begin + w.hop(), window = fa_wsola_window(w, factor, k);
        begin = window + (k ? fa_wsola_search(source, tail, window, w.overlap, w.search, best) : w.search / 2);
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

// table: (rows, kResamplePhases, 3, 2 * room_half), one thread for each tap of each interval.
extern "C" __global__ void fa_pitch_table_kernel(float* table, const double* factors, const unsigned char* active,
                                                 const double* prototype, long long density, double support,
                                                 long long rows, long long room_half) {
    const long long thread = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, width = 2 * room_half;
    const long long j = thread % width, phase = thread / width % kResamplePhases,
                    row = thread / width / kResamplePhases;
    if (row >= rows || (active && !active[row])) return;
    const double factor = factors[row], scale = factor < 1.0 ? factor : 1.0;
    if (!(factor > 0.0) || factor == 1.0) return;
    const long long half = fa_half_width(support, scale);
    if (half > room_half || j >= 2 * half) return;
    const FaPrototype low_pass = {prototype, density, support};
    const double step = 1.0 / kResamplePhases, left = static_cast<double>(phase) * step;
    float* entry = table + (row * kResamplePhases + phase) * 3 * width;
    fa_table_entry(fa_tap(low_pass, scale, half, j, left), fa_tap(low_pass, scale, half, j, left + 0.5 * step),
                   fa_tap(low_pass, scale, half, j, left + step), width, j, entry);
}

// y: (rows, channels, length) from stretched: (rows, channels, room). Grid: ceil(rows * channels * length * 16 /
// blockDim.x) blocks.
extern "C" __global__ void fa_pitch_resample_kernel(const float* x, const float* stretched, float* y,
                                                    const double* factors, const unsigned char* active,
                                                    const float* table, long long rows, long long channels,
                                                    long long length, long long room, long long room_half,
                                                    double support) {
    const long long thread = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const long long total = rows * channels * length, lane = thread % kResampleLanes;
    const bool inside = thread / kResampleLanes < total;
    const long long output = inside ? thread / kResampleLanes : 0, channel = output / length, row = channel / channels;
    const double factor = factors[row];
    const bool same = (active && !active[row]) || factor == 1.0;
    const long long n = fa_wsola_length(length, factor), width = 2 * room_half;
    const long long half = fa_half_width(support, factor < 1.0 ? factor : 1.0);
    const bool nonsense = n > room || !(factor > 0.0) || half > room_half;
    float sum = 0.0f;
    if (!same && !nonsense) {
        const FaPosition at = fa_real_position(output % length, 1.0 / factor);
        const float* source = stretched + channel * room;
        const float* taps = table + (row * kResamplePhases + at.phase) * 3 * width;
        for (long long j = lane; j < 2 * half; j += kResampleLanes) {
            const long long from = at.index - half + 1 + j;
            const float sample = from >= 0 && from < n ? FA_LD(source + from) : 0.0f;
            const float slope = fa_add(FA_LD(taps + width + j), fa_mul(at.fraction, FA_LD(taps + 2 * width + j)));
            sum = fa_add(sum, fa_mul(sample, fa_add(FA_LD(taps + j), fa_mul(at.fraction, slope))));
        }
    }
    for (int distance = kResampleLanes / 2; distance; distance /= 2) {
        sum = fa_add(sum, __shfl_xor_sync(0xffffffffu, sum, distance));
    }
    if (!inside || lane) return;
    FA_ST(y + output, same ? FA_LD(x + output) : nonsense ? fa_bits_to_float(0x7fc00000u) : sum);
}
