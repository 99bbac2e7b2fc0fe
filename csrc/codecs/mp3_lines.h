// From the bits of one granule and channel to its 576 frequency lines: scale factors, Huffman codes, powers and gains
// (ISO 11172-3 clauses 2.4.3.4.4 to 2.4.3.4.7; ISO 13818-3 clause 2.4.3.2), and stereo (2.4.3.4.9).
#pragma once

#include "bits.h"
#include "mp3_frame.h"

constexpr int kMp3Overrun = 2048;  // 288 pairs of 47 bits and a window

constexpr int kMp3NoPosition = 255;  // no factor has this value

struct FaMp3Factors {
    uint8_t value[40];        // by band in stream order
    uint8_t no_position[40];  // MPEG 2: the value that is no intensity position
};

// Factors of MPEG 1. `earlier`: those of granule 0, for the groups that granule 1 shares with it.
FA_HD void fa_mp3_factors_1(FaMp3Bits& bits, const FaMp3Tables& t, const FaMp3Granule& g, int shared,
                            const FaMp3Factors& earlier, FaMp3Factors& f) {
    const int size[2] = {t.slen[0][g.scalefac_compress & 15], t.slen[1][g.scalefac_compress & 15]};
    if (g.kind == 0) {
        for (int b = 0; b < 21; ++b) {
            const int group = b < 6 ? 0 : b < 11 ? 1 : b < 16 ? 2 : 3;
            f.value[b] =
                shared >> (3 - group) & 1 ? earlier.value[b] : static_cast<uint8_t>(bits.read(size[b < 11 ? 0 : 1]));
        }
        f.value[21] = 0;
        return;
    }
    const int bands = g.kind == 1 ? 36 : 35, large = g.kind == 1 ? 18 : 17;
    for (int b = 0; b < bands; ++b) f.value[b] = static_cast<uint8_t>(bits.read(size[b < large ? 0 : 1]));
    for (int b = bands; b < bands + 3; ++b) f.value[b] = 0;
}

// Factors of MPEG 2 and 2.5: four sizes, split from one number; `intensity`: the right channel of an intensity frame.
FA_HD void fa_mp3_factors_2(FaMp3Bits& bits, const FaMp3Tables& t, FaMp3Granule& g, bool intensity, FaMp3Factors& f) {
    int n = g.scalefac_compress, split = 0;
    int size[4] = {0, 0, 0, 0};
    if (intensity) {
        n >>= 1;
        if (n < 180) {
            split = 3, size[0] = n / 36, size[1] = n % 36 / 6, size[2] = n % 6;
        } else if (n < 244) {
            n -= 180, split = 4, size[0] = n >> 4 & 3, size[1] = n >> 2 & 3, size[2] = n & 3;
        } else {
            n -= 244, split = 5, size[0] = n / 3, size[1] = n % 3;
        }
    } else if (n < 400) {
        size[0] = (n >> 4) / 5, size[1] = (n >> 4) % 5, size[2] = n >> 2 & 3, size[3] = n & 3;
    } else if (n < 500) {
        n -= 400, split = 1, size[0] = (n >> 2) / 5, size[1] = (n >> 2) % 5, size[2] = n & 3;
    } else {
        n -= 500, split = 2, size[0] = n / 3, size[1] = n % 3;
        g.preflag = 1;
    }
    int b = 0;
    for (int part = 0; part < 4; ++part) {
        // The largest value is none; without bits there is only 0, a position as any other (mpg123 and FFmpeg agree).
        const int none = size[part] ? (1 << size[part]) - 1 : kMp3NoPosition;
        for (int i = 0; i < t.lsf_counts[split][g.kind][part]; ++i, ++b) {
            f.value[b] = static_cast<uint8_t>(bits.read(size[part]));
            f.no_position[b] = static_cast<uint8_t>(none);
        }
    }
    for (; b < 39; ++b) f.value[b] = 0, f.no_position[b] = kMp3NoPosition;
}

// Bits in a register, so that one code does not wait for the memory of the next: at least 56 after a refill.
struct FaMp3Window {
    const uint8_t* next;
    uint64_t cache;  // left aligned
    int count;       // bits in it

