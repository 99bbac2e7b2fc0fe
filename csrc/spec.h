// Masks and warps of spectrograms (B, C, F, N): what both back ends share.
#pragma once

#include "fa_compat.h"

// Intervals [start, start + size) along one axis, `count` of them a row; a size of 0 or less is none.
struct FaIntervals {
    const long long* start;
    const long long* size;
    long long count;
};

FA_HD bool fa_covers(const FaIntervals& masks, long long row, long long at) {
    bool covered = false;
    for (long long m = 0; m < masks.count; ++m) {
        const long long start = FA_LD(masks.start + row * masks.count + m);
        covered = covered || (at >= start && at - start < FA_LD(masks.size + row * masks.count + m));
    }
    return covered;
}

// Four neighbouring elements of an axis and their weights. Positions are clamped to [low, high], as torch's interpolate
// does at the edges of what it is given; elements outside [0, size) count as zeros.
struct FaTaps {
    int index[4];
    float weight[4];
};

// Cubic convolution, Keys 1981, equation 4, with a = -0.75 as in torch and OpenCV; linear between the middle two.
FA_HD FaTaps fa_taps(float position, int low, int high, int size, bool cubic) {
    const float bounded = fa_clamp(position, static_cast<float>(low), static_cast<float>(high));
    const int whole = static_cast<int>(bounded), first = whole - (static_cast<float>(whole) > bounded ? 1 : 0);
    const float t = bounded - static_cast<float>(first);
    FaTaps taps;
    for (int k = 0; k < 4; ++k) {
        const float distance = k == 0 ? 1.0f + t : k == 1 ? t : k == 2 ? 1.0f - t : 2.0f - t;
        float weight = 0.0f;
        if (cubic && (k == 1 || k == 2))
            weight = fa_add(fa_mul(fa_mul(fa_add(fa_mul(1.25f, distance), -2.25f), distance), distance), 1.0f);
        else if (cubic)
            weight = fa_add(fa_mul(fa_add(fa_mul(fa_add(fa_mul(-0.75f, distance), 3.75f), distance), -6.0f), distance),
                            3.0f);
        else if (k == 1 || k == 2)
            weight = 1.0f - distance;
        const int at = fa_clamp(first - 1 + k, low, high);
        const bool inside = at >= 0 && at < size;
        taps.index[k] = inside ? at : 0;
        taps.weight[k] = inside ? weight : 0.0f;
    }
    return taps;
}

// Sum of four products, in an order that both back ends keep. A weight of 0 hides what it would multiply.
FA_HD float fa_tap_sum(const float values[4], const float weights[4]) {
    float sum = 0.0f;
    for (int k = 0; k < 4; ++k) sum = fa_add(sum, weights[k] == 0.0f ? 0.0f : fa_mul(weights[k], values[k]));
    return sum;
}
