// Layer III framing: headers and side information (ISO 11172-3 clause 2.4.1, ISO 13818-3, and MPEG 2.5).
#pragma once

#include "mp3_tables.h"

struct FaMp3Header {
    int version;   // 0: MPEG 1, 1: MPEG 2, 2: MPEG 2.5
    int layer;     // 1 to 3
    int rate;      // Hz
    int kbps;      // 0: free format
    int channels;  // 1 or 2
    int mode, mode_extension;
    int band;     // which of the nine sample rates, as the tables count them
    int samples;  // per channel: 1152 or 576 (layer III)
    int side;     // bytes of side information
    int crc;      // bytes of checksum: 0 or 2
    int bytes;    // of the frame, without padding if its length is free: then 0
    int padding;  // bytes
};

// False if these four bytes are no header of any layer.
FA_HD bool fa_mp3_header(const uint8_t* p, FaMp3Header& h) {
    if (p[0] != 0xFF || (p[1] & 0xE0) != 0xE0) return false;
    const int version = p[1] >> 3 & 3, layer = p[1] >> 1 & 3, bitrate = p[2] >> 4, rate = p[2] >> 2 & 3;
    if (version == 1 || layer == 0 || bitrate == 15 || rate == 3 || (p[3] & 3) == 2) return false;
    h.version = version == 3 ? 0 : version == 2 ? 1 : 2;
    h.layer = 4 - layer;
    const int base = rate == 0 ? 44100 : rate == 1 ? 48000 : 32000;
    h.rate = base >> h.version;
    h.band = 3 * h.version + rate;
    h.mode = p[3] >> 6;
    h.mode_extension = p[3] >> 4 & 3;
    h.channels = h.mode == 3 ? 1 : 2;
    h.crc = p[1] & 1 ? 0 : 2;
    h.padding = p[2] >> 1 & 1;
    h.samples = h.version == 0 ? 1152 : 576;
    h.side = h.version == 0 ? (h.channels == 1 ? 17 : 32) : (h.channels == 1 ? 9 : 17);
    if (h.layer != 3) {  // recognised, not decoded
        h.kbps = h.bytes = 0;
        return true;
    }
    // 32 40 48 56 64 80 96 … and 8 16 24 … : steps that double every four, or stay
    const int n = bitrate - 1;
    if (bitrate == 0)
        h.kbps = 0;
    else if (h.version == 0)
        h.kbps = (32 + 8 * (n & 3)) << (n >> 2);
    else
        h.kbps = n < 8 ? 8 * (n + 1) : 16 * (n - 3);
    h.bytes = h.kbps ? h.samples / 8 * 1000 * h.kbps / h.rate + h.padding : 0;
    return true;
}

// The fields that all frames of one stream share: version, layer, sample rate, and whether the length is free.
FA_HD bool fa_mp3_same_stream(const FaMp3Header& a, const FaMp3Header& b) {
    return a.version == b.version && a.layer == b.layer && a.rate == b.rate && (a.kbps == 0) == (b.kbps == 0);
}

// Eight bytes, the first one highest.
FA_HD uint64_t fa_mp3_load(const uint8_t* p) {
    uint64_t value = 0;
#if FA_CUDA
    for (int i = 0; i < 8; ++i) value = value << 8 | p[i];
#else
    memcpy(&value, p, 8);
    value = __builtin_bswap64(value);  // every target of ours is little endian
#endif
    return value;
}

// Bits, most significant first, anywhere inside memory that is readable for eight bytes beyond the last bit asked for.
struct FaMp3Bits {
    const uint8_t* data;
    long long at;  // bit

    FA_HD uint64_t window() const { return fa_mp3_load(data + (at >> 3)) << (at & 7); }  // at least 57, left aligned
    FA_HD uint32_t read(int count) {                                                     // at most 32
        const uint32_t value = count ? static_cast<uint32_t>(window() >> (64 - count)) : 0;
        at += count;
        return value;
    }
};

