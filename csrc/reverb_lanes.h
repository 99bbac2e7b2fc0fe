// Reverb's filters on vectors (CPU). A delay line is kept as kPhases interleaved rings: sample kPhases * L + j is
// number L of ring j, and a vector holds one phase of consecutive segments L, L + 1, ... So the combs' damping runs
// along a segment as one vector operation a sample, and only once a segment across the lanes.
#pragma once

#include <algorithm>
#include <utility>

#include "fa_simd.h"
#include "reverb.h"

constexpr int kReverbLanes = 16;  // of the widest vector; rings are multiples of it
constexpr int kReverbBlock = 1024;

template <class Vector>
constexpr int kReverbWidth = sizeof(Vector) / sizeof(float);

template <class Vector>
FA_HD Vector fa_load(const float* from) {
    Vector value;
    memcpy(&value, from, sizeof value);
    return value;
}

template <class Vector>
FA_HD void fa_store(float* to, const Vector& value) {
    memcpy(to, &value, sizeof value);
}

// The lanes kLane... of a (0 to width - 1) and b (width to 2 * width - 1).
template <class Vector, int... kLane>
FA_HD Vector fa_pick(const Vector& a, const Vector& b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, kLane...);
#else
    typedef int32_t Index __attribute__((vector_size(sizeof(Vector))));
    return __builtin_shuffle(a, b, Index{kLane...});
#endif
}

template <int kBy, class Vector, int... kLane>
FA_HD Vector fa_shifted(const Vector& before, const Vector& now, std::integer_sequence<int, kLane...>) {
    if constexpr (sizeof...(kLane) == 1) {
        return before;
    } else {
        return fa_pick<Vector, (static_cast<int>(sizeof...(kLane)) - kBy + kLane)...>(before, now);
    }
}

// The numbers kBy lanes before those of `now`, which follow those of `before`.
template <int kBy, class Vector>
FA_HD Vector fa_shifted(const Vector& before, const Vector& now) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    if constexpr (sizeof(Vector) == 64) {  // needs no register for indices, and spoils none
        typedef int32_t Whole __attribute__((vector_size(64)));
        return (Vector)__builtin_ia32_alignd512_mask((Whole)now, (Whole)before, 16 - kBy, (Whole)now, -1);
    }
#endif
    return fa_shifted<kBy>(before, now, std::make_integer_sequence<int, kReverbWidth<Vector>>());
}

template <class Vector, int... kLane>
FA_HD void fa_zip(Vector& a, Vector& b, std::integer_sequence<int, kLane...>) {
    constexpr int kWidth = sizeof...(kLane);
    const Vector low = fa_pick<Vector, (kLane / 2 + kLane % 2 * kWidth)...>(a, b);
    b = fa_pick<Vector, (kWidth / 2 + kLane / 2 + kLane % 2 * kWidth)...>(a, b);
    a = low;
}

template <class Vector, int... kLane>
FA_HD void fa_unzip(Vector& a, Vector& b, std::integer_sequence<int, kLane...>) {
    const Vector even = fa_pick<Vector, (2 * kLane)...>(a, b);
    b = fa_pick<Vector, (2 * kLane + 1)...>(a, b);
    a = even;
}

// Samples one after another as phases: the first of all segments, the second ... And back.
template <class Vector>
FA_HD void fa_reverb_to_phases(Vector (&)[1]) {}

template <class Vector>
FA_HD void fa_reverb_from_phases(Vector (&)[1]) {}

template <class Vector>
FA_HD void fa_reverb_to_phases(Vector (&v)[4]) {
    const std::make_integer_sequence<int, kReverbWidth<Vector>> lanes;
    fa_unzip(v[0], v[1], lanes), fa_unzip(v[2], v[3], lanes);
    fa_unzip(v[0], v[2], lanes), fa_unzip(v[1], v[3], lanes);
}

template <class Vector>
FA_HD void fa_reverb_from_phases(Vector (&v)[4]) {
    const std::make_integer_sequence<int, kReverbWidth<Vector>> lanes;
    fa_zip(v[0], v[2], lanes), fa_zip(v[1], v[3], lanes);
    fa_zip(v[0], v[1], lanes), fa_zip(v[2], v[3], lanes);
}

// Delay lines that are written side by side: rings of one capacity, in segments. A ring is followed by a copy of its
// first vector, so that vectors may be read across its end.
template <int kCount>
struct FaRings {
    float* ring[kCount];           // phase 0; the others follow at distances of `stride`
    const float* past[kCount][4];  // where sample 0 of phase j would be read, were it not `lead` ahead of the writing
    int lead[kCount];
    int capacity, write, phases, stride;

