// Time stretch and pitch shift on the CPU. The search runs on lanes, one candidate each, every sum in the same order as
// a plain loop: the CPU and CUDA choose the same segments.
#include "../wsola.h"

#include <algorithm>
#include <vector>

#include "../resample_cpu.h"
#include "api.h"
#include "../repitch_cpu.h"
#include "parallel.h"

namespace {

constexpr int kGroup = 4;                             // vectors of candidates per pass
constexpr int kCandidates = kGroup * kResampleLanes;  // candidates per pass

// The channels of one example between zeros: channel c holds source samples [-before, stride - before).
struct Padded {
    std::vector<float> samples;
    long long stride = 0, before = 0, channels = 0;

    const float* at(long long channel, long long t) const { return samples.data() + channel * stride + before + t; }
};

Padded pad(const float* x, long long channels, long long length, const FaWsola& w, double factor, long long out) {
    const long long segments = (out + w.hop() - 1) / w.hop();
    const long long last = fa_wsola_window(w, factor, std::max<long long>(segments - 1, 0));
    Padded padded;
    padded.before = w.search / 2;
    padded.channels = channels;
    padded.stride = padded.before + std::max(length, last + w.search + w.segment) + kCandidates;
    padded.samples.assign(static_cast<size_t>(padded.stride * channels), 0.0f);
    for (long long c = 0; c < channels; ++c) {
        const float* row = x + c * length;
        std::copy(row, row + length, padded.samples.data() + c * padded.stride + padded.before);
    }
    return padded;
}

// Squared distances between the tail and the kCandidates windows from `fresh` on, channels inside samples.
template <class Piece>
FA_HD void distances(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                     float* result) {
    FaLanes<Piece> sums[kGroup], difference;
    for (int g = 0; g < kGroup; ++g) fa_clear(sums[g]);
    for (int i = 0; i < overlap; ++i) {
        for (long long c = 0; c < channels; ++c) {
            const float wanted = tail[c * stride + i];
            for (int g = 0; g < kGroup; ++g) {
                fa_load(fresh + c * stride + i + g * kResampleLanes, difference);
                for (Piece& piece : difference.piece) piece -= wanted;
                fa_add_product(sums[g], difference, difference);
            }
        }
    }
    memcpy(result, sums, sizeof sums);
}

// The first offset with the smallest distance. Comparisons with NaN are false: a NaN never wins, except at offset 0.
template <class Piece>
FA_HD void best_offset_lanes(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                             int search, int& best) {
    float smallest = 0.0f;
    best = 0;
    for (int start = 0; start < search; start += kCandidates) {
        float found[kCandidates];
        distances<Piece>(tail, fresh + start, stride, channels, overlap, found);
        for (int j = 0; j < kCandidates && start + j < search; ++j) {
            if (start + j == 0 || found[j] < smallest) {
                smallest = found[j];
                best = start + j;
            }
        }
    }
}

FA_BY_WIDTH(best_offset,
            (const float* tail, const float* fresh, long long stride, long long channels, int overlap, int search,
             int& best),
            (tail, fresh, stride, channels, overlap, search, best))

// Writes `out` samples to each channel of y.
void stretch(const Padded& x, float* y, long long y_stride, long long out, const FaWsola& w, double factor) {
    long long begin = 0;  // source position of the current segment
    for (long long k = 0, done = 0; done < out; ++k, done += w.hop()) {
        const long long tail = begin + w.hop();
        const long long window = fa_wsola_window(w, factor, k);
        const bool first = k == 0;
        int best = w.search / 2;
        if (!first) best_offset(x.at(0, tail), x.at(0, window), x.stride, x.channels, w.overlap, w.search, best);
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

// The first cache line at or after `pointer`: vectors that straddle two lines cost twice.
float* align(float* pointer) {
    constexpr uintptr_t line = 64;
    return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(pointer) + line - 1) / line * line);
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
    });
}

void fa_pitch_shift(const float* x, float* y, const double* factor, const unsigned char* active, long long rows,
                    long long channels, long long length, double rate, const float* half_band, const float* filter,
                    long long density, long long threads) {
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
        std::vector<float> stretched(static_cast<size_t>(stride * channels));
        stretch(pad(in, channels, length, w, f, n), stretched.data() + margin, stride, n, w, f);
        std::vector<float> room(static_cast<size_t>(fa_repitch_entries(f) + 16));
        float* table = align(room.data());
        fa_repitch_table({filter, density}, f, table);
        for (long long c = 0; c < channels; ++c) {
            fa_repitch_row(stretched.data() + c * stride + margin, out + c * length, length, f, half_band, table);
        }
    });
}