    FA_HD explicit FaMp3Window(const FaMp3Bits& bits) : next(bits.data + (bits.at >> 3)), cache(0), count(0) {
        refill();
        drop(static_cast<int>(bits.at & 7));
    }
    FA_HD void refill() {
        cache |= fa_mp3_load(next) >> count;
        next += (63 - count) >> 3;
        count |= 56;
    }
    FA_HD void drop(int bits) {
        cache <<= bits;
        count -= bits;
    }
    FA_HD long long position(const uint8_t* data) const { return 8 * (next - data) - count; }
};

FA_HD uint32_t fa_mp3_look_up(const uint32_t* root, uint64_t cache) {
    uint32_t entry = root[cache >> (64 - kMp3RootBits)];
    if (entry >> 31) {
        const int extra = entry >> 16 & 0x7FFF;
        entry = root[(entry & 0xFFFF) + (cache << kMp3RootBits >> (64 - extra))];
    }
    return entry;
}

// A value, with its extra bits if it is 15 and the table has them, and its sign; takes those from the window.
FA_HD int16_t fa_mp3_value(int value, int linbits, FaMp3Window& window) {
    if (value == 0) return 0;
    if (value == 15 && linbits) {
        value += static_cast<int>(window.cache >> (64 - linbits));
        window.drop(linbits);
    }
    const int sign = static_cast<int>(static_cast<int64_t>(window.cache) >> 63);
    window.drop(1);
    return static_cast<int16_t>((value ^ sign) - sign);
}

// One pair, however long (at most 47 bits), into to[0] and to[1].
FA_HD void fa_mp3_pair(FaMp3Window& window, const uint32_t* root, int linbits, int16_t* to) {
    window.refill();
    const uint32_t entry = fa_mp3_look_up(root, window.cache);
    window.drop(entry >> 8 & 31);
    to[0] = fa_mp3_value(entry >> 4 & 15, linbits, window);
    to[1] = fa_mp3_value(entry & 15, linbits, window);
}

// The pairs of one region in the making.
struct FaMp3Pairs {
    FaMp3Window window;
    const uint16_t* pairs;  // by their first bits
    const uint32_t* root;
    int linbits;
    int16_t* to;

    FA_HD FaMp3Pairs(const FaMp3Window& from, const FaMp3Tables& t, int table, int16_t* lines)
        : window(from),
          pairs(t.pair[t.set_of[table]]),
          root(t.huffman + t.root[table]),
          linbits(t.linbits[table]),
          to(lines) {}
    // One pair. `large`: behind the last that may be above 15. The window is full behind a code that is not short.
    FA_HD void take(int16_t*& large) {
        const uint32_t entry = pairs[window.cache >> (64 - kMp3PairBits)];
        if (FA_UNLIKELY(entry == 0)) {
            fa_mp3_pair(window, root, linbits, to);
            window.refill();
            to += 2;
            if (linbits) large = to;
            return;
        }
        to[0] = static_cast<int16_t>(static_cast<int16_t>(entry) >> 11);
        to[1] = static_cast<int16_t>(static_cast<int16_t>(entry << 5) >> 11);
        to += 2;
        window.drop(entry & 15);
    }
    FA_HD void take_until(const int16_t* stop, int16_t*& large) {
        while (to + 8 <= stop) {  // five short codes have at most 55 bits
            window.refill();
            for (int i = 0; i < 4; ++i) take(large);
        }
        while (to < stop) {
            window.refill();
            take(large);
        }
    }
};

// Quadruples of values -1, 0, 1 from line n on; returns the line behind the last. A code that runs over `end` is none.
FA_HD int fa_mp3_quadruples(FaMp3Window& window, const uint16_t* codes, const uint8_t* data, long long end,
                            int16_t* lines, int n) {
    while (n + 4 <= kMp3Lines && window.position(data) < end) {
        window.refill();
        const uint32_t entry = codes[window.cache >> (64 - kMp3QuadrupleBits)];
        window.drop(entry & 15);
        if (window.position(data) > end) break;
        for (int i = 0; i < 4; ++i) {
            lines[n + i] = static_cast<int16_t>(static_cast<int16_t>(entry << 2 * i) >> 14);
        }
        n += 4;
    }
    return n;
}

