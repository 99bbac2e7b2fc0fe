// Time stretch and pitch shift on the CPU.
#include <algorithm>
#include <vector>

#include "../fa_simd.h"
#include "../repitch_cpu.h"
#include "../wsola_cpu.h"
#include "api.h"
#include "parallel.h"

namespace {

// Memory of one thread, kept for its next row: fresh pages would cost a tenth of the time.
struct Room {
    std::vector<float> edge, stretched, search;
};

Room& room() {
    static thread_local Room mine;
    return mine;
}

// After a row: gives back what a long one took.
void tidy() {
    constexpr size_t large = 1 << 22;
    if (room().stretched.size() > large) room() = {};
}

float* reserve(std::vector<float>& memory, long long count) {
    if (memory.size() < static_cast<size_t>(count)) memory = std::vector<float>(static_cast<size_t>(count));
    return memory.data();
}

// The channels of one example, zero before and behind.
struct Source {
    const float* samples;
    long long length, channels;
};

// What a segment's search and fade read of each channel: the last segment's tail, and all that the new one may take.
struct Look {
    const float *tail, *fresh;
    long long stride;
};

// Samples begin ... begin + count - 1 of a channel.
void copy_with_zeros(const float* x, long long length, long long begin, long long count, float* to) {
    const long long from = std::clamp(-begin, 0LL, count), end = std::clamp(length - begin, from, count);
    std::fill(to, to + from, 0.0f);
    std::copy(x + begin + from, x + begin + end, to + from);
    std::fill(to + end, to + count, 0.0f);
}

// In place, or copied between zeros near the ends.
Look look(const Source& x, const FaWsola& w, long long tail, long long window) {
    const long long tails = w.overlap + kSearchReadsOn, windows = w.search + w.segment + kSearchReadsOn;
    if (tail >= 0 && window >= 0 && tail + tails <= x.length && window + windows <= x.length) {
        return {x.samples + tail, x.samples + window, x.length};
    }
    const long long stride = tails + windows;
    float* to = reserve(room().edge, stride * x.channels);
    for (long long c = 0; c < x.channels; ++c, to += stride) {
        copy_with_zeros(x.samples + c * x.length, x.length, tail, tails, to);
        copy_with_zeros(x.samples + c * x.length, x.length, window, windows, to + tails);
    }
    return {room().edge.data(), room().edge.data() + tails, stride};
}

FA_CLONES void fade(const float* old, const float* fresh, int count, int overlap, float* target) {
    for (int i = 0; i < count; ++i) target[i] = fa_wsola_fade(old[i], fresh[i], i, overlap);
}

// Writes `out` samples to each channel of y.
void stretch(const Source& x, float* y, long long y_stride, long long out, const FaWsola& w, double factor) {
    // The first segment begins with the row.
    const long long first = std::min<long long>(w.hop(), out);
    for (long long c = 0; c < x.channels; ++c) {
        copy_with_zeros(x.samples + c * x.length, x.length, 0, first, y + c * y_stride);
    }
    if (first == out) return;
    float* memory = reserve(room().search, FaWsolaSearch::room(w, x.channels));
    FaWsolaSearch search{w, x.channels, memory};
    long long begin = 0;  // source position of the current segment
    for (long long k = 1, done = w.hop(); done < out; ++k, done += w.hop()) {
        const long long window = fa_wsola_window(w, factor, k);
        const Look at = look(x, w, begin + w.hop(), window);
        const int best = search.best(at.tail, at.fresh, at.stride);
        begin = window + best;
        const int n = static_cast<int>(std::min<long long>(w.hop(), out - done)), faded = std::min(n, w.overlap);
        for (long long c = 0; c < x.channels; ++c) {
            const float* fresh = at.fresh + c * at.stride + best;
            float* target = y + c * y_stride + done;
            fade(at.tail + c * at.stride, fresh, faded, w.overlap, target);
            std::copy(fresh + faded, fresh + n, target + faded);
        }
    }
}

}  // namespace

void fa_time_stretch(const float* x, float* y, const double* factor, const unsigned char* active, long long rows,
                     long long channels, long long length, long long out_length, double rate, long long threads) {
    const FaWsola w = fa_wsola_geometry(rate);
    fa::parallel_rows(rows, threads, [&](long long row) {
        const float* in = x + row * channels * length;
        float* out = y + row * channels * out_length;
        std::fill(out, out + channels * out_length, 0.0f);
        if ((active && !active[row]) || factor[row] == 1.0) {
            for (long long c = 0; c < channels; ++c)
                std::copy(in + c * length, in + (c + 1) * length, out + c * out_length);
            return;
        }
        const long long n = std::min(fa_wsola_length(length, factor[row]), out_length);
        stretch({in, length, channels}, out, out_length, n, w, factor[row]);
        tidy();
    });
}

void fa_pitch_shift(const float* x, float* y, const double* factor, const unsigned char* active, long long rows,
                    long long channels, long long length, double rate, const float* half_band, long long threads) {
    const FaWsola w = fa_wsola_geometry(rate);
    fa::parallel_rows(rows, threads, [&](long long row) {
        const float* in = x + row * channels * length;
        float* out = y + row * channels * length;
        const double f = factor[row];
        if ((active && !active[row]) || f == 1.0) {
            if (in != out) std::copy(in, in + channels * length, out);
            return;
        }
        const long long n = fa_wsola_length(length, f), margin = fa_repitch_margin(f, length), stride = n + 2 * margin;
        float* stretched = reserve(room().stretched, stride * channels);
        for (long long c = 0; c < channels; ++c) {
            std::fill(stretched + c * stride, stretched + c * stride + margin, 0.0f);
            std::fill(stretched + c * stride + margin + n, stretched + (c + 1) * stride, 0.0f);
        }
        stretch({in, length, channels}, stretched + margin, stride, n, w, f);
        for (long long c = 0; c < channels; ++c) {
            fa_repitch_row(stretched + c * stride + margin, n, out + c * length, length, f, half_band);
        }
        tidy();
    });
}
