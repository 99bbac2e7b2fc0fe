// One FLAC frame on the CPU. Residuals are read by code that is compiled twice, the second time for processors that
// count leading zeros and shift by a register in one instruction.
#include "flac_frame.h"

#include <algorithm>

#if defined(__x86_64__) && defined(__GNUC__)
#define FA_CLMUL 1
#include <immintrin.h>
#else
#define FA_CLMUL 0
#endif

#include "../fa_simd.h"
#include "flac_predict.h"

namespace fa {
namespace {

struct CrcTables {
    uint16_t of[8][256];  // of[j][b]: byte b with j bytes of zeros behind it
};

constexpr CrcTables make_crc_tables() {
    CrcTables tables = {};
    for (unsigned b = 0; b < 256; ++b) {
        unsigned crc = b << 8;
        for (int i = 0; i < 8; ++i) crc = crc & 0x8000 ? crc << 1 ^ 0x8005 : crc << 1;
        tables.of[0][b] = static_cast<uint16_t>(crc);
    }
    for (int j = 1; j < 8; ++j) {
        for (unsigned b = 0; b < 256; ++b) {
            const unsigned crc = tables.of[j - 1][b];
            tables.of[j][b] = static_cast<uint16_t>(crc << 8 ^ tables.of[0][crc >> 8]);
        }
    }
    return tables;
}

constexpr CrcTables kCrc = make_crc_tables();

unsigned crc_by_tables(uint64_t crc, const uint8_t* bytes, long long size) {
    long long i = 0;
    for (; i + 8 <= size; i += 8) {
        const uint64_t w = fa_load64(bytes + i) ^ crc << 48;
        crc = kCrc.of[7][w >> 56] ^ kCrc.of[6][w >> 48 & 255] ^ kCrc.of[5][w >> 40 & 255] ^ kCrc.of[4][w >> 32 & 255] ^
              kCrc.of[3][w >> 24 & 255] ^ kCrc.of[2][w >> 16 & 255] ^ kCrc.of[1][w >> 8 & 255] ^ kCrc.of[0][w & 255];
    }
    for (; i < size; ++i) crc = (crc << 8 & 0xFF00) ^ kCrc.of[0][(crc >> 8 ^ bytes[i]) & 255];
    return static_cast<unsigned>(crc);
}

#if FA_CLMUL
// x^n modulo the polynomial of CRC-16.
constexpr long long power(int n) {
    unsigned value = 1;
    for (int i = 0; i < n; ++i) value = value & 0x8000 ? (value << 1 ^ 0x8005) & 0xFFFF : value << 1;
    return value;
}

#define FA_CLMUL_TARGET __attribute__((target("pclmul,ssse3")))

FA_CLMUL_TARGET inline __m128i load_turned(const uint8_t* bytes) {
    const __m128i order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)), order);
}

// What `crc` (128 bits) is worth n bits further, and the next 128 bits. powers: x^(n + 64), x^n.
FA_CLMUL_TARGET inline __m128i fold(__m128i crc, __m128i powers, __m128i next) {
    const __m128i high = _mm_clmulepi64_si128(crc, powers, 0x11), low = _mm_clmulepi64_si128(crc, powers, 0x00);
    return _mm_xor_si128(_mm_xor_si128(high, low), next);
}

// Gopal et al., "Fast CRC computation for generic polynomials using PCLMULQDQ" (2009): four strands, then one, whose
// 16 bytes have the CRC of all that went in. Five times as fast as tables, which took a fifth of the decoder's time.
FA_CLMUL_TARGET unsigned crc_by_folding(const uint8_t* bytes, long long size) {
    const __m128i far = _mm_set_epi64x(power(512 + 64), power(512)), near = _mm_set_epi64x(power(128 + 64), power(128));
    __m128i strand[4];
    for (int j = 0; j < 4; ++j) strand[j] = load_turned(bytes + 16 * j);
    long long i = 64;
    for (; i + 64 <= size; i += 64) {
        for (int j = 0; j < 4; ++j) strand[j] = fold(strand[j], far, load_turned(bytes + i + 16 * j));
    }
    __m128i one = strand[0];
    for (int j = 1; j < 4; ++j) one = fold(one, near, strand[j]);
    for (; i + 16 <= size; i += 16) one = fold(one, near, load_turned(bytes + i));
    uint8_t rest[16];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(rest), one);
    std::reverse(rest, rest + 16);
    return crc_by_tables(crc_by_tables(0, rest, 16), bytes + i, size - i);
}
#endif