// The pairs of a granule that claims fewer bits than they have: whole codes, and nothing behind. Returns the line
// behind the last.
FA_HD int fa_mp3_cut_pairs(const FaMp3Bits& bits, const FaMp3Tables& t, const FaMp3Granule& g, long long end, int big,
                           int16_t* lines) {
    FaMp3Window window(bits);
    int n = 0;
    for (int r = 0; r < 3; ++r) {
        const int stop = fa_min(r < 2 ? g.region[r] : kMp3Lines, big), table = g.table[r];
        for (; n < stop; n += 2) {
            if (t.root[table] == 0) {
                lines[n] = lines[n + 1] = 0;
                continue;
            }
            fa_mp3_pair(window, t.huffman + t.root[table], t.linbits[table], lines + n);
            if (window.position(bits.data) > end) return n;
        }
    }
    return n;
}

// Behind the pairs: quadruples and zeros. Returns how many lines may not be zero.
FA_HD int fa_mp3_finish(const FaMp3Bits& bits, const FaMp3Tables& t, const FaMp3Granule& g, long long end,
                        FaMp3Window& window, int16_t* lines) {
    int n = fa_min(2 * g.big_values, kMp3Lines);
    if (FA_UNLIKELY(window.position(bits.data) > end))
        n = fa_mp3_cut_pairs(bits, t, g, end, n, lines);
    else
        n = fa_mp3_quadruples(window, t.quadruple[g.count1_table], bits.data, end, lines, n);
    for (int i = n; i < kMp3Lines; ++i) lines[i] = 0;
    while (n > 0 && lines[n - 1] == 0) --n;
    return n;
}

// The quantised lines, zeros behind the last; how many may not be zero, and behind which line there is none above 15.
// Codes end at bit `end`: one that runs over it is dropped. Up to kMp3Overrun bytes behind `end` are read.
FA_HD int fa_mp3_huffman(const FaMp3Bits& bits, const FaMp3Tables& t, const FaMp3Granule& g, long long end,
                         int16_t* lines, int& large) {
    FaMp3Window window(bits);
    int n = 0;
    const int big = fa_min(2 * g.big_values, kMp3Lines);
    int16_t* above = lines;
    for (int r = 0; r < 3; ++r) {
        const int stop = fa_min(r < 2 ? g.region[r] : kMp3Lines, big), table = g.table[r];
        if (t.root[table] == 0) {  // table 0: zeros without bits (4 and 14 do not exist)
            for (; n < stop; ++n) lines[n] = 0;
        } else if (n < stop) {
            FaMp3Pairs region(window, t, table, lines + n);
            region.take_until(lines + stop, above);
            window = region.window;
            n = stop;
        }
    }
    large = static_cast<int>(above - lines);
    return fa_mp3_finish(bits, t, g, end, window, lines);
}

// 2^(quarters / 4), zero below the normal numbers.
FA_HD float fa_mp3_gain(const FaMp3Tables& t, int quarters) {
    const int exponent = (quarters >> 2) + 127;
    return exponent <= 0 ? 0.0f : t.quarter[quarters & 3] * fa_bits_to_float(static_cast<uint32_t>(exponent) << 23);
}

// Exponent of a band in quarters of a power of two. With `ms` the factor 1 / sqrt(2) of middle and side is in it.
FA_HD int fa_mp3_quarters(const FaMp3Tables& t, const FaMp3Granule& g, const FaMp3Factors& f, int band, int window,
                          bool ms) {
    const int step = g.scalefac_scale ? 4 : 2, quarters = g.global_gain - 210 - (ms ? 2 : 0);
    if (window == 3) return quarters - step * (f.value[band] + (g.preflag ? t.pretab[band] : 0));
    return quarters - 8 * g.subblock_gain[window] - step * f.value[band];
}

FA_HD float fa_mp3_power(const FaMp3Tables& t, int value) { return value < 0 ? -t.power[-value] : t.power[value]; }

