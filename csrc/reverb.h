// Freeverb as the sox command line tunes it: eight damped comb filters in parallel, four allpass filters in series,
// once per output side. Written from its published constants: Schroeder 1962, Moorer 1979; comb and allpass lengths
// from Jezar's Freeverb (public domain); maps from 0..100 settings as measured against sox 14.4.2.
#pragma once

#include "fa_compat.h"
#if !FA_CUDA
#include "fa_simd.h"  // before the templates: vectors have no namespace in which fa_held could be found later
#endif

constexpr int kReverbCombs = 8;
constexpr int kReverbAllpasses = 4;
constexpr int kReverbLines = kReverbCombs + kReverbAllpasses;

// Settings of one example, in sox's units: percent, milliseconds, decibels.
struct FaReverbSettings {
    float reverberance, hf_damping, room_scale, stereo_depth, pre_delay_ms, wet_gain_db;
};

// How one unit of work (a channel, or two of the same example) uses its one or two filter banks ("sides").
enum FaReverbMode : int {
    kReverbSingle = 0,  // one channel, one side
    kReverbWide = 1,    // one channel through both sides; the mean of the two outputs
    kReverbStereo = 2,  // two channels: their mean through both sides, one side for each output
    kReverbPair = 3,    // two channels, each through a left side of its own
    kReverbMixed = 4,   // two channels, one side each; both outputs get the mean of the sides: the adjoint of Stereo
};

FA_HD int fa_reverb_mode(bool wide, bool two_channels, int adjoint) {
    if (!two_channels) return wide ? kReverbWide : kReverbSingle;
    return wide ? (adjoint ? kReverbMixed : kReverbStereo) : kReverbPair;
}

struct FaReverbCoefficients {
    float feedback, damping, wet_gain;
    long long pre_delay;  // samples
};

// Nonsense (NaN, too) must not become a buffer size: the ops check their arguments where they can see them.
FA_HD double fa_reverb_fraction(float percent) {
    return !(percent > 0.0f) ? 0.0 : percent < 100.0f ? static_cast<double>(percent) / 100.0 : 1.0;
}

FA_HD FaReverbCoefficients fa_reverb_coefficients(const FaReverbSettings& s, double rate) {
    FaReverbCoefficients c;
    c.feedback = static_cast<float>(1.0 - 0.7 * pow(0.02 / 0.7, fa_reverb_fraction(s.reverberance)));
    c.damping = static_cast<float>(0.2 + 0.3 * fa_reverb_fraction(s.hf_damping));
    c.wet_gain = static_cast<float>(0.015 * pow(10.0, static_cast<double>(s.wet_gain_db) / 20.0));
    const double delay = static_cast<double>(s.pre_delay_ms) / 1000.0 * rate + 0.5;
    c.pre_delay = !(delay > 0.0) ? 0 : delay < 1e15 ? static_cast<long long>(delay) : 1000000000000000;
    return c;
}

// Lengths at 44.1 kHz. A switch: a table indexed at run time would live in a GPU thread's local memory.
FA_HD int fa_reverb_length(int line) {
    switch (line) {
        case 0:
            return 1116;
        case 1:
            return 1188;
        case 2:
            return 1277;
        case 3:
            return 1356;
        case 4:
            return 1422;
        case 5:
            return 1491;
        case 6:
            return 1557;
        case 7:
            return 1617;
        case 8:
            return 225;
        case 9:
            return 341;
        case 10:
            return 441;
        default:
            return 556;
    }
}

// Length of delay line `line` (0..7 combs, 8..11 allpasses) of side 0 (left) or 1 (right). The right side is detuned by
// alternately plus and minus `depth` times 12 samples at 44.1 kHz; the room scales the combs only.
FA_HD int fa_reverb_delay(int line, int side, const FaReverbSettings& s, double rate) {
    const double depth = fa_reverb_fraction(s.stereo_depth);
    const double room = line < kReverbCombs ? 0.1 + 0.9 * fa_reverb_fraction(s.room_scale) : 1.0;
    const double offset = side == 0 ? 0.0 : line % 2 == 0 ? depth : -depth;
    const int delay = static_cast<int>(room * (rate / 44100.0) * (fa_reverb_length(line) + 12.0 * offset) + 0.5);
    return delay < 1 ? 1 : delay;
}

// Comparisons that let NaN through. Value: float, or a vector of them.
template <class Value>
FA_HD Value fa_reverb_limit(const Value& value, int clip) {
    const Value one = Value{} + 1.0f;
    if (!clip) return value;
#if FA_CUDA
    return value > one ? one : value < -one ? -one : value;
#else
    return fa_held(value, one);
#endif
}

// What side `side` hears of the two channels' samples (pre-delayed by the caller).
FA_HD float fa_reverb_input(int mode, int side, float left, float right) {
    if (mode == kReverbStereo) return (left + right) * 0.5f;
    return (mode == kReverbPair || mode == kReverbMixed) && side == 1 ? right : left;
}

// Output of channel `channel` of the unit, from its dry sample and both sides' wet samples.
template <class Value>
FA_HD Value fa_reverb_output(int mode, int channel, const Value& dry, const Value& wet0, const Value& wet1, int clip) {
    if (mode == kReverbWide) {
        return (fa_reverb_limit(dry + wet0, clip) + fa_reverb_limit(dry + wet1, clip)) * 0.5f;
    }
    if (mode == kReverbMixed) return dry + (wet0 + wet1) * 0.5f;
    return fa_reverb_limit(dry + (channel == 0 ? wet0 : wet1), clip);
}
