// The resampling of a pitch shift on the CPU: the filters of repitch.h, an output in each lane of a vector register.
#include "../repitch_cpu.h"

#include <algorithm>
#include <utility>

#include "../fa_simd.h"

#define FA_ALIGN_512(high, low, n) __builtin_ia32_alignd512_mask(high, low, n, low, -1)

namespace {

template <class Piece>
constexpr int kLanes = sizeof(Piece) / sizeof(float);

constexpr int kUnit = 16;  // outputs come in multiples of this

// As many whole numbers as a Piece has floats.
typedef int32_t fa_int16 __attribute__((vector_size(64)));
template <class Piece>
struct WholeNumbers;
template <>
struct WholeNumbers<fa_float4> {
    typedef fa_int4 type;
};
template <>
struct WholeNumbers<fa_float8> {
    typedef fa_int8 type;
};
template <>
struct WholeNumbers<fa_float16> {
    typedef fa_int16 type;
};
template <class Piece>
using Whole = typename WholeNumbers<Piece>::type;

// By memcpy: sources are unaligned.
template <class Vector, class Number>
FA_HD Vector load(const Number* source) {
    Vector value;
    memcpy(&value, source, sizeof value);
    return value;
}

// ---- the half-band ----

// Vectors of sums that fit the registers beside two windows of as many samples.
template <class Piece>
constexpr int kTile = sizeof(Piece) == 64 ? 8 : 4;

// y[n] = sum_k taps[k] x[n + k] for kTile vectors of n. The taps are symmetric: samples that meet equal taps are added
// first. Tap k and vector n meet the samples of tap k + lanes and vector n - 1, so each vector of samples that is
// loaded serves kTile sums.
template <class Piece>
FA_HD void half_band_tile(const float* x, const float* taps, float* y) {
    constexpr int lanes = kLanes<Piece>, tile = kTile<Piece>, turns = kHalfBandTaps / lanes;
    Piece sum[tile], low[tile], high[tile];
    FA_UNROLL(16) for (int n = 0; n < tile; ++n) sum[n] = Piece{};
    for (int r = 0; r < lanes / 2; ++r) {
        const float *first = x + r, *last = x + kHalfBandTaps - 1 - r;
        FA_UNROLL(16) for (int n = 0; n < tile; ++n) low[n] = load<Piece>(first + n * lanes);
        FA_UNROLL(16) for (int n = 0; n < tile; ++n) high[n] = load<Piece>(last + n * lanes);
        FA_UNROLL(32) for (int k = 0; k < turns; ++k) {
            const Piece tap = fa_splat<Piece>(taps[r + k * lanes]);
            FA_UNROLL(16) for (int n = 0; n < tile; ++n) sum[n] = fa_fma(low[n] + high[n], tap, sum[n]);
            if (k + 1 == turns) break;
            FA_UNROLL(16) for (int n = 0; n + 1 < tile; ++n) low[n] = low[n + 1];
            FA_UNROLL(16) for (int n = tile - 1; n > 0; --n) high[n] = high[n - 1];
            low[tile - 1] = load<Piece>(first + (tile + k) * lanes);
            high[0] = load<Piece>(last - (k + 1) * lanes);
        }
    }
    memcpy(y, sum, sizeof sum);
}

constexpr int kHalfBandBlock = 128;  // outputs at a time

template <class Piece>
FA_HD void half_band_lanes(const float* x, const float* taps, float* y, long long blocks) {
    for (long long n = 0; n < blocks * kHalfBandBlock; n += kTile<Piece> * kLanes<Piece>) {
        half_band_tile<Piece>(x + n, taps, y + n);
    }
}

// ---- the flattening filter ----

// Elements n, n + 1, ... of two vectors in a row. At `memory` they lie in a row too, where wide vectors would straddle
// cache lines, each for a cycle more.
template <class Piece, int n>
FA_HD Piece shifted(const Piece& a, const Piece& b, const float* memory) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    if constexpr (sizeof(Piece) == 64) return (Piece)FA_ALIGN_512((fa_int16)b, (fa_int16)a, n);
#endif
    (void)a, (void)b;
    return load<Piece>(memory + n);
}

