// The draws of the host: Philox words of whole batches, and one number a row from the first word of block 0.
#include "../fa_simd.h"
#include "../philox.h"
#include "api.h"

namespace {

FA_CLONES void philox_blocks(const uint32_t* counters, const uint32_t* keys, uint32_t* words, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t* c = counters + 4 * i;
        const FaWords w = fa_philox4x32_10({c[0], c[1], c[2], c[3]}, keys[2 * i], keys[2 * i + 1]);
        words[4 * i] = w.w0;
        words[4 * i + 1] = w.w1;
        words[4 * i + 2] = w.w2;
        words[4 * i + 3] = w.w3;
    }
}

FA_CLONES void subkeys(const uint32_t* ids, uint32_t* keys, int64_t n, uint32_t low, uint32_t high, uint32_t epoch,
                       uint32_t place) {
    for (int64_t i = 0; i < n; ++i) {
        const FaWords w = fa_philox4x32_10({ids[2 * i], ids[2 * i + 1], epoch, place}, low, high);
        keys[2 * i] = w.w0;
        keys[2 * i + 1] = w.w1;
    }
}

FA_HD uint32_t first_word(const uint32_t* keys, int64_t row, uint32_t stream) {
    return fa_philox4x32_10({0, 0, stream, 0}, keys[2 * row], keys[2 * row + 1]).w0;
}

FA_HD double unit(uint32_t word) { return static_cast<double>(static_cast<int32_t>(word >> 8)) * 0x1p-24; }

FA_CLONES void uniforms(const uint32_t* keys, float* values, int64_t n, uint32_t stream, double low, double high) {
    for (int64_t i = 0; i < n; ++i)
        values[i] = static_cast<float>(low + (high - low) * unit(first_word(keys, i, stream)));
}

FA_CLONES void coins(const uint32_t* keys, unsigned char* values, int64_t n, uint32_t stream, double p) {
    for (int64_t i = 0; i < n; ++i) values[i] = unit(first_word(keys, i, stream)) < p;
}

FA_HD int64_t integer(const uint32_t* keys, int64_t row, uint32_t stream, int64_t low, uint64_t span) {
    return low + static_cast<int64_t>(first_word(keys, row, stream) * span >> 32);
}

FA_CLONES void integers(const uint32_t* keys, long long* values, int64_t n, uint32_t stream, int64_t low,
                        uint64_t span) {
    for (int64_t i = 0; i < n; ++i) values[i] = integer(keys, i, stream, low, span);
}

FA_CLONES void fractions(const uint32_t* keys, float* values, int64_t n, uint32_t stream, int64_t low, uint64_t span,
                         double divisor) {
    for (int64_t i = 0; i < n; ++i)
        values[i] = static_cast<float>(static_cast<double>(integer(keys, i, stream, low, span)) / divisor);
}

}  // namespace

void fa_philox4x32(const unsigned* counters, const unsigned* keys, unsigned* words, long long n) {
    philox_blocks(counters, keys, words, n);
}

void fa_subkeys(const unsigned* ids, unsigned* keys, long long n, long long low, long long high, long long epoch,
                long long place) {
    subkeys(ids, keys, n, static_cast<uint32_t>(low), static_cast<uint32_t>(high), static_cast<uint32_t>(epoch),
            static_cast<uint32_t>(place));
}

void fa_draw_uniforms(const unsigned* keys, float* values, long long n, long long stream, double low, double high) {
    uniforms(keys, values, n, static_cast<uint32_t>(stream), low, high);
}

void fa_draw_coins(const unsigned* keys, unsigned char* values, long long n, long long stream, double p) {
    coins(keys, values, n, static_cast<uint32_t>(stream), p);
}

void fa_draw_integers(const unsigned* keys, long long* values, long long n, long long stream, long long low,
                      long long span) {
    integers(keys, values, n, static_cast<uint32_t>(stream), low, static_cast<uint64_t>(span));
}

void fa_draw_fractions(const unsigned* keys, float* values, long long n, long long stream, long long low,
                       long long span, double divisor) {
    fractions(keys, values, n, static_cast<uint32_t>(stream), low, static_cast<uint64_t>(span), divisor);
}
