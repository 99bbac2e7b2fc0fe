// Reverb on the CPU: rows on threads, the filters of csrc/reverb_lanes.h over blocks of time.
#include "../reverb_lanes.h"

#include <vector>

#include "api.h"
#include "parallel.h"

namespace {

struct Side {
    FaRings<kReverbCombs> combs;
    FaRings<kReverbAllpasses> allpasses;
    float carry[kReverbCombs];
};

struct Unit {
    const float* in[2];
    float* out[2];
    int channels;  // in this unit: 1 or 2
    int sides;
    int mode;
};

struct Flags {
    int wet_only, clip;
    bool past;  // outputs go past the caches
};

// What side `side` hears at [start, start + n). Before the beginning that is what heard holds at first, zeros.
template <class Vector>
FA_HD void hear(const Unit& unit, int side, float* FA_RESTRICT heard, long long start, int n, int clip) {
    constexpr int kWidth = kReverbWidth<Vector>;
    const float *left = unit.in[0] + start, *right = unit.in[unit.channels - 1] + start;
    const bool both = unit.mode == kReverbStereo;
    if (unit.channels == 2 && side == 1 && !both) left = right;
    int i = start >= 0 ? 0 : start < -n ? n : static_cast<int>(-start);
    for (; i + kWidth <= n; i += kWidth) {
        Vector value = fa_reverb_limit(fa_load<Vector>(left + i), clip);
        if (both) value = (value + fa_reverb_limit(fa_load<Vector>(right + i), clip)) * 0.5f;
        fa_store(heard + i, value);
    }
    for (; i < n; ++i) {
        const float value = fa_reverb_limit(left[i], clip);
        heard[i] = both ? (value + fa_reverb_limit(right[i], clip)) * 0.5f : value;
    }
}

// Asks for the memory of the next block's input, and of this block's output unless that goes past the caches: into the
// second cache, as the first one is full of delay lines.
FA_HD void fetch(const Unit& unit, long long start, int n, bool past) {
    for (int channel = 0; channel < unit.channels; ++channel) {
        const float *next = unit.in[channel] + start + n, *out = unit.out[channel] + start;
        for (int i = 0; i < n; i += kReverbLanes) {
            __builtin_prefetch(next + i, 0, 2);
            if (!past) __builtin_prefetch(out + i, 0, 2);
        }
    }
}

// One output channel of a whole number of vectors. in and out may be the same.
template <class Vector>
FA_HD void mix(const Unit& unit, int channel, const float (*wet)[kReverbBlock], const float* in, float* out, int n,
               Flags flags) {
    for (int i = 0; i < n; i += kReverbWidth<Vector>) {
        const Vector dry = flags.wet_only ? Vector{} : fa_reverb_limit(fa_load<Vector>(in + i), flags.clip);
        const Vector wet0 = fa_load<Vector>(wet[0] + i), wet1 = fa_load<Vector>(wet[unit.sides - 1] + i);
        fa_store(out + i, fa_reverb_output(unit.mode, channel, dry, wet0, wet1, flags.clip));
    }
}

// A copy past the caches. Rows of odd length start anywhere: what lies before and behind whole cache lines is stored.
template <class Vector>
FA_HD void stream(const float* from, float* to, int n) {
    constexpr int kWidth = kReverbWidth<Vector>;
    const int head = static_cast<int>((0 - reinterpret_cast<uintptr_t>(to)) % 64 / sizeof(float));
    int i = std::min(head, n);
    memcpy(to, from, sizeof(float) * static_cast<size_t>(i));
    if constexpr (kWidth > 1) {  // a lane by itself has no such store
        for (; i + kWidth <= n; i += kWidth) fa_stream(to + i, fa_load<Vector>(from + i));
    }
    memcpy(to + i, from + i, sizeof(float) * static_cast<size_t>(n - i));
}

template <class Vector, int kPhases>
FA_HD void reverb_unit(const Unit& unit, Side* sides, const FaReverbCoefficients& c, long long length, Flags flags) {
    constexpr int kWhole = kReverbLanes * kPhases;
    alignas(64) float heard[kReverbBlock] = {}, wet[2][kReverbBlock], cut[kReverbBlock] = {};
    const FaDamping<Vector, kPhases> damping(c.damping, c.feedback);
    const bool heard_apart = unit.mode == kReverbPair || unit.mode == kReverbMixed;
    for (long long start = 0; start < length; start += kReverbBlock) {
        const int n = static_cast<int>(std::min<long long>(kReverbBlock, length - start));
        const int whole = (n + kWhole - 1) / kWhole * kWhole;
        fetch(unit, start, n, flags.past);
        for (int s = 0; s < unit.sides; ++s) {
            if (s == 0 || heard_apart) hear<Vector>(unit, s, heard, start - c.pre_delay, n, flags.clip);
            fa_reverb_combs(sides[s].combs, sides[s].carry, heard, wet[s], whole, damping);
            fa_reverb_allpasses<Vector>(sides[s].allpasses, wet[s], whole, c.wet_gain);
        }
        for (int channel = 0; channel < unit.channels; ++channel) {
            const float* in = unit.in[channel] + start;
            float* out = unit.out[channel] + start;
            if (n == whole && !flags.past) {
                mix<Vector>(unit, channel, wet, in, out, n, flags);
            } else if (n == whole) {
                mix<Vector>(unit, channel, wet, in, cut, n, flags);
                stream<Vector>(cut, out, n);
            } else {
                memcpy(cut, in, sizeof(float) * static_cast<size_t>(n));
                mix<Vector>(unit, channel, wet, cut, cut, whole, flags);
                memcpy(out, cut, sizeof(float) * static_cast<size_t>(n));
            }
        }
    }
    if (flags.past) fa_streamed();
}

template <class Vector>
FA_HD void reverb_unit_lanes(const Unit& unit, Side* sides, const FaReverbCoefficients& c, long long length,
                             Flags flags, int phases) {
    if (phases == 4) {
        reverb_unit<Vector, 4>(unit, sides, c, length, flags);
    } else {
        reverb_unit<Vector, 1>(unit, sides, c, length, flags);
    }
}

FA_BY_WIDTH(reverb_unit,
            (const Unit& unit, Side* sides, const FaReverbCoefficients& c, long long length, Flags flags, int phases),
            (unit, sides, c, length, flags, phases))

// Silent delay lines for the unit, in this thread's storage. Returns how many phases the combs' rings have: as many as
// vectors of them fit into the shortest delay, or 0 if not even one fits.
int prepare(Side* sides, const Unit& unit, const FaReverbSettings& settings, double rate) {
    static thread_local std::vector<float> storage;
    int delays[2][kReverbLines], comb = 4 * kReverbLanes, allpass = kReverbLanes;
    for (int s = 0; s < unit.sides; ++s) {
        for (int i = 0; i < kReverbLines; ++i) {
            delays[s][i] = fa_reverb_delay(i, unit.mode == kReverbPair ? 0 : s, settings, rate);
            int& shortest = i < kReverbCombs ? comb : allpass;
            shortest = std::min(shortest, delays[s][i]);
        }
    }
    const bool vectors = comb >= kReverbLanes && allpass >= kReverbLanes;
    const int phases = vectors && comb >= 4 * kReverbLanes ? 4 : 1;
    float* next = nullptr;
    for (int pass = 0; pass < 2; ++pass) {
        size_t size = 0;
        for (int s = 0; s < unit.sides; ++s) {
            size += sides[s].combs.lay_out(delays[s], phases, next ? next + size : nullptr);
            size += sides[s].allpasses.lay_out(delays[s] + kReverbCombs, 1, next ? next + size : nullptr);
            memset(sides[s].carry, 0, sizeof sides[s].carry);
        }
        if (pass == 1) break;
        storage.assign(size + kReverbLanes, 0.0f);
        const size_t misplaced = reinterpret_cast<uintptr_t>(storage.data()) / sizeof(float) % kReverbLanes;
        next = storage.data() + (kReverbLanes - misplaced) % kReverbLanes;
    }
    return vectors ? phases : 0;
}

// A unit whose clip ends before the first comb answers.
void dry_unit(const Unit& unit, long long length, Flags flags) {
    static const float silence[2][kReverbBlock] = {};
    for (long long start = 0; start < length; start += kReverbBlock) {
        const int n = static_cast<int>(std::min<long long>(kReverbBlock, length - start));
        for (int channel = 0; channel < unit.channels; ++channel)
            mix<float>(unit, channel, silence, unit.in[channel] + start, unit.out[channel] + start, n, flags);
    }
}

void reverb_row(const float* in, float* out, const float* p, long long channels, long long length, double rate,
                Flags flags, int adjoint) {
    const FaReverbSettings s = {p[0], p[1], p[2], channels > 2 ? 0.0f : p[3], p[4], p[5]};
    const FaReverbCoefficients c = fa_reverb_coefficients(s, rate);
    if (in == out && c.pre_delay > 0) {  // what is heard late must not have been overwritten
        static thread_local std::vector<float> kept;
        kept.assign(in, in + channels * length);
        in = kept.data();
    }
    for (long long channel = 0; channel < channels; channel += 2) {
        const bool two = channel + 1 < channels;
        const int mode = fa_reverb_mode(s.stereo_depth > 0.0f, two, adjoint);
        const float* first = in + channel * length;
        float* target = out + channel * length;
        const Unit unit = {{first, first + two * length},
                           {target, target + two * length},
                           1 + two,
                           mode == kReverbSingle ? 1 : 2,
                           mode};
        if (length <= fa_reverb_delay(0, 0, s, rate) + c.pre_delay) {  // no delay is shorter than this one
            dry_unit(unit, length, flags);
            continue;
        }
        Side sides[2];
        if (const int phases = prepare(sides, unit, s, rate)) {
            reverb_unit(unit, sides, c, length, flags, phases);
        } else {
            reverb_unit<float, 1>(unit, sides, c, length, flags);
        }
    }
}

}  // namespace

void fa_reverb(const float* x, float* y, const float* settings, const unsigned char* active, long long rows,
               long long channels, long long length, double rate, int wet_only, int clip, int adjoint,
               long long threads) {
    const bool past = x != y && fa::past_caches(rows * channels * length, threads);
    fa::parallel_rows(rows, threads, [&](long long row) {
        const long long offset = row * channels * length;
        if (!active || active[row]) {
            reverb_row(x + offset, y + offset, settings + 6 * row, channels, length, rate, {wet_only, clip, past},
                       adjoint);
        } else if (x != y) {
            std::copy(x + offset, x + offset + channels * length, y + offset);
        }
    });
}
