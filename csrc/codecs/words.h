// Bits of a byte string for a GPU thread: one aligned 32-bit load for every 32 bits, issued one word ahead of its use.
// The same calls as FaBits of bits.h, but a refill leaves 32 to 63 bits, so no read asks for more than 32.
#pragma once

#include "bits.h"

struct FaWords {
    const uint32_t* words;  // those that hold the string's first and last byte, and all between
    int at, size;           // the word that is loaded next, and how many there are: behind them stand zeros
    int count;              // bits in the window: 32 to 63 after a refill
    uint64_t window;        // left aligned, zeros behind its bits
    uint32_t ahead;         // the word before `at`, the first byte on top
};

FA_HD uint32_t fa_words_next(FaWords& bits) {
    const uint32_t word = bits.at < bits.size ? FA_LD(bits.words + bits.at) : 0;
    ++bits.at;
    return word >> 24 | (word >> 8 & 0xFF00) | (word << 8 & 0xFF0000) | word << 24;
}

FA_HD void fa_bits_refill(FaWords& bits) {
    if (bits.count > 31) return;
    bits.window |= static_cast<uint64_t>(bits.ahead) << (32 - bits.count);
    bits.count += 32;
    bits.ahead = fa_words_next(bits);
}

FA_HD void fa_bits_skip(FaWords& bits, int n) {
    bits.window <<= n;
    bits.count -= n;
}

// The bytes [begin, end) of `data`, which is aligned to 4 bytes and padded to a multiple of them.
FA_HD FaWords fa_words_open(const uint8_t* data, long long begin, long long end) {
    FaWords bits = {};
    bits.words = reinterpret_cast<const uint32_t*>(data) + (begin >> 2);
    bits.size = static_cast<int>(((end + 3) >> 2) - (begin >> 2));
    bits.ahead = fa_words_next(bits);
    fa_bits_refill(bits);
    fa_bits_skip(bits, static_cast<int>(begin & 3) * 8);
    return bits;
}

// Bits read since the start of the first word, those past the end included.
FA_HD long long fa_bits_position(const FaWords& bits) { return 32ll * (bits.at - 1) - bits.count; }

// True once bits behind the last word have been read.
FA_HD bool fa_bits_overrun(const FaWords& bits) { return fa_bits_position(bits) > 32ll * bits.size; }

// The next n bits, 0 <= n <= 32.
FA_HD uint32_t fa_bits_read(FaWords& bits, int n) {
    fa_bits_refill(bits);
    const uint64_t value = bits.window >> 1 >> (63 - n);
    fa_bits_skip(bits, n);
    return static_cast<uint32_t>(value);
}

FA_HD int32_t fa_bits_read_signed(FaWords& bits, int n) {
    fa_bits_refill(bits);
    const int64_t value = n ? static_cast<int64_t>(bits.window) >> (64 - n) : 0;
    fa_bits_skip(bits, n);
    return static_cast<int32_t>(value);
}

// Zeros before the next one, which is read too. -1 if there are more than `most`, or the data end.
FA_HD long long fa_bits_unary(FaWords& bits, long long most) {
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
