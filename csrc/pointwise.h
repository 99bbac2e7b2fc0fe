// One sample of the fused pointwise pass and of echo: what the CPU loops and the CUDA kernels share.
//
// The pass reads a window of every row and then scales it, adds noise (noise.h), and scales it again:
//     u = level_before(x[start + t]),  v = u + sigma * normal(t) clipped,  y = level_after(v)
// Every product and sum is rounded by itself, so that one pass and several give the same bits.
#pragma once

#include "fa_compat.h"

// x * factor, held within [-limit, limit].
struct FaLevel {
    float factor, limit;
};

FA_HD float fa_no_limit() { return fa_bits_to_float(0x7F800000u); }  // infinity

// True where nothing happens: such samples are copied, not multiplied by 1 (which flushes denormals on CUDA).
FA_HD bool fa_is_plain(FaLevel level) { return level.factor == 1.0f && level.limit == fa_no_limit(); }

// A NaN fails both comparisons and stays.
FA_HD float fa_limit(float x, float limit) { return x > limit ? limit : (x < -limit ? -limit : x); }

FA_HD float fa_level_sample(float x, FaLevel level) { return fa_limit(fa_mul(x, level.factor), level.limit); }

// Levels of all rows, (rows,) each: `active` rows (null: all) are multiplied by `factor` (null: 1) and clipped to
// [-1, 1] if `clip`; rows with `flip` (null: none) are turned upside down.
struct FaScaling {
    const unsigned char* flip;
    const float* factor;
    const unsigned char* active;
    bool clip;
};

// Turning upside down is exact and commutes with rounding and clipping, so it may be folded into the factor.
FA_HD FaLevel fa_level_of_row(FaScaling scaling, int64_t row) {
    const bool on = scaling.active == nullptr || FA_LD(scaling.active + row) != 0;
    const float factor = on && scaling.factor != nullptr ? FA_LD(scaling.factor + row) : 1.0f;
    const bool flip = scaling.flip != nullptr && FA_LD(scaling.flip + row) != 0;
    return {flip ? -factor : factor, on && scaling.clip ? 1.0f : fa_no_limit()};
}

// dry * x + wet * delayed, each product and the sum rounded by itself: the bits do not depend on the device.
FA_HD float fa_echo_sample(float x, float delayed, float dry, float wet) {
    return fa_add(fa_mul(dry, x), fa_mul(wet, delayed));
}

// -value; the smallest integer, into which a NaN converts, stays what it is: far outside any signal.
FA_HD int64_t fa_negative(int64_t value) { return static_cast<int64_t>(0 - static_cast<uint64_t>(value)); }

struct FaOverlap {
    int64_t begin, end;
};

// The part of outputs [begin, end) that read inside a signal of `length` samples, if output t reads t + shift. Any
// shift will do: beyond the signal it only means that nothing is read.
FA_HD FaOverlap fa_overlap(int64_t begin, int64_t end, int64_t length, int64_t shift) {
    const int64_t s = fa_clamp<int64_t>(shift, -end, length);
    const int64_t first = fa_clamp<int64_t>(-s, begin, end);
    return {first, fa_clamp<int64_t>(length - s, first, end)};
}
