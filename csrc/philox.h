// Philox4x32-10, the counter-based generator behind all randomness here.
// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.2.
#pragma once

#include "fa_compat.h"

// One block of output, or one counter: four 32-bit words.
struct FaWords {
    uint32_t w0, w1, w2, w3;
};

FA_HD FaWords fa_philox4x32_10(FaWords counter, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * counter.w0;
        const uint64_t b = static_cast<uint64_t>(0xCD9E8D57u) * counter.w2;
        counter = {static_cast<uint32_t>(b >> 32) ^ counter.w1 ^ key0, static_cast<uint32_t>(b),
                   static_cast<uint32_t>(a >> 32) ^ counter.w3 ^ key1, static_cast<uint32_t>(a)};
        key0 += 0x9E3779B9u;  // golden ratio
        key1 += 0xBB67AE85u;  // sqrt(3) - 1
    }
    return counter;
}
