// The resampling of a pitch shift on the CPU: the filters of repitch_lanes.h, one piece of a row in each lane.
#include "../repitch_cpu.h"

#include <algorithm>

#include "../repitch_lanes.h"

namespace {

FA_BY_WIDTH(to_lines, (const float* const* at, int count, float* lines), (at, count, lines))
FA_BY_WIDTH(to_rows, (const float* lines, int count, float* const* to), (lines, count, to))
FA_BY_WIDTH(half_band, (const float* x, const float* taps, const float* onto, float* y, int count),
            (x, taps, onto, y, count))
FA_BY_WIDTH(flatten, (const float* even, const float* odd, float* flat_even, float* flat_odd, int count),
            (even, odd, flat_even, flat_odd, count))
FA_BY_WIDTH(flatten_doubled,
            (const float* even, const float* odd, const int32_t* late, float* last, float* doubled, int count),
            (even, odd, late, last, doubled, count))
FA_BY_WIDTH(short_filter,
            (const FaAnchor& anchor, const FaShortFilter& filter, int from, int to, float* y, float* other),
            (anchor, filter, from, to, y, other))

constexpr int kBelowFraction = kPositionBits - kFractionBits;

FaShortFilter filter_of(const FaRepitch& plan, const float* coefficient) {
    FaShortFilter filter;
    filter.step = static_cast<int64_t>(plan.step * static_cast<double>(int64_t{1} << kPositionBits) + 0.5);
    filter.pairs = plan.pairs;
    filter.degree = plan.degree();
    for (int n = 0; n < kAnchored; ++n) {
        const int64_t behind = n * filter.step, whole = behind >> kPositionBits;
        filter.lines[n] = static_cast<int32_t>(whole);
        filter.fractions[n] = static_cast<int32_t>((behind - (whole << kPositionBits)) >> kBelowFraction);
    }
    for (int i = 0; i < plan.coefficients(); ++i) {
        std::fill_n(filter.coefficient + i * kPieces, kPieces, coefficient[i]);
    }
    return filter;
}

// ---- pieces ----

constexpr int kChunk = 40;            // outputs of each piece at a time
constexpr long long kLongest = 8040;  // outputs of a piece, an odd number of chunks: positions in it fit 64 bits

// A row, or kPieces * kLongest outputs of it, in pieces.
struct Pieces {
    long long begin, length, count;  // first output, outputs of the row; outputs of a piece

    Pieces(long long begin, long long length) : begin(begin), length(length) {
        const long long chunks = (std::min((length - begin + kPieces - 1) / kPieces, kLongest) + kChunk - 1) / kChunk;
        count = (chunks | 1) * kChunk;  // odd: or pieces might meet in the few sets of a cache
    }
    long long end() const { return begin + kPieces * count; }
    // The first output of a piece: of one behind the row's end that of the first piece, whose work it repeats.
    long long first(int piece) const {
        const long long at = begin + piece * count;
        return at < length ? at : begin;
    }
    // Writes lines n ... n + kChunk - 1 of outputs to their places.
    void put(const float* lines, long long n, float* y) const {
        float rest[kPieces][kChunk], *to[kPieces];
        for (int p = 0; p < kPieces; ++p) {
            to[p] = begin + p * count + n + kChunk <= length ? y + begin + p * count + n : rest[p];
        }
        to_rows(lines, kChunk, to);
        for (int p = 0; p < kPieces; ++p) {
            for (int i = 0; i < kChunk; i += 16) __builtin_prefetch(to[p] + kChunk + i + 15, 1);
        }
        for (int p = 0; p < kPieces; ++p) {
            const long long at = begin + p * count + n;
            if (to[p] == rest[p] && at < length) std::copy(rest[p], rest[p] + (length - at), y + at);
        }
    }
};

// Where the short filter reads. The place of an output depends on its number alone, not on how a row is cut: anchors
// lie at fixed outputs, and from there on steps are cut off in the same way.
struct Walk {
    const FaShortFilter& filter;
    long long start[kPieces];   // sample of line 0
    int64_t fraction[kPieces];  // of the first anchor there, in units of 2^-kPositionBits samples

