// What a GPU reads of layer III: a unit (one granule of one channel) in 16 bytes that the host writes, and the
// constants packed for shared memory. The host cuts the side information into one 64-bit word a unit, which costs two
// shifts where it sees the lengths anyway; a thread takes the fields out of its word.
#pragma once

#include "mp3_tables.h"

constexpr int kMp3Bands = 40;                                // room for the bands of a unit, of any kind
constexpr int kMp3HeadWords = 16;                            // of a unit's decoded row: scale factors, then
constexpr int kMp3RowWords = kMp3HeadWords + kMp3Lines / 2;  // its lines in pairs
constexpr int kMp3Pitch = 33;                                // floats from slot to slot: spread over the banks
constexpr int kMp3Guard = 64;                                // zero bytes behind a crop's main data, for codes that lie
constexpr uint32_t kMp3Fault = 1u << 31;                     // in place of a count: a unit that cannot be

struct alignas(16) FaMp3Unit {
    uint32_t high, low;  // its side information, left aligned (59 bits, 63 of the lower rates)
    uint32_t begin;      // first bit in the staged main data
    uint32_t flags;      // version | band << 2 | scfsi << 6 | intensity << 10 | ms << 11 | whole << 12 | right << 13
};

constexpr uint32_t kMp3Intensity = 1u << 10, kMp3MiddleSide = 1u << 11, kMp3Whole = 1u << 12, kMp3Right = 1u << 13;

// A crop as the last kernel wants it. Granules count from the first one that is staged.
struct FaMp3Crop {
    long long unit;         // the first one: units are in order of granule, then channel
    long long channels;     // of the source
    long long first, last;  // granules with samples of the crop; none: last < first
    long long shift;        // where sample 0 of granule 0 goes, counted from the crop's first sample
    long long count;        // samples
    long long to, stride;   // where the first sample of channel 0 goes, and that of the next channel behind it
    long long row;          // of the status
};

// Side information of a unit.
struct FaMp3Fields {
    int part23;  // bits
    int big;     // lines of pairs; above kMp3Lines: no such unit
    int gain, compress, block, mixed;
    int kind;  // of the bands: 0 long, 1 short, 2 mixed
    int switched;
    int tables;    // three of 5 bits, the first one highest
    int regions;   // two of 4 and 3 bits, where not switched
    int subgains;  // three of 3 bits
    int preflag, scale, quadruples;
};

FA_HD int fa_mp3_field(uint64_t side, int at, int size) { return static_cast<int>(side << at >> (64 - size)); }

FA_HD FaMp3Fields fa_mp3_fields(uint64_t side, int version) {
    FaMp3Fields f;
    const int at = version == 0 ? 33 : 38, tail = version == 0 ? at + 24 : at + 23;
    f.part23 = fa_mp3_field(side, 0, 12);
    f.big = 2 * fa_mp3_field(side, 12, 9);
    f.gain = fa_mp3_field(side, 21, 8);
    f.compress = fa_mp3_field(side, 29, version == 0 ? 4 : 9);
    f.switched = fa_mp3_field(side, at, 1);
    f.block = f.switched ? fa_mp3_field(side, at + 1, 2) : 0;
    f.mixed = f.switched ? fa_mp3_field(side, at + 3, 1) : 0;
    f.kind = f.block == 2 ? 1 + f.mixed : 0;
    f.tables = f.switched ? fa_mp3_field(side, at + 4, 10) << 5 : fa_mp3_field(side, at + 1, 15);
    f.regions = fa_mp3_field(side, at + 16, 7);
    f.subgains = f.switched ? fa_mp3_field(side, at + 14, 9) : 0;
    f.preflag = version == 0 ? fa_mp3_field(side, at + 23, 1) : 0;
    f.scale = fa_mp3_field(side, tail, 1);
    f.quadruples = fa_mp3_field(side, tail + 1, 1);
    return f;
}

// One plain struct, filled on the host, copied to a GPU as bytes. Bands are counted by kind * 9 + sample rate.
struct FaMp3GpuTables {
    // As FaMp3Tables::huffman in 16 bits: bits of the code << 8 | x << 4 | y, or 1 << 15 | extra bits << 11 | where the
    // table of the longer codes begins.
    uint16_t codes[kMp3HuffmanSize];
    uint32_t roots[34];         // first entry | extra bits of a value << 16; 0: no such table
    uint32_t lsf_counts[6][3];  // four bytes, the first one lowest
    uint16_t long_bands[9][24];
    uint8_t slen[2][16];
    uint8_t pretab[kMp3Bands];
    uint8_t window[27][kMp3Bands];
    uint8_t bands[28];
    uint8_t band_of[27][kMp3Lines / 2];  // of a pair of lines: bands have even edges
    uint32_t place[27][kMp3Lines / 2];   // of both lines of a pair: coefficient * kMp3Pitch + subband, 16 bits each
    float power[kMp3LargestValue + 1];
    float alias[2][8];
    float intensity[2][8];
    float matrix[16][32];  // [input pair][A, then B]
    float taps[16][32];    // [2 * step + (0: A, 1: B)][output]
};

// cos(2 pi n / turn) for a multiple of four, to the last bits of a double: for tables that the compiler computes.
FA_HD constexpr double fa_mp3_cos(int n, int turn) {
    n %= turn;
    if (2 * n > turn) n = turn - n;
    const bool low = 4 * n > turn;
    if (low) n = turn / 2 - n;
    const double x = 2 * FA_PI * n / turn;
    double sum = 0, term = 1;
    for (int k = 1; k < 30; k += 2) {
        sum += term;
        term *= -x * x / (k * (k + 1));
    }
    return low ? -sum : sum;
}

