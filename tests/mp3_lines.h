// The integer lines of a whole MP3 file by the functions of the CPU decoder, for comparison with
// csrc/cuda/mp3_lines.cu.
#include "codecs/mp3_lines.h"

// data: `size` bytes that begin with a frame, zeros behind for 4096. lines: (units, 576), counts, factors: (units, 40).
extern "C" __global__ void cpu_lines(const uint8_t* data, long long size, int16_t* lines, int* counts,
                                     uint8_t* factors) {
    static FaMp3Tables t;
    static uint8_t main[1 << 20];
    fa_mp3_fill_tables(t);
    FaMp3Factors earlier[2] = {};
    long long have = 0, unit = 0;
    for (long long at = 0; at + 4 <= size;) {
        FaMp3Header h;
        if (!fa_mp3_header(data + at, h) || at + h.bytes > size) return;
        const int head = 4 + h.crc + h.side;
        FaMp3Side side;
        fa_mp3_read_side(data + at + 4 + h.crc, h, t.first[0][h.band], side);
        memcpy(main + have, data + at + head, h.bytes - head);
        memset(main + have + h.bytes - head, 0, 4096);
        const long long begin = 8 * (have - side.main_begin);
        for (int g = 0; g < h.samples / 576; ++g) {
            for (int c = 0; c < h.channels; ++c, ++unit) {
                FaMp3Granule& of = side.granule[g][c];
                FaMp3Bits bits = {main, begin + of.begin};
                const long long end = bits.at + of.part23;
                const int shared = g == 1 && of.kind == 0 ? side.scfsi[c] : 0;
                FaMp3Factors f = {};
                if (h.version == 0)
                    fa_mp3_factors_1(bits, t, of, shared, earlier[c], f);
                else
                    fa_mp3_factors_2(bits, t, of, h.mode == 1 && h.mode_extension & 1 && c == 1, f);
                earlier[c] = f;
                int large;
                counts[unit] = fa_mp3_huffman(bits, t, of, end, lines + 576 * unit, large);
                memcpy(factors + 40 * unit, f.value, 40);
            }
        }
        have += h.bytes - head;
        at += h.bytes;
    }
}
