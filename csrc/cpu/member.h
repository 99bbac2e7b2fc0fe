// A member of a batch as csrc/cpu/decode.cpp probes it.
#pragma once

#include "../codecs/probe.h"
#include "flac.h"
#include "mp3.h"
#include "wav.h"

namespace fa {

// A row of an int64 table that fastaug/codecs/native.py makes; the order of the fields is a contract with it.
struct Member {
    long long address, size;          // given
    long long format, status, where;  // AudioFormat; kOk if samples can be had here; byte offset of the trouble
    long long rate, channels, bits;   // of the source
    long long frames;                 // by the header where the file is cut short
    long long present, cut;           // frames that are there; if they are fewer, the Status of the others
    long long kind, block, data;      // of WavInfo; FLAC: block and data_offset of AudioInfo
    long long end, origin;            // FLAC: data_end and origin of AudioInfo
    long long variant;                // WAVE: 1 extensible, 2 RF64 or BW64
    long long index;                  // MP3: Mp3Stream*, until fa_audio_release
    long long silent;                 // MP3: `silent` of Mp3Stream
    const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(address); }
    const Mp3Stream& mp3() const { return *reinterpret_cast<const Mp3Stream*>(index); }
};

inline WavInfo wav_info(const Member& member) {
    WavInfo info = {};
    info.kind = static_cast<int>(member.kind);
    info.channels = member.channels;
    info.block = member.block;
    info.data = member.data;
    return info;
}

inline AudioInfo flac_info(const Member& member) {
    AudioInfo info;
    info.rate = static_cast<int>(member.rate);
    info.channels = static_cast<int>(member.channels);
    info.bits = static_cast<int>(member.bits);
    info.total = member.present;
    info.data_offset = member.data;
    info.data_end = member.end;
    info.block = member.block;
    info.origin = member.origin;
    return info;
}

}  // namespace fa
