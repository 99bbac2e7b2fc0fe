// WAV on CUDA: stored samples to floats, mixed and placed. A block takes a piece of a clip through shared memory, so
// that bytes are read in words and samples written in runs, whatever their size and number of channels.
#include "../codecs/wav.h"

constexpr int kThreads = 256;

// Columns of the table of clips, `count` numbers each.
enum { kClipBegin, kClipFrames, kClipFormat, kClipRow, kClipTo, kClipStride };

template <int Kind>
__device__ __forceinline__ bool fa_wav_piece(const uint8_t* bytes, int frames, int channels, int rows, float* y,
                                             long long stride) {
    constexpr int each = Kind == fa::kWavF64 ? 8 : Kind >= fa::kWavS32 ? 4 : Kind;
    bool finite = true;
    const bool mixed = rows == 1 && channels > 1;
    const int lines = channels == 1 ? 1 : rows;
    for (int index = threadIdx.x; index < frames * lines; index += kThreads) {
        const int line = index / frames, i = index % frames;
        const uint8_t* p = bytes + (i * channels + (mixed ? 0 : line)) * each;
        float value = fa::wav_sample<Kind>(p);
        for (int c = 1; mixed && c < channels; ++c) value = fa_add(value, fa::wav_sample<Kind>(p + c * each));
        if (mixed) value = channels == 2 ? fa_mul(value, 0.5f) : value / static_cast<float>(channels);
        finite = finite && (fa_float_to_bits(value) & 0x7F800000u) != 0x7F800000u;
        for (int row = line; row < rows; row += lines) FA_ST(y + row * stride + i, value);  // mono is repeated
    }
    return finite;
}

// clips: (6, count) first byte, frames, kind | channels << 8, row, destination, distance of channels. y: the batch, of
// `channels` channels (1: the mean; else as many as the clips have, or mono repeated); other: what is resampled first;
// a destination d >= 0 is y[d], else other[~d]. status: (rows,), kNotFinite where a sample is NaN or infinite. Grid:
// count * pieces blocks of 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    fa_wav_kernel(const uint8_t* staging, const long long* clips, float* y, float* other, int* status, long long count,
                  int channels, int pieces) {
    __shared__ uint32_t words[fa::kWavPiece / 4 + 2];
    const long long clip = blockIdx.x / pieces;
    const long long format = FA_LD(clips + kClipFormat * count + clip),
                    frames = FA_LD(clips + kClipFrames * count + clip);
    const int kind = static_cast<int>(format & 255), sources = static_cast<int>(format >> 8);
    const int each = kind == fa::kWavF64 ? 8 : kind >= fa::kWavS32 ? 4 : kind, block = each * sources;
    const long long piece = fa::kWavPiece / block, first = blockIdx.x % pieces * piece;
    if (first >= frames) return;
    const int here = static_cast<int>(fa_min(piece, frames - first));
    const long long begin = FA_LD(clips + kClipBegin * count + clip) + first * block;
    const uint32_t* source = reinterpret_cast<const uint32_t*>(staging) + (begin >> 2);
    const int odd = static_cast<int>(begin & 3), size = (odd + here * block + 3) / 4;
    for (int i = threadIdx.x; i < size; i += kThreads) words[i] = FA_LD(source + i);
    __syncthreads();
    const long long to = FA_LD(clips + kClipTo * count + clip), stride = FA_LD(clips + kClipStride * count + clip);
    float* out = (to < 0 ? other + ~to : y + to) + first;
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(words) + odd;
    bool finite = true;
    if (kind == fa::kWavU8) finite = fa_wav_piece<fa::kWavU8>(bytes, here, sources, channels, out, stride);
    if (kind == fa::kWavS16) finite = fa_wav_piece<fa::kWavS16>(bytes, here, sources, channels, out, stride);
    if (kind == fa::kWavS24) finite = fa_wav_piece<fa::kWavS24>(bytes, here, sources, channels, out, stride);
    if (kind == fa::kWavS32) finite = fa_wav_piece<fa::kWavS32>(bytes, here, sources, channels, out, stride);
    if (kind == fa::kWavF32) finite = fa_wav_piece<fa::kWavF32>(bytes, here, sources, channels, out, stride);
    if (kind == fa::kWavF64) finite = fa_wav_piece<fa::kWavF64>(bytes, here, sources, channels, out, stride);
    if (!finite) FA_ST(status + FA_LD(clips + kClipRow * count + clip), fa::kNotFinite);
}

// Rows of x (count, channels, width) to rows of y (rows, channels, length): sample t of row to[i] is x[i] at t +
// shift[i] for t in [first[i], last[i]), else zero, and all zero where its status tells of a fault. Grid: count *
// channels * ceil(length / 256) blocks of 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    fa_place_rows_kernel(const float* x, float* y, const long long* table, const int* status, long long count,
                         long long channels, long long width, long long length) {
    const long long tiles = (length + kThreads - 1) / kThreads, line = blockIdx.x / tiles, i = line / channels;
    const long long t = blockIdx.x % tiles * kThreads + threadIdx.x;
    if (t >= length) return;
    const long long row = FA_LD(table + i), shift = FA_LD(table + count + i);
    const bool inside = t >= FA_LD(table + 2 * count + i) && t < FA_LD(table + 3 * count + i) && !FA_LD(status + row);
    FA_ST(y + (row * channels + line % channels) * length + t, inside ? FA_LD(x + line * width + t + shift) : 0.0f);
}
