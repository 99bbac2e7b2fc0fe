// FLAC on CUDA: one thread reads a frame, one predicts a subframe, and a block of threads mixes and places 32 frames.
// The tables are those of csrc/cpu/stage.cpp: a frame is one lane of a group of 32, whose samples alternate in memory,
// plane after plane: x[group.x + (plane * group.block + sample) * 32 + lane].
// The two serial kernels have a warp a block: a batch of 256 crops is a few hundred warps, which are to be spread over
// all multiprocessors; what they wait for is their own chain of dependences.
#include "../codecs/flac_lanes.h"
#include "../codecs/status.h"

constexpr int kTile = 32;  // samples of the third kernel's block
constexpr int kRows = 8;   // threads of it: kRows * 32

// Columns of the tables, `count` numbers each.
enum { kFrameBegin, kFrameEnd, kFrameShape, kFrameRow, kFrameTo, kFrameTrim, kFrameStride };
enum { kGroupX, kGroupPlane, kGroupBlock };

struct FaFrameTable {
    const long long* rows;
    long long count;  // lanes of all groups
    __device__ __forceinline__ long long get(int column, long long lane) const {
        return FA_LD(rows + column * count + lane);
    }
};

// staging: the encoded bytes. frames: (7, 32 * groups) first byte behind the header, byte behind the frame, shape,
// clip, destination, first sample to keep | how many << 16, distance of channels. group: first of this launch; base:
// where its x begins. facts: (planes, kFlacFacts, 32). status: (rows,), written where a frame is not right. Grid: a
// warp a group. Loads of the stream are scattered, a word in each lane's own cache line.
extern "C" __global__ void __launch_bounds__(32)
    fa_flac_read_kernel(const uint8_t* staging, const long long* frames, const long long* groups, int* x, int* facts,
                        int* status, long long count, long long group, long long base) {
    const int lane = static_cast<int>(threadIdx.x);
    const long long which = group + blockIdx.x;
    const FaFrameTable table = {frames, kFlacLanes * count};
    const FaFlacShape shape = fa_flac_shape(table.get(kFrameShape, which * kFlacLanes + lane));
    const long long begin = table.get(kFrameBegin, which * kFlacLanes + lane);
    const long long end = table.get(kFrameEnd, which * kFlacLanes + lane);
    const long long plane = FA_LD(groups + kGroupPlane * count + which);
    const long long apart = FA_LD(groups + kGroupBlock * count + which) * kFlacLanes;
    int* mine = x + FA_LD(groups + kGroupX * count + which) - base + lane;
    int* fact = facts + plane * kFlacFacts * kFlacLanes + lane;
    if (shape.block == 0) return;  // a lane without a frame
    const int wide = fa_flac_wide_channel(shape);
    for (int c = 0; c < shape.channels; ++c) FA_ST(fact + c * kFlacFacts * kFlacLanes, -1);
    FaWords bits = fa_words_open(staging, begin, end);
    bool good = true;
    for (int c = 0; c < shape.channels && good; ++c) {
        const int side = shape.stereo == kFlacSideRight ? 0 : 1;
        const int depth = shape.bits + (shape.stereo && c == side ? 1 : 0);
        good = fa_flac_read_channel(bits, shape.block, depth, fact + c * kFlacFacts * kFlacLanes, mine + c * apart,
                                    c == wide ? mine + shape.channels * apart : nullptr);
    }
    const long long behind = (begin & ~3ll) + (fa_bits_position(bits) + 7) / 8 + 2;  // the CRC-16
    if (!good || behind != end) FA_ST(status + table.get(kFrameRow, which * kFlacLanes + lane), fa::kCorrupt);
}

