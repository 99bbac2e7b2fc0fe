// From the rows of mp3_lines.cu to lines in shared memory: powers and gains, stereo, the mean of the channels where one
// is wanted. A warp does this for a granule of the run that its block makes.
#pragma once

#include "../codecs/mp3_gpu.h"

constexpr int kRun = 6;                   // granules of samples a block makes
constexpr int kGranules = kRun + 2;       // with those before them that it needs; one for each warp
constexpr int kGranule = 18 * kMp3Pitch;  // floats of one granule in shared memory
constexpr int kThreads = 32 * kGranules;

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
    float* lines;         // [granule][coefficient][subband], 18 rows of kMp3Pitch; at last samples of subbands
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

struct FaPair {
    float a, b;
};

// Gains of both channels' bands.
__device__ __forceinline__ void fa_fill_gains(const FaBlock& b, int granule) {
    for (int k = threadIdx.x % 32; k < 2 * kMp3Bands; k += 32) {
        const int i = 2 * granule * kMp3Bands + k, band = k % kMp3Bands;
        const FaSide& s = b.sides[i / kMp3Bands];
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
__device__ __forceinline__ void fa_mark_bands(const FaBlock& b, int granule) {
    const FaSide& right = b.sides[2 * granule + 1];
    if (!(right.flags & kMp3Intensity)) return;
    for (int pair = threadIdx.x % 32; 2 * pair < right.count; pair += 32) {
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

// The unit whose kind of blocks the lines have, the first ones where there are two transforms.
__device__ __forceinline__ int fa_main_side(const FaBlock& b, int granule) {
    return 2 * granule + (b.mix ? 0 : fa_min(b.output, b.channels - 1));
}

__device__ __forceinline__ bool fa_two_transforms(const FaBlock& b, int granule) {
    return b.mix && !fa_alike(b.sides[2 * granule], b.sides[2 * granule + 1]);
}

// Lines by coefficient and subband. Where the channels go through transforms of their own, half of the left ones or,
// with `right`, of the right ones.
__device__ __forceinline__ void fa_place_lines(const FaBlock& b, int granule, bool right) {
    const FaSide& side = b.sides[2 * granule + 1];
    const uint32_t stereo = side.flags & (kMp3MiddleSide | kMp3Intensity);
    const bool two = fa_two_transforms(b, granule);
    const bool one = b.channels == 1 || (b.mix && stereo == kMp3MiddleSide && !two);
    const int bands = right ? side.bands : b.sides[fa_main_side(b, granule)].bands;
    float* const to = b.lines + granule * kGranule;
    for (int pair = threadIdx.x % 32; pair < kMp3Lines / 2; pair += 32) {
        FaPair lines = fa_lines(b, 2 * granule, pair);
        if (!one) {  // else the middle is the mean: a loud side would but round it
            FaPair r = fa_lines(b, 2 * granule + 1, pair);
            fa_stereo(b, granule, pair, lines, r);
            if (two)
                lines = right ? FaPair{r.a * 0.5f, r.b * 0.5f} : FaPair{lines.a * 0.5f, lines.b * 0.5f};
            else if (b.mix)
                lines = {(lines.a + r.a) * 0.5f, (lines.b + r.b) * 0.5f};
            else if (b.output)
                lines = r;
        }
        const uint32_t places = FA_LD(&b.tables->place[bands][pair]);
        to[places & 0xFFFF] = lines.a;
        to[places >> 16] = lines.b;
    }
}