// Reads the residual with a predictor at its heels.
template <class Predictor>
FA_HD int read_residual(FaBits& reader, int block, const FaFlacSubframe& sub, int32_t* x) {
    FaBits bits = reader;
    Predictor predictor(sub, x);
    const int status = fa_flac_residual(bits, block, sub.order, x, predictor);
    if (status == kOk) predictor.finish(x, block);
    reader = bits;
    return status;
}

// Each predictor is a function of its own: together in one they would run out of registers.
template <class Predictor>
__attribute__((noinline)) int read_predicted_plain(FaBits& bits, int block, const FaFlacSubframe& sub, int32_t* x) {
    return read_residual<Predictor>(bits, block, sub, x);
}

#if defined(__x86_64__) && defined(__GNUC__)
template <class Predictor>
__attribute__((noinline, target("avx2,bmi,bmi2,lzcnt,movbe"))) int read_predicted_fast(FaBits& bits, int block,
                                                                                       const FaFlacSubframe& sub,
                                                                                       int32_t* x) {
    return read_residual<Predictor>(bits, block, sub, x);
}

bool is_fast() {  // each processor with these has lzcnt and movbe
    return fa_vector_bits() >= 256 && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#else
template <class Predictor>
int read_predicted_fast(FaBits& bits, int block, const FaFlacSubframe& sub, int32_t* x) {
    return read_residual<Predictor>(bits, block, sub, x);
}

bool is_fast() { return false; }
#endif

template <bool kFast, class Predictor>
int read_predicted(FaBits& bits, int block, const FaFlacSubframe& sub, int32_t* x) {
    if constexpr (kFast) return read_predicted_fast<Predictor>(bits, block, sub, x);
    return read_predicted_plain<Predictor>(bits, block, sub, x);
}

// Residual first, then the plain predictor: for samples or sums above 32 bits.
template <class T>
int read_any(FaBits& bits, int block, const FaFlacSubframe& sub, T* x) {
    FaFlacUnfold sink = {sub.order};
    const int status = fa_flac_residual(bits, block, sub.order, x, sink);
    if (status) return status;
    return fa_flac_predict(sub, block, x) ? kOk : kCorrupt;
}

// Largest magnitude of the predictor's sums.
int64_t largest_sum(const FaFlacSubframe& sub) {
    int64_t sum = 0;
    for (int j = 0; j < sub.order; ++j) sum += sub.coefficient[j] < 0 ? -sub.coefficient[j] : sub.coefficient[j];
    return sum << (sub.bits - 1);
}

template <bool kFast>
int read_fixed(FaBits& bits, int block, const FaFlacSubframe& sub, int32_t* x) {
    switch (sub.order) {
        case 0:
            return read_predicted<kFast, FaFlacDifferences<0>>(bits, block, sub, x);
        case 1:
            return read_predicted<kFast, FaFlacDifferences<1>>(bits, block, sub, x);
        case 2:
            return read_predicted<kFast, FaFlacDifferences<2>>(bits, block, sub, x);
        case 3:
            return read_predicted<kFast, FaFlacDifferences<3>>(bits, block, sub, x);
        default:
            return read_predicted<kFast, FaFlacDifferences<4>>(bits, block, sub, x);
    }
}

template <bool kFast>
int read_narrow(FaBits& bits, int block, const FaFlacSubframe& sub, int32_t* x) {
    typedef FaFlacNarrow K;
    if (sub.order <= 4) return read_predicted<kFast, FaFlacPredictor<K, 2>>(bits, block, sub, x);
    if (sub.order <= 8) return read_predicted<kFast, FaFlacPredictor<K, 3>>(bits, block, sub, x);
    if (sub.order <= 12) return read_predicted<kFast, FaFlacPredictor<K, 4>>(bits, block, sub, x);
    return read_predicted<kFast, FaFlacPredictor<K, 9>>(bits, block, sub, x);
}

template <bool kFast>
int read_wide(FaBits& bits, int block, const FaFlacSubframe& sub, int32_t* x) {
    typedef FaFlacWide<kFast> K;
    if (sub.order <= 8) return read_predicted<kFast, FaFlacPredictor<K, 5>>(bits, block, sub, x);
    if (sub.order <= 12) return read_predicted<kFast, FaFlacPredictor<K, 7>>(bits, block, sub, x);
    return read_predicted<kFast, FaFlacPredictor<K, 17>>(bits, block, sub, x);
}

FA_CLONES bool all_fit(const int32_t* x, int block, int bits) {
    uint32_t magnitude = 0;
    for (int i = 0; i < block; ++i) magnitude |= static_cast<uint32_t>(x[i] ^ x[i] >> 31);
    return magnitude >> (bits - 1) == 0;
}

// With samples below 2^(bits - 1) and residuals below 2^31 no wrong sample can wrap round, modulo 2^32, into the range
// that all_fit allows, as long as predictions stay below 2^31 - 2^(bits - 1).
template <bool kFast>
int read_best(FaBits& bits, int block, const FaFlacSubframe& sub, int32_t* x) {
    const int64_t sum = largest_sum(sub), limit = (int64_t{1} << 31) - (int64_t{1} << (sub.bits - 1));
    if ((sum >> sub.shift) >= limit) return read_any(bits, block, sub, x);
    const int status = sub.kind == kFlacFixed ? read_fixed<kFast>(bits, block, sub, x)
                       : sum < limit          ? read_narrow<kFast>(bits, block, sub, x)
                                              : read_wide<kFast>(bits, block, sub, x);
    return status == kOk && !all_fit(x, block, sub.bits) ? kCorrupt : status;
}

int read_subframe(FaBits& bits, int block, int depth, int32_t* x) {
    static const bool fast = is_fast();
    FaFlacSubframe sub;
    int status = fa_flac_subframe(bits, block, depth, sub, x);
    if (status == kOk && sub.kind >= kFlacFixed) {
        status = fast ? read_best<true>(bits, block, sub, x) : read_best<false>(bits, block, sub, x);
    }
    if (status == kOk && sub.wasted) {
        for (int i = 0; i < block; ++i) x[i] = static_cast<int32_t>(static_cast<uint32_t>(x[i]) << sub.wasted);
    }
    return status;
}

// The 33-bit difference of 32-bit channels.
int read_side(FaBits& bits, int block, int depth, int64_t* x) {
    FaFlacSubframe sub;
    int status = fa_flac_subframe(bits, block, depth, sub, x);
    if (status == kOk && sub.kind >= kFlacFixed) status = read_any(bits, block, sub, x);
    if (status == kOk && sub.wasted) {
        for (int i = 0; i < block; ++i) x[i] = x[i] * (int64_t{1} << sub.wasted);
    }
    return status;
}

template <class Sample>
FA_HD Sample scaled(int32_t x, float scale) {
    if constexpr (sizeof(Sample) == sizeof(float) && Sample(0.5f) != 0) {
        return static_cast<float>(x) * scale;
    } else {
        return x;
    }
}

template <class Sample, int kStereo>
FA_HD void emit_pair(const int32_t* a, const int32_t* b, float scale, long long count, Sample* FA_RESTRICT left,
                     Sample* FA_RESTRICT right) {
    for (long long i = 0; i < count; ++i) {
        int32_t first = a[i], second = b[i];
        fa_flac_stereo<int32_t, uint32_t>(kStereo, first, second);
        left[i] = scaled<Sample>(first, scale);
        right[i] = scaled<Sample>(second, scale);
    }
}

template <class Sample>
FA_HD void emit_narrow(int stereo, const int32_t* a, const int32_t* b, float scale, long long count, Sample* left,
                       Sample* right) {
    if (stereo == kFlacLeftSide) return emit_pair<Sample, kFlacLeftSide>(a, b, scale, count, left, right);
    if (stereo == kFlacSideRight) return emit_pair<Sample, kFlacSideRight>(a, b, scale, count, left, right);
    emit_pair<Sample, kFlacMidSide>(a, b, scale, count, left, right);
}

FA_CLONES void emit_stereo(int stereo, const int32_t* a, const int32_t* b, float scale, long long count, float* left,
                           float* right) {
    emit_narrow(stereo, a, b, scale, count, left, right);
}

FA_CLONES void emit_stereo(int stereo, const int32_t* a, const int32_t* b, float scale, long long count, int32_t* left,
                           int32_t* right) {
    emit_narrow(stereo, a, b, scale, count, left, right);
}

FA_CLONES void emit_one(const int32_t* x, float scale, long long count, float* FA_RESTRICT out) {
    for (long long i = 0; i < count; ++i) out[i] = scaled<float>(x[i], scale);
}

FA_CLONES void emit_one(const int32_t* x, float, long long count, int32_t* FA_RESTRICT out) {
    std::copy_n(x, count, out);
}

// 32-bit stereo with a 33-bit difference. `difference_first`: which of the two it is.
template <class Sample>
void emit_wide(int stereo, const int32_t* a, const int64_t* side, float scale, long long count, Sample* left,
               Sample* right) {
    for (long long i = 0; i < count; ++i) {
        int64_t first = stereo == kFlacSideRight ? side[i] : a[i], second = stereo == kFlacSideRight ? a[i] : side[i];
        fa_flac_stereo<int64_t, uint64_t>(stereo, first, second);
        left[i] = scaled<Sample>(static_cast<int32_t>(first), scale);
        right[i] = scaled<Sample>(static_cast<int32_t>(second), scale);
    }
}

template <class Sample>
void emit(const FaFlacFrame& frame, int bits, const FlacScratch& scratch, long long first, long long count, Sample* out,
          long long stride) {
    const float scale = 1.0f / static_cast<float>(int64_t{1} << (bits - 1));
    const int32_t* x = scratch.samples.data() + first;
    const long long apart = flac_stride(frame.block);
    if (frame.stereo && bits == 32) {
        const int plain = frame.stereo == kFlacSideRight ? 1 : 0;
        return emit_wide(frame.stereo, x + plain * apart, scratch.side.data() + first, scale, count, out, out + stride);
    }
    if (frame.stereo) return emit_stereo(frame.stereo, x, x + apart, scale, count, out, out + stride);
    for (int c = 0; c < frame.channels; ++c) emit_one(x + c * apart, scale, count, out + c * stride);
}

}  // namespace

