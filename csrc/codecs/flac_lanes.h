// FLAC for many threads: 32 frames side by side, each read by one thread (fa_flac_read_channel), then each subframe
// predicted by one (fa_flac_restore). Sample i of lane l lies at 32 i + l, so that neighbours in step touch
// neighbouring words. Same streams accepted and same samples as flac.h, which says what the names mean.
#pragma once

#include "flac.h"
#include "words.h"

constexpr int kFlacLanes = 32;

// What the second kernel has to know of a subframe, `kFlacFacts` numbers a lane, each kFlacLanes apart.
enum FaFlacFact {
    kFlacOrder,
    kFlacShift,
    kFlacWasted,
    kFlacBits,
    kFlacCoefficient,
    kFlacFacts = kFlacCoefficient + 32
};

// One row of the table of frames, as csrc/cpu/stage.cpp packs it.
struct FaFlacShape {
    int block, channels, stereo, bits;
};

FA_HD long long fa_flac_pack(const FaFlacShape& shape) {
    return shape.block | static_cast<long long>(shape.channels) << 16 | static_cast<long long>(shape.stereo) << 20 |
           static_cast<long long>(shape.bits) << 24;
}

FA_HD FaFlacShape fa_flac_shape(long long packed) {
    return {static_cast<int>(packed & 0xFFFF), static_cast<int>(packed >> 16 & 15), static_cast<int>(packed >> 20 & 15),
            static_cast<int>(packed >> 24 & 63)};
}

// The channel whose samples may need 33 bits, or -1: their upper halves have a plane of their own.
FA_HD int fa_flac_wide_channel(const FaFlacShape& shape) {
    if (shape.bits < 32 || !shape.stereo) return -1;
    return shape.stereo == kFlacSideRight ? 0 : 1;
}

constexpr int kFlacNever = 0x7FFFFFFF;

// How the values of a subframe are coded from here on.
struct FaFlacCoding {
    enum { kRice, kRaw, kRepeat };
    int mode, width;  // width: of a raw value, or the Rice parameter
    int next;         // the sample at which this changes, or kFlacNever
    int partition;    // samples of a partition; 0 before the residual
    int method;       // of the residual
};

// Another partition, which ends with sample `end`.
FA_HD void fa_flac_next_partition(FaWords& bits, int block, int end, FaFlacCoding& coding) {
    const int k = static_cast<int>(fa_bits_read(bits, 4 + coding.method));
    const bool escaped = k == (coding.method ? 31 : 15);
    coding.mode = escaped ? FaFlacCoding::kRaw : FaFlacCoding::kRice;
    coding.width = escaped ? static_cast<int>(fa_bits_read(bits, 5)) : k;
    coding.next = end < block ? end : kFlacNever;
}

// Precision, shift and coefficients (9.2.6) to the facts of this lane. False if they are illegal.
FA_HD bool fa_flac_read_coefficients(FaWords& bits, const FaFlacSubframe& sub, int32_t* facts) {
    const int precision = static_cast<int>(fa_bits_read(bits, 4)) + 1, shift = fa_bits_read_signed(bits, 5);
    if (precision == 16 || shift < 0) return false;
    FA_ST(facts + kFlacShift * kFlacLanes, shift);
    for (int j = 0; j < sub.order; ++j) {
        FA_ST(facts + (kFlacCoefficient + j) * kFlacLanes, fa_bits_read_signed(bits, precision));
    }
    return true;
}

FA_HD void fa_flac_fixed_coefficients(int order, int32_t* facts) {
    int value = -1;
    for (int j = 0; j < order; ++j) {  // as fa_flac_fixed
        value = j == 0 ? order : -value * (order - j) / (j + 1);
        FA_ST(facts + (kFlacCoefficient + j) * kFlacLanes, value);
    }
}

