// Bits of a byte string for a GPU thread: one aligned 32-bit load for every 32 bits, issued two words ahead of its use.
// The same calls as FaBits of bits.h, but no read asks for more than 32 bits. What one code costs is a chain of a
// funnel shift, a count of zeros and a sum; a window of 64 bits would take twice as many operations, each on two
// registers.
#pragma once

#include "bits.h"

struct FaWords {
    const uint32_t* words;      // those that hold the string's first and last byte, and all between
    int at, size;               // the word that is loaded next, and how many there are: behind them stand zeros
    int used;                   // bits of `high` that have been read, 0 to 31
    uint32_t high, low, ahead;  // the words before `at`, the first byte on top
};

// Leading zeros; 32 of 0.
FA_HD int fa_clz32(uint32_t x) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __clz(static_cast<int>(x));
#else
    return x ? __builtin_clz(x) : 32;
#endif
}

FA_HD uint32_t fa_words_next(FaWords& bits) {
    const uint32_t word = bits.at < bits.size ? FA_LD(bits.words + bits.at) : 0;
    ++bits.at;
    return word >> 24 | (word >> 8 & 0xFF00) | (word << 8 & 0xFF0000) | word << 24;
}

// The next 32 bits.
FA_HD uint32_t fa_words_top(const FaWords& bits) {
#if FA_CUDA && defined(__CUDA_ARCH__)
    return __funnelshift_l(bits.low, bits.high, bits.used);
#else
    const uint64_t both = static_cast<uint64_t>(bits.high) << 32 | bits.low;
    return static_cast<uint32_t>(both << bits.used >> 32);
#endif
}

// Drops n bits, 0 <= n <= 32.
FA_HD void fa_bits_skip(FaWords& bits, int n) {
    bits.used += n;
    if (bits.used < 32) return;
    bits.used -= 32;
    bits.high = bits.low;
    bits.low = bits.ahead;
    bits.ahead = fa_words_next(bits);
}

// The bytes [begin, end) of `data`, which is aligned to 4 bytes and padded to a multiple of them.
FA_HD FaWords fa_words_open(const uint8_t* data, long long begin, long long end) {
    FaWords bits = {};
    bits.words = reinterpret_cast<const uint32_t*>(data) + (begin >> 2);
    bits.size = static_cast<int>(((end + 3) >> 2) - (begin >> 2));
    bits.used = static_cast<int>(begin & 3) * 8;
    bits.high = fa_words_next(bits);
    bits.low = fa_words_next(bits);
    bits.ahead = fa_words_next(bits);
    return bits;
}

// Bits read since the start of the first word, those past the end included.
FA_HD long long fa_bits_position(const FaWords& bits) { return 32ll * (bits.at - 3) + bits.used; }

// True once bits behind the last word have been read.
FA_HD bool fa_bits_overrun(const FaWords& bits) { return fa_bits_position(bits) > 32ll * bits.size; }

// The next n bits, 0 <= n <= 32.
FA_HD uint32_t fa_bits_read(FaWords& bits, int n) {
    const uint32_t value = n ? fa_words_top(bits) >> (32 - n) : 0;
    fa_bits_skip(bits, n);
    return value;
}

// The same in two's complement.
FA_HD int32_t fa_bits_read_signed(FaWords& bits, int n) {
    const int32_t value = n ? static_cast<int32_t>(fa_words_top(bits)) >> (32 - n) : 0;
    fa_bits_skip(bits, n);
    return value;
}

// Zeros before the next one, which is read too. -1 if there are more than `most`, or the data end.
FA_HD long long fa_bits_unary(FaWords& bits, long long most) {
    for (long long zeros = 0;;) {
        const int run = fa_clz32(fa_words_top(bits));
        zeros += run;
        fa_bits_skip(bits, run < 32 ? run + 1 : 32);
        if (zeros > most || fa_bits_overrun(bits)) return -1;
        if (run < 32) return zeros;
    }
}
