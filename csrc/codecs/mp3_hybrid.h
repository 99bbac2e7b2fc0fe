// From frequency lines to samples on the CPU: alias reduction, IMDCT with overlap, and the synthesis filter bank
// (ISO 11172-3 clauses 2.4.3.4.10 and 2.4.3.2.2), written as small matrix products: lanes are subbands in the IMDCT and
// positions of the window in the synthesis, so there is no transposition and nearly every operation is a multiply-add.
#pragma once

#include "../fa_simd.h"
#include "mp3_lines.h"

constexpr int kMp3History = 15;  // slots of 32 samples that the window reaches back

// What one channel keeps from granule to granule.
struct FaMp3State {
    float overlap[18][32];
    float v[kMp3History + 18][3][16];  // by slot: A, B and B with its first element replaced (see mp3_tables.h)
};

template <class Piece>
FA_HD void fa_get(const float* from, FaLanes<Piece>& value) {
    memcpy(&value, from, sizeof value);
}

template <class Piece>
FA_HD void fa_put(float* to, const FaLanes<Piece>& value) {
    memcpy(to, &value, sizeof value);
}

template <class Piece>
FA_HD void fa_fill(FaLanes<Piece>& value, float x) {
    for (int i = 0; i < value.kPieces; ++i) value.piece[i] = Piece{} + x;
}

template <class Piece>
FA_HD void fa_mp3_broadcast(float x, Piece& all) {
    all = fa_splat<Piece>(x);
}
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// A load that the multiply-add can do itself; from fa_splat GCC makes a permutation.
FA_HD void fa_mp3_broadcast(float x, fa_float16& all) {
    all = __builtin_ia32_broadcastss512(fa_float4{x, 0, 0, 0}, fa_float16{}, -1);
}
#endif

template <class Piece>
FA_HD void fa_add_scaled(FaLanes<Piece>& sum, const FaLanes<Piece>& a, float factor) {
    Piece all;
    fa_mp3_broadcast(factor, all);
    for (int i = 0; i < sum.kPieces; ++i) sum.piece[i] = fa_fma(a.piece[i], all, sum.piece[i]);
}

template <class Piece>
FA_HD void fa_mp3_scaled(const FaLanes<Piece>& a, float factor, FaLanes<Piece>& out) {
    for (int i = 0; i < a.kPieces; ++i) out.piece[i] = a.piece[i] * factor;
}