    // Takes room from `next`, or only counts it where that is null.
    size_t lay_out(const int* delays, int phases_, float* next) {
        phases = phases_;
        write = 0;
        capacity = 0;
        for (int i = 0; i < kCount; ++i) {
            capacity = std::max(capacity, (delays[i] / phases / kReverbLanes + 1) * kReverbLanes);
        }
        stride = capacity + kReverbLanes;
        const size_t size = static_cast<size_t>(stride) * static_cast<size_t>(phases);
        for (int i = 0; next && i < kCount; ++i) {
            ring[i] = next + i * size;
            lead[i] = capacity - delays[i] / phases;
            for (int j = 0; j < phases; ++j) {
                const int from = j - delays[i] % phases;
                past[i][j] = ring[i] + (from < 0 ? (from + phases) * stride - 1 : from * stride);
            }
        }
        return kCount * size;
    }

    // From 1 to the capacity, as a phase that wraps into the segment before is read one number earlier.
    FA_HD int read(int i) const {
        const int at = write + lead[i];
        return at <= capacity ? at : at - capacity;
    }

    // How many numbers there are from `write` on, of n, before a ring that is read or written ends, or the first vector
    // has to be copied.
    FA_HD int run(int width, int n) const {
        int count = write == 0 ? width : std::min(n, capacity - write);
        for (int i = 0; i < kCount; ++i) count = std::min(count, (capacity - read(i)) / width * width + width);
        return count;
    }

    // After `count` numbers from `write` on have been stored, of each phase: the copy, and on to the next ones.
    template <class Vector>
    FA_HD void advance(int count) {
        if (write == 0) {
            for (float* numbers : ring) {
                for (int j = 0; j < phases; ++j, numbers += stride) {
                    fa_store(numbers + capacity, fa_load<Vector>(numbers));
                }
            }
        }
        write += count;
        write = write < capacity ? write : 0;
    }
};

// What lies before a tile: `value` in the last lane, zeros in the others.
template <class Vector>
FA_HD Vector fa_in_last_lane(float value) {
    if constexpr (kReverbWidth<Vector> == 1) {
        return value;
    } else {
        typedef int32_t Whole __attribute__((vector_size(sizeof(Vector))));
        Whole last = {};
        last[kReverbWidth<Vector> - 1] = -1;
        return (Vector)((Whole)(Vector{} + value) & last);
    }
}

template <class Vector>
FA_HD float fa_last_lane(const Vector& value) {
    if constexpr (kReverbWidth<Vector> == 1) {
        return value;
    } else {
        return fa_shifted<1>(value, Vector{})[0];
    }
}

// The damping d of all combs, the one-pole low-pass s[n] = x[n] + d (s[n-1] - x[n]), and the feedback behind it: one
// multiply-add each on t = s / (1 - d). The recursion runs along each segment from t = 0 before it; what that leaves
// out is t there, times d, d^2 ...
//
// At 0 Hz the longest reverberation adds up fifty times what feedback * (1 - d) is off by when rounded, relative to
// 1 - d. So d moves by up to 4 units in its last place to where that is least.
template <class Vector, int kPhases>
struct FaDamping {
    static constexpr int levels() {  // of the scan: less than 0.5 ^ 32 is left out
        int count = 0;
        while ((1 << count) < kReverbWidth<Vector> && (kPhases << count) < 32) ++count;
        return count;
    }
    static constexpr int kLevels = levels();
    Vector input, pole[kPhases], power[kLevels + 1];  // the feedback, d ^ (1, 2, ...), d ^ (kPhases (1, 2, 4, ...))

    FA_HD FaDamping(float d, float feedback) {
        float moved_d = d, gain = 0.0f;
        double least = 1.0;
        for (int step = -4; step <= 4; ++step) {
            const float moved = fa_bits_to_float(fa_float_to_bits(d) + static_cast<uint32_t>(step));
            const double rest = 1.0 - static_cast<double>(moved), wanted = static_cast<double>(feedback) * rest;
            const double error = fabs(static_cast<double>(static_cast<float>(wanted)) - wanted) / rest;
            if (error < least) least = error, moved_d = moved, gain = static_cast<float>(wanted);
        }
        input = Vector{} + gain;
        double value = 1.0;
        for (Vector& p : pole) {
            value *= static_cast<double>(moved_d);
            p = Vector{} + static_cast<float>(value);
        }
        for (Vector& p : power) {
            p = Vector{} + static_cast<float>(value);
            value *= value;
        }
    }

