// CPU only: function multiversioning and GNU vector types.
#pragma once

#include "fa_compat.h"

// Vectors go by value between always inlined functions only, so their calling convention does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"

// Put FA_CLONES before a function whose loops should be compiled for AVX-512, AVX2 with FMA, and the baseline, chosen
// at load time. Its callees must be always_inline (FA_HD) to be cloned with it. Results do not depend on the choice, as
// -ffp-contract=off keeps every clone from fusing what fa_fma does not name. Only GCC on x86-64 ELF has the dispatcher
// we rely on. A comma would separate two clones there, hence the architecture level; before GCC 12, which knows none,
// "fma" (256-bit floats, 128-bit integers).
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define FA_CLONES __attribute__((target_clones("avx512f", "arch=x86-64-v3", "default")))
#else
#define FA_CLONES __attribute__((target_clones("avx512f", "fma", "default")))
#endif
#else
#define FA_CLONES
#endif

// Vectors of 16 to 64 bytes on any target: the compiler splits them into what the machine has.
typedef float fa_float4 __attribute__((vector_size(16)));
typedef float fa_float8 __attribute__((vector_size(32)));
typedef float fa_float16 __attribute__((vector_size(64)));
typedef double fa_double2 __attribute__((vector_size(16)));
typedef double fa_double4 __attribute__((vector_size(32)));
typedef double fa_double8 __attribute__((vector_size(64)));
typedef int32_t fa_int4 __attribute__((vector_size(16)));
typedef int32_t fa_int8 __attribute__((vector_size(32)));

#if defined(__clang__)
#define FA_SHUFFLE_FOUR(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define FA_SHUFFLE_FOUR(a, b, i, j, k, l) __builtin_shuffle(a, b, fa_int4{i, j, k, l})
#endif

// A tile of 4 x 4 floats. Larger ones from these: the shuffles of wider vectors cost as much for a number.
FA_HD void fa_transpose_four(fa_float4* r) {
    const fa_float4 low = FA_SHUFFLE_FOUR(r[0], r[1], 0, 4, 1, 5), high = FA_SHUFFLE_FOUR(r[0], r[1], 2, 6, 3, 7);
    const fa_float4 low2 = FA_SHUFFLE_FOUR(r[2], r[3], 0, 4, 1, 5), high2 = FA_SHUFFLE_FOUR(r[2], r[3], 2, 6, 3, 7);
    r[0] = FA_SHUFFLE_FOUR(low, low2, 0, 1, 4, 5), r[1] = FA_SHUFFLE_FOUR(low, low2, 2, 3, 6, 7);
    r[2] = FA_SHUFFLE_FOUR(high, high2, 0, 1, 4, 5), r[3] = FA_SHUFFLE_FOUR(high, high2, 2, 3, 6, 7);
}

// columns (count, kRows) from rows of `count` floats, a multiple of 4, in kRows stretches of memory, times `scale`
// (count) if there is one: a cache line of each row at a time.
template <int kRows, bool kScaled = false>
FA_HD void fa_side_by_side(const float* const* rows, long long count, float* columns, const float* scale = nullptr) {
    for (long long line = 0; line < count; line += 16) {
        const long long end = fa_min<long long>(line + 16, count);
        for (int r = 0; r < kRows; r += 4) {
            const float* row[4] = {rows[r], rows[r + 1], rows[r + 2], rows[r + 3]};
            for (long long n = line; n < end; n += 4) {
                fa_float4 tile[4], factor;
                if constexpr (kScaled) memcpy(&factor, scale + n, sizeof factor);
                FA_UNROLL(4)
                for (int i = 0; i < 4; ++i) {
                    memcpy(&tile[i], row[i] + n, sizeof tile[i]);
                    if constexpr (kScaled) tile[i] = tile[i] * factor;
                }
                fa_transpose_four(tile);
                FA_UNROLL(4)
                for (int i = 0; i < 4; ++i) memcpy(columns + (n + i) * kRows + r, &tile[i], sizeof tile[i]);
            }
        }
    }
}

