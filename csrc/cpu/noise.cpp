#include "noise.h"

#include "../fa_simd.h"
#include "../normal.h"

namespace {

constexpr int kLanes = 8;    // partial sums of a row, combined in a fixed order: the same bits for any thread count
constexpr int kBlocks = 16;  // Philox blocks computed side by side
constexpr int kTile = 4 * kBlocks;

FA_CLONES FaSums sums(const float* x, int64_t n, double shift) {
    double first[kLanes] = {}, second[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const double d = static_cast<double>(x[i + lane]) - shift;
            first[lane] += d;
            second[lane] += d * d;
        }
    }
    FaSums total = {0.0, 0.0};
    for (int lane = 0; lane < kLanes; ++lane) {
        total.first += first[lane];
        total.second += second[lane];
    }
    for (; i < n; ++i) fa_noise_accumulate(total, x[i], shift);
    return total;
}

#if defined(__x86_64__) && !defined(__clang__)

// The product of the lower halves of 64-bit lanes.
typedef uint64_t Words2 __attribute__((vector_size(16)));
typedef uint64_t Words4 __attribute__((vector_size(32)));
typedef uint64_t Words8 __attribute__((vector_size(64)));
typedef int Ints4 __attribute__((vector_size(16)));
typedef int Ints16 __attribute__((vector_size(64)));
typedef long long Longs8 __attribute__((vector_size(64)));

FA_HD Words2 product(const Words2& a, const Words2& b) {
    return reinterpret_cast<Words2>(__builtin_ia32_pmuludq128(reinterpret_cast<Ints4>(a), reinterpret_cast<Ints4>(b)));
}
FA_HD Words4 product(const Words4& a, const Words4& b) {
    return reinterpret_cast<Words4>(
        __builtin_ia32_pmuludq256(reinterpret_cast<fa_int8>(a), reinterpret_cast<fa_int8>(b)));
}
FA_HD Words8 product(const Words8& a, const Words8& b) {
    return reinterpret_cast<Words8>(
        __builtin_ia32_pmuludq512_mask(reinterpret_cast<Ints16>(a), reinterpret_cast<Ints16>(b), Longs8{}, 255));
}

template <class Piece>
struct WordsOf {
    typedef Words8 Words;
};
template <>
struct WordsOf<fa_float8> {
    typedef Words4 Words;
};
template <>
struct WordsOf<fa_float4> {
    typedef Words2 Words;
};

template <class Words>
struct FaCounters {
    Words w0, w1, w2, w3;
};

template <class Words>
FA_HD void philox_round(FaCounters<Words>& c, const Words& key0, const Words& key1) {
    const Words zero = {}, a = product(c.w0, zero + 0xD2511F53u), b = product(c.w2, zero + 0xCD9E8D57u);
    c = {(b >> 32) ^ c.w1 ^ key0, b, (a >> 32) ^ c.w3 ^ key1, a};
}

// Words w of blocks block ... block + 15 into words[w]. GCC makes 114 multiplications of AVX-512 out of the plain loop
// below, where 40 do: one word in each 64-bit lane, whose upper half may hold anything, since the multiplication reads
// the lower. Even blocks in one vector and odd ones in the other are packed in order.
template <class Piece>
FA_HD void philox_tile(const uint32_t* key, uint32_t channel, int64_t block, uint32_t (&words)[4][kBlocks]) {
    typedef typename WordsOf<Piece>::Words Words;
    constexpr int kCount = sizeof(Piece) / 8;
    const Words zero = {}, lower = zero + 0xFFFFFFFFu;
    Words even = {};
    for (int i = 0; i < kCount; ++i) even[i] = 2 * static_cast<uint64_t>(i);
    for (int begin = 0; begin < kBlocks; begin += 2 * kCount) {
        const Words low = even + static_cast<uint64_t>(block + begin), next = low + 1;
        FaCounters<Words> evens = {low, low >> 32, zero + key[2], zero + channel};
        FaCounters<Words> odds = {next, next >> 32, zero + key[2], zero + channel};
        uint32_t key0 = key[0], key1 = key[1];
        for (int round = 0; round < 10; ++round) {
            philox_round(evens, zero + key0, zero + key1);
            philox_round(odds, zero + key0, zero + key1);
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        const Words packed[4] = {(evens.w0 & lower) | odds.w0 << 32, (evens.w1 & lower) | odds.w1 << 32,
                                 (evens.w2 & lower) | odds.w2 << 32, (evens.w3 & lower) | odds.w3 << 32};
        for (int w = 0; w < 4; ++w) memcpy(words[w] + begin, &packed[w], sizeof(Words));
    }
}

#else

template <class Piece>
FA_HD void philox_tile(const uint32_t* key, uint32_t channel, int64_t block, uint32_t (&words)[4][kBlocks]) {
    for (int j = 0; j < kBlocks; ++j) {
        const int64_t at = block + j;
        const FaWords counter = {static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32), key[2], channel};
        const FaWords w = fa_philox4x32_10(counter, key[0], key[1]);
        words[0][j] = w.w0;
        words[1][j] = w.w1;
        words[2][j] = w.w2;
        words[3][j] = w.w3;
    }
}

