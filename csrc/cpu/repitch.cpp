// The resampling of a pitch shift on the CPU: the two filters of repitch.h, sixteen lanes in vector registers.
#include "../repitch_cpu.h"

#include <algorithm>

#include "../fa_simd.h"

namespace {

constexpr int kLanes = 16;

// By memcpy: sources are unaligned.
template <class Piece>
FA_HD FaLanes<Piece> fa_lanes_at(const float* source) {
    FaLanes<Piece> value;
    for (int i = 0; i < value.kPieces; ++i) memcpy(&value.piece[i], source + i * kLanes / value.kPieces, sizeof(Piece));
    return value;
}

template <class Piece>
FA_HD FaLanes<Piece> fa_lanes_of(float x) {
    FaLanes<Piece> value;
    for (int i = 0; i < value.kPieces; ++i) value.piece[i] = x - Piece{};
    return value;
}

// How many of these fit the registers, with as many more to multiply them by.
template <class Piece>
constexpr int kTile = sizeof(Piece) == 64   ? 8
                      : sizeof(Piece) == 32 ? 2
                                            : 1;

// y[n] = sum_k taps[k] x[n + k] for n < 16 kCount. Tap k and sample n + k meet again at tap k + 16 and sample n - 16,
// so each vector of samples that is loaded serves kCount sums.
template <class Piece, int kCount>
FA_HD void half_band_tile(const float* x, const float* taps, float* y) {
    FaLanes<Piece> sum[kCount], sample[kCount];
    FA_UNROLL(16) for (int n = 0; n < kCount; ++n) sum[n] = fa_lanes_of<Piece>(0.0f);
    for (int r = 0; r < kLanes; ++r) {
        FA_UNROLL(16) for (int n = 0; n + 1 < kCount; ++n) sample[n] = fa_lanes_at<Piece>(x + r + n * kLanes);
        for (int k = r; k < kHalfBandTaps; k += kLanes) {
            sample[kCount - 1] = fa_lanes_at<Piece>(x + k + (kCount - 1) * kLanes);
            const FaLanes<Piece> tap = fa_lanes_of<Piece>(taps[k]);
            FA_UNROLL(16) for (int n = 0; n < kCount; ++n) {
                FA_UNROLL(16) for (int p = 0; p < tap.kPieces; ++p) {
                    const Piece a = sample[n].piece[p], b = tap.piece[p], c = sum[n].piece[p];
                    sum[n].piece[p] = fa_fma(a, b, c);
                }
            }
            FA_UNROLL(16) for (int n = 0; n + 1 < kCount; ++n) sample[n] = sample[n + 1];
        }
    }
    memcpy(y, sum, sizeof sum);
}

constexpr int kHalfBandBlock = 128;  // outputs at a time

template <class Piece>
FA_HD void half_band_lanes(const float* x, const float* taps, float* y, long long blocks) {
    for (long long n = 0; n < blocks * kHalfBandBlock; n += kTile<Piece> * kLanes) {
        half_band_tile<Piece, kTile<Piece>>(x + n, taps, y + n);
    }
}

template <class Half, class Whole>
FA_HD Half fa_half_sum(const Whole& v) {
    Half half[2];
    memcpy(half, &v, sizeof half);
    return half[0] + half[1];
}

// Lane i plus lane i + 8, then i + 4.
FA_HD fa_float4 fa_fold(const FaLanes<fa_float4>& v) { return (v.piece[0] + v.piece[2]) + (v.piece[1] + v.piece[3]); }
FA_HD fa_float4 fa_fold(const FaLanes<fa_float8>& v) { return fa_half_sum<fa_float4>(v.piece[0] + v.piece[1]); }
FA_HD fa_float4 fa_fold(const FaLanes<fa_float16>& v) {
    return fa_half_sum<fa_float4>(fa_half_sum<fa_float8>(v.piece[0]));
}

// The sums of four vectors of four, each as (0 + 2) + (1 + 3).
FA_HD fa_float4 fa_sums(const fa_float4& a, const fa_float4& b, const fa_float4& c, const fa_float4& d) {
    const fa_float4 ab = FA_SHUFFLE_FOUR(a, b, 0, 1, 4, 5) + FA_SHUFFLE_FOUR(a, b, 2, 3, 6, 7);
    const fa_float4 cd = FA_SHUFFLE_FOUR(c, d, 0, 1, 4, 5) + FA_SHUFFLE_FOUR(c, d, 2, 3, 6, 7);
    return FA_SHUFFLE_FOUR(ab, cd, 0, 2, 4, 6) + FA_SHUFFLE_FOUR(ab, cd, 1, 3, 5, 7);
}

// One output, before its last two sums. taps: two rows of the table, between which u says where.
template <class Piece>
FA_HD fa_float4 short_output(const float* x, const float* taps, int width, float u) {
    const FaLanes<Piece> fraction = fa_lanes_of<Piece>(u);
    FaLanes<Piece> sum;
    int j = 0;
    do {
        const FaLanes<Piece> s = fa_lanes_at<Piece>(x + j), left = fa_lanes_at<Piece>(taps + j),
                             right = fa_lanes_at<Piece>(taps + width + j);
        FA_UNROLL(16) for (int p = 0; p < sum.kPieces; ++p) {
            const Piece tap = fa_fma(fraction.piece[p], right.piece[p] - left.piece[p], left.piece[p]);
            sum.piece[p] = j ? fa_fma(s.piece[p], tap, sum.piece[p]) : s.piece[p] * tap;
        }
        j += kLanes;
    } while (j < width);
    return fa_fold(sum);
}

constexpr int kAhead = 128;

// Where `count` <= kAhead outputs read: found well before they are needed, for the processor cannot look past sixteen.
struct Places {
    int index[kAhead], row[kAhead];
    float fraction[kAhead];
};

FA_HD void find_places(double first, double step, double base, int width, int count, Places& places) {
    for (int i = 0; i < count; ++i) {
        const FaShortPosition at = fa_short_position(first + static_cast<double>(i), step, base);
        places.index[i] = at.index;
        places.row[i] = at.phase * width;
        places.fraction[i] = at.fraction;
    }
}

// Outputs first, first + 1, ... first + count - 1 of the short filter, count a multiple of 16; a table (513, width) of
// its taps. x: source samples from `origin` on.
template <class Piece>
FA_HD void short_outputs(const float* x, const float* table, int width, long long origin, double first, double step,
                         float* y, long long count) {
    Places at;
    for (long long start = 0; start < count; start += kAhead, y += kAhead) {
        const double begin = first + static_cast<double>(start), base = floor(fa_mul(begin, step));
        const float* source = x + (static_cast<long long>(base) - width / 2 + 1 - origin);
        const int some = static_cast<int>(count - start < kAhead ? count - start : kAhead);
        find_places(begin, step, base, width, some, at);
        for (int i = 0; i < some; i += 4) {
            const auto output = [&](int n) __attribute__((always_inline)) {
                return short_output<Piece>(source + at.index[n], table + at.row[n], width, at.fraction[n]);
            };
            const fa_float4 sums = fa_sums(output(i), output(i + 1), output(i + 2), output(i + 3));
            memcpy(y + i, &sums, sizeof sums);
        }
    }
}

// A known width keeps the sums in registers.
template <class Piece>
FA_HD void short_filter_lanes(const float* x, const float* table, int width, long long origin, double first,
                              double step, float* y, long long count) {
    if (width == kLanes)
        short_outputs<Piece>(x, table, kLanes, origin, first, step, y, count);
    else
        short_outputs<Piece>(x, table, width, origin, first, step, y, count);
}

FA_BY_WIDTH(half_band, (const float* x, const float* taps, float* y, long long blocks), (x, taps, y, blocks))
FA_BY_WIDTH(short_filter,
            (const float* x, const float* table, int width, long long origin, double first, double step, float* y,
             long long count),
            (x, table, width, origin, first, step, y, count))

FA_CLONES void interleave(const float* even, const float* odd, float* both, int count) {
    for (int i = 0; i < count; ++i) {
        both[2 * i] = even[i];
        both[2 * i + 1] = odd[i];
    }
}

// The filter is even: the last row is the first backwards, and so on.
FA_CLONES void fill_table(const FaShortFilter& filter, const FaRepitch& plan, int width, float* table) {
    for (int phase = 0; phase <= kShortPhases / 2; ++phase) {
        float *row = table + phase * width, *mirror = table + (kShortPhases - phase) * width;
        for (int j = 0; j < width; ++j) row[j] = fa_short_tap(filter, plan, width, phase, j);
        for (int j = 0; j < width; ++j) mirror[j] = row[width - 1 - j];
    }
}

// Output `k` of the short filter over `count` samples between zeros, without a table.
float short_value(const FaShortFilter& filter, const FaRepitch& plan, const float* x, long long count, double k) {
    const int width = plan.width();
    const double place = fa_mul(k, plan.step);
    if (place < -width || place > static_cast<double>(count + width)) return 0.0f;
    const double base = floor(place);
    const FaShortPosition at = fa_short_position(k, plan.step, base);
    const long long first = static_cast<long long>(base) + at.index - width / 2 + 1;
    float sum = 0.0f;
    for (long long i = std::max<long long>(first, 0); i < std::min(first + width, count); ++i) {
        const int j = static_cast<int>(i - first);
        const float left = fa_short_tap(filter, plan, width, at.phase, j);
        const float right = fa_short_tap(filter, plan, width, at.phase + 1, j);
        sum += x[i] * (left + at.fraction * (right - left));
    }
    return sum;
}

constexpr long long kOutputs = 1024;  // at a time: what lies between the two filters stays in the first cache
constexpr int kBefore = kHalfBandTaps / 2;

long long rounded(long long count, long long multiple) { return (count + multiple - 1) / multiple * multiple; }

// Pitch up: the short filter at half outputs, then the half-band at every other.
void decimate(const float* x, float* y, long long length, const FaRepitch& plan, const float* taps,
              const float* table) {
    float even[kOutputs], sum[kOutputs], odd[kHalfBandTaps + kOutputs] = {};
    long long made = -kBefore;  // odd samples so far
    for (long long m = 0; m < length; m += kOutputs) {
        const long long count = std::min(kOutputs, length - m), room = rounded(count, kLanes);
        const long long missing = m + room + kBefore - made;
        std::copy(odd + kOutputs, odd + kOutputs + kHalfBandTaps, odd);
        short_filter(x, table, plan.width(), 0, static_cast<double>(made) + 0.5, plan.step, odd + (made - m + kBefore),
                     missing);
        made += missing;
        short_filter(x, table, plan.width(), 0, static_cast<double>(m), plan.step, even, room);
        half_band(odd, taps, sum, rounded(count, kHalfBandBlock) / kHalfBandBlock);
        for (long long i = 0; i < count; ++i) y[m + i] = even[i] + sum[i];
    }
}

// The same for a clip that reads only a few of the table's taps.
void decimate_short(const float* x, long long count, float* y, int length, const FaRepitch& plan, const float* taps,
                    const FaShortFilter& filter) {
    float odd[kHalfBandTaps + kRepitchShort];
    for (int k = 0; k < length + kHalfBandTaps; ++k) odd[k] = short_value(filter, plan, x, count, k - kBefore + 0.5);
    for (int m = 0; m < length; ++m) {
        float sum = 0.0f;
        for (int k = 0; k < kHalfBandTaps; ++k) sum += taps[k] * odd[m + k];
        y[m] = short_value(filter, plan, x, count, m) + sum;
    }
}

// Pitch down: the half-band between the samples, then the short filter over both.
void interpolate(const float* x, float* y, long long length, const FaRepitch& plan, const float* taps,
                 const float* table) {
    float odd[kHalfBandBlock], out[kLanes], both[2 * (kOutputs + 2 * kHalfBandBlock)];
    long long from = -kShortSupport / 2, made = from;  // source samples: first and last of `both`
    for (long long m = 0; m < length; m += kOutputs) {
        const long long count = std::min(kOutputs, length - m), last = m + rounded(count, kLanes) - 1;
        const long long begin = static_cast<long long>(static_cast<double>(m) * plan.step) / 2 - kShortSupport / 2;
        const long long end = static_cast<long long>(static_cast<double>(last) * plan.step) / 2 + kShortSupport / 2 + 1;
        std::copy(both + 2 * (begin - from), both + 2 * (made - from), both);
        for (from = begin; made < end; made += kHalfBandBlock) {
            half_band(x + made - kBefore + 1, taps, odd, 1);
            interleave(x + made, odd, both + 2 * (made - from), kHalfBandBlock);
        }
        const long long whole = count / kLanes * kLanes;
        short_filter(both, table, plan.width(), 2 * from, static_cast<double>(m), plan.step, y + m, whole);
        if (whole == count) continue;
        short_filter(both, table, plan.width(), 2 * from, static_cast<double>(m + whole), plan.step, out, kLanes);
        std::copy(out, out + (count - whole), y + m + whole);
    }
}

}  // namespace

long long fa_repitch_margin(double factor) {
    return static_cast<long long>((kBefore + 2 * kLanes) * std::max(1.0, 1.0 / factor)) + 2 * kHalfBandBlock;
}

long long fa_repitch_entries(double factor) { return (kShortPhases + 1) * fa_repitch(factor).width(); }

void fa_repitch_table(const FaShortFilter& filter, double factor, float* table) {
    const FaRepitch plan = fa_repitch(factor);
    fill_table(filter, plan, plan.width(), table);
}

void fa_repitch_row(const float* x, long long count, float* y, long long length, double factor,
                    const float* half_band_taps, const FaShortFilter& filter, const float* table) {
    const FaRepitch plan = fa_repitch(factor);
    if (!table) return decimate_short(x, count, y, static_cast<int>(length), plan, half_band_taps, filter);
    const auto run = factor > 1.0 ? interpolate : decimate;
    run(x, y, length, plan, half_band_taps, table);
}
