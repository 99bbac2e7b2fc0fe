// Ranges of a WAVE file as floats.
#pragma once

#include "../codecs/wav.h"

namespace fa {

// Frames [low, high) of a file that wav_probe accepted: y (channels, high - low) with rows `stride` apart, or, with
// `mix`, one row with the mean of the channels (added one by one in float32, then divided).
void wav_read(const uint8_t* bytes, const WavInfo& info, long long low, long long high, bool mix, float* y,
              long long stride);

// The same of interleaved floats (frames, channels), for decoders that deliver them: y (channels, frames) or the mean.
void spread_channels(const float* x, long long frames, long long channels, bool mix, float* y, long long stride);

}  // namespace fa
