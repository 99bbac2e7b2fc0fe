// Time stretching by waveform-similarity overlap-add (Verhelst & Roelands, ICASSP 1993) with the geometry of sox's
// `tempo`: fixed segments, a full search for the start that continues the last segment best, a linear cross-fade.
#pragma once

#include "fa_compat.h"

struct FaWsola {
    int segment, search, overlap;  // samples

    FA_HD int hop() const { return segment - overlap; }  // output samples per segment
};

FA_HD FaWsola fa_wsola_geometry(double rate) {
    const double overlap = rate * 82.0 / 6.833 / 1000.0 + 4.5;
    return {static_cast<int>(0.082 * rate + 0.5), static_cast<int>(rate * 82.0 / 5.587 / 1000.0 + 0.5),
            static_cast<int>(overlap > 16.0 ? overlap : 16.0) & ~7};
}

// Output samples for `length` input samples at `factor` times the speed; 0 if the factor makes no sense.
FA_HD long long fa_wsola_length(long long length, double factor) {
    if (!(factor > 0.0)) return 0;
    const double samples = static_cast<double>(length) / factor + 0.5;
    return samples < 1e15 ? static_cast<long long>(samples) : 0;
}

// Source sample at offset 0 of segment k's search window; the window begins half a search before the nominal place.
FA_HD long long fa_wsola_window(const FaWsola& w, double factor, long long k) {
    const double nominal = fa_add(fa_mul(factor, static_cast<double>(k * w.hop())), 0.5);
    return static_cast<long long>(nominal) - w.search / 2;
}

// Cross-fade of sample i < overlap: from the last segment's tail to the new segment.
FA_HD float fa_wsola_fade(float tail, float fresh, int i, int overlap) {
    const float fade_in = static_cast<float>(i) / static_cast<float>(overlap);
    return fa_add(fa_mul(tail, 1.0f - fade_in), fa_mul(fresh, fade_in));
}
