// Layer III of a whole batch in two launches. Every unit (a granule of one channel) knows where its bits are, so a
// thread decodes one: scale factors and Huffman codes into a row of pairs of lines. Then a block takes a run of
// granules of a crop from lines to samples in shared memory: powers and gains, stereo, the mean of the channels where
// one is wanted, alias reduction, IMDCT, synthesis window. The two granules before a run are computed again by each
// block (a third of the work up to the IMDCT): nothing waits for another block.
#include "../codecs/mp3_gpu.h"

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xffffffffu;

// --- lines -----------------------------------------------------------------------------------------------------------

constexpr int kChunk = 16;              // pairs that a thread decodes before its warp stores them
constexpr int kTilePitch = kChunk + 1;  // the last column has the unit
constexpr unsigned kNoUnit = 0xffffffffu;

// Bits of one unit. `left`: until its end; negative: they were another's.
struct FaCursor {
    const uint32_t* next;
    uint64_t window;  // left aligned
    int count;        // bits in it
    int left;
};

// At least 33 bits in the window.
__device__ __forceinline__ void fa_refill(FaCursor& c) {
    if (c.count > 32) return;
    const uint32_t word = FA_LD(c.next);
    const uint32_t turned = word >> 24 | (word >> 8 & 0xFF00) | (word << 8 & 0xFF0000) | word << 24;
    c.window |= static_cast<uint64_t>(turned) << (32 - c.count);
    c.count += 32;
    ++c.next;
}

__device__ __forceinline__ void fa_drop(FaCursor& c, int bits) {
    c.window <<= bits;
    c.count -= bits;
    c.left -= bits;
}

__device__ __forceinline__ int fa_take(FaCursor& c, int bits) {
    fa_refill(c);
    const int value = static_cast<int>(c.window >> 1 >> (63 - bits));
    fa_drop(c, bits);
    return value;
}

__device__ __forceinline__ FaCursor fa_open(const uint32_t* main, uint32_t begin, int bits) {
    FaCursor c = {main + begin / 32, 0, 0, bits};
    fa_refill(c);
    c.window <<= begin % 32;
    c.count -= static_cast<int>(begin % 32);
    return c;
}

// How the scale factors of a unit are stored: parts of consecutive bands with one number of bits each.
struct FaParts {
    int end[4], size[4];
    int positions;  // of the lower rates: a factor of all ones is no intensity position
};

__device__ __forceinline__ FaParts fa_parts(const FaMp3GpuTables* t, const FaMp3Fields& f, int version,
                                            bool intensity) {
    FaParts p = {{0, 0, 0, 0}, {0, 0, 0, 0}, version != 0};
    if (version == 0) {
        p.end[0] = f.kind == 0 ? 11 : f.kind == 1 ? 18 : 17;
        p.end[1] = p.end[2] = p.end[3] = f.kind == 0 ? 21 : f.kind == 1 ? 36 : 35;
        p.size[0] = FA_LD(&t->slen[0][f.compress]);
        p.size[1] = FA_LD(&t->slen[1][f.compress]);
        return p;
    }
    int n = intensity ? f.compress >> 1 : f.compress, split = 0;
    if (intensity && n < 180) {
        split = 3, p.size[0] = n / 36, p.size[1] = n % 36 / 6, p.size[2] = n % 6;
    } else if (intensity && n < 244) {
        n -= 180, split = 4, p.size[0] = n >> 4 & 3, p.size[1] = n >> 2 & 3, p.size[2] = n & 3;
    } else if (intensity) {
        n -= 244, split = 5, p.size[0] = n / 3, p.size[1] = n % 3;
    } else if (n < 400) {
        p.size[0] = (n >> 4) / 5, p.size[1] = (n >> 4) % 5, p.size[2] = n >> 2 & 3, p.size[3] = n & 3;
    } else if (n < 500) {
        n -= 400, split = 1, p.size[0] = (n >> 2) / 5, p.size[1] = (n >> 2) % 5, p.size[2] = n & 3;
    } else {
        n -= 500, split = 2, p.size[0] = n / 3, p.size[1] = n % 3;
    }
    const uint32_t counts = FA_LD(&t->lsf_counts[split][f.kind]);
    int end = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) p.end[i] = end += static_cast<int>(counts >> 8 * i & 255);
    return p;
}