// A tile of 8 x 8 floats, in functions that FA_BY_WIDTH makes.
FA_HD void fa_transpose_eight(fa_float8* r) {
#if defined(__clang__)
#define FA_SHUFFLE_EIGHT(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FA_SHUFFLE_EIGHT(a, b, ...) __builtin_shuffle(a, b, fa_int8{__VA_ARGS__})
#endif
    fa_float8 t[8], u[8];
    FA_UNROLL(4) for (int i = 0; i < 4; ++i) {
        t[i] = FA_SHUFFLE_EIGHT(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        t[i + 4] = FA_SHUFFLE_EIGHT(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    FA_UNROLL(4) for (int i = 0; i < 8; i += 2) {
        u[i] = FA_SHUFFLE_EIGHT(t[i], t[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        u[i + 1] = FA_SHUFFLE_EIGHT(t[i], t[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    FA_UNROLL(2) for (int i = 0; i < 8; i += 4) {
        r[i] = FA_SHUFFLE_EIGHT(u[i], u[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        r[i + 1] = FA_SHUFFLE_EIGHT(u[i], u[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        r[i + 2] = FA_SHUFFLE_EIGHT(u[i + 1], u[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        r[i + 3] = FA_SHUFFLE_EIGHT(u[i + 1], u[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
#undef FA_SHUFFLE_EIGHT
}

// Four rows of `count` floats, a multiple of 4, from the first four of columns (count, kRows).
template <int kRows>
FA_HD void fa_four_below_another(const float* columns, long long count, float* const* rows) {
    for (long long n = 0; n < count; n += 4) {
        fa_float4 tile[4];
        FA_UNROLL(4)
        for (int i = 0; i < 4; ++i) memcpy(&tile[i], columns + (n + i) * kRows, sizeof tile[i]);
        fa_transpose_four(tile);
        FA_UNROLL(4)
        for (int i = 0; i < 4; ++i) memcpy(rows[i] + n, &tile[i], sizeof tile[i]);
    }
}

// Sixteen floats as one, two or four vectors. GCC keeps a vector that is wider than the machine's in memory, which
// costs five times the time: code over FaLanes<Piece> is compiled once for each width by FA_BY_WIDTH.
template <class Piece>
struct FaLanes {
    static constexpr int kPieces = 64 / sizeof(Piece);
    Piece piece[kPieces];
};

// a * b + c in every element, rounded once. GCC often turns the loop of fa_fused into scalar code, so on x86 the wide
// vectors name the instruction: they belong in functions that FA_BY_WIDTH makes (or that have target("fma") or
// target("avx512f,fma")), and are an error in others, as in the baseline clone of FA_CLONES. Vectors of 16 bytes are
// what x86 without FMA has: they multiply and add, where fa_fma would cost a call an element.
template <class Vector>
FA_HD Vector fa_fused(const Vector& a, const Vector& b, const Vector& c) {
    Vector result = {};
    for (unsigned i = 0; i < sizeof(Vector) / sizeof(a[0]); ++i) result[i] = fa_fma(a[i], b[i], c[i]);
    return result;
}

#if defined(__x86_64__) && !defined(__FMA__)
#define FA_FUSED_16_BYTES(a, b, c) (a * b + c)
#else
#define FA_FUSED_16_BYTES(a, b, c) fa_fused(a, b, c)
#endif
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target("avx512f,fma"))) void fa_declares_the_builtins();  // which GCC does where it meets the target
#define FA_FUSED(kind, a, b, c) __builtin_ia32_vfmadd##kind(a, b, c)
#define FA_FUSED_512(kind, a, b, c) __builtin_ia32_vfmadd##kind##512_mask(a, b, c, -1, 4)  // the current rounding
#else
#define FA_FUSED(kind, a, b, c) fa_fused(a, b, c)
#define FA_FUSED_512(kind, a, b, c) fa_fused(a, b, c)
#endif
#define FA_DEFINE_FMA(Vector, fused) \
    FA_HD Vector fa_fma(const Vector& a, const Vector& b, const Vector& c) { return fused; }
FA_DEFINE_FMA(fa_float4, FA_FUSED_16_BYTES(a, b, c))
FA_DEFINE_FMA(fa_double2, FA_FUSED_16_BYTES(a, b, c))
FA_DEFINE_FMA(fa_float8, FA_FUSED(ps256, a, b, c))
FA_DEFINE_FMA(fa_double4, FA_FUSED(pd256, a, b, c))
FA_DEFINE_FMA(fa_float16, FA_FUSED_512(ps, a, b, c))
FA_DEFINE_FMA(fa_double8, FA_FUSED_512(pd, a, b, c))

template <class Piece>
FA_HD FaLanes<Piece> fa_fma(const FaLanes<Piece>& a, const FaLanes<Piece>& b, const FaLanes<Piece>& c) {
    FaLanes<Piece> result;
    for (int i = 0; i < FaLanes<Piece>::kPieces; ++i) result.piece[i] = fa_fma(a.piece[i], b.piece[i], c.piece[i]);
    return result;
}

// value held within [-limit, limit]; a NaN stays. Selections would take twice the instructions of GCC.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
FA_HD fa_float4 fa_held(const fa_float4& value, const fa_float4& limit) {
    return __builtin_ia32_maxps(-limit, __builtin_ia32_minps(limit, value));  // of a NaN and a number: the second
}
FA_HD fa_float8 fa_held(const fa_float8& value, const fa_float8& limit) {
    return __builtin_ia32_maxps256(-limit, __builtin_ia32_minps256(limit, value));
}
FA_HD fa_float16 fa_held(const fa_float16& value, const fa_float16& limit) {
    const fa_float16 low = __builtin_ia32_minps512_mask(limit, value, value, -1, 4);
    return __builtin_ia32_maxps512_mask(-limit, low, low, -1, 4);
}
#endif
template <class Vector>
FA_HD Vector fa_held(const Vector& value, const Vector& limit) {
    return value > limit ? limit : value < -limit ? -limit : value;
}

// A store past the caches, to an address that is a multiple of the vector's size: what a pass writes beyond their size
// would first be read, and drive out what is still needed. fa_streamed() before another thread may look. As with fa_fma
// wide vectors belong in functions that FA_BY_WIDTH makes.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
FA_HD void fa_stream(float* to, const fa_float4& value) { __builtin_ia32_movntps(to, value); }
FA_HD void fa_stream(float* to, const fa_float8& value) { __builtin_ia32_movntps256(to, value); }
FA_HD void fa_stream(float* to, const fa_float16& value) { __builtin_ia32_movntps512(to, value); }
FA_HD void fa_streamed() { __builtin_ia32_sfence(); }
#else
template <class Vector>
FA_HD void fa_stream(float* to, const Vector& value) {
    memcpy(to, &value, sizeof value);
}
FA_HD void fa_streamed() {}
#endif

// Keeps a vector that was loaded in a register: GCC would load it for each of its uses, and loads are few.
template <class Vector>
FA_HD void fa_in_register(Vector& value) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    asm("" : "+v"(value));
#else
    (void)value;
#endif
}

// A number in every lane, by way of an array: GCC inserts element after element where it lowers vector arithmetic.
template <class Number>
FA_HD Number fa_splat(float value) {
    if constexpr (sizeof(Number) == sizeof(float)) {
        return value;
    } else {
        float all[sizeof(Number) / sizeof(float)];
        for (float& element : all) element = value;
        Number result;
        memcpy(&result, all, sizeof result);
        return result;
    }
}

// Bits of the widest vectors that FA_BY_WIDTH and others who ask use: what the machine has, or less if the environment
// says so when the first of them is called, FASTAUG_SIMD=avx2 or sse (so that a test may run what an older machine
// would).
#if defined(__x86_64__) && defined(__GNUC__)
inline int fa_vector_bits() {
    static const int bits = [] {
        const char* asked = getenv("FASTAUG_SIMD");
        const bool sse = asked && strcmp(asked, "sse") == 0, avx2 = asked && strcmp(asked, "avx2") == 0;
        if (__builtin_cpu_supports("avx512f") && !sse && !avx2) return 512;
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && !sse ? 256 : 128;
    }();
    return bits;
}
#endif

// Defines `name` (a function without result) from the always inlined template<class Piece> name_lanes: three clones as
// those of FA_CLONES, each with its own width; the wide ones have FMA.
#if defined(__x86_64__) && defined(__GNUC__)
#define FA_BY_WIDTH(name, parameters, arguments)                                                                 \
    __attribute__((target("avx512f,fma"))) void name##_avx512 parameters { name##_lanes<fa_float16> arguments; } \
    __attribute__((target("avx2,fma"))) void name##_avx2 parameters { name##_lanes<fa_float8> arguments; }       \
    void name##_sse parameters { name##_lanes<fa_float4> arguments; }                                            \
    void name parameters {                                                                                       \
        static auto* const widest_usable = fa_vector_bits() == 512   ? name##_avx512                             \
                                           : fa_vector_bits() == 256 ? name##_avx2                               \
                                                                     : name##_sse;                               \
        widest_usable arguments;                                                                                 \
    }
#else
#define FA_BY_WIDTH(name, parameters, arguments) \
    void name parameters { name##_lanes<fa_float4> arguments; }
#endif