// Sample n of both phases of the doubled rate from samples n ... n + 6 of both, which are those at n - 3 ... n + 3.
template <class Piece>
FA_HD void flatten_lanes(const float* even, const float* odd, float* flat_even, float* flat_odd, long long count) {
    constexpr float taps[] = FA_FLAT_TAPS;
    constexpr int lanes = kLanes<Piece>;
    const auto sum_around = [&](const Piece(&own)[7], const Piece(&other)[6]) __attribute__((always_inline)) {
        Piece sum = own[3] * fa_splat<Piece>(taps[0]), second = (other[2] + other[3]) * fa_splat<Piece>(taps[1]);
        FA_UNROLL(4) for (int k = 1; k <= 3; ++k) {
            sum = fa_fma(own[3 - k] + own[3 + k], fa_splat<Piece>(taps[2 * k]), sum);
            if (k < 3) second = fa_fma(other[2 - k] + other[3 + k], fa_splat<Piece>(taps[2 * k + 1]), second);
        }
        return sum + second;
    };
    Piece e = load<Piece>(even), o = load<Piece>(odd);
    for (long long n = 0; n < count; n += lanes, even += lanes, odd += lanes) {
        const Piece e2 = load<Piece>(even + lanes), o2 = load<Piece>(odd + lanes);
#define FA_SEVEN(a, b, memory)                                                                                \
    {                                                                                                         \
        a, shifted<Piece, 1>(a, b, memory), shifted<Piece, 2>(a, b, memory), shifted<Piece, 3>(a, b, memory), \
            shifted<Piece, 4>(a, b, memory), shifted<Piece, 5>(a, b, memory), shifted<Piece, 6>(a, b, memory) \
    }
        const Piece es[7] = FA_SEVEN(e, e2, even), os[7] = FA_SEVEN(o, o2, odd);
#undef FA_SEVEN
        const Piece before[6] = {os[0], os[1], os[2], os[3], os[4], os[5]};
        const Piece after[6] = {es[1], es[2], es[3], es[4], es[5], es[6]};
        const Piece a = sum_around(es, before), b = sum_around(os, after);
        memcpy(flat_even + n, &a, sizeof a);
        memcpy(flat_odd + n, &b, sizeof b);
        e = e2, o = o2;
    }
}

// ---- the short filter ----

constexpr int kMostCount = kHighDegree + 1;
constexpr int kFractionBits = 25;  // 15 steps of up to 4 samples fit beside them

// Where the samples of a vector's outputs lie: within two or three vectors, or anywhere.
enum Spread { kTwoVectors, kThreeVectors, kAnywhere };

// x[at[i]] in lane i. x: what is read from the first sample on, in registers or in memory.
template <class Piece, int kSpread>
FA_HD Piece fetch(const Piece (&window)[3], const float* x, const Whole<Piece>& at) {
#if defined(__GNUC__) && !defined(__clang__)
    if constexpr (sizeof(Piece) == 64 && kSpread != kAnywhere) {
        const Piece found = __builtin_shuffle(window[0], window[1], at);
        if constexpr (kSpread == kTwoVectors) return found;
        return at < 2 * kLanes<Piece> ? found : __builtin_shuffle(window[2], at);
    }
#endif
    (void)window;
    int32_t index[kLanes<Piece>];
    float found[kLanes<Piece>];
    memcpy(index, &at, sizeof at);
    for (int i = 0; i < kLanes<Piece>; ++i) found[i] = x[index[i]];
    return load<Piece>(found);
}

// degree + 1 coefficients for each pair of taps.
struct ShortFilter {
    double step;
    int pairs, degree;
    float coefficient[kMostPairs * kMostCount];
};

// Where `lanes` outputs from a position on read.
template <class Piece>
struct Places {
    const float* x;
    Whole<Piece> at;
    Piece place;
};

// Positions of a run of outputs in units of 2^-kPositionBits samples from `x` on: whole numbers, whose arithmetic
// leaves the pipes of the filter alone. A run of 2^16 outputs strays by 2^-29 of a sample at most.
constexpr int kPositionBits = 44;

struct Run {
    const float* x;
    int64_t start, step;
};

FA_HD Run find_run(const float* x, double step, long long first) {
    constexpr double unit = static_cast<double>(int64_t{1} << kPositionBits);
    const double position = static_cast<double>(first) * step, whole = floor(position);
    return {x + static_cast<long long>(whole), static_cast<int64_t>((position - whole) * unit),
            static_cast<int64_t>(step * unit + 0.5)};
}