// Factors into words of four; the top bit of one says that it is no intensity position. Bands whose factors granule 1
// shares with granule 0 stay 0: who reads them looks there.
__device__ __forceinline__ void fa_read_factors(FaCursor& c, const FaParts& p, int shared, uint32_t* words) {
    for (int b = 0; b < kMp3Bands; b += 4) {
        uint32_t word = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int band = b + i, part = (band >= p.end[0]) + (band >= p.end[1]) + (band >= p.end[2]);
            int size = part == 0 ? p.size[0] : part == 1 ? p.size[1] : part == 2 ? p.size[2] : p.size[3];
            const int group = (band >= 6) + (band >= 11) + (band >= 16);
            if (band >= p.end[3] || shared >> (3 - group) & 1) size = 0;
            const int value = fa_take(c, size);
            const bool none = p.positions && size && value == (1 << size) - 1;
            word |= static_cast<uint32_t>(value | (none ? 128 : 0)) << 8 * i;
        }
        words[b / 4] = word;
    }
}

// What a thread is at.
struct FaReading {
    FaCursor c;
    int n, big;     // line that comes next; lines of pairs
    int region[2];  // first lines of regions 1 and 2
    int tables, quadruples;
    int count;         // lines that may not be zero
    uint32_t pending;  // the second half of a quadruple
    bool waits;        // there is one
};

// A value, with its extra bits if it is 15 and the table has them, and its sign. Codes of a table with extra bits have
// at most 17 bits, so 16 of those that fa_refill gives are there for the first value of a pair.
__device__ __forceinline__ int fa_value(FaCursor& c, int value, int extra) {
    if (value == 0) return 0;
    if (value == 15 && extra) {
        fa_refill(c);
        value += static_cast<int>(c.window >> (64 - extra));
        fa_drop(c, extra);
    }
    const int sign = static_cast<int>(static_cast<int64_t>(c.window) >> 63);
    fa_drop(c, 1);
    return (value ^ sign) - sign;
}

__device__ __forceinline__ uint32_t fa_look_up(FaCursor& c, const uint16_t* root) {
    fa_refill(c);
    uint32_t entry = root[c.window >> (64 - kMp3RootBits)];
    if (entry >> 15) {
        entry = root[(entry & 0x7FF) + static_cast<uint32_t>(c.window << kMp3RootBits >> (64 - (entry >> 11 & 15)))];
    }
    fa_drop(c, static_cast<int>(entry >> 8 & 31));
    return entry;
}

__device__ __forceinline__ uint32_t fa_join(int low, int high) {
    return (static_cast<uint32_t>(low) & 0xFFFF) | static_cast<uint32_t>(high) << 16;
}

__device__ __forceinline__ uint32_t fa_next_pair(FaReading& r, const uint16_t* codes, const uint32_t* roots) {
    const int table = r.n < r.region[0] ? r.tables >> 10 : r.n < r.region[1] ? r.tables >> 5 & 31 : r.tables & 31;
    const uint32_t info = roots[table];
    if (info == 0) return 0;  // zeros without bits
    const uint32_t entry = fa_look_up(r.c, codes + (info & 0xFFFF));
    const int extra = static_cast<int>(info >> 16);
    const int x = fa_value(r.c, static_cast<int>(entry >> 4 & 15), extra);
    const int y = fa_value(r.c, static_cast<int>(entry & 15), extra);
    if (r.c.left < 0) {  // more than there is: this code is none, and nothing comes behind it
        r.big = 0;
        return 0;
    }
    return fa_join(x, y);
}

// The first half of a quadruple of values -1, 0, 1; the second one waits.
__device__ __forceinline__ uint32_t fa_next_quadruple(FaReading& r, const uint16_t* codes, const uint32_t* roots) {
    const uint32_t entry = fa_look_up(r.c, codes + (roots[32 + r.quadruples] & 0xFFFF));
    int values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = fa_value(r.c, static_cast<int>(entry >> (3 - i) & 1), 0);
    if (r.c.left < 0) return 0;
    r.pending = fa_join(values[2], values[3]);
    r.waits = true;
    return fa_join(values[0], values[1]);
}

__device__ __forceinline__ bool fa_more(const FaReading& r) {
    return r.n < r.big || r.waits || (r.n + 4 <= kMp3Lines && r.c.left > 0);
}