// Side information of one granule and channel.
struct FaMp3Granule {
    long long begin;  // first bit in the main data, relative to the frame's own begin; set from part 2 and 3 lengths
    int part23;       // bits
    int big_values;   // pairs
    int global_gain;
    int scalefac_compress;
    int block_type;  // 0 long, 1 start, 2 short, 3 stop
    int kind;        // of the bands: 0 long, 1 short, 2 mixed
    int mixed;
    int table[3];
    int subblock_gain[3];
    int region[2];  // first line of regions 1 and 2
    int preflag, scalefac_scale, count1_table;
};

struct FaMp3Side {
    int main_begin;              // bytes before this frame's own main data
    int scfsi[2];                // bit 3 - i: granule 1 takes band group i from granule 0
    FaMp3Granule granule[2][2];  // [granule][channel]
};

// Lines where regions 1 and 2 of a long block begin are band edges: `first` has those of kind 0.
FA_HD void fa_mp3_read_granule(FaMp3Bits& bits, const FaMp3Header& h, const uint16_t* first, FaMp3Granule& g) {
    g.part23 = static_cast<int>(bits.read(12));
    g.big_values = static_cast<int>(bits.read(9));
    g.global_gain = static_cast<int>(bits.read(8));
    g.scalefac_compress = static_cast<int>(bits.read(h.version == 0 ? 4 : 9));
    g.block_type = g.mixed = g.kind = g.preflag = 0;
    for (int w = 0; w < 3; ++w) g.subblock_gain[w] = 0;
    if (bits.read(1)) {  // window switching
        g.block_type = static_cast<int>(bits.read(2));
        g.mixed = static_cast<int>(bits.read(1));
        for (int r = 0; r < 2; ++r) g.table[r] = static_cast<int>(bits.read(5));
        g.table[2] = 0;
        for (int w = 0; w < 3; ++w) g.subblock_gain[w] = static_cast<int>(bits.read(3));
        if (g.block_type == 2) g.kind = g.mixed ? 2 : 1;
        // Region 1 begins after 8 long bands, or 3 short ones of three windows (as all decoders do it, mixed blocks
        // of the lower rates too); there is no region 2.
        g.region[0] = h.version == 0 || g.block_type == 2 ? 36 : 54;
        if (h.band == 8) g.region[0] *= 2;
        g.region[1] = kMp3Lines;
    } else {
        for (int r = 0; r < 3; ++r) g.table[r] = static_cast<int>(bits.read(5));
        const int count0 = static_cast<int>(bits.read(4)), count1 = static_cast<int>(bits.read(3));
        g.region[0] = first[fa_min(count0 + 1, 22)];
        g.region[1] = first[fa_min(count0 + count1 + 2, 22)];
    }
    if (h.version == 0) g.preflag = static_cast<int>(bits.read(1));
    g.scalefac_scale = static_cast<int>(bits.read(1));
    g.count1_table = static_cast<int>(bits.read(1));
}

// `p` points at the side information; eight bytes beyond it are readable.
FA_HD void fa_mp3_read_side(const uint8_t* p, const FaMp3Header& h, const uint16_t* first, FaMp3Side& side) {
    FaMp3Bits bits = {p, 0};
    side.main_begin = static_cast<int>(bits.read(h.version == 0 ? 9 : 8));
    if (h.version == 0)
        bits.read(h.channels == 1 ? 5 : 3);  // private
    else
        bits.read(h.channels);
    for (int c = 0; c < 2; ++c) side.scfsi[c] = h.version == 0 && c < h.channels ? static_cast<int>(bits.read(4)) : 0;
    long long begin = 0;
    for (int g = 0; g < h.samples / 576; ++g) {
        for (int c = 0; c < h.channels; ++c) {
            FaMp3Granule& granule = side.granule[g][c];
            fa_mp3_read_granule(bits, h, first, granule);
            granule.begin = begin;
            begin += granule.part23;
        }
    }
}
