// One sample of scale, echo and crop: what the CPU loops and the CUDA kernels share.
#pragma once

#include "fa_compat.h"

// x * factor, held within [-1, 1] if `clip`. A NaN fails both comparisons and stays.
FA_HD float fa_scale_sample(float x, float factor, bool clip) {
    const float y = fa_mul(x, factor);
    if (!clip) return y;
    return y > 1.0f ? 1.0f : (y < -1.0f ? -1.0f : y);
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
