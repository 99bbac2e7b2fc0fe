// Time stretch and pitch shift on the CPU.
#include <algorithm>
#include <vector>

#include "../repitch_cpu.h"
#include "../wsola_cpu.h"
#include "api.h"
#include "parallel.h"

namespace {

// Memory of one thread, kept for its next row: fresh pages would cost a tenth of the time.
struct Room {
    std::vector<float> source, stretched, search;
};

Room& room() {
    static thread_local Room mine;
    return mine;
}

// After a row: gives back what a long one took.
void tidy() {
    constexpr size_t large = 1 << 22;
    if (room().source.size() + room().stretched.size() > large) room() = {};
}

float* reserve(std::vector<float>& memory, long long count) {
    if (memory.size() < static_cast<size_t>(count)) memory = std::vector<float>(static_cast<size_t>(count));
    return memory.data();
}

// The channels of one example between zeros: channel c holds source samples [-before, stride - before).
struct Padded {
    const float* samples;
    long long stride, before, channels;

    const float* at(long long channel, long long t) const { return samples + channel * stride + before + t; }
};

Padded pad(const float* x, long long channels, long long length, const FaWsola& w, double factor, long long out) {
    const long long segments = (out + w.hop() - 1) / w.hop(), before = w.search / 2;
    const long long last = fa_wsola_window(w, factor, std::max<long long>(segments - 1, 0));
    const long long stride = before + std::max(length, last + w.search + w.segment) + kSearchReadsOn;
    float* to = reserve(room().source, stride * channels);
    for (long long c = 0; c < channels; ++c, to += stride) {
        const float* row = x + c * length;
        std::fill(to, to + before, 0.0f);
        std::copy(row, row + length, to + before);
        std::fill(to + before + length, to + stride, 0.0f);
    }
    return {room().source.data(), stride, before, channels};
}

// Writes `out` samples to each channel of y.
void stretch(const Padded& x, float* y, long long y_stride, long long out, const FaWsola& w, double factor) {
    float* memory = reserve(room().search, FaWsolaSearch::room(w, x.channels));
    FaWsolaSearch search{w, x.stride, x.channels, memory};
    long long begin = 0;  // source position of the current segment
    for (long long k = 0, done = 0; done < out; ++k, done += w.hop()) {
        const long long tail = begin + w.hop();
        const long long window = fa_wsola_window(w, factor, k);
        const bool first = k == 0;
        int best = w.search / 2;
        if (!first) best = search.best(x.at(0, tail), x.at(0, window));
        begin = window + best;
        const int n = static_cast<int>(std::min<long long>(w.hop(), out - done));
        for (long long c = 0; c < x.channels; ++c) {
            const float *old = x.at(c, tail), *fresh = x.at(c, begin);
            float* target = y + c * y_stride + done;
            std::copy(fresh, fresh + n, target);
            for (int i = 0; !first && i < std::min(n, w.overlap); ++i) {
                target[i] = fa_wsola_fade(old[i], fresh[i], i, w.overlap);
            }
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
        stretch(pad(in, channels, length, w, factor[row], n), out, out_length, n, w, factor[row]);
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
        const long long n = fa_wsola_length(length, f), margin = fa_repitch_margin(f), stride = n + 2 * margin;
        float* stretched = reserve(room().stretched, stride * channels);
        for (long long c = 0; c < channels; ++c) {
            std::fill(stretched + c * stride, stretched + c * stride + margin, 0.0f);
            std::fill(stretched + c * stride + margin + n, stretched + (c + 1) * stride, 0.0f);
        }
        stretch(pad(in, channels, length, w, f, n), stretched + margin, stride, n, w, f);
        for (long long c = 0; c < channels; ++c) {
            fa_repitch_row(stretched + c * stride + margin, out + c * length, length, f, half_band);
        }
        tidy();
    });
}
