// RIFF, RF64 and BW64 WAVE: where the samples lie, and one stored sample as a float.
// Microsoft/IBM "Multimedia Programming Interface and Data Specifications 1.0" (1991); EBU Tech 3306 (RF64);
// WAVEFORMATEXTENSIBLE: Microsoft, "Multiple Channel Audio Data and WAVE Files" (2001).
// Sizes in headers are claims: what counts is what lies in the file, and nothing here reads past `size`.
#pragma once

#include "../fa_compat.h"
#include "status.h"

namespace fa {

// How a sample is stored, little endian; integers stand for value * 2^-(bits - 1).
enum WavKind : int { kWavU8 = 1, kWavS16, kWavS24, kWavS32, kWavF32, kWavF64 };

struct WavInfo {
    Status status;       // kUnsupported: a kind for another decoder
    int kind;            // WavKind; of a kBadHeader the field of the format chunk, by its distance from the start
    int extensible;      // the format chunk is a WAVEFORMATEXTENSIBLE
    long long where;     // byte offset of what the status is about
    long long rate;      // Hz
    long long channels;  //
    long long frames;    // whole ones that lie in the file
    long long block;     // bytes of a frame
    long long data;      // byte offset of the first sample
};

constexpr long long kWavMostChannels = 1024;  // as libsndfile
constexpr int kWavPiece = 16384;  // bytes that a block of csrc/cuda/wav.cu takes at once; a frame has at most 8192

FA_HD uint32_t wav_u16(const uint8_t* p) { return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8; }
FA_HD uint32_t wav_u32(const uint8_t* p) { return wav_u16(p) | wav_u16(p + 2) << 16; }
FA_HD uint64_t wav_u64(const uint8_t* p) { return wav_u32(p) | static_cast<uint64_t>(wav_u32(p + 4)) << 32; }

FA_HD int wav_is(const uint8_t* p, const char* id) {
    for (int i = 0; i < 4; ++i) {
        if (p[i] != static_cast<uint8_t>(id[i])) return 0;
    }
    return 1;
}

FA_HD WavInfo wav_trouble(WavInfo info, Status status, long long where) {
    info.status = status;
    info.where = where;
    return info;
}

FA_HD WavInfo wav_bad_format(WavInfo info, long long chunk, int field) {
    info.kind = field;
    return wav_trouble(info, kBadHeader, chunk + field);
}

// Whether a chunk may begin at byte `at`: an identifier is four printable characters.
FA_HD int wav_chunk_at(const uint8_t* bytes, long long size, long long at) {
    if (at < 12 || at > size - 8) return 0;
    for (int i = 0; i < 4; ++i) {
        if (bytes[at + i] < 0x20 || bytes[at + i] > 0x7E) return 0;
    }
    return 1;
}

// The next chunk, expected at `at`: writers forget the byte after a chunk of odd size, or add zeros. -1: none.
FA_HD long long wav_next_chunk(const uint8_t* bytes, long long size, long long at, int odd) {
    if (odd && wav_chunk_at(bytes, size, at - 1) && (wav_is(bytes + at - 1, "data") || wav_is(bytes + at - 1, "fmt ")))
        return at - 1;
    for (long long skipped = 0; skipped < 4; ++skipped) {
        if (wav_chunk_at(bytes, size, at + skipped)) return at + skipped;
    }
    return odd && wav_chunk_at(bytes, size, at - 1) ? at - 1 : -1;
}

// The audio bytes at [body, body + result). claimed: their number by the chunk header, or by ds64; 0 and all ones are
// what a writer that could not seek back leaves there.
FA_HD long long wav_data_length(const uint8_t* bytes, long long size, long long body, uint64_t claimed) {
    const uint64_t left = static_cast<uint64_t>(size - body);
    if (claimed > left) return size - body;
    if (claimed == 0 && left) {
        const int another = wav_chunk_at(bytes, size, body) && wav_u32(bytes + body + 4) <= left - 8;
        return another ? 0 : size - body;
    }
    return static_cast<long long>(claimed);
}

// The tag of a format chunk, taken out of the GUID of a WAVEFORMATEXTENSIBLE; 0 if that is another GUID.
FA_HD uint32_t wav_tag(const uint8_t* chunk, int extensible) {
    if (!extensible) return wav_u16(chunk);
    const int microsoft =
        wav_u16(chunk + 26) == 0 && wav_u32(chunk + 28) == 0x00100000 && wav_u64(chunk + 32) == 0x719B3800AA000080;
    return microsoft ? wav_u16(chunk + 24) : 0;
}

// The format chunk: bytes [at, at + length), all in the file.
FA_HD WavInfo wav_format(const uint8_t* bytes, long long at, long long length, WavInfo info) {
    if (length < 16) return wav_bad_format(info, at, 0);
    const uint8_t* chunk = bytes + at;
    info.extensible = wav_u16(chunk) == 0xFFFE;
    if (info.extensible && length < 40) return wav_bad_format(info, at, 0);
    info.channels = wav_u16(chunk + 2);
    info.rate = wav_u32(chunk + 4);
    info.block = wav_u16(chunk + 12);
    if (info.channels == 0 || info.channels > kWavMostChannels) return wav_bad_format(info, at, 2);
    if (info.rate == 0 || info.rate > 0x7FFFFFFF) return wav_bad_format(info, at, 4);
    if (info.block == 0) return wav_bad_format(info, at, 12);
    const uint32_t tag = wav_tag(chunk, info.extensible), bits = wav_u16(chunk + 14);
    if (tag != 1 && tag != 3) return wav_trouble(info, kUnsupported, at);
    if (bits == 0) return wav_bad_format(info, at, 14);
    // A sample of 20 bits fills 3 bytes from the top. Larger containers are left to libsndfile.
    const long long bytes_each = (bits + 7) / 8;
    if (info.block != info.channels * bytes_each) return wav_trouble(info, kUnsupported, at + 12);
    if (tag == 1 && bytes_each <= 4) info.kind = kWavU8 + static_cast<int>(bytes_each) - 1;
    if (tag == 3 && bits == 32) info.kind = kWavF32;
    if (tag == 3 && bits == 64) info.kind = kWavF64;
    return info.kind ? info : wav_trouble(info, kUnsupported, at + 14);
}

// What the file says of itself. O(number of chunks).
FA_HD WavInfo wav_probe(const uint8_t* bytes, long long size) {
    WavInfo info = {};
    long long format = -1, format_length = 0, data_length = -1;
    uint64_t long_data = ~0ull;  // of an RF64 file, in its ds64 chunk
    long long at = 12;
    int odd = 0;
    while (format < 0 || data_length < 0) {
        at = wav_next_chunk(bytes, size, at, odd);
        if (at < 0) break;
        const uint64_t claimed = wav_u32(bytes + at + 4), left = static_cast<uint64_t>(size - at - 8);
        const long long body = at + 8;
        uint64_t length = claimed;
        if (wav_is(bytes + at, "ds64") && claimed >= 24 && left >= 24) long_data = wav_u64(bytes + body + 8);
        if (format < 0 && wav_is(bytes + at, "fmt ")) {
            format = body;
            format_length = static_cast<long long>(fa_min(claimed, left));
        }
        if (data_length < 0 && wav_is(bytes + at, "data")) {
            info.data = body;
            data_length = wav_data_length(bytes, size, body, claimed == 0xFFFFFFFF ? long_data : claimed);
            length = static_cast<uint64_t>(data_length);
        }
        if (length > left) break;
        odd = static_cast<int>(length & 1);
        at = body + static_cast<long long>(length) + odd;
    }
    if (format < 0) return wav_trouble(info, kNoFormat, size);
    info = wav_format(bytes, format, format_length, info);
    if (info.status) return info;
    if (data_length < 0) return wav_trouble(info, kNoData, size);
    info.frames = data_length / info.block;
    return info;
}

// One stored sample.
template <int Kind>
FA_HD float wav_sample(const uint8_t* p) {
    if (Kind == kWavU8) return static_cast<float>(static_cast<int>(p[0]) - 128) * (1.0f / 128.0f);
    if (Kind == kWavS16) return static_cast<float>(static_cast<int16_t>(wav_u16(p))) * (1.0f / 32768.0f);
    if (Kind == kWavS24) {
        const uint32_t top = wav_u16(p) << 8 | static_cast<uint32_t>(p[2]) << 24;
        return static_cast<float>(static_cast<int32_t>(top)) * (1.0f / 2147483648.0f);
    }
    if (Kind == kWavS32) return static_cast<float>(static_cast<int32_t>(wav_u32(p))) * (1.0f / 2147483648.0f);
    if (Kind == kWavF32) return fa_bits_to_float(wav_u32(p));
    return static_cast<float>(fa_bits_to_double(wav_u64(p)));
}

}  // namespace fa