// The next pair of lines, whatever it comes from.
__device__ __forceinline__ uint32_t fa_step(FaReading& r, const uint16_t* codes, const uint32_t* roots) {
    uint32_t pair = 0;
    if (r.n < r.big) {
        pair = fa_next_pair(r, codes, roots);
    } else if (r.waits) {
        pair = r.pending;
        r.waits = false;
    } else if (fa_more(r)) {
        pair = fa_next_quadruple(r, codes, roots);
    }
    r.n += 2;
    if (pair) r.count = r.n - (pair >> 16 ? 0 : 1);
    return pair;
}

__device__ __forceinline__ void fa_set_regions(const FaMp3GpuTables* t, const FaMp3Fields& f, int version, int band,
                                               FaReading& r) {
    if (f.switched) {
        r.region[0] = (version == 0 || f.block == 2 ? 36 : 54) * (band == 8 ? 2 : 1);
        r.region[1] = kMp3Lines;
    } else {
        const int count0 = f.regions >> 3, count1 = f.regions & 7;
        r.region[0] = FA_LD(&t->long_bands[band][fa_min(count0 + 1, 22)]);
        r.region[1] = FA_LD(&t->long_bands[band][fa_min(count0 + count1 + 2, 22)]);
    }
}

// A warp stores its tile: kChunk words for each of the units in `mask`, two whole sectors each.
__device__ __forceinline__ void fa_store_tile(const uint32_t* tile, unsigned mask, int word, uint32_t* rows) {
    const int lane = threadIdx.x % 32;
    __syncwarp();
    for (int i = lane / kChunk; i < 32; i += 32 / kChunk) {
        const long long unit = tile[i * kTilePitch + kChunk];
        if (mask >> i & 1) {
            FA_ST(rows + unit * kMp3RowWords + word + lane % kChunk, tile[i * kTilePitch + lane % kChunk]);
        }
    }
    __syncwarp();
}

// Thread i: unit order[i]; neighbours there have about as many bits. rows: (units, kMp3RowWords); lines behind
// counts[unit] are not written. main: main_words words, kMp3Guard bytes of them behind the last unit's bits.
// Loads of `main`: a thread walks along its own bits and comes back to a sector seven times, to find it in L1.
extern "C" __global__ void __launch_bounds__(256)
    fa_mp3_lines_kernel(const FaMp3GpuTables* tables, const uint32_t* main, const FaMp3Unit* units,
                        const uint32_t* order, uint32_t* counts, uint32_t* rows, long long total,
                        long long main_words) {
    __shared__ uint32_t code_words[kMp3HuffmanSize / 2];
    __shared__ uint32_t roots[34];
    __shared__ uint32_t tiles[kWarps][32 * kTilePitch];
    for (int i = threadIdx.x; i < kMp3HuffmanSize / 2; i += kThreads) {
        code_words[i] = FA_LD(reinterpret_cast<const uint32_t*>(tables->codes) + i);
    }
    if (threadIdx.x < 34) roots[threadIdx.x] = FA_LD(tables->roots + threadIdx.x);
    __syncthreads();
    const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    const uint16_t* const codes = reinterpret_cast<const uint16_t*>(code_words);
    uint32_t* const tile = tiles[threadIdx.x / 32];
    uint32_t* const mine = tile + threadIdx.x % 32 * kTilePitch;
    const uint32_t index = i < total ? FA_LD(order + i) : kNoUnit;
    mine[kChunk] = index;
    FaReading r = {};
    bool sound = false;
    if (index != kNoUnit) {
        const FaMp3Unit unit = FA_LD(units + index);
        const int version = unit.flags & 3, band = unit.flags >> 2 & 15;
        const FaMp3Fields f = fa_mp3_fields(static_cast<uint64_t>(unit.high) << 32 | unit.low, version);
        const long long end = (static_cast<long long>(unit.begin) + f.part23) / 8 + kMp3Guard;
        sound = f.big <= kMp3Lines && end <= 4 * main_words;
        if (sound) {
            r.c = fa_open(main, unit.begin, f.part23);
            const bool right_of_intensity = unit.flags & kMp3Intensity && unit.flags & kMp3Right;
            const FaParts parts = fa_parts(tables, f, version, right_of_intensity);
            fa_read_factors(r.c, parts, f.kind == 0 ? unit.flags >> 6 & 15 : 0, mine);
            r.big = f.big;
            r.tables = f.tables;
            r.quadruples = f.quadruples;
            fa_set_regions(tables, f, version, band, r);
        }
    }
    fa_store_tile(tile, __ballot_sync(kAll, sound), 0, rows);
    bool more = sound && fa_more(r);
    for (int word = kMp3HeadWords; __any_sync(kAll, more); word += kChunk) {
        const unsigned mask = __ballot_sync(kAll, more);
        for (int k = 0; more && k < kChunk; ++k) mine[k] = fa_step(r, codes, roots);
        fa_store_tile(tile, mask, word, rows);
        more = more && fa_more(r);
    }
    if (index != kNoUnit) FA_ST(counts + index, sound ? static_cast<uint32_t>(r.count) : kMp3Fault);
}

