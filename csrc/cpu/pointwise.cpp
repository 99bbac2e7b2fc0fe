// Scale, echo and crop on the CPU: bound by memory, so each is one pass, and long rows are shared out in pieces.
#include "../pointwise.h"

#include "../fa_simd.h"
#include "api.h"
#include "parallel.h"

namespace {

constexpr int64_t kPiece = 1 << 15;  // samples: half a megabyte read and written is worth a thread's while

// Calls body(row, begin, end) for the pieces of `rows` rows of `length` samples.
template <class Body>
void parallel_pieces(int64_t rows, int64_t length, long long threads, Body&& body) {
    const int64_t pieces = (length + kPiece - 1) / kPiece;
    fa::parallel_rows(rows * pieces, threads, [&](long long i) {
        const int64_t begin = i % pieces * kPiece;
        body(i / pieces, begin, fa_min(begin + kPiece, length));
    });
}

void copy(const float* x, float* y, int64_t count) {
    if (count > 0) memcpy(y, x, static_cast<size_t>(count) * sizeof(float));
}

FA_CLONES void scale(const float* x, float* y, int64_t count, float factor) {
    for (int64_t i = 0; i < count; ++i) y[i] = fa_scale_sample(x[i], factor, false);
}

FA_CLONES void scale_and_clip(const float* x, float* y, int64_t count, float factor) {
    for (int64_t i = 0; i < count; ++i) y[i] = fa_scale_sample(x[i], factor, true);
}

FA_CLONES void echo(const float* x, const float* delayed, float* y, int64_t count, float dry, float wet) {
    for (int64_t i = 0; i < count; ++i) y[i] = fa_echo_sample(x[i], delayed[i], dry, wet);
}

FA_CLONES void echo_of_silence(const float* x, float* y, int64_t count, float dry, float wet) {
    for (int64_t i = 0; i < count; ++i) y[i] = fa_echo_sample(x[i], 0.0f, dry, wet);
}

}  // namespace

void fa_scale(const float* x, float* y, const float* factor, const unsigned char* active, long long rows,
              long long channels, long long length, int clip, long long threads) {
    const int64_t n = channels * length;
    parallel_pieces(rows, n, threads, [&](int64_t row, int64_t begin, int64_t end) {
        const float* from = x + row * n + begin;
        float* to = y + row * n + begin;
        if (active && !active[row]) return copy(from, to, end - begin);
        (clip ? scale_and_clip : scale)(from, to, end - begin, factor[row]);
    });
}

void fa_echo(const float* x, float* y, const long long* offset, const float* dry, const float* wet,
             const unsigned char* active, long long rows, long long channels, long long length, long long threads) {
    parallel_pieces(rows * channels, length, threads, [&](int64_t line, int64_t begin, int64_t end) {
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

void fa_crop(const float* x, float* y, const long long* starts, long long rows, long long channels, long long length,
             long long out_length, long long threads) {
    parallel_pieces(rows * channels, out_length, threads, [&](int64_t line, int64_t begin, int64_t end) {
        const int64_t start = starts[line / channels];
        const FaOverlap sound = fa_overlap(begin, end, length, start);
        float* to = y + line * out_length;
        for (int64_t t = begin; t < sound.begin; ++t) to[t] = 0.0f;
        if (sound.begin < sound.end) {
            copy(x + line * length + sound.begin + start, to + sound.begin, sound.end - sound.begin);
        }
        for (int64_t t = sound.end; t < end; ++t) to[t] = 0.0f;
    });
}
