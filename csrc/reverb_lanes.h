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
constexpr int kReverbTwo = 2;  // combs at a time

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

// n samples, one after another, as phases: the first of all segments, the second ...; n / kPhases is a multiple of the
// width.
template <class Vector, int kPhases>
FA_HD void fa_reverb_to_phases(const float* x, float* phases, int n) {
    constexpr int kWidth = kReverbWidth<Vector>;
    const std::make_integer_sequence<int, kWidth> lanes;
    static_assert(kPhases == 4, "two rounds of unzipping");
    for (int i = 0; i < n; i += 4 * kWidth) {
        Vector v[4];
        for (int k = 0; k < 4; ++k) v[k] = fa_load<Vector>(x + i + k * kWidth);
        fa_unzip(v[0], v[1], lanes), fa_unzip(v[2], v[3], lanes);
        fa_unzip(v[0], v[2], lanes), fa_unzip(v[1], v[3], lanes);
        fa_store(phases + i / 4, v[0]), fa_store(phases + n / 4 + i / 4, v[1]);
        fa_store(phases + n / 2 + i / 4, v[2]), fa_store(phases + n / 4 * 3 + i / 4, v[3]);
    }
}

template <class Vector, int kPhases>
FA_HD void fa_reverb_from_phases(const float* phases, float* x, int n) {
    constexpr int kWidth = kReverbWidth<Vector>;
    const std::make_integer_sequence<int, kWidth> lanes;
    static_assert(kPhases == 4, "two rounds of zipping");
    for (int i = 0; i < n; i += 4 * kWidth) {
        Vector v[4];
        for (int k = 0; k < 4; ++k) v[k] = fa_load<Vector>(phases + n / 4 * k + i / 4);
        fa_zip(v[0], v[2], lanes), fa_zip(v[1], v[3], lanes);
        fa_zip(v[0], v[1], lanes), fa_zip(v[2], v[3], lanes);
        for (int k = 0; k < 4; ++k) fa_store(x + i + k * kWidth, v[k]);
    }
}

// Delay lines that are written side by side: rings of one capacity, in segments. A ring is followed by a copy of its
// first vector and preceded by a copy of its last number, so that vectors may be read across its end.
template <int kCount>
struct FaRings {
    float* ring[kCount];  // phase 0; the others follow at distances of `stride`
    int delay[kCount], read[kCount];
    int capacity, write, phases, stride;

    // Takes room from `next`, or only counts it where that is null.
    size_t lay_out(const int* delays, int phases_, float* next) {
        phases = phases_;
        write = 0;
        capacity = 0;
        for (int i = 0; i < kCount; ++i) {
            delay[i] = delays[i];
            capacity = std::max(capacity, (delay[i] / phases / kReverbLanes + 1) * kReverbLanes);
        }
        stride = capacity + 2 * kReverbLanes;
        const size_t size = static_cast<size_t>(stride) * static_cast<size_t>(phases);
        for (int i = 0; i < kCount; ++i) {
            read[i] = capacity - delay[i] / phases;
            ring[i] = next ? next + i * size + kReverbLanes : nullptr;
        }
        return kCount * size;
    }

    // Where line i's past of phase j is read, at read[i].
    FA_HD const float* past(int i, int j) const {
        const int from = j - delay[i] % phases;
        return ring[i] + (from < 0 ? (from + phases) * stride - 1 : from * stride);
    }

    // After the vectors at `write` have been stored: the copies, and on to the next ones. No delay is shorter than a
    // vector, so the last numbers are not read from their copy before the first ones have been written again.
    template <class Vector>
    FA_HD void advance() {
        constexpr int kWidth = kReverbWidth<Vector>;
        if (write == 0) {
            for (float* numbers : ring) {
                for (int j = 0; j < phases; ++j, numbers += stride) {
                    fa_store(numbers + capacity, fa_load<Vector>(numbers));
                    numbers[-1] = numbers[capacity - 1];
                }
            }
        }
        for (int& at : read) {
            at += kWidth;
            at = at < capacity ? at : at - capacity;
        }
        write += kWidth;
        write = write < capacity ? write : 0;
    }
};

// The damping d of all combs, the one-pole low-pass s[n] = x[n] + d (s[n-1] - x[n]), and the feedback behind it. Within
// a segment the recursion runs from s = x before it. What that leaves out is the deviation s - x there, times d, d^2
// ... : rounding vanishes with the deviation at low frequencies, where the feedback would add up fifty times its bias.
template <class Vector, int kPhases>
struct FaDamping {
    static constexpr int levels() {
        int count = 0;
        while ((1 << count) < kReverbWidth<Vector> && (kPhases << count) < 32) ++count;
        return count;
    }
    static constexpr int kLevels = levels();
    static constexpr bool kCarried = kReverbWidth<Vector> * kPhases < 32;  // else less than 0.5 ^ 32 is carried on
    Vector damping, feedback, power[kLevels + 1], returned[kPhases];

    FA_HD FaDamping(float d, float gain) {
        damping = Vector{} + d;
        feedback = Vector{} + gain;
        double value = 1.0;
        for (Vector& r : returned) {
            value *= static_cast<double>(d);
            r = Vector{} + static_cast<float>(static_cast<double>(gain) * value);
        }
        for (Vector& p : power) {
            p = Vector{} + static_cast<float>(value);
            value *= value;
        }
    }
};