// --- samples ---------------------------------------------------------------------------------------------------------

constexpr int kRun = 6;                   // granules of samples a block makes
constexpr int kGranules = kRun + 2;       // with those before them that it needs; one for each warp
constexpr int kGranule = 18 * kMp3Pitch;  // floats of one granule in shared memory
static_assert(kGranules == kWarps, "a warp transforms one granule");

__constant__ FaMp3Hybrid kHybrid = fa_mp3_hybrid();

// What the block keeps of a unit.
struct FaSide {
    long long unit;
    int count;     // lines that may not be zero
    int quarters;  // exponent of 2^(1/4) without factors and subblock gains
    int step;      // of a factor
    int subgains, preflag, bands, block, mixed, scfsi;
    uint32_t flags;
    int compress;
};

struct FaBlock {
    const FaMp3GpuTables* tables;
    const uint32_t* rows;
    FaSide* sides;        // [granule][channel]
    float* gains;         // [granule][channel][band]
    uint8_t* factors;     // likewise
    int (*last)[4];       // [granule][window]: last band that is not zero on the right (intensity stereo)
    const float* powers;  // n^(4/3) below 16
    float *first, *second;
    int granules, channels, output;
    bool mix;
};

__device__ __forceinline__ FaSide fa_silent_side() { return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}; }

__device__ __forceinline__ FaSide fa_side(const FaMp3Unit* units, const uint32_t* counts, long long index,
                                          int* status) {
    const FaMp3Unit unit = FA_LD(units + index);
    if (!(unit.flags & kMp3Whole)) return fa_silent_side();
    const uint32_t count = FA_LD(counts + index);
    if (count & kMp3Fault) {
        FA_ST(status, 1);
        return fa_silent_side();
    }
    const int version = unit.flags & 3;
    const FaMp3Fields f = fa_mp3_fields(static_cast<uint64_t>(unit.high) << 32 | unit.low, version);
    FaSide s;
    s.unit = index;
    s.count = static_cast<int>(count);
    s.quarters = f.gain - 210 - (unit.flags & kMp3MiddleSide ? 2 : 0);
    s.step = f.scale ? 4 : 2;
    s.subgains = f.subgains;
    const bool right_of_intensity = unit.flags & kMp3Intensity && unit.flags & kMp3Right;
    s.preflag = version == 0 ? f.preflag : !right_of_intensity && f.compress >= 500;
    s.bands = 9 * f.kind + static_cast<int>(unit.flags >> 2 & 15);
    s.block = f.block;
    s.mixed = f.mixed;
    s.scfsi = f.kind == 0 ? unit.flags >> 6 & 15 : 0;
    s.flags = unit.flags;
    s.compress = f.compress;
    return s;
}

// 2^(quarters / 4), zero below the normal numbers.
__device__ __forceinline__ float fa_quarter_power(int quarters) {
    const int exponent = (quarters >> 2) + 127, rest = quarters & 3;
    const float part = rest == 0 ? 1.0f : rest == 1 ? 1.18920712f : rest == 2 ? 1.41421356f : 1.68179283f;
    return exponent <= 0 ? 0.0f : part * fa_bits_to_float(static_cast<uint32_t>(exponent) << 23);
}

