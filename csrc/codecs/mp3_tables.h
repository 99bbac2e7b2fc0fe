// What the layer III decoder reads besides the stream: one plain struct, filled once on the host from mp3_codes.h and
// copied to a GPU as bytes.
#pragma once

#include "../fa_compat.h"

constexpr int kMp3RootBits = 9;         // of a Huffman code looked up first
constexpr int kMp3PairBits = 11;        // of a pair with its signs, and
constexpr int kMp3QuadrupleBits = 10;   // of a quadruple with its signs, looked up at once
constexpr int kMp3HuffmanSize = 11392;  // entries of all look-up tables together
constexpr int kMp3Lines = 576;          // frequency lines of a granule and channel
constexpr int kMp3LargestValue = 15 + 8191;

struct FaMp3Tables {
    // Huffman look-up, 32-bit entries. A code of at most kMp3RootBits: its bits and those of the signs << 16 | its bits
    // << 8 | x << 4 | y. A longer one: 1 << 31 | extra bits << 16 | where its table begins, counted from its root.
    uint32_t huffman[kMp3HuffmanSize];
    uint16_t
        root[34];  // by table number; 32, 33: quadruples A and B with v << 3 | w << 2 | x << 1 | y in place of x, y
    uint8_t linbits[34];
    // Short codes with their signs: x << 11 | y << 6 | bits (5, 5 and 4 bits), or 0: a longer code, or extra bits;
    // v << 14 | w << 12 | x << 10 | y << 8 | bits. By set of codes: `set_of` a table, 0 where there is none.
    uint16_t pair[16][1 << kMp3PairBits];
    uint16_t quadruple[2][1 << kMp3QuadrupleBits];
    uint8_t set_of[32];
    float power[kMp3LargestValue + 1];  // n^(4/3)
    float small_power[32];              // of n - 16, with its sign
    float quarter[4];                   // 2^(n / 4)

    // Bands in stream order: kind 0 long, 1 short (three windows a band), 2 mixed; by sample rate. `first` has the
    // first line of each band and 576 behind the last; `window` 3 is a long band, 0 to 2 a window of a short one.
    uint16_t first[3][9][40];
    uint8_t window[3][9][40];
    uint8_t bands[3][9];
    // Where line n of the stream goes: row (coefficient 0..17) * 32 + subband.
    uint16_t place[3][9][kMp3Lines];
    uint8_t pretab[40];
    uint8_t slen[2][16];
    uint8_t lsf_counts[6][3][4];

    float alias[2][8];          // cs, ca
    float imdct[18][18];        // outputs 0..8 and 18..26 of the 36-point transform from 18 lines
    float imdct_window[4][36];  // by block type; 2: 12 elements
    float imdct_short[6][6];    // outputs 0..2 and 6..8 of the 12-point transform from 6 lines
    float intensity[2][8];      // left and right share of a position of MPEG 1
    // Synthesis: [input pair][lane] of A (V[0..15]) and B (V[64], V[33..47]); input pairs are sums (even lanes) and
    // differences (odd lanes) of subbands k and 31 - k.
    float matrix[2][16][16];
    // [step][A or B][output lane] for outputs 0..15, and for outputs 16, 31..17.
    float taps[2][8][2][16];
};

#if !FA_CUDA
#include "mp3_codes.h"