// What stands in front of sample i = coding.next. False if it is illegal.
FA_HD bool fa_flac_next_coding(FaWords& bits, int block, const FaFlacSubframe& sub, int32_t* facts,
                               FaFlacCoding& coding) {
    if (sub.kind == kFlacConstant) {
        coding.mode = FaFlacCoding::kRepeat;
        coding.next = kFlacNever;
        return true;
    }
    if (coding.partition) {
        fa_flac_next_partition(bits, block, coding.next + coding.partition, coding);
        return true;
    }
    if (sub.kind == kFlacFixed) fa_flac_fixed_coefficients(sub.order, facts);
    if (sub.kind == kFlacLpc && !fa_flac_read_coefficients(bits, sub, facts)) return false;
    coding.method = static_cast<int>(fa_bits_read(bits, 2));
    const int split = static_cast<int>(fa_bits_read(bits, 4));
    coding.partition = block >> split;
    if (coding.method > 1 || coding.partition << split != block || coding.partition < sub.order) return false;
    fa_flac_next_partition(bits, block, coding.partition, coding);
    return true;
}

// A folded residual; false if it is longer than the data, or stands for what is not in (-2^31, 2^31) (9.2.7.3).
FA_HD bool fa_flac_rice(FaWords& bits, int k, uint32_t& code) {
    const uint32_t top = fa_words_top(bits);
    const int zeros = fa_clz32(top);
    if (zeros + 1 + k <= 32) {  // all of it is in sight, and it is below 2^31
        code = static_cast<uint32_t>(zeros) << k | (top << zeros << 1) >> 1 >> (31 - k);
        fa_bits_skip(bits, zeros + 1 + k);
        return true;
    }
    const long long high = fa_bits_unary(bits, 0xFFFFFFFFll >> k);
    code = static_cast<uint32_t>(high) << k | fa_bits_read(bits, k);
    return high >= 0 && code != 0xFFFFFFFFu;
}

// One subframe: warm-up samples and residuals of its `block` samples to x, and of samples of 33 bits the upper halves
// to `above`; its facts, an order of -1 while they are not complete. False if it is illegal or the data end. One loop
// over all samples, however they are coded, keeps the threads of a warp together.
FA_HD bool fa_flac_read_channel(FaWords& bits, int block, int depth, int32_t* facts, int32_t* x, int32_t* above) {
    FaFlacSubframe sub;
    const int status = fa_flac_subframe_type(bits, depth, sub);
    if (status || sub.order > block || fa_bits_overrun(bits)) return false;
    FA_ST(facts + kFlacShift * kFlacLanes, 0);
    FA_ST(facts + kFlacWasted * kFlacLanes, sub.wasted);
    FA_ST(facts + kFlacBits * kFlacLanes, sub.bits);
    FaFlacCoding coding = {FaFlacCoding::kRaw, sub.bits, sub.order, 0, 0};
    if (sub.kind == kFlacConstant) coding.next = 1;
    if (sub.kind == kFlacVerbatim) coding.next = kFlacNever;
    int32_t value = 0, top = 0;
    for (int i = 0;; ++i) {
        while (i == coding.next) {
            if (!fa_flac_next_coding(bits, block, sub, facts, coding) || fa_bits_overrun(bits)) return false;
        }
        if (i >= block) break;
        if (coding.mode == FaFlacCoding::kRice) {
            uint32_t code;
            if (!fa_flac_rice(bits, coding.width, code)) return false;
            value = fa_flac_unfold(code);
            top = value >> 31;
        } else if (coding.mode == FaFlacCoding::kRaw) {
            const bool wide = coding.width > 32;
            if (wide) top = fa_bits_read_signed(bits, coding.width - 32);
            value = wide ? static_cast<int32_t>(fa_bits_read(bits, 32)) : fa_bits_read_signed(bits, coding.width);
            if (!wide) top = value >> 31;
        }
        FA_ST(x + i * kFlacLanes, value);
        if (above) FA_ST(above + i * kFlacLanes, top);
    }
    FA_ST(facts + kFlacOrder * kFlacLanes, sub.order);
    return !fa_bits_overrun(bits);
}

constexpr int kFlacAhead = 8;  // samples on their way from memory

FA_HD void fa_flac_load(const int32_t* x, int from, int block, int32_t* values) {
    FA_UNROLL(8)
    for (int u = 0; u < kFlacAhead; ++u) values[u] = from + u < block ? FA_LD(x + (from + u) * kFlacLanes) : 0;
}

