// FLAC (RFC 9639): frames to integer samples. No memory of its own; every loop is bounded by the bits that are left or
// by the block size that a frame header with a right CRC-8 names. Section numbers are the RFC's.
//
// A frame is a header, one subframe per channel and a CRC-16. A subframe's predictor is linear: Rice codes give the
// residual of each sample against it. The CPU predicts while it reads (a Sink, see fa_flac_residual); a GPU reads with
// one thread per frame and predicts with one per subframe (flac_lanes.h).
#pragma once

#include "bits.h"
#include "status.h"

constexpr int kFlacLargestBlock = 65535;

// Fuzzers cannot guess checksums: for them all are right.
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#define FA_FUZZING true
#else
#define FA_FUZZING false
#endif

// STREAMINFO (8.2). All zero: the stream has none.
struct FaFlacStream {
    int smallest_block, largest_block;
    int rate, channels, bits;
    long long total;  // 0: unknown
    uint8_t md5[16];  // zeros: unknown
};

FA_HD uint64_t fa_flac_integer(const uint8_t* p, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | FA_LD(p + i);
    return value;
}

// p: the 34 bytes of the block.
FA_HD FaFlacStream fa_flac_stream(const uint8_t* p) {
    FaFlacStream s = {};
    s.smallest_block = static_cast<int>(fa_flac_integer(p, 2));
    s.largest_block = static_cast<int>(fa_flac_integer(p + 2, 2));
    const uint64_t packed = fa_flac_integer(p + 10, 8);
    s.rate = static_cast<int>(packed >> 44);
    s.channels = static_cast<int>(packed >> 41 & 7) + 1;
    s.bits = static_cast<int>(packed >> 36 & 31) + 1;
    s.total = static_cast<long long>(packed & 0xFFFFFFFFFull);
    for (int i = 0; i < 16; ++i) s.md5[i] = FA_LD(p + 18 + i);
    return s;
}

enum FaFlacStereo { kFlacIndependent = 0, kFlacLeftSide = 8, kFlacSideRight = 9, kFlacMidSide = 10 };

struct FaFlacFrame {
    bool variable;   // `number` counts samples, else frames
    int block;       // samples per channel, 1 to 65535
    int rate, bits;  // 0: as STREAMINFO says
    int channels;
    int stereo;        // FaFlacStereo
    long long number;  // of the frame, or of its first sample
    int bytes;         // of this header
};

// One more byte into CRC-8, x^8 + x^2 + x + 1: byte · x^8 is byte · (x^2 + x + 1), reduced once more.
FA_HD int fa_flac_crc8(int crc, int byte) {
    const int t = crc ^ byte, v = t ^ t << 1 ^ t << 2, high = v >> 8;
    return (v ^ high ^ high << 1 ^ high << 2) & 0xFF;
}

// The number behind the fourth byte, coded as UTF-8 would (9.1.5), up to 36 bits. Bytes read, or 0 if it is malformed.
FA_HD int fa_flac_number(const uint8_t* p, long long left, long long& number) {
    if (left < 1) return 0;
    const int first = FA_LD(p);
    if (first < 0x80) {
        number = first;
        return 1;
    }
    int bytes = 0;
    while (bytes < 8 && (first & 0x80 >> bytes)) ++bytes;
    if (bytes < 2 || bytes > 7 || left < bytes) return 0;
    number = first & (0x7F >> bytes);
    for (int i = 1; i < bytes; ++i) {
        const int byte = FA_LD(p + i);
        if ((byte & 0xC0) != 0x80) return 0;
        number = number << 6 | (byte & 0x3F);
    }
    return bytes;
}

// Table 14: the block size's code, and the bytes behind the number that it asks for.
FA_HD int fa_flac_block_size(int code) {
    if (code == 1) return 192;
    if (code >= 2 && code <= 5) return 576 << (code - 2);
    return code >= 8 ? 256 << (code - 8) : 0;
}

// Table 15, in Hz; 12 to 14 come behind the number.
FA_HD int fa_flac_rate(int code) {
    switch (code) {
        case 1:
            return 88200;
        case 2:
            return 176400;
        case 3:
            return 192000;
        case 4:
            return 8000;
        case 5:
            return 16000;
        case 6:
            return 22050;
        case 7:
            return 24000;
        case 8:
            return 32000;
        case 9:
            return 44100;
        case 10:
            return 48000;
        case 11:
            return 96000;
        default:
            return 0;
    }
}