template <class Piece>
FA_HD Places<Piece> find_places(const Run& run, long long n, const Whole<Piece>& steps) {
    constexpr int32_t unit = 1 << kFractionBits;
    const int64_t position = run.start + n * run.step;
    const Whole<Piece> fixed = steps + (static_cast<int32_t>(position >> (kPositionBits - kFractionBits)) & (unit - 1));
    const Piece places = __builtin_convertvector(fixed & (unit - 1), Piece);
    const Piece place = fa_fma(places, fa_splat<Piece>(-2.0f / unit), fa_splat<Piece>(1.0f));
    return {run.x + (position >> kPositionBits), fixed >> kFractionBits, place};
}

// kBlocks vectors of outputs, which share the loads of the coefficients. kPairs: of taps; 0 if not known.
template <class Piece, int kCount, int kPairs, int kSpread, int kBlocks>
FA_HD void short_vectors(const Places<Piece> (&from)[kBlocks], const Piece* coefficient, int some_pairs, float* y) {
    const int pairs = kPairs ? kPairs : some_pairs;
    Piece sum[kBlocks][kCount], window[kBlocks][3] = {};
    Whole<Piece> left_at[kBlocks], right_at[kBlocks];
    FA_UNROLL(4) for (int b = 0; b < kBlocks; ++b) {
        FA_UNROLL(16) for (int q = 0; q < kCount; ++q) sum[b][q] = Piece{};
        const float* x = from[b].x + 1 - pairs;
        if constexpr (kSpread != kAnywhere && sizeof(Piece) == 64) {
            FA_UNROLL(4) for (int i = 0; i < (kSpread == kTwoVectors ? 2 : 3); ++i) {
                window[b][i] = load<Piece>(x + i * kLanes<Piece>);
            }
        }
        left_at[b] = from[b].at + (pairs - 1), right_at[b] = from[b].at + pairs;
    }
    FA_UNROLL(4) for (int j = 0; j < pairs; ++j, coefficient += kCount) {
        Piece added[kBlocks], apart[kBlocks];
        FA_UNROLL(4) for (int b = 0; b < kBlocks; ++b) {
            const float* x = from[b].x + 1 - pairs;
            const Piece left = fetch<Piece, kSpread>(window[b], x, left_at[b]);
            const Piece right = fetch<Piece, kSpread>(window[b], x, right_at[b]);
            added[b] = right + left, apart[b] = right - left;
            left_at[b] -= 1, right_at[b] += 1;
        }
        FA_UNROLL(16) for (int q = 0; q < kCount; ++q) {
            FA_UNROLL(4) for (int b = 0; b < kBlocks; ++b) {
                sum[b][q] = fa_fma(q % 2 ? apart[b] : added[b], coefficient[q], sum[b][q]);
            }
        }
    }
    static_assert(kCount % 2, "an even degree");
    FA_UNROLL(4) for (int b = 0; b < kBlocks; ++b) {
        const Piece place = from[b].place, square = place * place;
        Piece even = sum[b][kCount - 1], odd = sum[b][kCount - 2];
        FA_UNROLL(16) for (int q = kCount - 3; q > 0; q -= 2) {
            even = fa_fma(even, square, sum[b][q]);
            if (q > 1) odd = fa_fma(odd, square, sum[b][q - 1]);
        }
        const Piece value = fa_fma(odd, place, fa_fma(even, square, sum[b][0]));
        memcpy(y + b * kLanes<Piece>, &value, sizeof value);
    }
}

template <class Piece, int kCount, int kPairs, int kSpread>
FA_HD void short_outputs(const float* x, const ShortFilter& filter, long long first, float* y, long long count) {
    constexpr int lanes = kLanes<Piece>, blocks = lanes == 16 ? 2 : 1;
    const double step = filter.step;
    const Run run = find_run(x, step, first);
    int32_t offsets[lanes];
    for (int i = 0; i < lanes; ++i) offsets[i] = static_cast<int32_t>(i * step * (1 << kFractionBits) + 0.5);
    const Whole<Piece> steps = load<Whole<Piece>>(offsets);
    Piece wide[(kPairs ? kPairs : kMostPairs) * kCount];  // GCC would fetch broadcasts from vectors of coefficients
    for (int i = 0; i < filter.pairs * kCount; ++i) wide[i] = fa_splat<Piece>(filter.coefficient[i]);
    Places<Piece> some[blocks], one[1];
    long long n = 0;
    for (; n + blocks * lanes <= count; n += blocks * lanes) {
        FA_UNROLL(4) for (int b = 0; b < blocks; ++b) { some[b] = find_places<Piece>(run, n + b * lanes, steps); }
        short_vectors<Piece, kCount, kPairs, kSpread, blocks>(some, wide, filter.pairs, y + n);
    }
    for (; n < count; n += lanes) {
        one[0] = find_places<Piece>(run, n, steps);
        short_vectors<Piece, kCount, kPairs, kSpread, 1>(one, wide, filter.pairs, y + n);
    }
}