// One comb's damping between vectors.
template <class Vector, int kPhases>
struct FaDamped {
    using Damping = FaDamping<Vector, kPhases>;
    Vector before[Damping::kLevels + 1];

    FA_HD explicit FaDamped(const float* memory) {
        for (int i = 0; i <= Damping::kLevels; ++i) before[i] = fa_load<Vector>(memory + i * kReverbLanes);
    }
    FA_HD void keep(float* memory) const {
        for (int i = 0; i <= Damping::kLevels; ++i) fa_store(memory + i * kReverbLanes, before[i]);
    }

    // The deviation at the ends of the segments before each lane's, from what it would be after each lane's segment had
    // it been 0 before: sum over k of d^(k kPhases) part[L - k], in doubling steps.
    template <int kLevel = 0>
    FA_HD Vector carried(const Damping& d, const Vector& part) {
        if constexpr (kLevel < Damping::kLevels) {
            const Vector sum = fa_fma(d.power[kLevel], fa_shifted<(1 << kLevel)>(before[kLevel], part), part);
            before[kLevel] = part;
            return carried<kLevel + 1>(d, sum);
        } else {
            const Vector last = before[kLevel];
            Vector ends = part;
            if constexpr (Damping::kCarried) ends = fa_fma(d.power[kLevel], last, part);
            before[kLevel] = ends;
            return fa_shifted<1>(last, ends);
        }
    }

    // feedback * (low-pass of x) + added, kPhases samples a lane. earlier: the sample before each segment.
    FA_HD void next(const Damping& d, const Vector* x, const Vector& earlier, const Vector* added, Vector* sum) {
        Vector state = earlier;
        for (int j = 0; j < kPhases; ++j) {
            state = fa_fma(d.damping, state - x[j], x[j]);
            sum[j] = fa_fma(d.feedback, state, added[j]);
        }
        const Vector deviation = carried(d, state - x[kPhases - 1]);
        for (int j = 0; j < kPhases; ++j) sum[j] = fa_fma(d.returned[j], deviation, sum[j]);
    }
};

// Numbers that a comb's damping remembers.
constexpr int kReverbMemory = 5 * kReverbLanes;

// Two combs, n samples; wet becomes their (undamped) outputs plus `added`. x, added and wet are in phases.
template <class Vector, int kPhases>
FA_HD void fa_reverb_combs(FaRings<kReverbTwo>& rings, float* memory, const float* x, const float* added, float* wet,
                           int n, const FaDamping<Vector, kPhases>& damping) {
    FaDamped<Vector, kPhases> first(memory), second(memory + kReverbMemory);
    const int segments = n / kPhases;
    const float *past0[kPhases], *past1[kPhases];
    for (int j = 0; j < kPhases; ++j) past0[j] = rings.past(0, j), past1[j] = rings.past(1, j);
    FaRings<kReverbTwo> at = rings;  // a copy: its fields stay in registers
    for (int i = 0; i < segments; i += kReverbWidth<Vector>) {
        Vector out0[kPhases], out1[kPhases], input[kPhases], sum[kPhases];
        for (int j = 0; j < kPhases; ++j) {
            out0[j] = fa_load<Vector>(past0[j] + at.read[0]);
            out1[j] = fa_load<Vector>(past1[j] + at.read[1]);
            input[j] = fa_load<Vector>(x + j * segments + i);
            const Vector outputs = fa_load<Vector>(added + j * segments + i) + (out0[j] + out1[j]);
            fa_store(wet + j * segments + i, outputs);
        }
        first.next(damping, out0, fa_load<Vector>(past0[kPhases - 1] + at.read[0] - 1), input, sum);
        for (int j = 0; j < kPhases; ++j) fa_store(at.ring[0] + j * at.stride + at.write, sum[j]);
        second.next(damping, out1, fa_load<Vector>(past1[kPhases - 1] + at.read[1] - 1), input, sum);
        for (int j = 0; j < kPhases; ++j) fa_store(at.ring[1] + j * at.stride + at.write, sum[j]);
        at.advance<Vector>();
    }
    rings = at;
    first.keep(memory);
    second.keep(memory + kReverbMemory);
}

// The four allpasses in series and the gain, in place, on n samples one after another.
template <class Vector>
FA_HD void fa_reverb_allpasses(FaRings<kReverbAllpasses>& rings, float* wet, int n, float wet_gain) {
    const Vector half = Vector{} + 0.5f;
    FaRings<kReverbAllpasses> at = rings;  // a copy: its fields stay in registers
    for (int i = 0; i < n; i += kReverbWidth<Vector>) {
        Vector value = fa_load<Vector>(wet + i);
        for (int k = 0; k < kReverbAllpasses; ++k) {
            const Vector out = fa_load<Vector>(at.ring[k] + at.read[k]);
            fa_store(at.ring[k] + at.write, fa_fma(half, out, value));
            value = out - value;
        }
        fa_store(wet + i, value * wet_gain);
        at.advance<Vector>();
    }
    rings = at;
}
