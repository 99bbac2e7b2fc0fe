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

// Eight floats / doubles in one value, on any target (the compiler splits them into what the machine has).
typedef float fa_float8 __attribute__((vector_size(32)));
typedef double fa_double8 __attribute__((vector_size(64)));
typedef int32_t fa_int8 __attribute__((vector_size(32)));
