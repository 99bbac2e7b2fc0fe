// Which format some bytes are in: by what they hold, never by their name.
#pragma once

#include "../fa_compat.h"
#include "status.h"
#include "wav.h"

namespace fa {

enum AudioFormat : int { kOther = 0, kWav, kFlac, kOgg, kMp3 };

// Bytes of ID3v2 tags at the start (there may be several): their sizes have seven bits a byte, the footer is extra.
FA_HD long long id3_length(const uint8_t* bytes, long long size) {
    long long at = 0;
    while (size - at >= 10 && bytes[at] == 'I' && bytes[at + 1] == 'D' && bytes[at + 2] == '3') {
        const uint8_t* tag = bytes + at;
        if ((tag[6] | tag[7] | tag[8] | tag[9]) & 0x80) break;
        const long long body = static_cast<long long>(tag[6]) << 21 | tag[7] << 14 | tag[8] << 7 | tag[9];
        const long long length = 10 + body + (tag[5] & 0x10 ? 10 : 0);
        if (length > size - at) break;
        at += length;
    }
    return at;
}

// Of MP3 only a guess: an ID3v2 tag, or the sync of an MPEG audio frame with no reserved value behind it.
FA_HD AudioFormat audio_format(const uint8_t* bytes, long long size) {
    if (size >= 12 && (wav_is(bytes, "RIFF") || wav_is(bytes, "RF64") || wav_is(bytes, "BW64")) &&
        wav_is(bytes + 8, "WAVE"))
        return kWav;
    const long long at = id3_length(bytes, size);
    if (size - at < 4) return at ? kMp3 : kOther;
    const uint8_t* p = bytes + at;
    if (wav_is(p, "fLaC")) return kFlac;
    if (wav_is(p, "OggS")) return kOgg;
    const int version = p[1] >> 3 & 3, layer = p[1] >> 1 & 3, bitrate = p[2] >> 4, rate = p[2] >> 2 & 3;
    const int frame = p[0] == 0xFF && p[1] >= 0xE0 && version != 1 && layer != 0 && bitrate != 15 && rate != 3;
    return frame || at ? kMp3 : kOther;
}

}  // namespace fa