    // first(piece): the output at that piece's first anchor, 0 steps from line 0.
    template <class First>
    Walk(const FaShortFilter& filter, const First& first) : filter(filter) {
        for (int p = 0; p < kPieces; ++p) {
            const Long at = static_cast<Long>(first(p)) * filter.step;
            start[p] = static_cast<long long>(at >> kPositionBits);
            fraction[p] = static_cast<int64_t>(at & ((Long{1} << kPositionBits) - 1));
        }
    }
    // The anchor `steps` outputs on, and the line at which the first piece's lies or may lie.
    FaAnchor anchor(long long steps, long long& line) const {
        const int64_t behind = steps * filter.step, whole = behind >> kPositionBits << kPositionBits;
        FaAnchor found;
        for (int p = 0; p < kPieces; ++p) {
            found.places[p] = static_cast<int32_t>((fraction[p] + (behind - whole)) >> kBelowFraction);
        }
        found.fraction = static_cast<int32_t>((behind - whole) >> kBelowFraction);
        line = whole >> kPositionBits;
        return found;
    }
    // Lines behind its own that an anchor's output n may read, at most.
    int reach(int n) const { return filter.lines[n] + 2 + filter.pairs; }

  private:
    __extension__ typedef __int128 Long;
};

// Lines of the source, from one on.
struct Source {
    const float* from[kPieces];

