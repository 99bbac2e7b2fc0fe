// FLAC (RFC 9639) on the CPU: facts of a file, and exact ranges of its samples. The mathematics is in codecs/flac.h.
#pragma once

#include <stdint.h>

#include <vector>

#include "../codecs/status.h"

namespace fa {

// What a file is, by its content. Shared by all codecs.
struct AudioInfo {
    int format = 0;  // AudioFormat of codecs/probe.h
    int rate = 0, channels = 0, bits = 0;
    long long total = 0;        // samples per channel, exact
    long long data_offset = 0;  // of the first frame or sample, in bytes
    int status = kOk;           // Status; status_usable(status): there are samples

    long long data_end = 0;   // behind the last frame or sample, in bytes
    long long trouble = -1;   // byte offset of what `status` tells
    long long block = 0;      // FLAC: samples per frame if frames are numbered; 0 if their first samples are
    long long origin = 0;     // FLAC: number of the stream's first sample in its frame headers
    long long announced = 0;  // FLAC: samples by STREAMINFO
};

// Memory that a decoder keeps between calls; one per thread. Grows to one frame: at most 8 x 65535 samples.
struct FlacScratch {
    std::vector<int32_t> samples;  // (channels, stride)
    std::vector<int64_t> side;     // (block,): the 33-bit side channel of 32-bit stereo
    long long trouble = -1;        // byte offset of what the last call's status tells
    long long spent = 0;           // samples decoded in vain in this call: bounds the work on hostile files
};

// Facts of a FLAC file: microseconds, unless its header gives no length or a wrong one (then a scan of all frames).
// Returns info.status. ID3v2 before and ID3v1 behind are skipped; a stream without header is recognised by its frames.
int flac_probe(const uint8_t* data, long long size, AudioInfo& info);

// STREAMINFO's MD5 of all samples; false if the file has none.
bool flac_md5(const uint8_t* data, long long size, uint8_t md5[16]);

// out[c * out_stride + i], i in [0, length): the samples [start, start + length) of channel c at the file's rate, zeros
// outside the file and in place of frames that do not decode. `info` must come from flac_probe of the same bytes.
// float: x / 2^(bits - 1), in [-1, 1). Every sample comes from a frame whose CRC-8 and CRC-16 are right.
// Returns the first trouble met within the range (scratch.trouble: where), or kOk.
int flac_decode_range(const uint8_t* data, long long size, const AudioInfo& info, long long start, long long length,
                      float* out, long long out_stride, FlacScratch& scratch);
int flac_decode_range(const uint8_t* data, long long size, const AudioInfo& info, long long start, long long length,
                      int32_t* out, long long out_stride, FlacScratch& scratch);

// A frame found but not decoded.
struct FlacSpan {
    long long offset, end;        // bytes [offset, end) of the file
    long long position;           // of its first sample
    int header;                   // bytes
    int block, channels, stereo;  // of FaFlacFrame
};

// The frames that hold samples [low, high), 0 <= low < high <= info.total, one behind the other without a gap; the
// CRC-16 of each is right. Anything else is a status: then flac_decode_range knows more.
int flac_find_frames(const uint8_t* data, long long size, const AudioInfo& info, long long low, long long high,
                     std::vector<FlacSpan>& frames, FlacScratch& scratch);

}  // namespace fa
