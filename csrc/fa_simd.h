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
typedef int32_t fa_int8 __attribute__((vector_size(32)));

// Sixteen floats as one, two or four vectors. GCC keeps a vector that is wider than the machine's in memory, which
// costs five times the time: code over FaLanes<Piece> is compiled once for each width by FA_BY_WIDTH.
template <class Piece>
struct FaLanes {
    static constexpr int kPieces = 64 / sizeof(Piece);
    Piece piece[kPieces];
};

// a * b + c in every element, rounded once. There is no portable vector builtin; GCC makes one vfmadd of the loop, but
// only while it is a loop: where it unrolls it first (operands that another loop carries), it multiplies one by one.
template <class Vector>
FA_HD Vector fa_fused(const Vector& a, const Vector& b, const Vector& c) {
    Vector result = {};
#if !defined(__clang__)
#pragma GCC unroll 1
#endif
    for (unsigned i = 0; i < sizeof(Vector) / sizeof(a[0]); ++i) result[i] = fa_fma(a[i], b[i], c[i]);
    return result;
}

// Vectors of 16 bytes are what x86 without FMA has: they multiply and add, where fa_fma would cost a call an element.
#if defined(__x86_64__) && !defined(__FMA__)
#define FA_FUSED_16_BYTES(a, b, c) (a * b + c)
#else
#define FA_FUSED_16_BYTES(a, b, c) fa_fused(a, b, c)
#endif
FA_HD fa_float4 fa_fma(const fa_float4& a, const fa_float4& b, const fa_float4& c) {
    return FA_FUSED_16_BYTES(a, b, c);
}
FA_HD fa_double2 fa_fma(const fa_double2& a, const fa_double2& b, const fa_double2& c) {
    return FA_FUSED_16_BYTES(a, b, c);
}
FA_HD fa_float8 fa_fma(const fa_float8& a, const fa_float8& b, const fa_float8& c) { return fa_fused(a, b, c); }
FA_HD fa_float16 fa_fma(const fa_float16& a, const fa_float16& b, const fa_float16& c) { return fa_fused(a, b, c); }
FA_HD fa_double4 fa_fma(const fa_double4& a, const fa_double4& b, const fa_double4& c) { return fa_fused(a, b, c); }
FA_HD fa_double8 fa_fma(const fa_double8& a, const fa_double8& b, const fa_double8& c) { return fa_fused(a, b, c); }

template <class Piece>
FA_HD FaLanes<Piece> fa_fma(const FaLanes<Piece>& a, const FaLanes<Piece>& b, const FaLanes<Piece>& c) {
    FaLanes<Piece> result;
    for (int i = 0; i < FaLanes<Piece>::kPieces; ++i) result.piece[i] = fa_fma(a.piece[i], b.piece[i], c.piece[i]);
    return result;
}

// Defines `name` (a function without result) from the always inlined template<class Piece> name_lanes: three clones as
// those of FA_CLONES, each with its own width.
#if defined(__x86_64__) && defined(__GNUC__)
#define FA_BY_WIDTH(name, parameters, arguments)                                                             \
    __attribute__((target("avx512f"))) void name##_avx512 parameters { name##_lanes<fa_float16> arguments; } \
    __attribute__((target("avx2,fma"))) void name##_avx2 parameters { name##_lanes<fa_float8> arguments; }   \
    void name##_sse parameters { name##_lanes<fa_float4> arguments; }                                        \
    void name parameters {                                                                                   \
        static auto* const widest_usable = __builtin_cpu_supports("avx512f") ? name##_avx512                 \
                                           : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") \
                                               ? name##_avx2                                                 \
                                               : name##_sse;                                                 \
        widest_usable arguments;                                                                             \
    }
#else
#define FA_BY_WIDTH(name, parameters, arguments) \
    void name parameters { name##_lanes<fa_float4> arguments; }
#endif