__device__ __forceinline__ void fa_fill_gains(const FaBlock& b) {
    for (int i = threadIdx.x; i < b.granules * 2 * kMp3Bands; i += kThreads) {
        const FaSide& s = b.sides[i / kMp3Bands];
        const int band = i % kMp3Bands;
        if (s.count == 0 && !(s.flags & kMp3Intensity)) continue;
        const int group = (band >= 6) + (band >= 11) + (band >= 16);
        const long long unit = s.scfsi >> (3 - group) & 1 ? s.unit - b.channels : s.unit;
        const uint32_t word = FA_LD(b.rows + unit * kMp3RowWords + band / 4);
        const int factor = static_cast<int>(word >> 8 * (band % 4) & 255),
                  window = FA_LD(&b.tables->window[s.bands][band]);
        int less = s.step * (factor & 127);
        if (window == 3)
            less += s.preflag ? s.step * FA_LD(b.tables->pretab + band) : 0;
        else
            less += 8 * (s.subgains >> (6 - 3 * window) & 7);
        b.gains[i] = fa_quarter_power(s.quarters - less);
        b.factors[i] = static_cast<uint8_t>(factor);
    }
}

struct FaPair {
    float a, b;
};

__device__ __forceinline__ float fa_power(const FaBlock& b, int value) {
    const int size = value < 0 ? -value : value;
    const float power = size < 16 ? b.powers[size] : FA_LD(b.tables->power + size);
    return value < 0 ? -power : power;
}

// Lines 2 * pair and 2 * pair + 1 of a unit.
__device__ __forceinline__ FaPair fa_lines(const FaBlock& b, int index, int pair) {
    const FaSide& s = b.sides[index];
    if (2 * pair >= s.count) return {0.0f, 0.0f};
    const uint32_t word = FA_LD(b.rows + s.unit * kMp3RowWords + kMp3HeadWords + pair);
    const float gain = b.gains[index * kMp3Bands + FA_LD(&b.tables->band_of[s.bands][pair])];
    return {fa_power(b, static_cast<int16_t>(word)) * gain, fa_power(b, static_cast<int16_t>(word >> 16)) * gain};
}

// Marks the last bands of the right channel that are not zero, where there is intensity stereo.
__device__ __forceinline__ void fa_mark_bands(const FaBlock& b) {
    for (int i = threadIdx.x; i < b.granules * (kMp3Lines / 2); i += kThreads) {
        const int granule = i / (kMp3Lines / 2), pair = i % (kMp3Lines / 2);
        const FaSide& right = b.sides[2 * granule + 1];
        if (!(right.flags & kMp3Intensity) || 2 * pair >= right.count) continue;
        const FaPair lines = fa_lines(b, 2 * granule + 1, pair);
        if (lines.a == 0.0f && lines.b == 0.0f) continue;
        const int band = FA_LD(&b.tables->band_of[right.bands][pair]);
        atomicMax(&b.last[granule][FA_LD(&b.tables->window[right.bands][band])], band);
    }
}

// Shares of the channels in one band; false where it has no position.
__device__ __forceinline__ bool fa_shares(const FaBlock& b, int granule, int band, FaPair& shares) {
    const FaSide& right = b.sides[2 * granule + 1];
    const int bands = FA_LD(b.tables->bands + right.bands), window = FA_LD(&b.tables->window[right.bands][band]);
    const int* last = b.last[granule];
    if (band <= last[window]) return false;
    // A short band that is not zero keeps the long ones below it (mixed blocks) from intensity stereo.
    if (window == 3 && fa_max(last[0], fa_max(last[1], last[2])) >= 0) return false;
    // The last band has no factor of its own: it uses that of the band before it.
    const int width = window == 3 ? 1 : 3, source = band >= bands - width ? band - width : band;
    const int position = b.factors[(2 * granule + 1) * kMp3Bands + source];
    if ((right.flags & 3) == 0) {
        if (position >= 7) return false;
        shares = {FA_LD(&b.tables->intensity[0][position]), FA_LD(&b.tables->intensity[1][position])};
        return true;
    }
    if (position & 128) return false;
    const float less = fa_quarter_power(-((position + 1) / 2 * (right.compress & 1 ? 2 : 1)));
    shares.a = position & 1 ? less : 1.0f;
    shares.b = position & 1 ? 1.0f : less;
    return true;
}