    // t at the end of each lane's segment, from what it would be had it been 0 before: sum over k of
    // d^(k kPhases) part[L - k], in doubling steps. past: t before the first segment, in the last lane.
    template <int kLevel = 0>
    FA_HD Vector carried(const Vector& part, const Vector& past) const {
        if constexpr (kLevel < kLevels) {
            const Vector& factor = kLevel == 0 ? pole[kPhases - 1] : power[kLevel];  // the same: one register less
            return carried<kLevel + 1>(fa_fma(factor, fa_shifted<(1 << kLevel)>(past, part), part), past);
        } else {
            return part;
        }
    }
};

// One tile of a comb: a vector of segments.
template <class Vector, int kPhases>
struct FaCombTile {
    Vector t[kPhases];

    // The first half: t, but for what lies before each segment.
    FA_HD void start(const FaRings<kReverbCombs>& rings, int k, const FaDamping<Vector, kPhases>& damping,
                     Vector* sum) {
        const int read = rings.read(k);
        for (int j = 0; j < kPhases; ++j) {
            const Vector out = fa_load<Vector>(rings.past[k][j] + read);
            sum[j] += out;
            t[j] = j == 0 ? out : fa_fma(damping.pole[0], t[j - 1], out);
        }
    }

    // The second half: the true t, and what returns. carry: t at the end of the last tile.
    FA_HD void finish(const FaRings<kReverbCombs>& rings, int k, const FaDamping<Vector, kPhases>& damping,
                      float* carry, const Vector* input) {
        float* const to = rings.ring[k] + rings.write;
        const int stride = rings.stride;
        const Vector past = fa_in_last_lane<Vector>(carry[k]);
        const Vector before = fa_shifted<1>(past, damping.carried(t[kPhases - 1], past));
        for (int j = 0; j < kPhases; ++j) t[j] = fa_fma(damping.pole[j], before, t[j]);
        carry[k] = fa_last_lane(t[kPhases - 1]);
        for (int j = 0; j < kPhases; ++j) fa_store(to + j * stride, fa_fma(damping.input, t[j], input[j]));
    }
};

// The eight combs, n samples: wet becomes the sum of their (undamped) outputs. carry: a number for each.
// A comb's second half comes after the next one's first half: each is a chain of operations that wait for another.
template <class Vector, int kPhases>
FA_HD void fa_reverb_combs(FaRings<kReverbCombs>& rings, float* carry, const float* x, float* wet, int n,
                           const FaDamping<Vector, kPhases>& given) {
    constexpr int kWidth = kReverbWidth<Vector>;
    const FaDamping<Vector, kPhases> damping = given;  // our own, which no store can change: in registers
    for (int i = 0; i < n; i += kWidth * kPhases) {
        Vector input[kPhases], sum[kPhases] = {};
        for (int j = 0; j < kPhases; ++j) input[j] = fa_load<Vector>(x + i + j * kWidth);
        fa_reverb_to_phases(input);
        FaCombTile<Vector, kPhases> tile[kReverbCombs];
        FA_UNROLL(9) for (int k = 0; k <= kReverbCombs; ++k) {
            if (k < kReverbCombs) tile[k].start(rings, k, damping, sum);
            if (k > 0) tile[k - 1].finish(rings, k - 1, damping, carry, input);
        }
        fa_reverb_from_phases(sum);
        for (int j = 0; j < kPhases; ++j) fa_store(wet + i + j * kWidth, sum[j]);
        rings.template advance<Vector>(kWidth);
    }
}

// The four allpasses in series and the gain, in place, on n samples one after another: in runs without a ring's end,
// so that where to read and write stays in registers.
template <class Vector>
FA_HD void fa_reverb_allpasses(FaRings<kReverbAllpasses>& rings, float* wet, int n, float wet_gain) {
    constexpr int kWidth = kReverbWidth<Vector>;
    const Vector half = Vector{} + 0.5f, gain = Vector{} + wet_gain;
    for (float* const end = wet + n; wet < end;) {
        const int run = rings.run(kWidth, static_cast<int>(end - wet));
        const float* from[kReverbAllpasses];
        float* to[kReverbAllpasses];
        for (int k = 0; k < kReverbAllpasses; ++k) {
            from[k] = rings.ring[k] + rings.read(k);
            to[k] = rings.ring[k] + rings.write;
        }
        for (int i = 0; i < run; i += kWidth) {
            Vector value = fa_load<Vector>(wet + i);
            FA_UNROLL(4) for (int k = 0; k < kReverbAllpasses; ++k) {
                const Vector out = fa_load<Vector>(from[k] + i);
                fa_store(to[k] + i, fa_fma(half, out, value));
                value = out - value;
            }
            fa_store(wet + i, value * gain);
        }
        wet += run;
        rings.template advance<Vector>(run);
    }
}