    void read(long long line, int count, float* lines) const {
        const float* at[kPieces];
        for (int p = 0; p < kPieces; ++p) at[p] = from[p] + line;
        to_lines(at, count, lines);
        for (int p = 0; p < kPieces; ++p) {
            for (int n = 16; n < count + 16; n += 16) __builtin_prefetch(at[p] + count + n);
        }
    }
};

// Not inline: GCC knows the count then, and takes a slow instruction for it.
__attribute__((noinline)) void move_lines(float* lines, int from, int count) {
    memmove(lines, lines + from * kPieces, static_cast<size_t>(count) * kPieces * sizeof(float));
}

// ---- both directions ----

constexpr int kBefore = kHalfBandTaps / 2, kAround = kFlatReach / 2;

// Pitch up: the short filter at half outputs, flattened, then the half-band at every other.
void decimate(const float* x, float* y, const Pieces& pieces, const FaShortFilter& filter, const float* taps) {
    constexpr int room = kHalfBandTaps + 4 * kChunk, history = 2 * kAround;
    constexpr int most = 4 * 2 * kChunk + 2 * kMostPairs + 12;  // three octaves up
    alignas(64) float raw_even[(history + kChunk) * kPieces], raw_odd[(history + kChunk) * kPieces];
    alignas(64) float even[room * kPieces], odd[room * kPieces], source[most * kPieces], out[kChunk * kPieces];
    // Pairs of half outputs from kBefore before the first output on; kAround more, and a chunk of which the end is
    // read.
    const auto first = [&](int p) { return 2 * (pieces.first(p) - kBefore + kAround - kChunk); };
    const Walk walk(filter, first);
    Source reader;
    for (int p = 0; p < kPieces; ++p) reader.from[p] = x + walk.start[p];
    const auto make = [&](long long chunk, int from, float* to_even, float* to_odd) {
        long long line;
        FaAnchor anchor = walk.anchor(chunk * 2 * kChunk, line);
        const int begin = filter.lines[from] + 1 - filter.pairs, end = walk.reach(2 * kChunk - 1) + 1;
        reader.read(line + begin, (end - begin + 7) / 8 * 8, source);
        anchor.line = source - begin * kPieces;
        short_filter(anchor, filter, from, 2 * kChunk, to_even, to_odd);
    };
    make(0, 2 * (kChunk - history), raw_even, raw_odd);
    int made = 0;
    for (long long chunk = 1, done = 0; done < pieces.count; ++chunk) {
        if (made == room) {
            move_lines(even + kBefore * kPieces, room - kHalfBandTaps, kBefore);  // those before are read no more
            move_lines(odd, room - kHalfBandTaps, kHalfBandTaps);
            made = kHalfBandTaps;
        }
        make(chunk, 0, raw_even + history * kPieces, raw_odd + history * kPieces);
        flatten(raw_even, raw_odd, even + made * kPieces, odd + made * kPieces, kChunk);
        move_lines(raw_even, kChunk, history);
        move_lines(raw_odd, kChunk, history);
        made += kChunk;
        const int begin = made - kHalfBandTaps - kChunk;
        if (begin < 0) continue;
        half_band(odd + begin * kPieces, taps, even + (begin + kBefore) * kPieces, out, kChunk);
        pieces.put(out, done, y);
        done += kChunk;
    }
}

// Pitch down: the half-band between the samples, flattened, then the short filter over both.
void interpolate(const float* x, float* y, const Pieces& pieces, const FaShortFilter& filter, const float* taps) {
    constexpr int block = 16, history = 2 * kAround, before = 4;  // lines before a position
    constexpr int room = kHalfBandTaps + history + 2 + block + 160;
    alignas(64) float source[room * kPieces], between[(history + block) * kPieces], last[kPieces] = {};
    alignas(64) float doubled[(1 + 2 * kChunk + 2 * before + 4 + 3 * block) * kPieces], out[kChunk * kPieces];
    alignas(64) int32_t late[kPieces];
    const Walk walk(filter, [&](int p) { return pieces.first(p); });
    // Line j of the flattened phases: sample Q + j - before / 2 of a piece that begins at position 2 Q or 2 Q + 1, and
    // the one between it and the next; lines 2 j and 2 j + 1 of the doubled rate, or one less.
    Source reader;
    constexpr int ahead = kBefore - 1 + kAround + 2;  // source lines before line 0; 2 for the first tile of `between`
    for (int p = 0; p < kPieces; ++p) {
        late[p] = walk.start[p] & 1;
        reader.from[p] = x + (walk.start[p] >> 1) - before / 2 - ahead;
    }
    long long read = 0, kept = 0, flat = 0;  // lines of the source: so far, first kept; lines flattened so far
    long long begin = 0;                     // line of the doubled rate at doubled + kPieces
    float* const both = doubled + kPieces;
    const auto more = [&](long long count) {
        if (read + count - kept > room) {
            const long long needed = flat + history + 2;
            move_lines(source, static_cast<int>(needed - kept), static_cast<int>(read - needed));
            kept = needed;
        }
        reader.read(read, static_cast<int>(count), source + (read - kept) * kPieces);
        read += count;
    };
    more(kHalfBandTaps + 8);
    alignas(64) float start[8 * kPieces];
    half_band(source, taps, nullptr, start, 8);
    std::copy(start + 2 * kPieces, start + 8 * kPieces, between);
    for (long long done = 0; done < pieces.count; done += kChunk) {
        long long line;
        FaAnchor anchor = walk.anchor(done, line);
        const long long from = (line - 1) & ~1LL, end = line + before + walk.reach(kChunk - 1) + 1;
        if (done && from > begin) {
            const long long have = 2 * flat - 1 - begin;
            move_lines(both, static_cast<int>(from - begin), static_cast<int>(have - (from - begin)));
            begin = from;
        }
        for (; 2 * flat - 1 < end; flat += block) {
            if (read < flat + history + 2 + kHalfBandTaps - 1 + block) more(block);
            const float* at = source + (flat + history + 2 - kept) * kPieces;
            half_band(at, taps, nullptr, between + history * kPieces, block);
            const float* own = source + (flat + ahead - kAround - kept) * kPieces;
            flatten_doubled(own, between, late, last, both + (2 * flat - begin) * kPieces, block);
            move_lines(between, block, history);
        }
        anchor.line = both + (line + before - begin) * kPieces;
        short_filter(anchor, filter, 0, kChunk, out, nullptr);
        pieces.put(out, done, y);
    }
}

}  // namespace

long long fa_repitch_long_margin(double factor) {
    const FaRepitch plan = fa_repitch(factor);
    const double step = factor > 1.0 ? 0.5 * plan.step : 2.0 * plan.step;  // between two outputs
    return static_cast<long long>(step * (2 * kPieces + 5) * kChunk) + plan.pairs + 4 * kHalfBandTaps;
}

void fa_repitch_long(const float* x, float* y, long long length, double factor, const float* coefficient,
                     const float* half_band_taps) {
    const FaShortFilter filter = filter_of(fa_repitch(factor), coefficient);
    const auto run = factor > 1.0 ? interpolate : decimate;
    for (long long begin = 0; begin < length;) {
        const Pieces pieces(begin, length);
        run(x, y, pieces, filter, half_band_taps);
        begin = pieces.end();
    }
}