// Middle/side and intensity of one pair of lines.
__device__ __forceinline__ void fa_stereo(const FaBlock& b, int granule, int pair, FaPair& l, FaPair& r) {
    const FaSide& right = b.sides[2 * granule + 1];
    const bool ms = right.flags & kMp3MiddleSide;
    if (right.flags & kMp3Intensity) {
        FaPair shares;
        if (fa_shares(b, granule, FA_LD(&b.tables->band_of[right.bands][pair]), shares)) {
            const float undo = ms ? 1.41421356f : 1.0f, to_left = shares.a * undo, to_right = shares.b * undo;
            r = {l.a * to_right, l.b * to_right};
            l = {l.a * to_left, l.b * to_left};
            return;
        }
    }
    if (!ms) return;
    const FaPair middle = l;
    l = {middle.a + r.a, middle.b + r.b};
    r = {middle.a - r.a, middle.b - r.b};
}

// Whether both channels of a granule go through one transform.
__device__ __forceinline__ bool fa_alike(const FaSide& l, const FaSide& r) {
    return l.block == r.block && l.mixed == r.mixed;
}

// The unit whose blocks the lines in `first` have. Those in `second`, if any, have the right channel's.
__device__ __forceinline__ int fa_main_side(const FaBlock& b, int granule) {
    return 2 * granule + (b.mix ? 0 : fa_min(b.output, b.channels - 1));
}

__device__ __forceinline__ bool fa_two_transforms(const FaBlock& b, int granule) {
    return b.mix && !fa_alike(b.sides[2 * granule], b.sides[2 * granule + 1]);
}

__device__ __forceinline__ void fa_place(const FaBlock& b, int bands, int pair, int granule, FaPair lines, float* to) {
    const uint32_t places = FA_LD(&b.tables->place[bands][pair]);
    to[granule * kGranule + (places & 0xFFFF)] = lines.a;
    to[granule * kGranule + (places >> 16)] = lines.b;
}

// Lines of all granules, by coefficient and subband.
__device__ __forceinline__ void fa_place_lines(const FaBlock& b) {
    for (int i = threadIdx.x; i < b.granules * (kMp3Lines / 2); i += kThreads) {
        const int granule = i / (kMp3Lines / 2), pair = i % (kMp3Lines / 2);
        FaPair l = fa_lines(b, 2 * granule, pair);
        const int bands = b.sides[fa_main_side(b, granule)].bands;
        if (b.channels == 1) {
            fa_place(b, bands, pair, granule, l, b.first);
            continue;
        }
        const uint32_t stereo = b.sides[2 * granule + 1].flags & (kMp3MiddleSide | kMp3Intensity);
        if (b.mix && stereo == kMp3MiddleSide && !fa_two_transforms(b, granule)) {
            fa_place(b, bands, pair, granule, l, b.first);  // the middle is the mean: a loud side would but round it
            continue;
        }
        FaPair r = fa_lines(b, 2 * granule + 1, pair);
        fa_stereo(b, granule, pair, l, r);
        if (!b.mix) {
            fa_place(b, bands, pair, granule, b.output ? r : l, b.first);
        } else if (fa_two_transforms(b, granule)) {
            fa_place(b, bands, pair, granule, {l.a * 0.5f, l.b * 0.5f}, b.first);
            fa_place(b, b.sides[2 * granule + 1].bands, pair, granule, {r.a * 0.5f, r.b * 0.5f}, b.second);
        } else {
            fa_place(b, bands, pair, granule, {(l.a + r.a) * 0.5f, (l.b + r.b) * 0.5f}, b.first);
        }
    }
}

// One butterfly between subbands `lane` and `lane + 1`.
__device__ __forceinline__ void fa_butterfly(const FaBlock& b, const FaSide& side, int lane, int i, float* rows) {
    if (side.block == 2 && (!side.mixed || lane > 0)) return;  // short blocks: none; mixed ones: between the long two
    const float cs = FA_LD(&b.tables->alias[0][i]), ca = FA_LD(&b.tables->alias[1][i]);
    float &upper = rows[(17 - i) * kMp3Pitch + lane], &lower = rows[i * kMp3Pitch + lane + 1];
    const float high = upper, low = lower;
    upper = high * cs - low * ca;
    lower = low * cs + high * ca;
}

__device__ __forceinline__ void fa_reduce_alias(const FaBlock& b) {
    const int lane = threadIdx.x % 32;
    if (lane == 31) return;
    for (int item = threadIdx.x / 32; item < 8 * b.granules; item += kWarps) {
        const int granule = item / 8;
        fa_butterfly(b, b.sides[fa_main_side(b, granule)], lane, item % 8, b.first + granule * kGranule);
        if (fa_two_transforms(b, granule)) {
            fa_butterfly(b, b.sides[2 * granule + 1], lane, item % 8, b.second + granule * kGranule);
        }
    }
}