// The four fixed bytes of a header (9.1); false if a reserved value stands there.
FA_HD bool fa_flac_fixed_header(const uint8_t* p, FaFlacFrame& frame) {
    const int b1 = FA_LD(p + 1), b2 = FA_LD(p + 2), b3 = FA_LD(p + 3);
    const int channels = b3 >> 4, bits = b3 >> 1 & 7;
    const bool legal = FA_LD(p) == 0xFF && (b1 & 0xFE) == 0xF8 && b2 >> 4 != 0 && (b2 & 15) != 15;
    if (!legal || channels > kFlacMidSide || bits == 3 || b3 & 1) return false;
    frame.variable = b1 & 1;
    frame.stereo = channels >= kFlacLeftSide ? channels : kFlacIndependent;
    frame.channels = channels >= kFlacLeftSide ? 2 : channels + 1;
    frame.bits = bits == 0 ? 0 : bits == 7 ? 32 : bits < 3 ? 4 + 4 * bits : 4 * bits;
    return true;
}

// The header at p, of which `left` bytes exist. False unless it is whole, without reserved values, its CRC-8 right.
FA_HD bool fa_flac_frame_header(const uint8_t* p, long long left, FaFlacFrame& frame) {
    if (left < 6 || !fa_flac_fixed_header(p, frame)) return false;
    const int block = FA_LD(p + 2) >> 4, rate = FA_LD(p + 2) & 15;
    int at = 4 + fa_flac_number(p + 4, left - 4, frame.number);
    const int block_bytes = block == 6 ? 1 : block == 7 ? 2 : 0, rate_bytes = rate == 12 ? 1 : rate > 12 ? 2 : 0;
    if (at == 4 || left < at + block_bytes + rate_bytes + 1) return false;
    frame.block = block_bytes ? static_cast<int>(fa_flac_integer(p + at, block_bytes)) + 1 : fa_flac_block_size(block);
    at += block_bytes;
    const int coded = static_cast<int>(fa_flac_integer(p + at, rate_bytes));
    frame.rate = rate < 12 ? fa_flac_rate(rate) : rate == 12 ? coded * 1000 : rate == 13 ? coded : coded * 10;
    at += rate_bytes;
    if (frame.block > kFlacLargestBlock || (rate >= 12 && frame.rate == 0)) return false;
    int crc = 0;
    for (int i = 0; i < at; ++i) crc = fa_flac_crc8(crc, FA_LD(p + i));
    frame.bytes = at + 1;
    return FA_FUZZING || crc == FA_LD(p + at);
}

// Bits per sample of a channel: the difference of two has one more.
FA_HD int fa_flac_depth(const FaFlacFrame& frame, int bits, int channel) {
    const int side = frame.stereo == kFlacSideRight ? 0 : 1;
    return bits + (frame.stereo && channel == side ? 1 : 0);
}

enum FaFlacKind { kFlacConstant, kFlacVerbatim, kFlacFixed, kFlacLpc };

struct FaFlacSubframe {
    int kind;    // FaFlacKind
    int bits;    // of a sample, without the wasted ones
    int wasted;  // zeros to append to each sample
    int order, shift;
    int32_t coefficient[32];  // of the sample before, of the one before that, …
};

FA_HD void fa_flac_fixed(FaFlacSubframe& sub) {
    for (int i = 0; i < sub.order; ++i) {  // -(-1)^j binomial(order, j), j = i + 1
        sub.coefficient[i] = i == 0 ? sub.order : -sub.coefficient[i - 1] * (sub.order - i) / (i + 1);
    }
}

// Precision, shift and coefficients (9.2.6).
FA_HD int fa_flac_lpc(FaBits& bits, FaFlacSubframe& sub) {
    const int precision = static_cast<int>(fa_bits_read(bits, 4)) + 1;
    sub.shift = static_cast<int>(fa_bits_read_signed(bits, 5));
    if (precision == 16 || sub.shift < 0) return fa::kCorrupt;
    for (int i = 0; i < sub.order; ++i) sub.coefficient[i] = static_cast<int32_t>(fa_bits_read_signed(bits, precision));
    return fa::kOk;
}

