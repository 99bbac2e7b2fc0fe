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

// One granule of all channels whose codes were read.
struct Granule {
    FaMp3Header header;
    FaMp3Granule side[2];
    FaMp3Factors factors[2];
    int16_t quantised[2][kMp3Lines];
    int count[2], large[2];
    bool middle;  // no side channel: see middle_is_mean
};

// The same as it passes through the steps.
struct Lines {
    float stream[2][kMp3Lines];  // in stream order
    float rows[2][18][32];       // coefficient, subband
    int count[2];
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

// Lines in stream order to (coefficient, subband): of long blocks a transposition.
FA_CLONES void place_long(const float* lines, float (*rows)[32]) {
    for (int sb = 0; sb < 32; sb += 4) {
        const float* from = lines + 18 * sb;
        fa_float4 tile[4];
        for (int k = 0; k < 16; k += 4) {
            for (int i = 0; i < 4; ++i) memcpy(&tile[i], from + 18 * i + k, sizeof tile[i]);
            fa_transpose_four(tile);
            for (int i = 0; i < 4; ++i) memcpy(rows[k + i] + sb, &tile[i], sizeof tile[i]);
        }
        for (int i = 0; i < 4; ++i) rows[16][sb + i] = from[18 * i + 16], rows[17][sb + i] = from[18 * i + 17];
    }
}

void place_lines(const FaMp3Tables& t, const FaMp3Granule& g, int band, const float* lines, float (*rows)[32]) {
    if (g.kind == 0) return place_long(lines, rows);
    const uint16_t* place = t.place[g.kind][band];
    float* const to = rows[0];
    for (int i = 0; i < kMp3Lines; ++i) to[place[i]] = lines[i];
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

bool same_blocks(const FaMp3Granule& a, const FaMp3Granule& b) {
    return a.block_type == b.block_type && a.kind == b.kind && a.mixed == b.mixed;
}

// Subband samples of the mean of two channels, in rows[0]. The transform is linear: where both channels have the same
// kind of block it runs once, on the mean of their lines.
void hybrid_mean(const FaMp3Tables& t, const Granule& g, Lines& lines, FaMp3State* state) {
    const int band = g.header.band;
    if (g.middle || same_blocks(g.side[0], g.side[1])) {
        if (!g.middle) add_rows(lines.stream[0], lines.stream[1], 0.5f);
        place_lines(t, g.side[0], band, lines.stream[0], lines.rows[0]);
        hybrid(t, g.side[0], g.middle ? lines.count[0] : fa_max(lines.count[0], lines.count[1]), lines.rows[0],
               state[0]);
        return;
    }
    memset(state[1].overlap, 0, sizeof state[1].overlap);
    for (int c = 0; c < 2; ++c) {
        place_lines(t, g.side[c], band, lines.stream[c], lines.rows[c]);
        scale_rows(lines.rows[c][0], 0.5f);
        hybrid(t, g.side[c], lines.count[c], lines.rows[c], state[c]);
    }
    add_rows(lines.rows[0][0], lines.rows[1][0], 1.0f);
    add_rows(state[0].overlap[0], state[1].overlap[0], 1.0f);
}

bool has_middle(const FaMp3Header& h) { return h.mode == 1 && h.mode_extension & 2; }
bool has_intensity(const FaMp3Header& h) { return h.mode == 1 && h.mode_extension & 1; }

// Lines of all channels, in stream order.
void lines_of(const FaMp3Tables& t, const Granule& g, Lines& lines) {
    const FaMp3Header& h = g.header;
    const int channels = g.middle ? 1 : h.channels;
    for (int c = 0; c < channels; ++c) {
        lines.count[c] = g.count[c];
        requantise(t, g.side[c], h.band, g.factors[c], g.quantised[c], g.count[c], g.large[c], has_middle(h),
                   lines.stream[c]);
    }
    if (channels == 2 && (has_middle(h) || has_intensity(h))) {
        fa_mp3_stereo(t, h, g.side[1], g.factors[1], g.count[1], has_middle(h), lines.stream[0], lines.stream[1]);
        lines.count[0] = lines.count[1] = fa_max(g.count[0], g.count[1]);
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

// One frame's header and side information.
struct Frame {
    FaMp3Header header;
    FaMp3Side side;
    long long begin;    // first bit of its main data in Mp3Scratch::main
    bool whole;         // or silent
    bool reaches_back;  // to before the file
    bool middle;
};

// Whether every granule lies inside the bits that are there; those beyond would be another frame's.
bool fits(const Frame& frame, long long bits) {
    const int granules = frame.header.samples / 576, channels = frame.header.channels;
    const FaMp3Granule& last = frame.side.granule[granules - 1][channels - 1];
    bool sane = frame.begin >= 0 && frame.begin + last.begin + last.part23 <= bits;
    for (int g = 0; g < granules; ++g) {
        for (int c = 0; c < channels; ++c) sane = sane && 2 * frame.side.granule[g][c].big_values <= kMp3Lines;
    }
    return sane;
}

// Whether the mean of left and right is the middle channel over sqrt(2), so that the other need not be read: with
// middle/side stereo and no intensity stereo, where both have the same kinds of blocks.
bool middle_is_mean(const Frame& frame) {
    if (!has_middle(frame.header) || has_intensity(frame.header)) return false;
    bool same = true;
    for (int g = 0; g < frame.header.samples / 576; ++g)
        same = same && same_blocks(frame.side.granule[g][0], frame.side.granule[g][1]);
    return same;
}

// `base`: the reservoir coordinate of the first staged byte.
void read_frame(const FaMp3Tables& t, const uint8_t* data, const Mp3Frame& at, long long base, bool mix, Frame& frame) {
    fa_mp3_header(data + at.offset, frame.header);
    uint8_t bytes[32 + 8] = {};
    memcpy(bytes, data + at.offset + 4 + frame.header.crc, static_cast<size_t>(frame.header.side));
    fa_mp3_read_side(bytes, frame.header, t.first[0][frame.header.band], frame.side);
    frame.begin = 8 * (at.main_before - at.main_begin - base);
    frame.reaches_back = at.main_before < at.main_begin;
    frame.whole = !frame.reaches_back && fits(frame, 8 * (at.main_before + at.main_bytes - base));
    frame.middle = mix && middle_is_mean(frame);
}

// Scale factors of granule `index` of a frame, and where its codes are.
int begin_granule(const FaMp3Tables& t, const uint8_t* main, Frame& frame, int index, Granule& g,
                  FaMp3Factors(*earlier), FaMp3Coded* coded) {
    const FaMp3Header& h = g.header = frame.header;
    g.middle = frame.middle;
    if (!frame.whole) {
        g.middle = false;
        for (int c = 0; c < 2; ++c) {
            memset(g.quantised[c], 0, sizeof g.quantised[c]);
            g.count[c] = g.large[c] = 0;
            g.side[c] = {};
        }
        return 0;
    }
    const int channels = g.middle ? 1 : h.channels;
    for (int c = 0; c < channels; ++c) {
        FaMp3Granule& side = frame.side.granule[index][c];
        FaMp3Bits bits = {main, frame.begin + side.begin};
        const long long end = bits.at + side.part23;
        const int shared = index == 1 && side.kind == 0 ? frame.side.scfsi[c] : 0;
        if (h.version == 0)
            fa_mp3_factors_1(bits, t, side, shared, earlier[c], g.factors[c]);
        else
            fa_mp3_factors_2(bits, t, side, has_intensity(h) && c == 1, g.factors[c]);
        earlier[c] = g.factors[c];
        g.side[c] = side;
        coded[c] = {bits, &g.side[c], end, g.quantised[c], 0, 0};
    }
    return channels;
}

// Reads the codes of some granules, two at a time.
void read_codes(const FaMp3Tables& t, FaMp3Coded* coded, int count) {
    int i = 0;
    for (; i + 2 <= count; i += 2) fa_mp3_huffman_two(t, coded[i], coded[i + 1]);
    for (; i < count; ++i) {
        FaMp3Coded& c = coded[i];
        c.count = fa_mp3_huffman(c.bits, t, *c.granule, c.end, c.lines, c.large);
    }
}

// The granules of one range, two by two.
class Decoder {
  public:
    Decoder(const uint8_t* data, const Mp3Stream& stream, long long base, bool mix, Mp3Scratch& scratch)
        : data_(data), stream_(stream), base_(base), mix_(mix && stream.header.channels == 2), scratch_(scratch) {
        frame_.header = stream.header;
    }

    // Codes of granules [first, first + count), which were not read before; count: 1 or 2.
    void read(long long first, int count) {
        const int granules = stream_.header.samples / 576;
        FaMp3Coded coded[4];
        Granule* owner[4];
        int jobs = 0;
        for (int i = 0; i < count; ++i) {
            const int index = static_cast<int>((first + i) % granules);
            if (index == 0) next_frame((first + i) / granules);
            const int more =
                begin_granule(t_, scratch_.main.data(), frame_, index, granule_[i], earlier_, coded + jobs);
            for (int c = 0; c < more; ++c) owner[jobs++] = granule_ + i;
        }
        read_codes(t_, coded, jobs);
        for (int j = 0; j < jobs; ++j) {
            const int c = coded[j].granule == &owner[j]->side[1];
            owner[j]->count[c] = coded[j].count;
            owner[j]->large[c] = coded[j].large;
        }
    }

    // Subband samples of granule `i` of those that were read.
    float (*hybrid_of(int i))[18][32] {
        const Granule& g = granule_[i];
        lines_of(t_, g, lines_);
        if (mix_) {
            hybrid_mean(t_, g, lines_, scratch_.state);
        } else {
            for (int c = 0; c < g.header.channels; ++c) {
                place_lines(t_, g.side[c], g.header.band, lines_.stream[c], lines_.rows[c]);
                hybrid(t_, g.side[c], lines_.count[c], lines_.rows[c], scratch_.state[c]);
            }
        }
        return lines_.rows;
    }

    int status = kOk;

  private:
    void next_frame(long long k) {
        const Mp3Frame& at = stream_.frames[static_cast<size_t>(k)];
        read_frame(t_, data_, at, base_, mix_, frame_);
        // A stream cut out of a longer one begins with frames whose reservoir is not there: silence, no fault of it.
        if (!frame_.whole && !frame_.reaches_back && status == kOk) {
            status = kCorrupt;
            scratch_.trouble = at.offset;
        }
    }

    const FaMp3Tables& t_ = tables();
    const uint8_t* data_;
    const Mp3Stream& stream_;
    long long base_;
    bool mix_;
    Mp3Scratch& scratch_;
    Frame frame_;
    FaMp3Factors earlier_[2] = {};
    Granule granule_[2];
    Lines lines_;
};

}  // namespace

int mp3_decode_range(const uint8_t* data, long long, const Mp3Stream& stream, long long start, long long length,
                     bool mix, float* out, long long out_stride, Mp3Scratch& scratch) {
    const int out_channels = mix ? 1 : stream.header.channels, granules = stream.header.samples / 576;
    for (int c = 0; c < out_channels; ++c) std::fill(out + c * out_stride, out + c * out_stride + length, 0.0f);
    const long long begin = std::max<long long>(start, 0), end = std::min(start + length, stream.total);
    scratch.trouble = -1;
    if (begin >= end) return kOk;
    const long long first_granule = (begin + stream.skip) / 576, last_granule = (end - 1 + stream.skip) / 576;
    const long long from = std::max<long long>(first_granule - 2, 0) / granules;
    const long long to = std::min<long long>(last_granule / granules, static_cast<long long>(stream.frames.size()) - 1);
    memset(scratch.state, 0, sizeof scratch.state);
    Decoder decoder(data, stream, stage(data, stream.frames, from, to, scratch), mix, scratch);
    const long long stop = (to + 1) * granules;
    for (long long granule = from * granules; granule < stop; granule += 2) {
        const int count = static_cast<int>(std::min<long long>(2, stop - granule));
        decoder.read(granule, count);
        for (int i = 0; i < count; ++i) {
            float (*rows)[18][32] = decoder.hybrid_of(i);
            float pcm[kMp3Lines + 1];
            const long long at = (granule + i) * 576 - stream.skip;  // of the granule's first sample
            const long long left = std::max(at, begin), right = std::min(at + 576, end);
            for (int c = 0; c < out_channels; ++c) {
                synthesis(tables(), rows[c], scratch.state[c], pcm);
                if (left < right) std::copy(pcm + (left - at), pcm + (right - at), out + c * out_stride + left - start);
            }
        }
    }
    return decoder.status;
}

}  // namespace fa