#if defined(__clang__)
#define FA_MP3_REVERSED(a, ...) __builtin_shufflevector(a, a, __VA_ARGS__)
#else
#define FA_MP3_REVERSED(a, ...) __builtin_shuffle(a, decltype(a < a){__VA_ARGS__})
#endif
FA_HD fa_float4 fa_mp3_reversed(const fa_float4& a) { return FA_MP3_REVERSED(a, 3, 2, 1, 0); }
FA_HD fa_float8 fa_mp3_reversed(const fa_float8& a) { return FA_MP3_REVERSED(a, 7, 6, 5, 4, 3, 2, 1, 0); }
FA_HD fa_float16 fa_mp3_reversed(const fa_float16& a) {
    return FA_MP3_REVERSED(a, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}

// n^(4/3) with its sign for sixteen n of -15 to 15.
template <class Piece>
FA_HD void fa_mp3_small_powers(const FaMp3Tables& t, const int16_t* lines, FaLanes<Piece>& out) {
#if !defined(__clang__)  // has no shuffle by a variable
    typedef int32_t Integers __attribute__((vector_size(64)));
    typedef int16_t Shorts __attribute__((vector_size(32)));
    if constexpr (sizeof(Piece) == 64) {
        Shorts shorts;
        memcpy(&shorts, lines, sizeof shorts);
        const Integers value = __builtin_convertvector(shorts, Integers), sign = value >> 31;
        fa_float16 table;
        memcpy(&table, t.power, sizeof table);
        table = __builtin_shuffle(table, (value ^ sign) - sign);
        Integers bits;
        memcpy(&bits, &table, sizeof bits);
        bits |= sign & INT32_MIN;
        memcpy(&out, &bits, sizeof out);
        return;
    }
#endif
    float powers[16];
    for (int i = 0; i < 16; ++i) powers[i] = t.small_power[(lines[i] + 16) & 31];
    fa_get(powers, out);
}

// As fa_mp3_requantise; memory behind `lines` and `out` is read and written up to the next sixteen. No line behind
// `large` is above 15.
template <class Piece>
FA_HD void fa_mp3_requantise_lanes(const FaMp3Tables& t, const FaMp3Granule& g, int rate, const FaMp3Factors& f,
                                   const int16_t* lines, int count, int large, bool ms, float* out) {
    const uint16_t* first = t.first[g.kind][rate];
    alignas(64) float gains[kMp3Lines + 16];
    FaLanes<Piece> gain, power;
    int b = 0;
    for (; b < t.bands[g.kind][rate] && first[b] < count; ++b) {
        fa_fill(gain, fa_mp3_gain(t, fa_mp3_quarters(t, g, f, b, t.window[g.kind][rate][b], ms)));
        for (int i = first[b]; i < first[b + 1]; i += 16) fa_put(gains + i, gain);
    }
    fa_fill(gain, 0.0f);  // the last sixteen may end behind the last band: what lies there could be a NaN
    fa_put(gains + first[b], gain);
    for (int i = 0; i < count; i += 16) {
        fa_mp3_small_powers(t, lines + i, power);
        fa_get(gains + i, gain);
        for (int p = 0; p < power.kPieces; ++p) power.piece[p] = power.piece[p] * gain.piece[p];
        fa_put(out + i, power);
    }
    for (int i = 0; i < large; ++i) {
        if (lines[i] > 15 || lines[i] < -15) out[i] = fa_mp3_power(t, lines[i]) * gains[i];
    }
    fa_fill(power, 0.0f);
    for (int i = (count + 15) & ~15; i < kMp3Lines; i += 16) fa_put(out + i, power);
}

// rows (18, 32): coefficient, subband. Butterflies between subbands below `subbands`.
FA_HD void fa_mp3_alias(const FaMp3Tables& t, int subbands, float (*rows)[32]) {
    for (int i = 0; i < 8; ++i) {
        const float cs = t.alias[0][i], ca = t.alias[1][i];
        float *upper = rows[17 - i], *lower = rows[i] + 1;
        for (int sb = 0; sb < subbands - 1; ++sb) {
            const float a = upper[sb], b = lower[sb];
            upper[sb] = a * cs - b * ca;
            lower[sb] = b * cs + a * ca;
        }
    }
}

// How many outputs of a transform are summed up side by side: as many as have registers, so that one need not wait for
// the sum of another.
template <class Piece>
constexpr int kMp3Sums = sizeof(Piece) == 64 ? 9 : 3;

// 36 windowed outputs of sixteen subbands of long blocks.
template <class Piece>
FA_HD void fa_mp3_long(const FaMp3Tables& t, const float (*rows)[32], int group, const float* window,
                       FaLanes<Piece>* out) {
    constexpr int kSums = kMp3Sums<Piece>;
    for (int first = 0; first < 18; first += kSums) {
        FaLanes<Piece> sum[kSums], in;
        for (int n = 0; n < kSums; ++n) fa_fill(sum[n], 0.0f);
        for (int k = 0; k < 18; ++k) {
            fa_get(rows[k] + 16 * group, in);
            for (int n = 0; n < kSums; ++n) fa_add_scaled(sum[n], in, t.imdct[first + n][k]);
        }
        const bool odd = first < 9;  // about 8.5; even about 26.5
        for (int n = 0; n < kSums; ++n) {
            const int i = (odd ? 0 : 9) + first + n, mirror = (odd ? 17 : 53) - i;
            fa_mp3_scaled(sum[n], window[i], out[i]);
            fa_mp3_scaled(sum[n], odd ? -window[mirror] : window[mirror], out[mirror]);
        }
    }
}

// The same of short blocks: three transforms of twelve outputs, six apart.
template <class Piece>
FA_HD void fa_mp3_short(const FaMp3Tables& t, const float (*rows)[32], int group, FaLanes<Piece>* out) {
    constexpr int kSums = kMp3Sums<Piece> < 6 ? kMp3Sums<Piece> : 6;
    const float* window = t.imdct_window[2];
    for (int i = 0; i < 36; ++i) fa_fill(out[i], 0.0f);
    for (int w = 0; w < 3; ++w) {
        for (int first = 0; first < 6; first += kSums) {
            FaLanes<Piece> sum[kSums], in;
            for (int n = 0; n < kSums; ++n) fa_fill(sum[n], 0.0f);
            for (int k = 0; k < 6; ++k) {
                fa_get(rows[3 * k + w] + 16 * group, in);
                for (int n = 0; n < kSums; ++n) fa_add_scaled(sum[n], in, t.imdct_short[first + n][k]);
            }
            for (int n = 0; n < kSums; ++n) {
                const bool odd = first + n < 3;
                const int i = first + n + (odd ? 0 : 3), mirror = (odd ? 5 : 17) - i;
                fa_add_scaled(out[6 + 6 * w + i], sum[n], window[i]);
                fa_add_scaled(out[6 + 6 * w + mirror], sum[n], odd ? -window[mirror] : window[mirror]);
            }
        }
    }
}

// rows (18, 32) of one granule become its 18 slots of 32 subband samples, in place.
template <class Piece>
FA_HD void fa_mp3_imdct(const FaMp3Tables& t, int block_type, bool mixed, int subbands, float (*rows)[32],
                        FaMp3State& state) {
    static const float sign[2][16] = {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
                                      {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1}};
    for (int group = 0; group < 2; ++group) {
        FaLanes<Piece> out[36];
        if (16 * group >= subbands) {
            for (int i = 0; i < 36; ++i) fa_fill(out[i], 0.0f);
        } else if (block_type == 2) {
            fa_mp3_short(t, rows, group, out);
        } else {
            fa_mp3_long(t, rows, group, t.imdct_window[block_type], out);
        }
        if (mixed && group == 0) {  // the two lowest subbands are long, with the normal window
            FaLanes<Piece> low[36];
            fa_mp3_long(t, rows, 0, t.imdct_window[0], low);
            for (int i = 0; i < 36; ++i) memcpy(&out[i], &low[i], 2 * sizeof(float));
        }
        for (int i = 0; i < 18; ++i) {
            FaLanes<Piece> before, turn;
            fa_get(state.overlap[i] + 16 * group, before);
            fa_get(sign[i & 1], turn);  // frequency inversion
            for (int p = 0; p < before.kPieces; ++p)
                out[i].piece[p] = (out[i].piece[p] + before.piece[p]) * turn.piece[p];
            fa_put(rows[i] + 16 * group, out[i]);
            fa_put(state.overlap[i] + 16 * group, out[18 + i]);
        }
    }
}

#if defined(__clang__)
#define FA_MP3_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define FA_MP3_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, fa_int4{i, j, k, l})
#endif

// Sums and differences of subbands k and 31 - k, side by side. Stored in vectors: two narrow stores that one wide load
// reads would stall it.
FA_HD void fa_mp3_pairs_of_subbands(const float* s, float* pairs) {
    for (int k = 0; k < 16; k += 4) {
        fa_float4 a, b;
        memcpy(&a, s + k, sizeof a);
        memcpy(&b, s + 28 - k, sizeof b);
        b = FA_MP3_SHUFFLE(b, b, 3, 2, 1, 0);
        const fa_float4 sum = a + b, difference = a - b;
        const fa_float4 low = FA_MP3_SHUFFLE(sum, difference, 0, 4, 1, 5);
        const fa_float4 high = FA_MP3_SHUFFLE(sum, difference, 2, 6, 3, 7);
        memcpy(pairs + 2 * k, &low, sizeof low);
        memcpy(pairs + 2 * k + 4, &high, sizeof high);
    }
}

template <class Piece>
FA_HD void fa_mp3_add_products(FaLanes<Piece>& sum, const FaLanes<Piece>& a, const FaLanes<Piece>& b) {
    for (int p = 0; p < sum.kPieces; ++p) sum.piece[p] = fa_fma(a.piece[p], b.piece[p], sum.piece[p]);
}

// How many slots share the loads of the constants: as many as have registers for their sums.
template <class Piece>
constexpr int kMp3Together = sizeof(Piece) == 64 ? 6 : 2;

// A and B of kMp3Together slots, each from its 32 subband samples.
template <class Piece>
FA_HD void fa_mp3_matrix(const FaMp3Tables& t, const float (*s)[32], float (*v)[3][16]) {
    constexpr int kSlots = kMp3Together<Piece>;
    float pairs[kSlots][32];
    FaLanes<Piece> a[kSlots], b[kSlots];
    for (int slot = 0; slot < kSlots; ++slot) {
        fa_mp3_pairs_of_subbands(s[slot], pairs[slot]);
        fa_fill(a[slot], 0.0f);
        fa_fill(b[slot], 0.0f);
    }
    for (int k = 0; k < 16; ++k) {
        FaLanes<Piece> to_a, to_b, x;
        fa_get(t.matrix[0][k], to_a);
        fa_get(t.matrix[1][k], to_b);
        for (int slot = 0; slot < kSlots; ++slot) {
            double pair;
            memcpy(&pair, pairs[slot] + 2 * k, sizeof pair);
            const fa_double8 wide = {pair, pair, pair, pair, pair, pair, pair, pair};
            memcpy(&x, &wide, sizeof x);
            fa_mp3_add_products(a[slot], x, to_a);
            fa_mp3_add_products(b[slot], x, to_b);
        }
    }
    for (int slot = 0; slot < kSlots; ++slot) {
        fa_put(v[slot][0], a[slot]);
        fa_put(v[slot][1], b[slot]);
        fa_put(v[slot][2], b[slot]);
        v[slot][1][0] = -v[slot][0][0];
    }
}

// 32 samples of each of kMp3Together slots, whose A and B are at v[0], v[1], …; those of earlier slots at v[-1], v[-2],
// …
template <class Piece>
FA_HD void fa_mp3_window(const FaMp3Tables& t, const float (*v)[3][16], float* out) {
    constexpr int kSlots = kMp3Together<Piece>;
    FaLanes<Piece> low[kSlots], high[kSlots];
    for (int slot = 0; slot < kSlots; ++slot) {
        fa_fill(low[slot], 0.0f);
        fa_fill(high[slot], 0.0f);
    }
    for (int i = 0; i < 8; ++i) {
        FaLanes<Piece> low_a, low_b, high_a, high_b, x;
        fa_get(t.taps[0][i][0], low_a);
        fa_get(t.taps[0][i][1], low_b);
        fa_get(t.taps[1][i][0], high_a);
        fa_get(t.taps[1][i][1], high_b);
        for (int slot = 0; slot < kSlots; ++slot) {
            const float (*even)[16] = v[slot - 2 * i], (*odd)[16] = v[slot - 2 * i - 1];
            fa_get(even[0], x);
            fa_mp3_add_products(low[slot], x, low_a);
            fa_mp3_add_products(high[slot], x, high_a);
            fa_get(odd[1], x);
            fa_mp3_add_products(low[slot], x, low_b);
            fa_get(odd[2], x);
            fa_mp3_add_products(high[slot], x, high_b);
        }
    }
    for (int slot = 0; slot < kSlots; ++slot) {
        float* to = out + 32 * slot;
        FaLanes<Piece> mirrored;  // for elements 17 to 32; the next slot writes over the last one
        for (int p = 0; p < mirrored.kPieces; ++p)
            mirrored.piece[p] = fa_mp3_reversed(high[slot].piece[mirrored.kPieces - 1 - p]);
        fa_put(to, low[slot]);
        fa_put(to + 17, mirrored);
        to[16] = high[slot].piece[0][0];
    }
}

// rows (18, 32) of subband samples become 576 samples at full scale 1; one more element of `out` is written.
template <class Piece>
FA_HD void fa_mp3_synthesis(const FaMp3Tables& t, const float (*rows)[32], FaMp3State& state, float* out) {
    float (*now)[3][16] = state.v + kMp3History;
    for (int slot = 0; slot < 18; slot += kMp3Together<Piece>) fa_mp3_matrix<Piece>(t, rows + slot, now + slot);
    for (int slot = 0; slot < 18; slot += kMp3Together<Piece>) fa_mp3_window<Piece>(t, now + slot, out + 32 * slot);
    memmove(state.v, state.v + 18, kMp3History * sizeof state.v[0]);
}