// Type and wasted bits (9.2.1, 9.2.2).
template <class Bits>
FA_HD int fa_flac_subframe_type(Bits& bits, int depth, FaFlacSubframe& sub) {
    const int head = static_cast<int>(fa_bits_read(bits, 8)), type = head >> 1;
    sub.order = type >= 32 ? type - 31 : type >= 8 ? type - 8 : 0;
    sub.shift = 0;
    sub.kind = type >= 32 ? kFlacLpc : type >= 8 ? kFlacFixed : type;
    const bool reserved = type >= 64 || (type > 1 && type < 8) || (type > 12 && type < 32);
    const long long wasted = head & 1 ? fa_bits_unary(bits, 32) + 1 : 0;
    sub.wasted = static_cast<int>(wasted);
    sub.bits = depth - sub.wasted;
    return reserved || (head & 1 && wasted == 0) || sub.bits < 1 ? fa::kCorrupt : fa::kOk;
}

// All of a subframe before its residual. Writes the warm-up samples; a constant or verbatim subframe is then complete.
template <class T>
FA_HD int fa_flac_subframe(FaBits& bits, int block, int depth, FaFlacSubframe& sub, T* x) {
    const int status = fa_flac_subframe_type(bits, depth, sub);
    if (status || sub.order > block) return fa::kCorrupt;
    const int given = sub.kind == kFlacConstant ? 1 : sub.kind == kFlacVerbatim ? block : sub.order;
    for (int i = 0; i < given; ++i) FA_ST(x + i, static_cast<T>(fa_bits_read_signed(bits, sub.bits)));
    if (sub.kind == kFlacConstant) {
        const T value = FA_LD(x);
        for (int i = 1; i < block; ++i) FA_ST(x + i, value);
    }
    if (sub.kind == kFlacFixed) fa_flac_fixed(sub);
    const int lpc = sub.kind == kFlacLpc ? fa_flac_lpc(bits, sub) : fa::kOk;
    return fa_bits_overrun(bits) ? fa::kTruncated : lpc;
}

// Residuals travel folded, 0, -1, 1, -2, 2, … as 0, 1, 2, 3, 4, …, until the predictor takes them.
FA_HD int32_t fa_flac_unfold(uint32_t code) { return static_cast<int32_t>(code >> 1 ^ (0u - (code & 1))); }
FA_HD uint32_t fa_flac_fold(int32_t residual) {
    return static_cast<uint32_t>(residual) << 1 ^ static_cast<uint32_t>(residual >> 31);
}

// Any Rice code. False if it ends behind the data, or stands for what is not in (-2^31, 2^31) (9.2.7.3).
FA_HD_COLD bool fa_flac_rice_any(FaBits& bits, int k, uint32_t& code) {
    const long long high = fa_bits_unary(bits, 0xFFFFFFFFll >> k);
    code = static_cast<uint32_t>(high) << k | static_cast<uint32_t>(fa_bits_read(bits, k));
    return high >= 0 && code != 0xFFFFFFFFu;
}

// A Rice code with a parameter <= 26: fast if the window holds all of it, and then it cannot be too large.
template <class T>
FA_HD bool fa_flac_rice(FaBits& bits, int k, T* x) {
    int zeros = fa_clz64(bits.window | 1);
    if (FA_UNLIKELY(zeros + k + 1 > bits.count)) {
        fa_bits_refill(bits);
        zeros = fa_clz64(bits.window | 1);
        if (FA_UNLIKELY(zeros + k + 1 > bits.count)) {
            FaBits copy = bits;
            uint32_t code;
            const bool good = fa_flac_rice_any(copy, k, code);
            bits = copy;
            FA_ST(x, static_cast<T>(code));
            return good;
        }
    }
    const uint64_t low = bits.window << zeros;  // a one and the k bits behind it
    const uint32_t code = (static_cast<uint32_t>(zeros) << k) + static_cast<uint32_t>(low >> (63 - k)) - (1u << k);
    bits.window = low << (k + 1);
    bits.count -= zeros + k + 1;
    FA_ST(x, static_cast<T>(code));
    return true;
}

constexpr int kFlacRun = 8;  // Rice codes between two calls of a sink