// Which copy of fa_flac_restore serves all lanes of a warp.
__device__ __forceinline__ int fa_largest_of_warp(int value) {
    for (int distance = 16; distance; distance /= 2) {
        value = fa_max(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    return value;
}

// planes: group << 4 | channel of each plane of this launch. Grid: a warp a plane.
extern "C" __global__ void __launch_bounds__(32)
    fa_flac_restore_kernel(const long long* planes, const long long* frames, const long long* groups, int* x,
                           const int* facts, int* status, long long count, long long base) {
    const int lane = static_cast<int>(threadIdx.x);
    const long long packed = FA_LD(planes + blockIdx.x), which = packed >> 4;
    const int channel = static_cast<int>(packed & 15);
    const FaFrameTable table = {frames, kFlacLanes * count};
    const FaFlacShape shape = fa_flac_shape(table.get(kFrameShape, which * kFlacLanes + lane));
    const long long plane = FA_LD(groups + kGroupPlane * count + which) + channel;
    const long long apart = FA_LD(groups + kGroupBlock * count + which) * kFlacLanes;
    int* mine = x + FA_LD(groups + kGroupX * count + which) - base + lane + channel * apart;
    const int* fact = facts + plane * kFlacFacts * kFlacLanes + lane;
    const int order = shape.block ? FA_LD(fact) : -1;  // -1: the first kernel has told
    const int largest = fa_largest_of_warp(order);
    if (order < 0) return;
    bool good;
    if (channel == fa_flac_wide_channel(shape)) {
        good = fa_flac_restore_wide(fact, shape.block, mine, mine + (shape.channels - channel) * apart);
    } else if (largest <= 4) {
        good = fa_flac_restore<4>(fact, shape.block, mine);
    } else if (largest <= 8) {
        good = fa_flac_restore<8>(fact, shape.block, mine);
    } else if (largest <= 12) {
        good = fa_flac_restore<12>(fact, shape.block, mine);
    } else {
        good = fa_flac_restore<32>(fact, shape.block, mine);
    }
    if (!good) FA_ST(status + table.get(kFrameRow, which * kFlacLanes + lane), fa::kCorrupt);
}

// Sample i of a channel pair or of one channel as integers of the stream's depth.
__device__ __forceinline__ void fa_flac_pair(const FaFlacShape& shape, const int* x, int apart, int i, int& first,
                                             int& second) {
    first = FA_LD(x + i * kFlacLanes);
    second = FA_LD(x + apart + i * kFlacLanes);
    const int wide = fa_flac_wide_channel(shape);
    if (wide < 0) {
        fa_flac_stereo<int32_t, uint32_t>(shape.stereo, first, second);
        return;
    }
    const int above = FA_LD(x + 2 * apart + i * kFlacLanes);
    int64_t a = wide == 0 ? fa_flac_join(above, first) : first, b = wide == 1 ? fa_flac_join(above, second) : second;
    fa_flac_stereo<int64_t, uint64_t>(shape.stereo, a, b);
    first = static_cast<int>(a), second = static_cast<int>(b);
}

// The mean of the channels: added one by one, then divided, as mix_rows of csrc/cpu/decode.cpp.
__device__ __forceinline__ float fa_flac_mean(const FaFlacShape& shape, const int* x, int apart, int i, float scale) {
    if (shape.stereo) {
        int first, second;
        fa_flac_pair(shape, x, apart, i, first, second);
        return fa_mul(fa_add(fa_mul(static_cast<float>(first), scale), fa_mul(static_cast<float>(second), scale)),
                      0.5f);
    }
    float total = fa_mul(static_cast<float>(FA_LD(x + i * kFlacLanes)), scale);
    for (int c = 1; c < shape.channels; ++c) {
        total = fa_add(total, fa_mul(static_cast<float>(FA_LD(x + c * apart + i * kFlacLanes)), scale));
    }
    if (shape.channels == 2) return fa_mul(total, 0.5f);
    return shape.channels == 1 ? total : total / static_cast<float>(shape.channels);
}

// y: the batch, of `channels` channels; other: what is resampled first. A destination d >= 0 is y[d], else other[~d].
// One channel: the mean. More: as many as the frames have, or mono repeated. Tiles of 32 samples and frames are turned
// in shared memory, so that both sides are read and written in runs. Grid: groups * tiles blocks of (32, 8) threads.
extern "C" __global__ void __launch_bounds__(256)
    fa_flac_place_kernel(const long long* frames, const long long* groups, const int* x, float* y, float* other,
                         long long count, long long group, long long base, int channels, int tiles) {
    __shared__ float tile[2][kTile][kFlacLanes + 1];
    __shared__ long long where[kFlacLanes], stride[kFlacLanes];
    __shared__ int from[kFlacLanes], until[kFlacLanes];
    const int column = static_cast<int>(threadIdx.x), row = static_cast<int>(threadIdx.y);
    const long long which = group + blockIdx.x / tiles;
    const int start = static_cast<int>(blockIdx.x % tiles) * kTile;
    const int apart = static_cast<int>(FA_LD(groups + kGroupBlock * count + which)) * kFlacLanes;
    if (start * kFlacLanes >= apart) return;
    const FaFrameTable table = {frames, kFlacLanes * count};
    const FaFlacShape shape = fa_flac_shape(table.get(kFrameShape, which * kFlacLanes + column));
    const float scale = shape.bits ? 1.0f / static_cast<float>(int64_t{1} << (shape.bits - 1)) : 0.0f;
    const int* mine = x + FA_LD(groups + kGroupX * count + which) - base + column;
    if (row == 0) {
        const long long trim = table.get(kFrameTrim, which * kFlacLanes + column);
        where[column] = table.get(kFrameTo, which * kFlacLanes + column);
        stride[column] = table.get(kFrameStride, which * kFlacLanes + column);
        from[column] = static_cast<int>(trim & 0xFFFF);
        until[column] = from[column] + static_cast<int>(trim >> 16);
    }
    for (int c = 0; c < channels;) {
        const bool pair = channels == 2 && shape.stereo;
        for (int i = row; i < kTile; i += kRows) {
            float first = 0.0f, second = 0.0f;
            if (start + i < shape.block && channels == 1) {
                first = fa_flac_mean(shape, mine, apart, start + i, scale);
            } else if (start + i < shape.block && pair) {
                int a, b;
                fa_flac_pair(shape, mine, apart, start + i, a, b);
                first = fa_mul(static_cast<float>(a), scale), second = fa_mul(static_cast<float>(b), scale);
            } else if (start + i < shape.block) {
                const int last = shape.channels - 1;
                first =
                    fa_mul(static_cast<float>(FA_LD(mine + fa_min(c, last) * apart + (start + i) * kFlacLanes)), scale);
                if (c + 1 < channels) {
                    second =
                        fa_mul(static_cast<float>(FA_LD(mine + fa_min(c + 1, last) * apart + (start + i) * kFlacLanes)),
                               scale);
                }
            }
            tile[0][i][column] = first;
            tile[1][i][column] = second;
        }
        __syncthreads();
        const int at = start + column;
        for (int q = row; q < 2 * kFlacLanes; q += kRows) {
            const int frame = q % kFlacLanes, which_channel = c + q / kFlacLanes;
            if (which_channel >= channels || at < from[frame] || at >= until[frame]) continue;
            const long long to = where[frame], offset = at - from[frame] + which_channel * stride[frame];
            FA_ST((to < 0 ? other + ~to : y + to) + offset, tile[q / kFlacLanes][column][frame]);
        }
        __syncthreads();
        c += 2;
    }
}
