// One FLAC frame on the CPU. The subframe code is compiled twice, the second time for processors that count leading
// zeros and shift by a register in one instruction: Rice codes are 1.6 times as fast there.
#include "flac_frame.h"

#include <algorithm>

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

// Reads the residual with a predictor at its heels.
template <class Predictor>
FA_HD int read_predicted(FaBits& bits, int block, const FaFlacSubframe& sub, int32_t* x, Predictor predictor) {
    const int status = fa_flac_residual(bits, block, sub.order, x, predictor);
    if (status == kOk) predictor.finish(x, block);
    return status;
}

// Residual first, then the plain predictor: for samples or sums above 32 bits.
template <class T>
FA_HD int read_wide(FaBits& bits, int block, const FaFlacSubframe& sub, T* x) {
    FaFlacNoSink sink;
    const int status = fa_flac_residual(bits, block, sub.order, x, sink);
    if (status) return status;
    return fa_flac_predict(sub, block, x) ? kOk : kCorrupt;
}

// Whether 32-bit sums are exact. The one more is for wrong samples: with residuals above -2^31 none can wrap round into
// the range that all_fit allows.
FA_HD bool is_narrow(const FaFlacSubframe& sub) {
    int64_t sum = 1;
    for (int j = 0; j < sub.order; ++j) sum += sub.coefficient[j] < 0 ? -sub.coefficient[j] : sub.coefficient[j];
    return sum << (sub.bits - 1) <= int64_t{1} << 31;
}

FA_HD int read_narrow(FaBits& bits, int block, const FaFlacSubframe& sub, int32_t* x) {
    if (sub.kind == kFlacFixed) {
        switch (sub.order) {
            case 0:
                return read_predicted(bits, block, sub, x, FaFlacDifferences<0>(x));
            case 1:
                return read_predicted(bits, block, sub, x, FaFlacDifferences<1>(x));
            case 2:
                return read_predicted(bits, block, sub, x, FaFlacDifferences<2>(x));
            case 3:
                return read_predicted(bits, block, sub, x, FaFlacDifferences<3>(x));
            default:
                return read_predicted(bits, block, sub, x, FaFlacDifferences<4>(x));
        }
    }
    if (sub.order <= 4) return read_predicted(bits, block, sub, x, FaFlacPredictor<2>(sub, x));
    if (sub.order <= 8) return read_predicted(bits, block, sub, x, FaFlacPredictor<3>(sub, x));
    if (sub.order <= 12) return read_predicted(bits, block, sub, x, FaFlacPredictor<4>(sub, x));
    return read_predicted(bits, block, sub, x, FaFlacPredictor<9>(sub, x));
}

FA_HD bool all_fit(const int32_t* x, int block, int bits) {
    uint32_t magnitude = 0;
    for (int i = 0; i < block; ++i) magnitude |= static_cast<uint32_t>(x[i] ^ x[i] >> 31);
    return magnitude >> (bits - 1) == 0;
}

FA_HD int read_subframe(FaBits& reader, int block, int depth, int32_t* x) {
    FaBits bits = reader;
    FaFlacSubframe sub;
    int status = fa_flac_subframe(bits, block, depth, sub, x);
    if (status == kOk && sub.kind >= kFlacFixed) {
        if (is_narrow(sub)) {
            status = read_narrow(bits, block, sub, x);
            if (status == kOk && !all_fit(x, block, sub.bits)) status = kCorrupt;
        } else {
            status = read_wide(bits, block, sub, x);
        }
    }
    if (status == kOk && sub.wasted) {
        for (int i = 0; i < block; ++i) x[i] = static_cast<int32_t>(static_cast<uint32_t>(x[i]) << sub.wasted);
    }
    reader = bits;
    return status;
}

using ReadSubframe = int (*)(FaBits&, int, int, int32_t*);

int read_subframe_plain(FaBits& bits, int block, int depth, int32_t* x) { return read_subframe(bits, block, depth, x); }

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2,bmi,bmi2,lzcnt,movbe"))) int read_subframe_avx2(FaBits& bits, int block, int depth,
                                                                            int32_t* x) {
    return read_subframe(bits, block, depth, x);
}

ReadSubframe subframe_reader() {
    const bool usable = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                        __builtin_cpu_supports("bmi2");  // each processor with these has lzcnt and movbe
    return usable ? read_subframe_avx2 : read_subframe_plain;
}
#else
ReadSubframe subframe_reader() { return read_subframe_plain; }
#endif

// The 33-bit difference of 32-bit channels.
int read_side(FaBits& bits, int block, int depth, int64_t* x) {
    FaFlacSubframe sub;
    int status = fa_flac_subframe(bits, block, depth, sub, x);
    if (status == kOk && sub.kind >= kFlacFixed) status = read_wide(bits, block, sub, x);
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
    uint64_t crc = 0;
    long long i = 0;
    for (; i + 8 <= size; i += 8) {
        const uint64_t w = fa_load64(bytes + i) ^ crc << 48;
        crc = kCrc.of[7][w >> 56] ^ kCrc.of[6][w >> 48 & 255] ^ kCrc.of[5][w >> 40 & 255] ^ kCrc.of[4][w >> 32 & 255] ^
              kCrc.of[3][w >> 24 & 255] ^ kCrc.of[2][w >> 16 & 255] ^ kCrc.of[1][w >> 8 & 255] ^ kCrc.of[0][w & 255];
    }
    for (; i < size; ++i) crc = (crc << 8 & 0xFF00) ^ kCrc.of[0][(crc >> 8 ^ bytes[i]) & 255];
    return static_cast<unsigned>(crc);
}

int flac_frame(const uint8_t* data, long long size, long long offset, const FaFlacFrame& frame, int bits,
               FlacScratch& scratch, long long& next) {
    static const ReadSubframe read = subframe_reader();
    const long long apart = flac_stride(frame.block);
    if (static_cast<long long>(scratch.samples.size()) < apart * frame.channels) {
        scratch.samples.resize(static_cast<size_t>(apart * frame.channels));
    }
    FaBits reader = fa_bits_open(data + offset + frame.bytes, size - offset - frame.bytes);
    int status = kOk;
    for (int c = 0; c < frame.channels && status == kOk; ++c) {
        const int depth = fa_flac_depth(frame, bits, c);
        if (depth <= 32) {
            status = read(reader, frame.block, depth, scratch.samples.data() + c * apart);
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