#endif

// Box and Muller's normals are most of the work; what follows them only where there is something to follow.
template <bool Bare, class Piece>
FA_HD void add_channel(const float* x, float* y, int64_t length, float sigma, float limit, FaLevel after,
                       const uint32_t* key, uint32_t channel) {
    const auto noisy = [=](float sample, float z) {
        const float sum = sample + sigma * z;
        return Bare ? sum : fa_level_sample(fa_limit(sum, limit), after);
    };
    for (int64_t start = 0; start < length; start += kTile) {
        uint32_t words[4][kBlocks];
        float parts[4][kBlocks], z[kTile];
        philox_tile<Piece>(key, channel, start / 4, words);
        for (int pair = 0; pair < 4; pair += 2) {
            for (int j = 0; j < kBlocks; ++j)
                fa_normal_pair(words[pair][j], words[pair + 1][j], parts[pair][j], parts[pair + 1][j]);
        }
        for (int j = 0; j < kBlocks; ++j) {
            for (int part = 0; part < 4; ++part) z[4 * j + part] = parts[part][j];
        }
        if (start + kTile <= length) {
            FA_SAME_OR_APART
            for (int i = 0; i < kTile; ++i) y[start + i] = noisy(x[start + i], z[i]);
        } else {
            FA_SAME_OR_APART
            for (int i = 0; start + i < length; ++i) y[start + i] = noisy(x[start + i], z[i]);
        }
    }
}

template <class Piece>
FA_HD void add_bare_lanes(const float* x, float* y, int64_t length, float sigma, const uint32_t* key,
                          uint32_t channel) {
    add_channel<true, Piece>(x, y, length, sigma, 0.0f, {}, key, channel);
}

template <class Piece>
FA_HD void add_and_level_lanes(const float* x, float* y, int64_t length, float sigma, float limit, FaLevel after,
                               const uint32_t* key, uint32_t channel) {
    add_channel<false, Piece>(x, y, length, sigma, limit, after, key, channel);
}

FA_BY_WIDTH(add_bare, (const float* x, float* y, int64_t length, float sigma, const uint32_t* key, uint32_t channel),
            (x, y, length, sigma, key, channel))
FA_BY_WIDTH(add_and_level,
            (const float* x, float* y, int64_t length, float sigma, float limit, FaLevel after, const uint32_t* key,
             uint32_t channel),
            (x, y, length, sigma, limit, after, key, channel))

}  // namespace

FaSums fa::noise_sums(const float* x, int64_t n, double shift) { return sums(x, n, shift); }

void fa::add_noise(const float* x, float* y, int64_t length, float sigma, float limit, FaLevel after,
                   const long long* key, uint32_t channel) {
    const uint32_t words[3] = {static_cast<uint32_t>(key[0]), static_cast<uint32_t>(key[1]),
                               static_cast<uint32_t>(key[2])};
    if (limit == fa_no_limit() && fa_is_plain(after)) return add_bare(x, y, length, sigma, words, channel);
    add_and_level(x, y, length, sigma, limit, after, words, channel);
}
