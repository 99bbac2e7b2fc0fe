// The fused pointwise pass and echo on the CPU. Without noise they are bound by memory: one pass, and long rows are
// shared out in pieces.
#include "../pointwise.h"

#include "../fa_simd.h"
#include "api.h"
#include "noise.h"
#include "parallel.h"

namespace {

constexpr int64_t kPiece = 1 << 15;  // samples: half a megabyte read and written is worth a thread's while

// Calls body(line, begin, end) for the pieces of `rows` times `channels` lines of `length` samples.
template <class Body>
void parallel_pieces(int64_t rows, int64_t channels, int64_t length, long long threads, Body&& body) {
    if (fa::only_row >= 0) {
        for (int64_t line = fa::only_row * channels; line < (fa::only_row + 1) * channels; ++line)
            body(line, 0, length);
        return;
    }
    const int64_t pieces = (length + kPiece - 1) / kPiece;
    fa::parallel_rows(rows * channels * pieces, threads, [&](long long i) {
        const int64_t begin = i % pieces * kPiece;
        body(i / pieces, begin, fa_min(begin + kPiece, length));
    });
}

// Samples before the first 64-byte boundary of y. Rows of odd length start anywhere, and a store across cache lines
// costs two: without this head a pass over 59,049 samples takes 1.4 times as long.
FA_HD int64_t head_of(const float* y, int64_t count) {
    return fa_min<int64_t>(count, static_cast<int64_t>((0 - reinterpret_cast<uintptr_t>(y)) % 64 / sizeof(float)));
}

FA_CLONES void echo(const float* x, const float* delayed, float* y, int64_t count, float dry, float wet) {
    const int64_t head = head_of(y, count);
    FA_SAME_OR_APART
    for (int64_t i = 0; i < head; ++i) y[i] = fa_echo_sample(x[i], delayed[i], dry, wet);
    float* aligned = static_cast<float*>(__builtin_assume_aligned(y + head, 64));
    FA_SAME_OR_APART
    for (int64_t i = 0; i < count - head; ++i) aligned[i] = fa_echo_sample(x[head + i], delayed[head + i], dry, wet);
}

FA_CLONES void echo_of_silence(const float* x, float* y, int64_t count, float dry, float wet) {
    FA_SAME_OR_APART
    for (int64_t i = 0; i < count; ++i) y[i] = fa_echo_sample(x[i], 0.0f, dry, wet);
}

// The same in one array. A delay is worked off backwards, in blocks no longer than itself: the echoes of a block lie
// before it, where nothing has been written yet. A copy that comes first (shift > 0) lies ahead of the loop anyway.
void echo_in_place(float* y, int64_t length, int64_t shift, float dry, float wet) {
    const FaOverlap sound = fa_overlap(0, length, length, shift);
    if (shift >= 0) {
        if (sound.end > 0) echo(y, y + shift, y, sound.end, dry, wet);
        return echo_of_silence(y + sound.end, y + sound.end, length - sound.end, dry, wet);
    }
    const int64_t delay = sound.begin;
    for (int64_t end = length; end > delay;) {
        const int64_t begin = fa_max(delay, end - delay);
        echo(y + begin, y + begin - delay, y + begin, end - begin, dry, wet);
        end = begin;
    }
    echo_of_silence(y, y, delay, dry, wet);
}

// What a pass does to a sample or to a vector of them, `V`.
struct Copied {
    template <class V>
    FA_HD V operator()(const V& value) const {
        return value;
    }
};

struct Scaled {
    FaLevel level;

    template <class V>
    FA_HD V operator()(const V& value) const {
        return fa_held(V(value * fa_splat<V>(level.factor)), fa_splat<V>(level.limit));
    }
};

struct ScaledTwice {
    Scaled first, second;

