// Ranges of MP3 samples: two granules of warm-up, the bytes of the reservoir laid back to back, then granule by
// granule.
#include "mp3.h"

#include <string.h>

#include <algorithm>

namespace fa {
namespace {

constexpr size_t kSpare = 64 + kMp3Overrun;  // readable bytes behind the main data: codes may claim what is not there

const FaMp3Tables& tables() {
    static const FaMp3Tables* const filled = [] {
        auto* t = new FaMp3Tables;
        fa_mp3_fill_tables(*t);
        return t;
    }();
    return *filled;
}

// One granule of all channels between the steps.
struct Granule {
    float lines[2][kMp3Lines];
    float rows[2][18][32];
    int count[2];
    FaMp3Granule side[2];
    FaMp3Factors factors[2];
};

template <class Piece>
FA_HD void imdct_lanes(const FaMp3Tables& t, int block_type, bool mixed, int subbands, float (*rows)[32],
                       FaMp3State& state) {
    fa_mp3_imdct<Piece>(t, block_type, mixed, subbands, rows, state);
}

template <class Piece>
FA_HD void synthesis_lanes(const FaMp3Tables& t, const float (*rows)[32], FaMp3State& state, float* out) {
    fa_mp3_synthesis<Piece>(t, rows, state, out);
}

template <class Piece>
FA_HD void requantise_lanes(const FaMp3Tables& t, const FaMp3Granule& g, int rate, const FaMp3Factors& f,
                            const int16_t* lines, int count, int large, bool ms, float* out) {
    fa_mp3_requantise_lanes<Piece>(t, g, rate, f, lines, count, large, ms, out);
}

FA_BY_WIDTH(requantise,
            (const FaMp3Tables& t, const FaMp3Granule& g, int rate, const FaMp3Factors& f, const int16_t* lines,
             int count, int large, bool ms, float* out),
            (t, g, rate, f, lines, count, large, ms, out))
FA_BY_WIDTH(imdct,
            (const FaMp3Tables& t, int block_type, bool mixed, int subbands, float (*rows)[32], FaMp3State& state),
            (t, block_type, mixed, subbands, rows, state))
FA_BY_WIDTH(synthesis, (const FaMp3Tables& t, const float (*rows)[32], FaMp3State& state, float* out),
            (t, rows, state, out))

// Frequency lines of one channel, in stream order.
void decode_lines(const FaMp3Tables& t, const uint8_t* main, long long begin, const FaMp3Header& h, FaMp3Granule& g,
                  int shared, bool intensity, bool ms, const FaMp3Factors& earlier, FaMp3Factors& factors, float* lines,
                  int& count) {
    int16_t quantised[kMp3Lines];
    FaMp3Bits bits = {main, begin + g.begin};
    const long long end = bits.at + g.part23;
    if (h.version == 0)
        fa_mp3_factors_1(bits, t, g, shared, earlier, factors);
    else
        fa_mp3_factors_2(bits, t, g, intensity, factors);
    int large;
    count = fa_mp3_huffman(bits, t, g, end, quantised, large);
    requantise(t, g, h.band, factors, quantised, count, large, ms, lines);
}

FA_CLONES void place_lines(const FaMp3Tables& t, const FaMp3Granule& g, int band, const float* lines, float* rows) {
    const uint16_t* place = t.place[g.kind][band];
    for (int i = 0; i < kMp3Lines; ++i) rows[place[i]] = lines[i];
}

int subbands_of(const FaMp3Granule& g, int count) { return g.kind ? 32 : fa_min(32, (count + 17) / 18 + 1); }

FA_CLONES void reduce_alias(const FaMp3Tables& t, const FaMp3Granule& g, int subbands, float (*rows)[32]) {
    if (g.kind == 1) return;
    fa_mp3_alias(t, g.kind == 2 ? 2 : subbands, rows);
}

void hybrid(const FaMp3Tables& t, const FaMp3Granule& g, int count, float (*rows)[32], FaMp3State& state) {
    const int subbands = subbands_of(g, count);
    reduce_alias(t, g, subbands, rows);
    imdct(t, g.block_type, g.kind == 2 || (g.mixed && g.block_type), subbands, rows, state);
}

FA_CLONES void add_rows(float* sum, const float* rows, float scale) {
    for (int i = 0; i < kMp3Lines; ++i) sum[i] = (sum[i] + rows[i]) * scale;
}

FA_CLONES void scale_rows(float* rows, float scale) {
    for (int i = 0; i < kMp3Lines; ++i) rows[i] *= scale;
}

// Subband samples of the mean of two channels, in rows[0]. The transform is linear: where both channels have the same
// kind of block it runs once, on the mean of their lines.
void hybrid_mean(const FaMp3Tables& t, Granule& g, int band, FaMp3State* state) {
    const FaMp3Granule &l = g.side[0], &r = g.side[1];
    if (l.block_type == r.block_type && l.kind == r.kind && l.mixed == r.mixed) {
        add_rows(g.lines[0], g.lines[1], 0.5f);
        place_lines(t, l, band, g.lines[0], g.rows[0][0]);
        hybrid(t, l, fa_max(g.count[0], g.count[1]), g.rows[0], state[0]);
        return;
    }
    memset(state[1].overlap, 0, sizeof state[1].overlap);
    for (int c = 0; c < 2; ++c) {
        place_lines(t, g.side[c], band, g.lines[c], g.rows[c][0]);
        scale_rows(g.rows[c][0], 0.5f);
        hybrid(t, g.side[c], g.count[c], g.rows[c], state[c]);
    }
    add_rows(g.rows[0][0], g.rows[1][0], 1.0f);
    add_rows(state[0].overlap[0], state[1].overlap[0], 1.0f);
}

// All channels' lines of granule `index` of a frame whose main data begin at bit `begin`.
void lines_of(const FaMp3Tables& t, const uint8_t* main, long long begin, const FaMp3Header& h, FaMp3Side& side,
              int index, FaMp3Factors(*earlier), Granule& g) {
    const bool joint = h.mode == 1, ms = joint && h.mode_extension & 2, intensity = joint && h.mode_extension & 1;
    for (int c = 0; c < h.channels; ++c) {
        FaMp3Granule& of = side.granule[index][c];
        const int shared = index == 1 && of.kind == 0 ? side.scfsi[c] : 0;
        decode_lines(t, main, begin, h, of, shared, intensity && c == 1, ms, earlier[c], g.factors[c], g.lines[c],
                     g.count[c]);
        earlier[c] = g.factors[c];
        g.side[c] = of;
    }
    if (h.channels == 2 && (ms || intensity)) {
        fa_mp3_stereo(t, h, g.side[1], g.factors[1], g.count[1], ms, g.lines[0], g.lines[1]);
        g.count[0] = g.count[1] = fa_max(g.count[0], g.count[1]);
    }
}

void silence(Granule& g) {
    for (int c = 0; c < 2; ++c) {
        memset(g.lines[c], 0, sizeof g.lines[c]);
        g.count[c] = 0;
        g.side[c] = {};
    }
}

// The main data that frames [first, last] may read, back to back, in scratch.main; returns the reservoir coordinate of
// its first byte.
long long stage(const uint8_t* data, const std::vector<Mp3Frame>& frames, long long first, long long last,
                Mp3Scratch& scratch) {
    long long needed = frames[static_cast<size_t>(first)].main_before;
    for (long long k = first; k <= last; ++k) {
        const Mp3Frame& f = frames[static_cast<size_t>(k)];
        needed = std::min(needed, f.main_before - f.main_begin);
    }
    long long from = first;
    while (from > 0 && frames[static_cast<size_t>(from)].main_before > needed) --from;
    const long long base = frames[static_cast<size_t>(from)].main_before;
    const Mp3Frame& end = frames[static_cast<size_t>(last)];
    scratch.main.assign(static_cast<size_t>(end.main_before + end.main_bytes - base) + kSpare, 0);
    for (long long k = from; k <= last; ++k) {
        const Mp3Frame& f = frames[static_cast<size_t>(k)];
        memcpy(scratch.main.data() + f.main_before - base, data + f.main_offset, static_cast<size_t>(f.main_bytes));
    }
    return base;
}

// Whether every granule lies inside the bits that are there; those beyond would be another frame's.
bool fits(const FaMp3Side& side, const FaMp3Header& h, long long begin, long long bits) {
    const int granules = h.samples / 576;
    const FaMp3Granule& last = side.granule[granules - 1][h.channels - 1];
    bool sane = begin >= 0 && begin + last.begin + last.part23 <= bits;
    for (int g = 0; g < granules; ++g) {
        for (int c = 0; c < h.channels; ++c) sane = sane && 2 * side.granule[g][c].big_values <= kMp3Lines;
    }
    return sane;
}

}  // namespace

int mp3_decode_range(const uint8_t* data, long long, const Mp3Stream& stream, long long start, long long length,
                     bool mix, float* out, long long out_stride, Mp3Scratch& scratch) {
    const FaMp3Tables& t = tables();
    const int channels = stream.header.channels, out_channels = mix ? 1 : channels;
    const int samples = stream.header.samples, granules = samples / 576;
    for (int c = 0; c < out_channels; ++c) std::fill(out + c * out_stride, out + c * out_stride + length, 0.0f);
    const long long begin = std::max<long long>(start, 0), end = std::min(start + length, stream.total);
    scratch.trouble = -1;
    if (begin >= end) return kOk;
    const long long first_granule = (begin + stream.skip) / 576, last_granule = (end - 1 + stream.skip) / 576;
    const long long from = std::max<long long>(first_granule - 2, 0) / granules;
    const long long to = std::min<long long>(last_granule / granules, static_cast<long long>(stream.frames.size()) - 1);
    const long long base = stage(data, stream.frames, from, to, scratch);
    memset(scratch.state, 0, sizeof scratch.state);
    Granule g;
    FaMp3Factors earlier[2] = {};
    int status = kOk;
    for (long long k = from; k <= to; ++k) {
        const Mp3Frame& frame = stream.frames[static_cast<size_t>(k)];
        FaMp3Header h = stream.header;
        fa_mp3_header(data + frame.offset, h);
        uint8_t bytes[32 + 8] = {};
        memcpy(bytes, data + frame.offset + 4 + h.crc, static_cast<size_t>(h.side));
        FaMp3Side side;
        fa_mp3_read_side(bytes, h, t.first[0][h.band], side);
        const long long main_begin = 8 * (frame.main_before - frame.main_begin - base);
        const long long available = 8 * (frame.main_before + frame.main_bytes - base);
        // A stream cut out of a longer one begins with frames whose reservoir is not there: silence, and no fault of
        // it.
        const bool reaches_back = frame.main_before < frame.main_begin;
        const bool whole = !reaches_back && fits(side, h, main_begin, available);
        if (!whole && !reaches_back && status == kOk) {
            status = kCorrupt;
            scratch.trouble = frame.offset;
        }
        for (int i = 0; i < granules; ++i) {
            const long long granule = k * granules + i;
            if (whole)
                lines_of(t, scratch.main.data(), main_begin, h, side, i, earlier, g);
            else
                silence(g);
            if (mix && channels == 2) {
                hybrid_mean(t, g, h.band, scratch.state);
            } else {
                for (int c = 0; c < channels; ++c) {
                    place_lines(t, g.side[c], h.band, g.lines[c], g.rows[c][0]);
                    hybrid(t, g.side[c], g.count[c], g.rows[c], scratch.state[c]);
                }
            }
            float pcm[kMp3Lines + 1];
            const long long at = granule * 576 - stream.skip;  // of the granule's first sample
            const long long left = std::max(at, begin), right = std::min(at + 576, end);
            for (int c = 0; c < out_channels; ++c) {
                synthesis(t, g.rows[c], scratch.state[c], pcm);
                if (left < right) {
                    std::copy(pcm + (left - at), pcm + (right - at), out + c * out_stride + (left - start));
                }
            }
        }
    }
    return status;
}

}  // namespace fa