namespace fa_mp3 {

// Adds the look-up table of one set of codes at `next`; returns where the following one may begin.
inline int add_codes(const FaMp3Code& set, FaMp3Tables& t, int next) {
    uint32_t* root = t.huffman + next;
    int used = 1 << kMp3RootBits, deepest[1 << kMp3RootBits] = {};
    for (int pass = 0; pass < 3; ++pass) {  // lengths below each long prefix; links; leaves
        const char* text = set.codes;
        for (int symbol = 0; *text; ++symbol) {
            uint32_t code = 0;
            int length = 0;
            for (; *text == '0' || *text == '1'; ++text, ++length) code = 2 * code + static_cast<uint32_t>(*text - '0');
            while (*text == ' ') ++text;
            const int extra = length - kMp3RootBits;
            const uint32_t value = set.table >= 32 ? static_cast<uint32_t>(symbol)
                                                   : static_cast<uint32_t>(symbol / set.size << 4 | symbol % set.size);
            uint32_t signs = 0;
            if (set.table >= 32)
                for (uint32_t rest = value; rest; rest >>= 1) signs += rest & 1;
            else
                signs = (value >> 4 != 0) + ((value & 15) != 0);
            const uint32_t leaf =
                (static_cast<uint32_t>(length) + signs) << 16 | static_cast<uint32_t>(length) << 8 | value;
            if (extra <= 0) {
                const uint32_t begin = code << -extra;
                for (uint32_t i = 0; pass == 2 && i < 1u << -extra; ++i) root[begin + i] = leaf;
                continue;
            }
            const uint32_t prefix = code >> extra;
            int& depth = deepest[prefix];
            if (pass == 0) depth = fa_max(depth, extra);
            if (pass == 1 && !(root[prefix] >> 31)) {
                root[prefix] = 1u << 31 | static_cast<uint32_t>(depth) << 16 | static_cast<uint32_t>(used);
                used += 1 << depth;
            }
            const uint32_t rest = (code & ((1u << extra) - 1)) << (depth - extra);
            for (uint32_t i = 0; pass == 2 && i < 1u << (depth - extra); ++i) {
                root[(root[prefix] & 0xFFFF) + rest + i] = leaf;
            }
        }
    }
    return next + used;
}

// The sign that the next of the bits left aligned in `rest` gives a value; zero has none.
inline int take_sign(int value, uint32_t& rest) {
    if (value == 0) return 0;
    const bool negative = rest >> 31;
    rest <<= 1;
    return negative ? -value : value;
}

// Both look-ups of whole codes from the tables of their set.
inline void add_short_pairs(const uint32_t* root, bool has_extra_bits, uint16_t* pairs) {
    for (uint32_t i = 0; i < 1u << kMp3PairBits; ++i) {
        uint32_t rest = i << (32 - kMp3PairBits), entry = root[rest >> (32 - kMp3RootBits)];
        if (entry >> 31) entry = root[(entry & 0xFFFF) + (rest << kMp3RootBits >> (32 - (entry >> 16 & 0x7FFF)))];
        const int bits = entry >> 16 & 63, x = entry >> 4 & 15, y = entry & 15;
        if (bits == 0 || bits > kMp3PairBits || (has_extra_bits && (x == 15 || y == 15))) continue;
        rest <<= entry >> 8 & 31;
        const int first = take_sign(x, rest), second = take_sign(y, rest);
        pairs[i] = static_cast<uint16_t>((first & 31) << 11 | (second & 31) << 6 | bits);
    }
}

inline void add_quadruples(const uint32_t* root, uint16_t* quadruples) {
    for (uint32_t i = 0; i < 1u << kMp3QuadrupleBits; ++i) {
        uint32_t rest = i << (32 - kMp3QuadrupleBits), values = 0;
        const uint32_t entry = root[rest >> (32 - kMp3RootBits)];
        rest <<= entry >> 8 & 31;
        for (int n = 3; n >= 0; --n) values = values << 2 | (take_sign(entry >> n & 1, rest) & 3);
        quadruples[i] = static_cast<uint16_t>(values << 8 | (entry >> 16 & 63));
    }
}

// Bands of one kind and rate. MPEG 1 mixes 8 long bands with short ones, the lower rates 6: 36 lines either way.
inline void add_bands(FaMp3Tables& t, int kind, int rate) {
    int n = 0, line = 0;
    const uint16_t *longs = kMp3LongBands[rate], *shorts = kMp3ShortBands[rate];
    const auto add = [&](int width, int window) {
        t.first[kind][rate][n] = static_cast<uint16_t>(line);
        t.window[kind][rate][n++] = static_cast<uint8_t>(window);
        line += width;
    };
    const int boundary = kind == 0 ? kMp3Lines : kind == 1 ? 0 : rate == 8 ? 72 : 36;
    for (int b = 0; longs[b] < boundary; ++b) add(longs[b + 1] - longs[b], 3);
    for (int b = 0; b < 13 && kind > 0; ++b) {
        for (int w = 0; w < 3 && 3 * shorts[b] >= boundary; ++w) add(shorts[b + 1] - shorts[b], w);
    }
    t.first[kind][rate][n] = kMp3Lines;
    t.bands[kind][rate] = static_cast<uint8_t>(n);
    for (int b = 0; b < n; ++b) {
        const int first = t.first[kind][rate][b], width = t.first[kind][rate][b + 1] - first;
        const int window = t.window[kind][rate][b];
        for (int i = 0; i < width; ++i) {  // lines of the three windows of a band are interleaved
            const int to = window == 3 ? first + i : first - window * width + 3 * i + window;
            t.place[kind][rate][first + i] = static_cast<uint16_t>(to % 18 * 32 + to / 18);
        }
    }
}

inline void add_hybrid(FaMp3Tables& t) {
    const double ci[8] = {-0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037};
    for (int i = 0; i < 8; ++i) {
        t.alias[0][i] = static_cast<float>(1 / sqrt(1 + ci[i] * ci[i]));
        t.alias[1][i] = static_cast<float>(ci[i] / sqrt(1 + ci[i] * ci[i]));
    }
    for (int n = 0; n < 18; ++n) {
        const int i = n < 9 ? n : n + 9;
        for (int k = 0; k < 18; ++k) t.imdct[n][k] = static_cast<float>(cos(FA_PI / 72 * (2 * i + 19) * (2 * k + 1)));
    }
    for (int n = 0; n < 6; ++n) {
        const int i = n < 3 ? n : n + 3;
        for (int k = 0; k < 6; ++k)
            t.imdct_short[n][k] = static_cast<float>(cos(FA_PI / 24 * (2 * i + 7) * (2 * k + 1)));
    }
    for (int i = 0; i < 36; ++i) {
        const double wide = sin(FA_PI / 36 * (i + 0.5));
        const double rise = sin(FA_PI / 12 * (i - 6 + 0.5)), fall = sin(FA_PI / 12 * (i - 18 + 0.5));
        t.imdct_window[0][i] = static_cast<float>(wide);
        t.imdct_window[1][i] = static_cast<float>(i < 18 ? wide : i < 24 ? 1 : i < 30 ? fall : 0);
        t.imdct_window[2][i] = static_cast<float>(i < 12 ? sin(FA_PI / 12 * (i + 0.5)) : 0);
        t.imdct_window[3][i] = static_cast<float>(i < 6 ? 0 : i < 12 ? rise : i < 18 ? 1 : wide);
    }
}

// D[n] of the standard, 0..511.
inline double window(int n) {
    const int value = n <= 256 ? kMp3Window[n] : n % 64 == 0 ? kMp3Window[512 - n] : -kMp3Window[512 - n];
    return value / 65536.0;
}

inline void add_synthesis(FaMp3Tables& t) {
    for (int k = 0; k < 16; ++k) {
        for (int lane = 0; lane < 16; ++lane) {
            t.matrix[0][k][lane] = static_cast<float>(cos(FA_PI / 64 * (16 + lane) * (2 * k + 1)));
            t.matrix[1][k][lane] = static_cast<float>(cos(FA_PI / 64 * (lane ? 48 + lane : 64) * (2 * k + 1)));
        }
    }
    for (int i = 0; i < 8; ++i) {
        for (int lane = 0; lane < 16; ++lane) {
            t.taps[0][i][0][lane] = static_cast<float>(window(64 * i + lane));
            t.taps[0][i][1][lane] = static_cast<float>(window(64 * i + 32 + lane));
            t.taps[1][i][0][lane] = lane ? static_cast<float>(-window(64 * i + 32 - lane)) : 0.0f;
            t.taps[1][i][1][lane] = static_cast<float>(window(64 * i + (lane ? 64 - lane : 48)));
        }
    }
}

}  // namespace fa_mp3