    template <class V>
    FA_HD V operator()(const V& value) const {
        return second(first(value));
    }
};

template <bool kPast, class Piece>
FA_HD void put(float* to, const Piece& value) {
    if constexpr (kPast) {
        fa_stream(to, value);
    } else {
        memcpy(to, &value, sizeof value);
    }
}

template <class Piece, class Next>
FA_HD Piece taken(const float* from, const Next& next) {
    Piece value;
    memcpy(&value, from, sizeof value);
    value = next(value);
    fa_in_register(value);
    return value;
}

// y = next(x), past the caches if kPast: two thirds of the time where they cannot hold it. Four vectors are read before
// one is written: a load waits for an earlier store to an address that is the same in its lower 12 bits, so that where
// y lies some vectors further than x within a page, as results often do, a loop over single vectors takes 1.4 times as
// long. So does memcpy, which GCC would make of a copy whose values it need not keep in registers.
template <class Piece, bool kPast, class Next>
FA_HD void pass(const float* x, float* y, int64_t count, const Next& next) {
    constexpr int64_t kWidth = sizeof(Piece) / sizeof(float);
    int64_t i = 0;
    for (const int64_t head = head_of(y, count); i < head; ++i) y[i] = next(x[i]);
    for (; i + 4 * kWidth <= count; i += 4 * kWidth) {
        const Piece first = taken<Piece>(x + i, next), second = taken<Piece>(x + i + kWidth, next),
                    third = taken<Piece>(x + i + 2 * kWidth, next), fourth = taken<Piece>(x + i + 3 * kWidth, next);
        put<kPast>(y + i, first);
        put<kPast>(y + i + kWidth, second);
        put<kPast>(y + i + 2 * kWidth, third);
        put<kPast>(y + i + 3 * kWidth, fourth);
    }
    for (; i < count; ++i) y[i] = next(x[i]);
    if (kPast) fa_streamed();
}

template <class Piece>
FA_HD void copy_lanes(const float* x, float* y, int64_t count) {
    if (x != y) pass<Piece, false>(x, y, count, Copied());
}

template <class Piece>
FA_HD void stream_copy_lanes(const float* x, float* y, int64_t count) {
    pass<Piece, true>(x, y, count, Copied());
}

template <class Piece>
FA_HD void scale_lanes(const float* x, float* y, int64_t count, FaLevel level) {
    pass<Piece, false>(x, y, count, Scaled{level});
}

template <class Piece>
FA_HD void stream_scaled_lanes(const float* x, float* y, int64_t count, FaLevel level) {
    pass<Piece, true>(x, y, count, Scaled{level});
}

template <class Piece>
FA_HD void scale_twice_lanes(const float* x, float* y, int64_t count, FaLevel first, FaLevel second) {
    pass<Piece, false>(x, y, count, ScaledTwice{{first}, {second}});
}

FA_BY_WIDTH(copy, (const float* x, float* y, int64_t count), (x, y, count))
FA_BY_WIDTH(stream_copy, (const float* x, float* y, int64_t count), (x, y, count))
FA_BY_WIDTH(scale, (const float* x, float* y, int64_t count, FaLevel level), (x, y, count, level))
FA_BY_WIDTH(stream_scaled, (const float* x, float* y, int64_t count, FaLevel level), (x, y, count, level))
FA_BY_WIDTH(scale_twice, (const float* x, float* y, int64_t count, FaLevel first, FaLevel second),
            (x, y, count, first, second))

void levels(const float* x, float* y, int64_t count, FaLevel before, FaLevel after, bool past) {
    const bool first = !fa_is_plain(before), second = !fa_is_plain(after);
    if (first && second) return scale_twice(x, y, count, before, after);
    if (first || second) return (past ? stream_scaled : scale)(x, y, count, first ? before : after);
    (past ? stream_copy : copy)(x, y, count);
}

// One line of one window: outputs [begin, end) read x[start + t], zeros outside its `length` samples. past: write past
// the caches.
void window(const float* x, float* y, int64_t length, int64_t start, int64_t begin, int64_t end, FaLevel before,
            FaLevel after, bool past) {
    const FaOverlap sound = fa_overlap(begin, end, length, start);
    const float silence = fa_level_sample(fa_level_sample(0.0f, before), after);  // -0 where the sign is turned
    for (int64_t t = begin; t < sound.begin; ++t) y[t] = silence;
    if (sound.begin < sound.end)
        levels(x + sound.begin + start, y + sound.begin, sound.end - sound.begin, before, after, past);
    for (int64_t t = sound.end; t < end; ++t) y[t] = silence;
}

}  // namespace

