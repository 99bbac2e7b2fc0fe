// Scale factors and Huffman codes of MP3, a thread a unit (a granule of one channel), into a row of pairs of lines. The
// host says where each unit's bits begin, so none waits for another; mp3_samples.cu takes the rows on from here.
#include "../codecs/mp3_gpu.h"

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xffffffffu;
constexpr int kChunk = 8;               // pairs, a sector, that a thread decodes before its warp stores them
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

// Factors of bands from `first` on into kChunk words of four; the top bit of one says that it is no intensity position.
// Bands whose factors granule 1 shares with granule 0 stay 0: who reads them looks there.
__device__ __forceinline__ void fa_read_factors(FaCursor& c, const FaParts& p, int shared, int first, uint32_t* words) {
    for (int b = first; b < fa_min(first + 4 * kChunk, kMp3Bands); b += 4) {
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
        words[(b - first) / 4] = word;
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

// A warp stores its tile: kChunk words for each of the units in `mask`, a whole sector each.
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
    FaParts parts = {};
    int shared = 0;
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
            parts = fa_parts(tables, f, version, right_of_intensity);
            shared = f.kind == 0 ? unit.flags >> 6 & 15 : 0;
            r.big = f.big;
            r.tables = f.tables;
            r.quadruples = f.quadruples;
            fa_set_regions(tables, f, version, band, r);
        }
    }
    for (int word = 0; word < kMp3HeadWords; word += kChunk) {
        if (sound) fa_read_factors(r.c, parts, shared, 4 * word, mine);
        fa_store_tile(tile, __ballot_sync(kAll, sound), word, rows);
    }
    bool more = sound && fa_more(r);
    for (int word = kMp3HeadWords; __any_sync(kAll, more); word += kChunk) {
        const unsigned mask = __ballot_sync(kAll, more);
        for (int k = 0; more && k < kChunk; ++k) mine[k] = fa_step(r, codes, roots);
        fa_store_tile(tile, mask, word, rows);
        more = more && fa_more(r);
    }
    if (index != kNoUnit) FA_ST(counts + index, sound ? static_cast<uint32_t>(r.count) : kMp3Fault);
}
