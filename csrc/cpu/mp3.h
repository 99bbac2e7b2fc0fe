// MPEG-1, MPEG-2 and MPEG-2.5 layer III on the CPU: an index of a file's frames, and exact ranges of its samples. The
// mathematics is in codecs/mp3_*.h.
#pragma once

#include <stdint.h>

#include <vector>

#include "../codecs/mp3_hybrid.h"
#include "../codecs/mp3_two.h"
#include "../codecs/status.h"

namespace fa {

struct Mp3Frame {
    long long offset;       // of the header, bytes
    long long main_offset;  // of its own main data
    long long main_before;  // bytes of main data of all frames before it: the reservoir's coordinate
    int main_bytes;
    int main_begin;  // bytes of earlier main data that it begins with
};

// What a scan of all headers finds: tens of microseconds for half a minute.
struct Mp3Stream {
    FaMp3Header header = {};  // of the first frame
    std::vector<Mp3Frame> frames;
    long long skip = 0;       // decoded samples before the first one of the recording (encoder and decoder delay)
    long long total = 0;      // samples per channel, delay and padding trimmed
    long long announced = 0;  // the same by the tag, where there is one; with what follows a change of rate or channels
    long long silent = 0;  // of `total`, at the beginning: frames without their bit reservoir, in a stream cut out of
                           // a longer one
    int status = kOk;
    long long trouble = -1;  // byte offset of what `status` tells
};

// Memory that a decoder keeps between calls; one per thread.
struct Mp3Scratch {
    std::vector<uint8_t> main;  // main data back to back
    FaMp3State state[2];
    long long trouble = -1;
};

// Finds the frames behind tags (ID3v2, RIFF), before tags (ID3v1, APE, Lyrics3) and around garbage. Returns status;
// kUnsupported: layers I and II.
int mp3_scan(const uint8_t* data, long long size, Mp3Stream& stream);

// out[c * out_stride + i], i in [0, length): the samples [start, start + length) of channel c, zeros outside the file
// and where a frame cannot be decoded. mix: one output channel, the mean of both.
int mp3_decode_range(const uint8_t* data, long long size, const Mp3Stream& stream, long long start, long long length,
                     bool mix, float* out, long long out_stride, Mp3Scratch& scratch);

}  // namespace fa
