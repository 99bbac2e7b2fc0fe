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

// Memory of one thread, kept for its next row unless it is large: fresh pages would cost a tenth of the time.
struct Room {
    std::vector<float> source, stretched, estimates;
};

Room& room() {
    static thread_local Room mine;
    constexpr size_t large = 1 << 22;
    if (mine.source.size() + mine.stretched.size() > large) mine = {};
    return mine;
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
    const long long stride = before + std::max(length, last + w.search + w.segment) + kCandidates;
    float* to = reserve(room().source, stride * channels);
    for (long long c = 0; c < channels; ++c, to += stride) {
        const float* row = x + c * length;
        std::fill(to, to + before, 0.0f);
        std::copy(row, row + length, to + before);
        std::fill(to + before + length, to + stride, 0.0f);
    }
    return {room().source.data(), stride, before, channels};
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

// The squared distances again, roughly: fused, and in an order in which a vector of samples that is loaded serves
// kCount candidates' vectors (sample i of candidate c + 16 is sample i + 16 of candidate c).
template <class Piece, int kCount>
FA_HD void estimate_tile(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                         float* result) {
    FaLanes<Piece> sum[kCount], sample[kCount];
    FA_UNROLL(16) for (int n = 0; n < kCount; ++n) fa_clear(sum[n]);
    for (long long c = 0; c < channels; ++c, tail += stride, fresh += stride) {
        for (int r = 0; r < kResampleLanes; ++r) {
            FA_UNROLL(16) for (int n = 0; n + 1 < kCount; ++n) fa_load(fresh + r + n * kResampleLanes, sample[n]);
            for (int i = r; i < overlap; i += kResampleLanes) {
                fa_load(fresh + i + (kCount - 1) * kResampleLanes, sample[kCount - 1]);
                const float wanted = tail[i];
                FA_UNROLL(16) for (int n = 0; n < kCount; ++n) {
                    FA_UNROLL(16) for (int p = 0; p < FaLanes<Piece>::kPieces; ++p) {
                        const Piece difference = sample[n].piece[p] - wanted, before = sum[n].piece[p];
                        sum[n].piece[p] = fa_fma(difference, difference, before);
                    }
                }
                FA_UNROLL(16) for (int n = 0; n + 1 < kCount; ++n) sample[n] = sample[n + 1];
            }
        }
    }
    memcpy(result, sum, sizeof sum);
}

// estimates: room for `search` and 15 more.
template <class Piece>
FA_HD void estimate_lanes(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                          int search, float* estimates) {
    constexpr int many = sizeof(Piece) == 64 ? 7 : sizeof(Piece) == 32 ? 3 : 1, few = many / 2 > 1 ? many / 2 : 1;
    const int vectors = (search + kResampleLanes - 1) / kResampleLanes;
    for (int n = 0; n < vectors;) {
        const float* start = fresh + n * kResampleLanes;
        float* found = estimates + n * kResampleLanes;
        if (n + many <= vectors) {
            estimate_tile<Piece, many>(tail, start, stride, channels, overlap, found);
            n += many;
        } else if (n + few <= vectors) {
            estimate_tile<Piece, few>(tail, start, stride, channels, overlap, found);
            n += few;
        } else {
            estimate_tile<Piece, 1>(tail, start, stride, channels, overlap, found);
            ++n;
        }
    }
}

FA_BY_WIDTH(estimate,
            (const float* tail, const float* fresh, long long stride, long long channels, int overlap, int search,
             float* estimates),
            (tail, fresh, stride, channels, overlap, search, estimates))

// The first offset with the smallest distance among those whose estimate is not above `limit`. Comparisons with NaN are
// false: a NaN never wins, except at offset 0.
template <class Piece>
FA_HD void best_offset_lanes(const float* tail, const float* fresh, long long stride, long long channels, int overlap,
                             int search, const float* estimates, float limit, int& best) {
    float smallest = 0.0f;
    bool first = true;
    for (int start = 0; start < search; start += kCandidates) {
        const int count = search - start < kCandidates ? search - start : kCandidates;
        int hopeless = 0;
        for (int j = 0; j < count; ++j) hopeless += estimates[start + j] > limit;
        if (hopeless == count) continue;
        float found[kCandidates];
        distances<Piece>(tail, fresh + start, stride, channels, overlap, found);
        for (int j = 0; j < count; ++j) {
            if (first || found[j] < smallest) {
                smallest = found[j];
                best = start + j;
            }
            first = false;
        }
    }
}

FA_BY_WIDTH(best_offset,
            (const float* tail, const float* fresh, long long stride, long long channels, int overlap, int search,
             const float* estimates, float limit, int& best),
            (tail, fresh, stride, channels, overlap, search, estimates, limit, best))

// NaN if the first is, else the smallest number.
FA_CLONES void find_smallest(const float* estimates, int count, float& smallest) {
    float found = estimates[0];
    for (int i = 1; i < count; ++i) found = estimates[i] < found ? estimates[i] : found;
    smallest = found;
}

FA_CLONES void count_up_to(const float* estimates, int count, float limit, int& found) {
    found = 0;
    for (int i = 0; i < count; ++i) found += estimates[i] <= limit;
}

// The first offset whose distance, summed in float32 term after term as sox and the CUDA kernel sum it, is smallest.
// Two sums of the same `terms` squares, in whatever order, differ by at most the factor (1 + g) / (1 - g) with
// g = (terms + 4) 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 4.2), and by what
// squares below the normal range lose. So that offset is among those with an estimate up to `limit`; mostly one is.
// An estimate is 0 or NaN exactly where the sum is. A NaN at offset 0 makes the limit one, and a sum that may overflow
// makes it infinite: then all are summed.
int search_offset(const float* tail, const float* fresh, const Padded& x, const FaWsola& w, float* estimates) {
    estimate(tail, fresh, x.stride, x.channels, w.overlap, w.search, estimates);
    float smallest;
    find_smallest(estimates, w.search, smallest);
    const double terms = static_cast<double>(w.overlap) * static_cast<double>(x.channels), g = (terms + 4.0) * 0x1p-24;
    const double above = smallest * (1.0 + 8.0 * g) + (g < 0.01 ? terms * 0x1p-120 : INFINITY);
    const float limit = smallest == 0.0f ? 0.0f : static_cast<float>(above * (1.0 + 0x1p-22));
    int near = 0, best = 0;
    count_up_to(estimates, w.search, limit, near);
    if (near == 1 || limit == 0.0f) {
        while (!(estimates[best] <= limit)) ++best;
        return best;
    }
    best_offset(tail, fresh, x.stride, x.channels, w.overlap, w.search, estimates, limit, best);
    return best;
}

// Writes `out` samples to each channel of y.
void stretch(const Padded& x, float* y, long long y_stride, long long out, const FaWsola& w, double factor) {
    float* estimates = reserve(room().estimates, w.search + kResampleLanes);
    long long begin = 0;  // source position of the current segment
    for (long long k = 0, done = 0; done < out; ++k, done += w.hop()) {
        const long long tail = begin + w.hop();
        const long long window = fa_wsola_window(w, factor, k);
        const bool first = k == 0;
        int best = w.search / 2;
        if (!first) best = search_offset(x.at(0, tail), x.at(0, window), x, w, estimates);
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
    });
}