// Windowed outputs of one subband: the first 18 to `head`, the others to `tail`, or onto what is there.
struct FaOutputs {
    float *head, *tail;
    bool add;

    __device__ __forceinline__ void put(int i, float value) const {
        float& to = i < 18 ? head[i * kMp3Pitch] : tail[(i - 18) * kMp3Pitch];
        to = add ? to + value : value;
    }
};

__device__ __forceinline__ void fa_long_block(const float (&in)[18], int block, const FaOutputs& out) {
    const float* window = kHybrid.window[block];
#pragma unroll 6
    for (int n = 0; n < 18; ++n) {  // all of them at once would take more registers than three blocks leave
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < 18; ++k) sum = fa_fma(in[k], kHybrid.wide[n][k], sum);
        const int i = n < 9 ? n : n + 9, mirror = n < 9 ? 17 - n : 44 - n;  // odd about 8.5, even about 26.5
        out.put(i, sum * window[i]);
        out.put(mirror, sum * (n < 9 ? -window[mirror] : window[mirror]));
    }
}

__device__ __forceinline__ void fa_short_blocks(const float (&in)[18], FaOutputs out) {
    if (!out.add) {
        for (int i = 0; i < 36; ++i) out.put(i, 0.0f);
    }
    out.add = true;
    const float* window = kHybrid.window[2];
#pragma unroll
    for (int w = 0; w < 3; ++w) {
#pragma unroll
        for (int n = 0; n < 6; ++n) {
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < 6; ++k) sum = fa_fma(in[3 * k + w], kHybrid.narrow[n][k], sum);
            const int i = n < 3 ? n : n + 3, mirror = n < 3 ? 5 - i : 17 - i;
            out.put(6 + 6 * w + i, sum * window[i]);
            out.put(6 + 6 * w + mirror, sum * (n < 3 ? -window[mirror] : window[mirror]));
        }
    }
}

// A warp's granule: lane = subband.
__device__ __forceinline__ void fa_transform(const FaBlock& b, int granule) {
    const int lane = threadIdx.x % 32;
    float* const head = b.first + granule * kGranule + lane;
    float* const tail = b.second + granule * kGranule + lane;
    const bool two = fa_two_transforms(b, granule);
    float in[18], other[18];
#pragma unroll
    for (int k = 0; k < 18; ++k) {
        in[k] = head[k * kMp3Pitch];
        other[k] = two ? tail[k * kMp3Pitch] : 0.0f;
    }
#pragma unroll 1
    for (int part = 0; part < (two ? 2 : 1); ++part) {
        const FaSide& side = b.sides[part ? 2 * granule + 1 : fa_main_side(b, granule)];
        const bool low = side.mixed && side.block && lane < 2;  // long, with the normal window
        const FaOutputs out = {head, tail, part == 1};
        if (side.block == 2 && !low)
            fa_short_blocks(in, out);
        else
            fa_long_block(in, low ? 0 : side.block, out);
#pragma unroll
        for (int k = 0; k < 18; ++k) in[k] = other[k];
    }
}

// Subband samples of a slot become A and B of the synthesis (mp3_tables.h), in place.
__device__ __forceinline__ void fa_matrix(const FaBlock& b, int slot, const float (&coefficients)[16]) {
    const int lane = threadIdx.x % 32;
    float* const row = b.first + slot * kMp3Pitch;
    const float turn = (slot & 1) && (lane & 1) ? -1.0f : 1.0f;  // frequency inversion: a granule has 18 slots
    row[lane] = (row[lane] + b.second[(slot - 18) * kMp3Pitch + lane]) * turn;
    __syncwarp();
    const float mine = row[lane], mirrored = row[31 - lane];
    __syncwarp();
    row[lane] = lane < 16 ? mine + mirrored : mirrored - mine;  // sums of k and 31 - k, then differences, backwards
    __syncwarp();
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < 16; ++k) sum = fa_fma(row[lane & 1 ? 31 - k : k], coefficients[k], sum);
    __syncwarp();
    row[lane] = sum;
}

