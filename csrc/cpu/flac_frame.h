// One FLAC frame to integer samples: what a scan and a range decode share.
#pragma once

#include "../codecs/flac.h"
#include "flac.h"

namespace fa {

// CRC-16, x^16 + x^15 + x^2 + 1, of `size` bytes; 0 over bytes that end with their own.
unsigned flac_crc16(const uint8_t* bytes, long long size);

// Decodes the frame whose header at `offset` gave `frame`, into scratch.samples: channel c at c * flac_stride(block),
// the second of 32-bit stereo that is a difference in scratch.side. Nothing is mixed yet. `bits`: of a sample.
// `next`: the byte behind the frame. kOk only if its CRC-16 is right.
int flac_frame(const uint8_t* data, long long size, long long offset, const FaFlacFrame& frame, int bits,
               FlacScratch& scratch, long long& next);

// Room for what the predictors read ahead; not a power of two, whose channels would meet in the same cache sets.
inline long long flac_stride(int block) { return (block + 15) / 16 * 16 + 48; }

// Samples [first, first + count) of the decoded frame as left and right (or whatever the channels are) to
// out[c * stride + i]; floats are divided by 2^(bits - 1).
void flac_emit(const FaFlacFrame& frame, int bits, const FlacScratch& scratch, long long first, long long count,
               float* out, long long stride);
void flac_emit(const FaFlacFrame& frame, int bits, const FlacScratch& scratch, long long first, long long count,
               int32_t* out, long long stride);

}  // namespace fa
