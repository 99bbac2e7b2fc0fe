// Stored samples to floats, a block at a time so that the interleaved floats stay in the first-level cache.
#include "wav.h"

#include "../fa_simd.h"

namespace fa {
namespace {

constexpr long long kBlockSamples = 4096;

#if defined(__clang__)
#define FA_SHUFFLE16(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
#define FA_SHUFFLE16(v, ...) __builtin_shuffle(v, fa_byte16{__VA_ARGS__})
#endif
typedef uint8_t fa_byte16 __attribute__((vector_size(16)));
typedef int32_t fa_word4 __attribute__((vector_size(16)));

template <int Kind>
FA_HD void convert_loop(const uint8_t* p, long long count, float* y) {
    constexpr int bytes = Kind == kWavF64 ? 8 : Kind >= kWavS32 ? 4 : Kind;
    for (long long i = 0; i < count; ++i) y[i] = wav_sample<Kind>(p + i * bytes);
}

FA_CLONES void convert_u8(const uint8_t* p, long long count, float* y) { convert_loop<kWavU8>(p, count, y); }
FA_CLONES void convert_s16(const uint8_t* p, long long count, float* y) { convert_loop<kWavS16>(p, count, y); }
FA_CLONES void convert_s32(const uint8_t* p, long long count, float* y) { convert_loop<kWavS32>(p, count, y); }
FA_CLONES void convert_f64(const uint8_t* p, long long count, float* y) { convert_loop<kWavF64>(p, count, y); }

// Four samples from each 16 bytes, of which they fill 12.
FA_CLONES void convert_s24(const uint8_t* p, long long count, float* y) {
    long long i = 0;
    for (; (count - i) * 3 >= 16; i += 4) {
        fa_byte16 packed;
        memcpy(&packed, p + i * 3, sizeof packed);
        const fa_byte16 apart = FA_SHUFFLE16(packed, 0, 0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11);
        fa_word4 words;
        memcpy(&words, &apart, sizeof words);
        words &= static_cast<int32_t>(0xFFFFFF00);
        const fa_float4 values = __builtin_convertvector(words, fa_float4) * (1.0f / 2147483648.0f);
        memcpy(y + i, &values, sizeof values);
    }
    convert_loop<kWavS24>(p + i * 3, count - i, y + i);
}

// Mean of 16-bit stereo: the sum has 17 bits, so this is exactly the sum of the two floats, halved.
FA_CLONES void mean_of_s16_pairs(const uint8_t* p, long long frames, float* y) {
    for (long long i = 0; i < frames; ++i) {
        int32_t pair;
        memcpy(&pair, p + i * 4, sizeof pair);
        const int32_t left = static_cast<int16_t>(pair & 0xFFFF), right = pair >> 16;
        y[i] = static_cast<float>(left + right) * (1.0f / 65536.0f);
    }
}

FA_CLONES void mean_of_pairs(const float* x, long long frames, float* y) {
    for (long long i = 0; i < frames; ++i) y[i] = (x[2 * i] + x[2 * i + 1]) * 0.5f;
}

FA_CLONES void take_apart_pairs(const float* x, long long frames, float* left, float* right) {
    for (long long i = 0; i < frames; ++i) {
        left[i] = x[2 * i];
        right[i] = x[2 * i + 1];
    }
}

void convert(const uint8_t* p, long long count, int kind, float* y) {
    if (kind == kWavU8) return convert_u8(p, count, y);
    if (kind == kWavS16) return convert_s16(p, count, y);
    if (kind == kWavS24) return convert_s24(p, count, y);
    if (kind == kWavS32) return convert_s32(p, count, y);
    if (kind == kWavF64) return convert_f64(p, count, y);
    memcpy(y, p, static_cast<size_t>(count) * sizeof(float));
}

}  // namespace

void spread_channels(const float* x, long long frames, long long channels, bool mix, float* y, long long stride) {
    if (channels == 2) return mix ? mean_of_pairs(x, frames, y) : take_apart_pairs(x, frames, y, y + stride);
    if (!mix) {
        for (long long c = 0; c < channels; ++c) {
            for (long long i = 0; i < frames; ++i) y[c * stride + i] = x[i * channels + c];
        }
        return;
    }
    for (long long i = 0; i < frames; ++i) {
        float total = x[i * channels];
        for (long long c = 1; c < channels; ++c) total += x[i * channels + c];
        y[i] = total / static_cast<float>(channels);
    }
}

void wav_read(const uint8_t* bytes, const WavInfo& info, long long low, long long high, bool mix, float* y,
              long long stride) {
    const uint8_t* p = bytes + info.data + low * info.block;
    const long long frames = high - low;
    if (frames <= 0) return;
    if (info.channels == 1) return convert(p, frames, info.kind, y);
    if (mix && info.channels == 2 && info.kind == kWavS16) return mean_of_s16_pairs(p, frames, y);
    float block[kBlockSamples];
    const long long step = kBlockSamples / info.channels;  // at least 4: kWavMostChannels
    for (long long i = 0; i < frames; i += step) {
        const long long n = fa_min(step, frames - i);
        convert(p + i * info.block, n * info.channels, info.kind, block);
        spread_channels(block, n, info.channels, mix, y + i, stride);
    }
}

}  // namespace fa