// One of the 32 samples of a slot.
__device__ __forceinline__ float fa_sample(const FaBlock& b, int slot, const float (&taps)[16]) {
    const int output = threadIdx.x % 32, lane = output > 16 ? 32 - output : output % 16;
    const float* const even = b.first + slot * kMp3Pitch + lane;
    const float* const odd = b.first + (slot - 1) * kMp3Pitch + (output ? 16 + lane : 0);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        sum = fa_fma(even[-2 * i * kMp3Pitch], taps[2 * i], sum);
        sum = fa_fma(odd[-2 * i * kMp3Pitch], taps[2 * i + 1], sum);
    }
    return sum;
}

// From the subband samples of the block's granules to samples of the crop.
__device__ __forceinline__ void fa_synthesis(const FaBlock& b, const float (*constants)[32], bool window, int from,
                                             int stop, long long at, long long count, float* y) {
    const int lane = threadIdx.x % 32;
    float values[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) values[i] = FA_LD(&constants[i][lane]);
    for (int slot = from + threadIdx.x / 32; slot < stop; slot += kWarps) {
        if (!window) {
            fa_matrix(b, slot, values);
            continue;
        }
        const float sample = fa_sample(b, slot, values);
        const long long t = at + (slot - 36) * 32 + lane;
        if (t >= 0 && t < count) FA_ST(y + t, sample);
    }
}

// A crop's samples go to y + crop.to or, if that is negative, to other + ~crop.to; nothing else is written. Grid:
// (runs, crops, output channels). status: 1 at the rows of crops with a unit that cannot be.
extern "C" __global__ void __launch_bounds__(256, 3)
    fa_mp3_samples_kernel(const FaMp3GpuTables* tables, const FaMp3Unit* units, const uint32_t* counts,
                          const uint32_t* rows, const FaMp3Crop* crops, float* y, float* other, int* status,
                          long long channels) {
    __shared__ float first[kGranules * kGranule], second[kGranules * kGranule];
    __shared__ FaSide sides[2 * kGranules];
    __shared__ float gains[2 * kGranules * kMp3Bands];
    __shared__ uint8_t factors[2 * kGranules * kMp3Bands];
    __shared__ int last[kGranules][4];
    __shared__ float powers[16];
    const FaMp3Crop* const crop = crops + blockIdx.y;
    const long long start =
        FA_LD(&crop->first) + static_cast<long long>(blockIdx.x) * kRun - 2;  // the block's granule 0
    const int granules = static_cast<int>(fa_min<long long>(kGranules, FA_LD(&crop->last) + 1 - start));
    if (granules <= 2) return;
    const int sources = static_cast<int>(FA_LD(&crop->channels));
    if (threadIdx.x < 2 * kGranules) {
        const int granule = threadIdx.x / 2, channel = threadIdx.x % 2;
        const bool there = granule < granules && start + granule >= 0 && channel < sources;
        const long long unit = FA_LD(&crop->unit) + (start + granule) * sources + channel;
        sides[threadIdx.x] = there ? fa_side(units, counts, unit, status + FA_LD(&crop->row)) : fa_silent_side();
    }
    if (threadIdx.x < 4 * kGranules) last[threadIdx.x / 4][threadIdx.x % 4] = -1;
    if (threadIdx.x < 16) powers[threadIdx.x] = FA_LD(tables->power + threadIdx.x);
    __syncthreads();
    const FaBlock block = {tables,
                           rows,
                           sides,
                           gains,
                           factors,
                           last,
                           powers,
                           first,
                           second,
                           granules,
                           sources,
                           static_cast<int>(blockIdx.z),
                           sources == 2 && channels == 1};
    fa_fill_gains(block);
    __syncthreads();
    fa_mark_bands(block);
    __syncthreads();
    fa_place_lines(block);
    __syncthreads();
    fa_reduce_alias(block);
    __syncthreads();
    if (static_cast<int>(threadIdx.x) / 32 < granules) fa_transform(block, threadIdx.x / 32);
    __syncthreads();
    const int slots = 18 * granules;
    const long long at = FA_LD(&crop->shift) + (start + 2) * 576, to = FA_LD(&crop->to);
    float* const out = (to < 0 ? other + ~to : y + to) + blockIdx.z * FA_LD(&crop->stride);
    fa_synthesis(block, tables->matrix, false, 21, slots, 0, 0, nullptr);
    __syncthreads();
    fa_synthesis(block, tables->taps, true, 36, slots, at, FA_LD(&crop->count), out);
}