FA_HD void fa_mp3_requantise(const FaMp3Tables& t, const FaMp3Granule& g, int rate, const FaMp3Factors& f,
                             const int16_t* lines, int count, bool ms, float* out) {
    const uint16_t* first = t.first[g.kind][rate];
    for (int b = 0; b < t.bands[g.kind][rate] && first[b] < count; ++b) {
        const float gain = fa_mp3_gain(t, fa_mp3_quarters(t, g, f, b, t.window[g.kind][rate][b], ms));
        const int stop = fa_min<int>(first[b + 1], count);
        for (int i = first[b]; i < stop; ++i) {
            const int value = lines[i];
            const float power = value >= -16 && value < 16 ? t.small_power[value + 16] : fa_mp3_power(t, value);
            out[i] = power * gain;
        }
    }
    for (int i = count; i < kMp3Lines; ++i) out[i] = 0.0f;
}

// Shares of the left and the right channel of one band in intensity stereo; false where it has no position.
FA_HD bool fa_mp3_shares(const FaMp3Tables& t, const FaMp3Header& h, const FaMp3Granule& right, const FaMp3Factors& f,
                         int band, float& left_share, float& right_share) {
    const int position = f.value[band];
    if (h.version == 0) {
        if (position >= 7) return false;
        left_share = t.intensity[0][position];
        right_share = t.intensity[1][position];
        return true;
    }
    if (position == f.no_position[band]) return false;
    // 2^(-1/2) or 2^(-1/4) for every second step, to the right (odd) or the left (even)
    const int quarters = (position + 1) / 2 * (right.scalefac_compress & 1 ? 2 : 1);
    const float less = fa_mp3_gain(t, -quarters);
    left_share = position & 1 ? less : 1.0f;
    right_share = position & 1 ? 1.0f : less;
    return true;
}

// Middle/side and intensity on both channels' lines, in stream order. `right_count`: lines of the right channel that
// may not be zero. Middle/side lines were scaled by 1 / sqrt(2) already (where `ms`).
FA_HD void fa_mp3_stereo(const FaMp3Tables& t, const FaMp3Header& h, const FaMp3Granule& right, const FaMp3Factors& f,
                         int right_count, bool ms, float* l, float* r) {
    int until = kMp3Lines;  // lines below are no intensity stereo in any window
    if (h.mode == 1 && h.mode_extension & 1) {
        const uint16_t* first = t.first[right.kind][h.band];
        const uint8_t* window = t.window[right.kind][h.band];
        const int bands = t.bands[right.kind][h.band];
        int last[4] = {-1, -1, -1, -1};  // last band of each window that is not zero on the right
        for (int b = 0; b < bands && first[b] < right_count; ++b) {
            for (int i = first[b]; i < first[b + 1]; ++i) {
                if (r[i] != 0.0f) last[window[b]] = b;
            }
        }
        // A short band that is not zero keeps the long ones below it (mixed blocks) from intensity stereo.
        if (last[0] >= 0 || last[1] >= 0 || last[2] >= 0) last[3] = bands;
        const float undo = ms ? 1.41421356f : 1.0f;
        for (int b = bands - 1; b >= 0; --b) {
            const int w = window[b];
            // The last band has no factor of its own: it uses that of the band before it.
            const int factor = b >= bands - (w == 3 ? 1 : 3) ? b - (w == 3 ? 1 : 3) : b;
            float left_share = 0.0f, right_share = 0.0f;
            const bool moved = b > last[w] && fa_mp3_shares(t, h, right, f, factor, left_share, right_share);
            for (int i = first[b]; i < first[b + 1]; ++i) {
                const float a = l[i], s = r[i];
                if (moved) {
                    l[i] = a * (left_share * undo);
                    r[i] = a * (right_share * undo);
                } else if (ms) {
                    l[i] = a + s;
                    r[i] = a - s;
                }
            }
        }
        return;
    }
    for (int i = 0; ms && i < until; ++i) {
        const float a = l[i], s = r[i];
        l[i] = a + s;
        r[i] = a - s;
    }
}
