// CPU only: function multiversioning and GNU vector types.
#pragma once

#include "fa_compat.h"

// Put FA_CLONES before a function whose loops should be compiled for AVX-512, AVX2 and the baseline, chosen at load
// time. Its callees must be always_inline (FA_HD) to be cloned with it. Results do not depend on the choice:
// -ffp-contract=off keeps the clone with FMA from fusing. Only GCC on x86-64 ELF has the dispatcher we rely on.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FA_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FA_CLONES
#endif

// Sixteen floats as one, two or four vectors. GCC keeps a vector that is wider than the machine's in memory, which
// costs five times the time: code over FaLanes<Piece> is compiled once for each width by FA_BY_WIDTH.
typedef float fa_float16 __attribute__((vector_size(64)));
typedef float fa_float4 __attribute__((vector_size(16)));

template <class Piece>
struct FaLanes {
    static constexpr int kPieces = 64 / sizeof(Piece);
    Piece piece[kPieces];
};

// Defines `name` (a function without result) from the always inlined template<class Piece> name_lanes: three clones as
// those of FA_CLONES, each with its own width.
#if defined(__x86_64__) && defined(__GNUC__)
#define FA_BY_WIDTH(name, parameters, arguments)                                                             \
    __attribute__((target("avx512f"))) void name##_avx512 parameters { name##_lanes<fa_float16> arguments; } \
    __attribute__((target("avx2"))) void name##_avx2 parameters { name##_lanes<fa_float8> arguments; }       \
    void name##_sse parameters { name##_lanes<fa_float4> arguments; }                                        \
    void name parameters {                                                                                   \
        static auto* const widest_usable = __builtin_cpu_supports("avx512f") ? name##_avx512                 \
                                           : __builtin_cpu_supports("avx2")  ? name##_avx2                   \
                                                                             : name##_sse;                   \
        widest_usable arguments;                                                                             \
    }
#else
#define FA_BY_WIDTH(name, parameters, arguments) \
    void name parameters { name##_lanes<fa_float4> arguments; }
#endif

// Eight floats / doubles in one value, on any target (the compiler splits them into what the machine has).
typedef float fa_float8 __attribute__((vector_size(32)));
typedef double fa_double8 __attribute__((vector_size(64)));
typedef int32_t fa_int8 __attribute__((vector_size(32)));