// sin of the same angle.
FA_HD constexpr double fa_mp3_sin(int n, int turn) { return fa_mp3_cos(n % turn + turn - turn / 4, turn); }

// Matrices and windows of the IMDCT as FaMp3Tables has them: as constants their elements are operands of instructions.
struct FaMp3Hybrid {
    float wide[18][18];
    float narrow[6][6];
    float window[4][36];
};

FA_HD constexpr FaMp3Hybrid fa_mp3_hybrid() {
    FaMp3Hybrid t = {};
    for (int n = 0; n < 18; ++n) {
        const int i = n < 9 ? n : n + 9;
        for (int k = 0; k < 18; ++k) t.wide[n][k] = static_cast<float>(fa_mp3_cos((2 * i + 19) * (2 * k + 1), 144));
    }
    for (int n = 0; n < 6; ++n) {
        const int i = n < 3 ? n : n + 3;
        for (int k = 0; k < 6; ++k) t.narrow[n][k] = static_cast<float>(fa_mp3_cos((2 * i + 7) * (2 * k + 1), 48));
    }
    for (int i = 0; i < 36; ++i) {
        const float wide = static_cast<float>(fa_mp3_sin(2 * i + 1, 144));
        const float narrow = static_cast<float>(fa_mp3_sin(2 * (i % 12) + 1, 48));
        t.window[0][i] = wide;
        t.window[1][i] = i < 18   ? wide
                         : i < 24 ? 1.0f
                         : i < 30 ? static_cast<float>(fa_mp3_sin(2 * (i - 18) + 1, 48))
                                  : 0.0f;
        t.window[2][i] = i < 12 ? narrow : 0.0f;
        t.window[3][i] = i < 6    ? 0.0f
                         : i < 12 ? static_cast<float>(fa_mp3_sin(2 * (i - 6) + 1, 48))
                         : i < 18 ? 1.0f
                                  : wide;
    }
    return t;
}

#if !FA_CUDA
namespace fa_mp3 {

inline void add_gpu_codes(const FaMp3Tables& t, FaMp3GpuTables& g) {
    for (int i = 0; i < kMp3HuffmanSize; ++i) {
        const uint32_t entry = t.huffman[i];
        g.codes[i] =
            static_cast<uint16_t>(entry >> 31 ? 1u << 15 | (entry >> 16 & 15) << 11 | (entry & 0x7FF) : entry & 0x1FFF);
    }
    for (int table = 0; table < 34; ++table) {
        const uint32_t extra = table < 32 ? t.linbits[table] : 0;
        g.roots[table] = t.root[table] ? t.root[table] | extra << 16 : 0;
    }
}

inline void add_gpu_bands(const FaMp3Tables& t, FaMp3GpuTables& g) {
    for (int kind = 0; kind < 3; ++kind) {
        for (int rate = 0; rate < 9; ++rate) {
            const int n = 9 * kind + rate;
            g.bands[n] = t.bands[kind][rate];
            memcpy(g.window[n], t.window[kind][rate], kMp3Bands);
            const uint16_t* first = t.first[kind][rate];
            for (int p = 0, b = 0; p < kMp3Lines / 2; ++p) {
                while (first[b + 1] <= 2 * p) ++b;
                g.band_of[n][p] = static_cast<uint8_t>(b);
                uint32_t places = 0;
                for (int i = 0; i < 2; ++i) {
                    const uint32_t place = t.place[kind][rate][2 * p + i];
                    places |= (place / 32 * kMp3Pitch + place % 32) << 16 * i;
                }
                g.place[n][p] = places;
            }
        }
    }
    for (int rate = 0; rate < 9; ++rate) {
        for (int b = 0; b < 23; ++b) g.long_bands[rate][b] = t.first[0][rate][b];
    }
}

// Outputs 16 to 31 of the window are kept mirrored on the CPU, and A[0] is negated where it stands in for B.
inline void add_gpu_synthesis(const FaMp3Tables& t, FaMp3GpuTables& g) {
    for (int k = 0; k < 16; ++k) {
        for (int lane = 0; lane < 32; ++lane) g.matrix[k][lane] = t.matrix[lane / 16][k][lane % 16];
    }
    for (int output = 0; output < 32; ++output) {
        const int half = output >= 16, lane = output > 16 ? 32 - output : output % 16;
        for (int i = 0; i < 8; ++i) {
            g.taps[2 * i][output] = t.taps[half][i][0][lane];
            g.taps[2 * i + 1][output] = output ? t.taps[half][i][1][lane] : -t.taps[half][i][1][lane];
        }
    }
}

}  // namespace fa_mp3

inline void fa_mp3_fill_gpu_tables(const FaMp3Tables& t, FaMp3GpuTables& g) {
    g = {};
    fa_mp3::add_gpu_codes(t, g);
    fa_mp3::add_gpu_bands(t, g);
    fa_mp3::add_gpu_synthesis(t, g);
    for (int split = 0; split < 6; ++split) {
        for (int kind = 0; kind < 3; ++kind) memcpy(&g.lsf_counts[split][kind], t.lsf_counts[split][kind], 4);
    }
    memcpy(g.slen, t.slen, sizeof g.slen);
    memcpy(g.pretab, t.pretab, sizeof g.pretab);
    memcpy(g.power, t.power, sizeof g.power);
    memcpy(g.alias, t.alias, sizeof g.alias);
    memcpy(g.intensity, t.intensity, sizeof g.intensity);
}
#endif
