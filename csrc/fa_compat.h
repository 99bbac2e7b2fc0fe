// What the shared headers need from the outside: integer types, attributes, rounding control. The only file in csrc/
// that includes anything under NVRTC, which has no standard headers at all (not even <cstdint>).
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define FA_CUDA 1
#else
#define FA_CUDA 0
#endif

#if defined(__CUDACC_RTC__)
typedef unsigned char uint8_t;
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef short int16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;  // not `long`: CuPy's bundled headers define it as `long long`
#else
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#endif

#if FA_CUDA
#define FA_HD __host__ __device__ __forceinline__
#else
#define FA_HD inline __attribute__((always_inline))
#endif

#define FA_RESTRICT __restrict__

// Before a loop of a fixed number of turns whose arrays shall live in registers.
#define FA_PRAGMA(text) _Pragma(#text)
#if FA_CUDA
#define FA_UNROLL(turns) FA_PRAGMA(unroll)
#else
#define FA_UNROLL(turns) FA_PRAGMA(GCC unroll turns)
#endif

// Memory accesses of a kernel to global memory. Plain reads and writes on a GPU; the emulator defines its own pair and
// counts the 32-byte sectors that each warp touches.
#ifndef FA_LD
#define FA_LD(pointer) (*(pointer))
#define FA_ST(pointer, value) (*(pointer) = (value))
#endif

// One dynamic shared-memory block per kernel, seen as an array of `type`.
#ifndef FA_DYNAMIC_SHARED
#define FA_DYNAMIC_SHARED(type, name)                           \
    extern __shared__ __align__(16) unsigned char fa_shared_[]; \
    type* name = reinterpret_cast<type*>(fa_shared_)
#endif

#define FA_PI 3.14159265358979323846

// Product and sum that no compiler may fuse. NVRTC contracts a * b + c by default and CuPy gives no way to stop it; the
// CPU build has -ffp-contract=off. Use them wherever both devices must take the same decision.
FA_HD float fa_mul(float a, float b) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

FA_HD float fa_add(float a, float b) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __fadd_rn(a, b);
#else
    return a + b;
#endif
}

FA_HD double fa_mul(double a, double b) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

FA_HD double fa_add(double a, double b) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __dadd_rn(a, b);
#else
    return a + b;
#endif
}

// a * b + c, rounded once whatever the setting of contraction: fused on GPUs, on arm64, and in the clones of fa_simd.h
// that have FMA. Other GCC code for x86 calls the C library (as exact, but slow); Clang has no clones there, so unless
// the whole build is for FMA it multiplies and adds. Not for decisions that both devices must take alike.
#if FA_CUDA && defined(__CUDA_ARCH__)
FA_HD float fa_fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FA_HD double fa_fma(double a, double b, double c) { return __fma_rn(a, b, c); }
#elif defined(__CUDACC_RTC__) || (defined(__clang__) && defined(__x86_64__) && !defined(__FMA__))
FA_HD float fa_fma(float a, float b, float c) { return a * b + c; }
FA_HD double fa_fma(double a, double b, double c) { return a * b + c; }
#else
FA_HD float fa_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FA_HD double fa_fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#endif

#if FA_CUDA
// The scalar face of fa_simd.h: code over vectors of any width runs on floats here.
template <class Number>
FA_HD Number fa_splat(float value) {
    return value;
}
#endif

// sin(pi x) and cos(pi x). CUDA's own need no stack for their argument reduction; hosts have none.
#if FA_CUDA && defined(__CUDA_ARCH__)
FA_HD double fa_sin_pi(double x) { return sinpi(x); }
FA_HD double fa_cos_pi(double x) { return cospi(x); }
#else
FA_HD double fa_sin_pi(double x) { return sin(FA_PI * (x - 2.0 * rint(0.5 * x))); }
FA_HD double fa_cos_pi(double x) { return cos(FA_PI * (x - 2.0 * rint(0.5 * x))); }
#endif

FA_HD float fa_bits_to_float(uint32_t bits) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

FA_HD double fa_bits_to_double(uint64_t bits) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __longlong_as_double(static_cast<long long>(bits));
#else
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

FA_HD uint32_t fa_float_to_bits(float value) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __float_as_uint(value);
#else
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

template <class T>
FA_HD T fa_min(T a, T b) {
    return b < a ? b : a;
}

template <class T>
FA_HD T fa_max(T a, T b) {
    return a < b ? b : a;
}

template <class T>
FA_HD T fa_clamp(T value, T low, T high) {
    return fa_min(fa_max(value, low), high);
}