// Codes [at, end) of parameter k <= 26, kEach of them to a refill.
template <int kEach, class T, class Sink>
FA_HD bool fa_flac_rice_partition(FaBits& bits, int k, int at, int end, T* x, Sink& sink) {
    bool good = true;
    for (; at + kFlacRun <= end; at += kFlacRun) {
        for (int i = 0; i < kFlacRun; i += kEach) {
            fa_bits_refill(bits);
            for (int j = 0; j < kEach; ++j) good &= fa_flac_rice(bits, k, x + at + i + j);
        }
        if (FA_UNLIKELY(!good)) return false;
        sink.advance(x, at + kFlacRun);
    }
    for (; at < end; ++at) {
        fa_bits_refill(bits);
        good &= fa_flac_rice(bits, k, x + at);
    }
    return good;
}

// Partitions whose parameter says how many bits every residual has, and parameters above 26.
template <class T>
FA_HD_COLD bool fa_flac_rare_partition(FaBits& bits, int k, bool escaped, int at, int end, T* x) {
    const int width = escaped ? static_cast<int>(fa_bits_read(bits, 5)) : 0;
    for (; at < end; ++at) {
        uint32_t code = 0;
        if (escaped) code = fa_flac_fold(static_cast<int32_t>(fa_bits_read_signed(bits, width)));
        if (!escaped && !fa_flac_rice_any(bits, k, code)) return false;
        FA_ST(x + at, static_cast<T>(code));
    }
    return true;
}

// The folded residuals (9.2.7) of samples [order, block) into x. sink.advance(x, n) is told now and then that x[0, n)
// is there; it unfolds them, and may make samples of them, in place.
template <class T, class Sink>
FA_HD int fa_flac_residual(FaBits& bits, int block, int order, T* x, Sink& sink) {
    const int method = static_cast<int>(fa_bits_read(bits, 2)), split = static_cast<int>(fa_bits_read(bits, 4));
    const int samples = block >> split, escape = method ? 31 : 15;
    if (method > 1 || samples << split != block || samples < order) return fa::kCorrupt;
    for (int at = order, end = samples; end <= block; at = end, end += samples) {
        const int k = static_cast<int>(fa_bits_read(bits, 4 + method));
        bool good;
        if (k <= 8) {  // four codes of music take 40 bits or so
            good = fa_flac_rice_partition<4>(bits, k, at, end, x, sink);
        } else if (k <= 26 && k != escape) {
            good = fa_flac_rice_partition<2>(bits, k, at, end, x, sink);
        } else {
            FaBits copy = bits;
            good = fa_flac_rare_partition(copy, k, k == escape, at, end, x);
            bits = copy;
        }
        if (fa_bits_overrun(bits)) return fa::kTruncated;
        if (!good) return fa::kCorrupt;
        sink.advance(x, end);
    }
    return fa::kOk;
}

// For those who predict later.
struct FaFlacUnfold {
    int done;  // the order, at first
    template <class T>
    FA_HD void advance(T* x, int ready) {
        for (; done < ready; ++done) FA_ST(x + done, fa_flac_unfold(static_cast<uint32_t>(FA_LD(x + done))));
    }
};

// Residuals in x[order, block) to samples, in place. Sums are exact: 32 products of 15 and 33 bits. False at the first
// sample that its `bits` do not hold: no encoder makes such a stream.
template <class T>
FA_HD bool fa_flac_predict(const FaFlacSubframe& sub, int block, T* x) {
    const int64_t limit = int64_t{1} << (sub.bits - 1);
    for (int i = 0; i < block; ++i) {
        int64_t value = FA_LD(x + i);
        if (i >= sub.order) {
            int64_t sum = 0;
            for (int j = 0; j < sub.order; ++j) sum += int64_t{sub.coefficient[j]} * FA_LD(x + i - 1 - j);
            value += sum >> sub.shift;
            FA_ST(x + i, static_cast<T>(value));
        }
        if (value < -limit || value >= limit) return false;
    }
    return true;
}

// Left and right from the two channels of a frame. U: T without sign; crafted streams may wrap.
template <class T, class U>
FA_HD void fa_flac_stereo(int stereo, T& a, T& b) {
    const U first = static_cast<U>(a), second = static_cast<U>(b);
    if (stereo == kFlacLeftSide) b = static_cast<T>(first - second);
    if (stereo == kFlacSideRight) a = static_cast<T>(first + second);
    if (stereo == kFlacMidSide) {
        const U sum = first * 2 + (second & 1);
        a = static_cast<T>(sum + second) >> 1;
        b = static_cast<T>(sum - second) >> 1;
    }
}