void fa_pointwise(const float* x, float* y, const long long* starts, const unsigned char* flip, const float* factor,
                  const unsigned char* active, int clip, const long long* keys, const float* noise_level,
                  const unsigned char* noisy, const long long* valid, int mode, int clip_noise,
                  const unsigned char* flip_after, const float* factor_after, const unsigned char* active_after,
                  int clip_after, long long rows, long long channels, long long length, long long out_length,
                  long long threads) {
    const FaLevel plain = {1.0f, fa_no_limit()};
    const int64_t n = channels * out_length;
    const bool past = x != y && fa::past_caches(rows * n, threads);
    const auto noise = [&](int64_t row, const float* from, float* to, FaLevel after) {
        const int64_t sound = valid ? fa_clamp<int64_t>(valid[row], 0, out_length) : out_length;
        FaSums sums = {0.0, 0.0};
        if (mode != FA_NOISE_SIGMA) {
            const double shift = fa_noise_shift(mode, from[0]);
            if (sound == out_length) {
                sums = fa::noise_sums(from, n, shift);
            } else {
                for (int64_t channel = 0; channel < channels; ++channel) {
                    const FaSums part = fa::noise_sums(from + channel * out_length, sound, shift);
                    sums = {sums.first + part.first, sums.second + part.second};
                }
            }
        }
        const float sigma = fa_noise_scale(sums, channels * sound, noise_level[row], mode);
        for (int64_t channel = 0; channel < channels; ++channel) {
            const float* in = from + channel * out_length;
            float* out = to + channel * out_length;
            fa::add_noise(in, out, sound, sigma, clip_noise ? 1.0f : fa_no_limit(), after, keys + 3 * row,
                          static_cast<uint32_t>(channel));
            levels(in + sound, out + sound, out_length - sound, after, plain, false);
        }
    };
    parallel_pieces(rows, channels, out_length, threads, [&](int64_t line, int64_t begin, int64_t end) {
        const int64_t row = line / channels;
        const FaLevel before = fa_level_of_row({flip, factor, active, clip != 0}, row);
        const FaLevel after = fa_level_of_row({flip_after, factor_after, active_after, clip_after != 0}, row);
        const int64_t start = starts ? starts[row] : 0;
        if (!(keys && (!noisy || noisy[row])))
            return window(x + line * length, y + line * out_length, length, start, begin, end, before, after, past);
        if (begin > 0 || line % channels > 0) return;  // a row's level needs all of it: its first piece does the rest
        if (!starts && fa_is_plain(before)) return noise(row, x + row * n, y + row * n, after);
        for (int64_t i = line; i < line + channels; ++i)
            window(x + i * length, y + i * out_length, length, start, 0, out_length, before, plain, false);
        noise(row, y + row * n, y + row * n, after);
    });
}

void fa_repeat(const float* x, float* y, long long rows, long long given, long long size, long long threads) {
    const bool past = fa::past_caches(rows * size, threads);
    fa::parallel_rows(rows, threads, [&](long long row) {
        (past ? stream_copy : copy)(x + row % given * size, y + row * size, size);
    });
}

void fa_echo(const float* x, float* y, const long long* offset, const float* dry, const float* wet,
             const unsigned char* active, long long rows, long long channels, long long length, long long threads) {
    if (x == y) {
        return fa::parallel_rows(rows, threads, [&](long long row) {
            if (active && !active[row]) return;
            for (int64_t line = row * channels; line < (row + 1) * channels; ++line)
                echo_in_place(y + line * length, length, fa_negative(offset[row]), dry[row], wet[row]);
        });
    }
    parallel_pieces(rows, channels, length, threads, [&](int64_t line, int64_t begin, int64_t end) {
        const int64_t row = line / channels;
        const float* from = x + line * length;
        float* to = y + line * length;
        if (active && !active[row]) return copy(from + begin, to + begin, end - begin);
        const int64_t shift = fa_negative(offset[row]);
        const FaOverlap sound = fa_overlap(begin, end, length, shift);
        echo_of_silence(from + begin, to + begin, sound.begin - begin, dry[row], wet[row]);
        if (sound.begin < sound.end) {
            echo(from + sound.begin, from + sound.begin + shift, to + sound.begin, sound.end - sound.begin, dry[row],
                 wet[row]);
        }
        echo_of_silence(from + sound.end, to + sound.end, end - sound.end, dry[row], wet[row]);
    });
}