// Outputs first, first + 1, ... first + count - 1 of the short filter, count a multiple of kUnit. x: sample 0.
template <class Piece>
FA_HD void short_filter_lanes(const float* x, const ShortFilter& filter, long long first, float* y, long long count) {
    constexpr int low = kLowDegree + 1, high = kHighDegree + 1;
    // The last sample that a vector's last output may read, from the first on.
    const double last = filter.step * (kLanes<Piece> - 1) + 1.0 + 2.0 * filter.pairs;
    if (filter.degree == kHighDegree && filter.pairs == 2)
        short_outputs<Piece, high, 2, kTwoVectors>(x, filter, first, y, count);
    else if (filter.degree == kHighDegree && filter.pairs == 3)
        short_outputs<Piece, high, 3, kTwoVectors>(x, filter, first, y, count);
    else if (filter.degree == kHighDegree)
        short_outputs<Piece, high, 4, kTwoVectors>(x, filter, first, y, count);
    else if (filter.pairs > 4 || last > 3.0 * kLanes<Piece>)
        short_outputs<Piece, low, 0, kAnywhere>(x, filter, first, y, count);
    else if (last > 2.0 * kLanes<Piece>)
        short_outputs<Piece, low, 4, kThreeVectors>(x, filter, first, y, count);
    else
        short_outputs<Piece, low, 4, kTwoVectors>(x, filter, first, y, count);
}

FA_BY_WIDTH(half_band, (const float* x, const float* taps, float* y, long long blocks), (x, taps, y, blocks))
FA_BY_WIDTH(flatten, (const float* even, const float* odd, float* flat_even, float* flat_odd, long long count),
            (even, odd, flat_even, flat_odd, count))
FA_BY_WIDTH(short_filter, (const float* x, const ShortFilter& filter, long long first, float* y, long long count),
            (x, filter, first, y, count))

FA_CLONES void interleave(const float* even, const float* odd, float* both, int count) {
    for (int i = 0; i < count; ++i) {
        both[2 * i] = even[i];
        both[2 * i + 1] = odd[i];
    }
}

FA_CLONES void separate(const float* both, float* even, float* odd, int count) {
    for (int i = 0; i < count; ++i) {
        even[i] = both[2 * i];
        odd[i] = both[2 * i + 1];
    }
}

FA_CLONES void add(const float* a, const float* b, float* y, long long count) {
    for (long long i = 0; i < count; ++i) y[i] = a[i] + b[i];
}

// ---- the polynomials ----

// weights[i * kUnit + q]; see repitch.h. Numbers behind the `count` nodes let loops run over whole vectors.
struct Interpolation {
    int count;
    double nodes[kUnit] = {};
    float weights[kMostCount * kUnit] = {};

    explicit Interpolation(int degree) : count(degree + 1) {
        for (int i = 0; i < count; ++i) nodes[i] = fa_short_node(i, count);
        for (int i = 0; i < count; ++i) {
            for (int p = 0; p < count; ++p) weights[i * kUnit + p] = fa_short_weight(p, i, count);
        }
    }
};

FA_CLONES void fit(const FaRepitch& plan, const Interpolation& points, float* coefficient) {
    float value[kUnit], sum[kUnit];
    for (int j = 0; j < plan.pairs; ++j, coefficient += points.count) {
        fa_short_taps<kUnit>(plan, j, points.nodes, value);
        for (int q = 0; q < kUnit; ++q) sum[q] = 0.0f;
        for (int i = 0; i < points.count; ++i) {
            for (int q = 0; q < kUnit; ++q) sum[q] += value[i] * points.weights[i * kUnit + q];
        }
        for (int q = 0; q < points.count; ++q) coefficient[q] = sum[q];
    }
}

ShortFilter fitted(const FaRepitch& plan) {
    static const Interpolation low(kLowDegree), high(kHighDegree);
    ShortFilter filter;
    filter.step = plan.step;
    filter.pairs = plan.pairs;
    filter.degree = plan.degree();
    fit(plan, plan.degree() == kHighDegree ? high : low, filter.coefficient);
    return filter;
}

// ---- both directions ----