// Residuals to samples, in place, for orders up to N: each new sample is added, times its coefficients, to the sums of
// the following N, exactly, in 64 bits. The chain from one to the next is a product, a shift and a sum, whatever the
// order. False if a sample does not fit its bits: no encoder makes such a stream.
template <int N>
FA_HD bool fa_flac_restore(const int32_t* facts, int block, int32_t* x) {
    const int order = FA_LD(facts), shift = FA_LD(facts + kFlacShift * kFlacLanes);
    const int wasted = FA_LD(facts + kFlacWasted * kFlacLanes), bits = FA_LD(facts + kFlacBits * kFlacLanes);
    int32_t coefficient[N], now[kFlacAhead], ahead[kFlacAhead];
    int64_t sums[N + 1];
    FA_UNROLL(32)
    for (int j = 0; j < N; ++j) {
        coefficient[j] = j < order ? FA_LD(facts + (kFlacCoefficient + j) * kFlacLanes) : 0;
        sums[j] = 0;
    }
    sums[N] = 0;
    uint64_t magnitude = 0;
    fa_flac_load(x, 0, block, ahead);
    for (int i = 0; i < block; i += kFlacAhead) {
        FA_UNROLL(8)
        for (int u = 0; u < kFlacAhead; ++u) now[u] = ahead[u];
        fa_flac_load(x, i + kFlacAhead, block, ahead);
        FA_UNROLL(8)
        for (int u = 0; u < kFlacAhead; ++u) {
            if (i + u >= block) break;
            const int64_t value = now[u] + (i + u >= order ? sums[0] >> shift : 0);
            const int32_t y = static_cast<int32_t>(value);
            magnitude |= static_cast<uint64_t>(value ^ value >> 63);
            FA_UNROLL(32)
            for (int j = 0; j < N; ++j) sums[j] = sums[j + 1] + static_cast<int64_t>(coefficient[j]) * y;
            FA_ST(x + (i + u) * kFlacLanes, static_cast<int32_t>(static_cast<uint32_t>(y) << wasted));
        }
    }
    return magnitude >> (bits - 1) == 0;
}

FA_HD int64_t fa_flac_join(int32_t above, int32_t below) {
    return static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(above)) << 32 |
                                static_cast<uint32_t>(below));
}

FA_HD int64_t fa_flac_load_wide(const int32_t* x, const int32_t* above, int i) {
    return fa_flac_join(FA_LD(above + i * kFlacLanes), FA_LD(x + i * kFlacLanes));
}

FA_HD void fa_flac_store_wide(int32_t* x, int32_t* above, int i, int64_t value) {
    FA_ST(x + i * kFlacLanes, static_cast<int32_t>(value));
    FA_ST(above + i * kFlacLanes, static_cast<int32_t>(value >> 32));
}

// The same for the 33-bit difference of 32-bit channels, which is rare: earlier samples come back from memory.
FA_HD bool fa_flac_restore_wide(const int32_t* facts, int block, int32_t* x, int32_t* above) {
    const int order = FA_LD(facts), shift = FA_LD(facts + kFlacShift * kFlacLanes);
    const int wasted = FA_LD(facts + kFlacWasted * kFlacLanes), bits = FA_LD(facts + kFlacBits * kFlacLanes);
    for (int i = 0; i < block; ++i) {
        int64_t value = fa_flac_load_wide(x, above, i);
        if (i >= order) {
            int64_t sum = 0;
            for (int j = 0; j < order; ++j) {
                const int64_t tap = FA_LD(facts + (kFlacCoefficient + j) * kFlacLanes);
                sum += tap * fa_flac_load_wide(x, above, i - 1 - j);
            }
            value += sum >> shift;
            fa_flac_store_wide(x, above, i, value);
        }
        if ((value ^ value >> 63) >> (bits - 1)) return false;
    }
    for (int i = 0; wasted && i < block; ++i) {
        fa_flac_store_wide(x, above, i, fa_flac_load_wide(x, above, i) * (int64_t{1} << wasted));
    }
    return true;
}