inline void fa_mp3_fill_tables(FaMp3Tables& t) {
    t = {};
    int next = 1 << kMp3RootBits;  // the tables that do not exist: no bits, all zero
    for (int i = 0; i < 1 << kMp3RootBits; ++i) t.huffman[i] = 0;
    uint8_t sets = 0;
    for (const FaMp3Code& set : kMp3Codes) {
        t.root[set.table] = static_cast<uint16_t>(next);
        next = fa_mp3::add_codes(set, t, next);
        const uint32_t* root = t.huffman + t.root[set.table];
        if (set.table < 32) {
            t.set_of[set.table] = ++sets;
            fa_mp3::add_short_pairs(root, set.table >= 16, t.pair[sets]);
        } else {
            fa_mp3::add_quadruples(root, t.quadruple[set.table - 32]);
        }
    }
    for (int table = 17; table < 32; ++table) {
        if (table == 24) continue;
        t.root[table] = t.root[table < 24 ? 16 : 24];
        t.set_of[table] = t.set_of[table < 24 ? 16 : 24];
    }
    for (int table = 0; table < 32; ++table) t.linbits[table] = kMp3Linbits[table];
    for (int n = 0; n <= kMp3LargestValue; ++n) t.power[n] = static_cast<float>(pow(n, 4.0 / 3.0));
    for (int n = -16; n < 16; ++n) t.small_power[n + 16] = n < 0 ? -t.power[-n] : t.power[n];
    for (int n = 0; n < 4; ++n) t.quarter[n] = static_cast<float>(pow(2.0, n / 4.0));
    for (int kind = 0; kind < 3; ++kind) {
        for (int rate = 0; rate < 9; ++rate) fa_mp3::add_bands(t, kind, rate);
    }
    for (int i = 0; i < 22; ++i) t.pretab[i] = kMp3Pretab[i];
    memcpy(t.slen, kMp3Slen, sizeof t.slen);
    memcpy(t.lsf_counts, kMp3LsfCounts, sizeof t.lsf_counts);
    for (int position = 0; position < 7; ++position) {  // 6: all to the left
        const double ratio = position == 6 ? 1e30 : tan(position * FA_PI / 12);
        t.intensity[0][position] = static_cast<float>(ratio / (1 + ratio));
        t.intensity[1][position] = static_cast<float>(1 / (1 + ratio));
    }
    fa_mp3::add_hybrid(t);
    fa_mp3::add_synthesis(t);
}
#endif