unsigned flac_crc16(const uint8_t* bytes, long long size) {
#if FA_CLMUL
    static const bool folds =
        fa_vector_bits() >= 256 && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("ssse3");
    if (folds && size >= 128) return crc_by_folding(bytes, size);
#endif
    return crc_by_tables(0, bytes, size);
}

int flac_frame(const uint8_t* data, long long size, long long offset, const FaFlacFrame& frame, int bits,
               FlacScratch& scratch, long long& next) {
    const long long apart = flac_stride(frame.block);
    if (static_cast<long long>(scratch.samples.size()) < apart * frame.channels) {
        scratch.samples.resize(static_cast<size_t>(apart * frame.channels));
    }
    FaBits reader = fa_bits_open(data + offset + frame.bytes, size - offset - frame.bytes);
    int status = kOk;
    for (int c = 0; c < frame.channels && status == kOk; ++c) {
        const int depth = fa_flac_depth(frame, bits, c);
        if (depth <= 32) {
            status = read_subframe(reader, frame.block, depth, scratch.samples.data() + c * apart);
        } else {
            if (static_cast<int>(scratch.side.size()) < frame.block)
                scratch.side.resize(static_cast<size_t>(frame.block));
            status = read_side(reader, frame.block, depth, scratch.side.data());
        }
    }
    fa_bits_align(reader);
    next = offset + frame.bytes + fa_bits_position(reader) / 8 + 2;
    if (status == kOk && next > size) status = kTruncated;
    if (status) {
        next = std::min(next, size);
        return status;
    }
    return FA_FUZZING || flac_crc16(data + offset, next - offset) == 0 ? kOk : kCorrupt;
}

void flac_emit(const FaFlacFrame& frame, int bits, const FlacScratch& scratch, long long first, long long count,
               float* out, long long stride) {
    emit(frame, bits, scratch, first, count, out, stride);
}

void flac_emit(const FaFlacFrame& frame, int bits, const FlacScratch& scratch, long long first, long long count,
               int32_t* out, long long stride) {
    emit(frame, bits, scratch, first, count, out, stride);
}

}  // namespace fa
