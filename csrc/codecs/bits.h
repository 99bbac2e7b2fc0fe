// Bits of a byte string, the most significant first. Past the end stand zeros; memory outside [data, data + size) is
// never touched on the CPU. A reader on a GPU may load up to 8 bytes past the end: the caller pads (decode.md, §5).
#pragma once

#include "../fa_compat.h"

// A function that is kept out of the loops that call it. Give it a copy of the reader: a reader whose address is taken
// lives in memory, not in registers.
#if FA_CUDA
#define FA_HD_COLD __host__ __device__ __noinline__
#else
#define FA_HD_COLD inline __attribute__((noinline, cold))
#endif

#if FA_CUDA
#define FA_UNLIKELY(condition) (condition)
#else
#define FA_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#endif

// Leading zeros; `x` must not be 0.
FA_HD int fa_clz64(uint64_t x) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __clzll(static_cast<long long>(x));
#else
    return __builtin_clzll(x);
#endif
}

// Eight bytes at any address, the first on top.
FA_HD uint64_t fa_load64(const uint8_t* bytes) {
#if FA_CUDA
    const size_t odd = reinterpret_cast<size_t>(bytes) & 3;
    const uint32_t* words = reinterpret_cast<const uint32_t*>(bytes - odd);
    uint64_t value = 0;
    for (int i = 0; i < 2; ++i) {
        const uint64_t pair = FA_LD(words + i) | static_cast<uint64_t>(odd ? FA_LD(words + i + 1) : 0) << 32;
        const uint32_t word = static_cast<uint32_t>(pair >> 8 * odd);
        const uint32_t turned = word >> 24 | (word >> 8 & 0xFF00) | (word << 8 & 0xFF0000) | word << 24;
        value = value << 32 | turned;
    }
    return value;
#else
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
#endif
}

struct FaBits {
    const uint8_t* data;
    long long size;   // bytes
    long long at;     // the byte that enters the window next
    uint64_t window;  // left aligned: `count` bits to be read, behind them more of the stream, or zeros
    int count;        // 56 to 63 after a refill
};

FA_HD uint64_t fa_bits_tail(const FaBits& bits) {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) {
        const long long at = bits.at + i;
        value = value << 8 | (at < bits.size ? FA_LD(bits.data + at) : 0);
    }
    return value;
}

// Giesen's fourth variant ("Reading bits in far too many ways", 2018): what is behind the counted bits is read again.
FA_HD void fa_bits_refill(FaBits& bits) {
    const bool whole = bits.at <= bits.size - 8;
    bits.window |= (whole ? fa_load64(bits.data + bits.at) : fa_bits_tail(bits)) >> bits.count;
    bits.at += (63 - bits.count) >> 3;
    bits.count |= 56;
}

FA_HD FaBits fa_bits_open(const uint8_t* data, long long size) {
    FaBits bits = {data, size, 0, 0, 0};
    fa_bits_refill(bits);
    return bits;
}

// Drops n bits, n <= count.
FA_HD void fa_bits_skip(FaBits& bits, int n) {
    bits.window <<= n;
    bits.count -= n;
}

// The next n bits, 0 <= n <= 56.
FA_HD uint64_t fa_bits_read(FaBits& bits, int n) {
    fa_bits_refill(bits);
    const uint64_t value = bits.window >> 1 >> (63 - n);
    fa_bits_skip(bits, n);
    return value;
}

// The same in two's complement; 0 bits are 0.
FA_HD int64_t fa_bits_read_signed(FaBits& bits, int n) {
    fa_bits_refill(bits);
    const int64_t value = n ? static_cast<int64_t>(bits.window) >> (64 - n) : 0;
    fa_bits_skip(bits, n);
    return value;
}

// Bits read so far, those past the end included.
FA_HD long long fa_bits_position(const FaBits& bits) { return bits.at * 8 - bits.count; }

FA_HD bool fa_bits_overrun(const FaBits& bits) { return fa_bits_position(bits) > bits.size * 8; }

// Drops the bits up to the next byte boundary.
FA_HD void fa_bits_align(FaBits& bits) { fa_bits_skip(bits, bits.count & 7); }

// Zeros before the next one, which is read too. -1 if there are more than `most`, or the data end.
FA_HD long long fa_bits_unary(FaBits& bits, long long most) {
    for (long long zeros = 0;;) {
        fa_bits_refill(bits);
        const int run = fa_clz64(bits.window | 1);
        const bool ends = run < bits.count;
        zeros += ends ? run : bits.count;
        fa_bits_skip(bits, ends ? run + 1 : bits.count);
        if (zeros > most || fa_bits_overrun(bits)) return -1;
        if (ends) return zeros;
    }
}