constexpr long long kOutputs = 1024;  // at a time: what lies between the filters stays in the first cache
constexpr int kBefore = kHalfBandTaps / 2, kHistory = kFlatReach;

long long rounded(long long count, long long multiple) { return (count + multiple - 1) / multiple * multiple; }

// Pitch up: the short filter at half outputs, flattened, then the half-band at every other.
void decimate(const float* x, float* y, long long length, const FaRepitch& plan, const float* taps) {
    constexpr long long most = kOutputs + kHalfBandTaps;
    const ShortFilter filter = fitted(plan);
    alignas(64) float raw[2 * most], raw_even[kHistory + most + kUnit], raw_odd[kHistory + most + kUnit], sum[kOutputs];
    alignas(64) float even[kHalfBandTaps + most], odd[kHalfBandTaps + most];  // from kBefore pairs before m on
    long long made = -kBefore;                                                // pairs so far
    short_filter(x, filter, 2 * made - kFlatReach, raw, kUnit);
    separate(raw, raw_even, raw_odd, kHistory);
    for (long long m = 0; m < length; m += kOutputs) {
        const long long count = std::min(kOutputs, length - m), missing = m + rounded(count, kUnit) + kBefore - made;
        if (m) {
            std::copy(even + kOutputs, even + kOutputs + kHalfBandTaps, even);
            std::copy(odd + kOutputs, odd + kOutputs + kHalfBandTaps, odd);
        }
        short_filter(x, filter, 2 * made + kFlatReach, raw, 2 * missing);
        separate(raw, raw_even + kHistory, raw_odd + kHistory, static_cast<int>(missing));
        flatten(raw_even, raw_odd, even + (made - m + kBefore), odd + (made - m + kBefore), missing);
        std::copy(raw_even + missing, raw_even + missing + kHistory, raw_even);
        std::copy(raw_odd + missing, raw_odd + missing + kHistory, raw_odd);
        made += missing;
        half_band(odd, taps, sum, rounded(count, kHalfBandBlock) / kHalfBandBlock);
        add(even + kBefore, sum, y + m, count);
    }
}

// Pitch down: the half-band between the samples, flattened, then the short filter over both.
void interpolate(const float* x, float* y, long long length, const FaRepitch& plan, const float* taps) {
    constexpr int reach = 2;  // pairs that the short filter reads before a position
    const ShortFilter filter = fitted(plan);
    alignas(64) float between[kHistory + kHalfBandBlock + kUnit] = {}, even[kHalfBandBlock], odd[kHalfBandBlock],
                                                          out[kUnit];
    alignas(64) float both[2 * (kOutputs + 2 * kHalfBandBlock) + 2 * kUnit];
    long long from = -kBefore - kFlatReach, made = from;  // pairs: first and last of `both`; zeros before
    for (long long m = 0; m < length; m += kOutputs) {
        const long long count = std::min(kOutputs, length - m), last = m + rounded(count, kUnit) - 1;
        const long long begin = static_cast<long long>(static_cast<double>(m) * plan.step) / 2 - reach;
        const long long end = static_cast<long long>(static_cast<double>(last) * plan.step) / 2 + reach + 2;
        if (m) {
            std::copy(both + 2 * (begin - from), both + 2 * (made - from), both);
            from = begin;
        }
        for (; made < end; made += kHalfBandBlock) {
            half_band(x + made + kFlatReach / 2 - kBefore + 1, taps, between + kHistory, 1);
            flatten(x + made - kFlatReach / 2, between, even, odd, kHalfBandBlock);
            interleave(even, odd, both + 2 * (made - from), kHalfBandBlock);
            std::copy(between + kHalfBandBlock, between + kHalfBandBlock + kHistory, between);
        }
        const long long whole = count / kUnit * kUnit;
        short_filter(both - 2 * from, filter, m, y + m, whole);
        if (whole == count) continue;
        short_filter(both - 2 * from, filter, m + whole, out, kUnit);
        std::copy(out, out + (count - whole), y + m + whole);
    }
}

}  // namespace

long long fa_repitch_margin(double factor) {
    const FaRepitch plan = fa_repitch(factor);
    return static_cast<long long>(200.0 * std::max(1.0, plan.step)) + plan.pairs + 2 * kHalfBandBlock;
}

void fa_repitch_row(const float* x, float* y, long long length, double factor, const float* half_band_taps) {
    const auto run = factor > 1.0 ? interpolate : decimate;
    run(x, y, length, fa_repitch(factor), half_band_taps);
}
