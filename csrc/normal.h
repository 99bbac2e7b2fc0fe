// Standard normal numbers from random words, with the same polynomials on every device (no libm).
//
// Element t of channel c of a row: block t / 4 of Philox4x32-10 with key = the row's subkey and counter =
// (block low, block high, stream, c). Words (0, 1) give elements 4b and 4b + 1, words (2, 3) the next two, by
// Box and Muller (1958): z0 = r cos(2 pi u2), z1 = r sin(2 pi u2), r = sqrt(-2 log u1).
#pragma once

#include "fa_compat.h"
#include "philox.h"

// log(k * 2^-24) for k in [1, 2^24]. Relative error below 2e-7, also next to k = 2^24 where the result vanishes.
FA_HD float fa_log_unit(int32_t k) {
    const uint32_t bits = fa_float_to_bits(static_cast<float>(k));
    const int32_t exponent = static_cast<int32_t>(bits - 0x3F3504F3u) >> 23;  // so that m lies in [sqrt(1/2), sqrt(2))
    const float m = fa_bits_to_float(bits - (static_cast<uint32_t>(exponent) << 23));
    const float f = m - 1.0f;
    // Near-minimax (log(1 + f) - f + f^2 / 2) / f^3 over that interval, relative error 2.2e-8.
    float p = 0.07332437485456467f;
    p = p * f - 0.11659887433052063f;
    p = p * f + 0.11634676903486252f;
    p = p * f - 0.12396707385778427f;
    p = p * f + 0.1425115466117859f;
    p = p * f - 0.16669151186943054f;
    p = p * f + 0.2000068873167038f;
    p = p * f - 0.24999980628490448f;
    p = p * f + 0.3333333134651184f;
    const float ff = f * f;
    const float e = static_cast<float>(exponent - 24);
    // log(2) in two parts: the first has zeros in its low bits, so that its product with e is exact.
    return e * 0.693359375f + (f + (e * -2.12194440e-4f + ff * (f * p - 0.5f)));
}

// cos and sin of 2 pi k / 2^24 for k in [0, 2^24). The reduction to an eighth of a turn is exact, in integers.
FA_HD void fa_cos_sin_turn(int32_t k, float& cosine, float& sine) {
    const int32_t quadrant = (k + (1 << 21)) >> 22;
    const float r = static_cast<float>(k - (quadrant << 22)) * 2.384185791015625e-07f;  // 2^-22: quarter turns
    const float rr = r * r;
    float s = -0.004602177068591118f;  // near-minimax sin(pi r / 2) / r, relative error 5e-9
    s = s * rr + 0.07968022674322128f;
    s = s * rr - 0.6459634900093079f;
    s = (s * rr + 1.5707963705062866f) * r;
    float c = 0.0009036317351274192f;  // near-minimax cos(pi r / 2), error 5e-11
    c = c * rr - 0.02086007222533226f;
    c = c * rr + 0.25366920232772827f;
    c = c * rr - 1.2337005138397217f;
    c = c * rr + 1.0f;
    const bool odd = (quadrant & 1) != 0;
    const float x = odd ? s : c;
    const float y = odd ? c : s;
    cosine = ((quadrant + 1) & 2) != 0 ? -x : x;
    sine = (quadrant & 2) != 0 ? -y : y;
}

FA_HD void fa_normal_pair(uint32_t word0, uint32_t word1, float& z0, float& z1) {
    const float r = sqrtf(-2.0f * fa_log_unit(static_cast<int32_t>(word0 >> 8) + 1));
    float cosine, sine;
    fa_cos_sin_turn(static_cast<int32_t>(word1 >> 8), cosine, sine);
    z0 = r * cosine;
    z1 = r * sine;
}

struct FaNormals {
    float z0, z1, z2, z3;
};

// Elements 4 * block ... 4 * block + 3 of one channel.
FA_HD FaNormals fa_normals(uint32_t key0, uint32_t key1, uint32_t stream, uint32_t channel, int64_t block) {
    const FaWords counter = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream, channel};
    const FaWords words = fa_philox4x32_10(counter, key0, key1);
    FaNormals z;
    fa_normal_pair(words.w0, words.w1, z.z0, z.z1);
    fa_normal_pair(words.w2, words.w3, z.z2, z.z3);
    return z;
}
