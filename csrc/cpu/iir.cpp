// Cascades of recursive sections on the CPU: eight channels side by side in lanes of double precision, 64 samples at a
// time through all sections, so that the samples cross memory once. Every lane does what a plain loop would, whoever is
// beside it: a channel has the same bits alone.
#include "../iir.h"

#include <algorithm>
#include <vector>

#include "../fa_simd.h"
#include "api.h"
#include "parallel.h"

namespace {

constexpr int kLanes = 8;
constexpr int kTile = 64;  // samples; the tile in double precision takes 4 KiB of L1
// Below this a decaying state counts as nothing: subnormal numbers would circulate for ever, at 100 cycles each on some
// machines. Looked at once a tile.
constexpr double kSilence = 1e-200;

// One number for each lane, of which a wide machine makes one register.
struct alignas(64) Wide {
    double lane[kLanes];
};

struct Stage {
    Wide b0, c1, c2, minus_a1, minus_a2;
    Wide now, before, heard;  // s1[n], s1[n - 1], x[n - 1]
    bool first_order;         // in all lanes
};

struct Group {
    const float* in[kLanes];
    float* out[kLanes];
    int lanes;  // used; the others hear silence
    long long length;
    Stage* stages;
    int sections;
};

template <class Piece>
struct Doubles;  // of the same size; and those for a channel alone
template <>
struct Doubles<fa_float16> {
    typedef fa_double8 type;
    typedef fa_double4 alone;
};
template <>
struct Doubles<fa_float8> {
    typedef fa_double4 type;
    typedef fa_double4 alone;
};
template <>
struct Doubles<fa_float4> {
    typedef fa_double2 type;
    typedef fa_double2 alone;
};

// The lanes of one tile sample by sample, in `kPieces` vectors.
template <class Vector>
struct Side {
    static constexpr int kPieces = kLanes * static_cast<int>(sizeof(double)) / static_cast<int>(sizeof(Vector));
    static constexpr int kStride = kLanes;
    static FA_HD Vector load(const double* from) {
        Vector value;
        memcpy(&value, from, sizeof value);
        return value;
    }
    static FA_HD void store(double* to, const Vector& value) { memcpy(to, &value, sizeof value); }
};

// One channel in all lanes of a single vector: the instructions (and the rounding) of the others without their tiles.
template <class Vector>
struct Alone {
    static constexpr int kPieces = 1;
    static constexpr int kStride = 1;
    static FA_HD Vector load(const double* from) { return Vector{} + *from; }
    static FA_HD void store(double* to, const Vector& value) { *to = value[0]; }
};

// `count` samples through one section, in place. With s2 = c2 x - a2 s1 of the sample before put in, only s1 is carried
// from sample to sample, through one multiply-add:
//   s1[n + 1] = c1 x[n] + c2 x[n - 1] - a2 s1[n - 1] - a1 s1[n]
template <class Vector, class Layout, bool kFirstOrder>
FA_HD void run_section(Stage& stage, double* work, int count) {
    constexpr int kPieces = Layout::kPieces, kWidth = static_cast<int>(sizeof(Vector) / sizeof(double));
    Vector b0[kPieces], c1[kPieces], c2[kPieces], minus_a1[kPieces], minus_a2[kPieces];
    Vector now[kPieces], before[kPieces], heard[kPieces];
    for (int p = 0; p < kPieces; ++p) {
        const int at = p * kWidth;
        b0[p] = Side<Vector>::load(stage.b0.lane + at), c1[p] = Side<Vector>::load(stage.c1.lane + at);
        c2[p] = Side<Vector>::load(stage.c2.lane + at), heard[p] = Side<Vector>::load(stage.heard.lane + at);
        minus_a1[p] = Side<Vector>::load(stage.minus_a1.lane + at);
        minus_a2[p] = Side<Vector>::load(stage.minus_a2.lane + at);
        now[p] = Side<Vector>::load(stage.now.lane + at), before[p] = Side<Vector>::load(stage.before.lane + at);
    }
    for (int t = 0; t < count; ++t) {
        for (int p = 0; p < kPieces; ++p) {
            double* const at = work + t * Layout::kStride + p * kWidth;
            const Vector x = Layout::load(at);
            Layout::store(at, fa_fma(b0[p], x, now[p]));
            Vector next = c1[p] * x;
            if (!kFirstOrder) {
                next = fa_fma(minus_a2[p], before[p], fa_fma(c2[p], heard[p], next));
                before[p] = now[p], heard[p] = x;
            }
            now[p] = fa_fma(minus_a1[p], now[p], next);
        }
    }
    for (int p = 0; p < kPieces; ++p) {
        const int at = p * kWidth;
        Side<Vector>::store(stage.now.lane + at, now[p]);
        Side<Vector>::store(stage.before.lane + at, before[p]);
        Side<Vector>::store(stage.heard.lane + at, heard[p]);
    }
}

FA_HD void settle(Wide& state) {
    for (double& value : state.lane) value = fabs(value) < kSilence ? 0.0 : value;
}

template <class Vector, class Layout>
FA_HD void run_stages(const Group& group, double* work, int count) {
    for (int s = 0; s < group.sections; ++s) {
        Stage& stage = group.stages[s];
        if (stage.first_order) {
            run_section<Vector, Layout, true>(stage, work, count);
        } else {
            run_section<Vector, Layout, false>(stage, work, count);
        }
        settle(stage.now), settle(stage.before), settle(stage.heard);
    }
}

// kLanes rows of kTile floats into columns of doubles, and back.
FA_HD void gather(const float* const* rows, double* work) {
    for (int r = 0; r < kLanes; r += 4) {
        for (int t = 0; t < kTile; t += 4) {
            fa_float4 tile[4];
            FA_UNROLL(4)
            for (int i = 0; i < 4; ++i) memcpy(&tile[i], rows[r + i] + t, sizeof tile[i]);
            fa_transpose_four(tile);
            FA_UNROLL(4)
            for (int i = 0; i < 4; ++i) {
                const fa_double4 wide = __builtin_convertvector(tile[i], fa_double4);
                memcpy(work + (t + i) * kLanes + r, &wide, sizeof wide);
            }
        }
    }
}

FA_HD void scatter(const double* work, float* const* rows) {
    for (int r = 0; r < kLanes; r += 4) {
        for (int t = 0; t < kTile; t += 4) {
            fa_float4 tile[4];
            FA_UNROLL(4)
            for (int i = 0; i < 4; ++i) {
                fa_double4 wide;
                memcpy(&wide, work + (t + i) * kLanes + r, sizeof wide);
                tile[i] = __builtin_convertvector(wide, fa_float4);
            }
            fa_transpose_four(tile);
            FA_UNROLL(4)
            for (int i = 0; i < 4; ++i) memcpy(rows[r + i] + t, &tile[i], sizeof tile[i]);
        }
    }
}

template <class Piece>
FA_HD void run_side_by_side(const Group& group) {
    typedef typename Doubles<Piece>::type Vector;
    alignas(64) double work[kTile * kLanes];
    float silence[kTile] = {}, nowhere[kTile], ends[kLanes][kTile] = {};
    const float* in[kLanes];
    float* out[kLanes];
    for (long long t = 0; t < group.length; t += kTile) {
        const int count = static_cast<int>(fa_min<long long>(kTile, group.length - t));
        const size_t bytes = sizeof(float) * static_cast<size_t>(count);
        for (int i = 0; i < kLanes; ++i) {
            in[i] = silence, out[i] = nowhere;
            if (i >= group.lanes) continue;
            in[i] = group.in[i] + t, out[i] = group.out[i] + t;
            if (count < kTile) memcpy(ends[i], in[i], bytes), in[i] = out[i] = ends[i];
        }
        gather(in, work);
        run_stages<Vector, Side<Vector>>(group, work, count);
        scatter(work, out);
        if (count == kTile) continue;
        for (int i = 0; i < group.lanes; ++i) memcpy(group.out[i] + t, ends[i], bytes);
    }
}

template <class Piece>
FA_HD void run_alone(const Group& group) {
    typedef typename Doubles<Piece>::alone Vector;
    double work[kTile];
    for (long long t = 0; t < group.length; t += kTile) {
        const int count = static_cast<int>(fa_min<long long>(kTile, group.length - t));
        for (int i = 0; i < count; ++i) work[i] = static_cast<double>(group.in[0][t + i]);
        run_stages<Vector, Alone<Vector>>(group, work, count);
        for (int i = 0; i < count; ++i) group.out[0][t + i] = static_cast<float>(work[i]);
    }
}

template <class Piece>
FA_HD void run_group_lanes(const Group& group) {
    if (group.lanes == 1) {
        run_alone<Piece>(group);
    } else {
        run_side_by_side<Piece>(group);
    }
}

FA_BY_WIDTH(run_group, (const Group& group), (group))

// A channel of a row, and which of its sections (bit s) are of first order: they cost half. Channels of different kinds
// do not share a group, because 0 * Inf would show in an infinite row who its neighbours are.
struct Line {
    long long row, channel;
    uint32_t kind;
};

struct Job {
    const float* x;
    float* y;
    const FaSection* sections;  // (rows, count)
    int count;
    long long channels, length;
};

void filter_lines(const Job& job, const Line* lines, int used) {
    Stage stages[kIirMostSections] = {};
    Group group = {{}, {}, used, job.length, stages, job.count};
    for (int i = 0; i < kLanes; ++i) {
        const Line& line = lines[i < used ? i : 0];
        const long long offset = (line.row * job.channels + line.channel) * job.length;
        group.in[i] = job.x + offset, group.out[i] = job.y + offset;
        for (int s = 0; s < job.count; ++s) {
            const FaSection& section = job.sections[line.row * job.count + s];
            stages[s].b0.lane[i] = section.b0, stages[s].c1.lane[i] = section.c1, stages[s].c2.lane[i] = section.c2;
            stages[s].minus_a1.lane[i] = section.minus_a1, stages[s].minus_a2.lane[i] = section.minus_a2;
            stages[s].first_order = (line.kind >> s & 1) != 0;
        }
    }
    run_group(group);
}

// Where each group begins, and the end.
std::vector<size_t> split(const std::vector<Line>& lines, long long threads) {
    const size_t most = lines.size() <= static_cast<size_t>(threads) ? 1 : kLanes;
    std::vector<size_t> starts;
    for (size_t i = 0; i < lines.size(); ++i) {
        if (i == 0 || i - starts.back() == most || lines[i].kind != lines[i - 1].kind) starts.push_back(i);
    }
    starts.push_back(lines.size());
    return starts;
}

FaSos sos_at(const double* n) { return {n[0], n[1], n[2], n[3], n[4], n[5]}; }

}  // namespace

long long fa_sos_filter(const float* x, float* y, const double* sos, const unsigned char* active, long long rows,
                        long long channels, long long length, long long count, long long threads) {
    std::vector<FaSection> sections(static_cast<size_t>(rows * count));
    std::vector<Line> lines;
    std::vector<long long> copied;
    for (long long row = 0; row < rows; ++row) {
        if (active && !active[row]) {
            if (x != y) copied.push_back(row);
            continue;
        }
        uint32_t kind = 0;
        for (long long s = 0; s < count; ++s) {
            FaSection& section = sections[static_cast<size_t>(row * count + s)];
            section = fa_section(sos_at(sos + kSosNumbers * (row * count + s)));
            if (!fa_stable(section)) return row * count + s;
            if (fa_first_order(section)) kind |= 1u << s;
        }
        for (long long c = 0; c < channels; ++c) lines.push_back({row, c, kind});
    }
    if (length == 0 || !x) return -1;  // without samples: the check alone
    std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) { return a.kind < b.kind; });
    const std::vector<size_t> starts = split(lines, threads);
    const long long groups = static_cast<long long>(starts.size()) - 1, row_size = channels * length;
    const Job job = {x, y, sections.data(), static_cast<int>(count), channels, length};
    fa::parallel_rows(groups + static_cast<long long>(copied.size()), threads, [&](long long task) {
        if (task < groups) {
            const size_t first = starts[static_cast<size_t>(task)], next = starts[static_cast<size_t>(task) + 1];
            filter_lines(job, lines.data() + first, static_cast<int>(next - first));
        } else {
            const float* from = x + copied[static_cast<size_t>(task - groups)] * row_size;
            std::copy(from, from + row_size, y + (from - x));
        }
    });
    return -1;
}

long long fa_butterworth(const double* cutoff, const unsigned char* highpass, double* sos, long long rows,
                         long long order) {
    for (long long row = 0; row < rows; ++row) {
        if (!(cutoff[row] >= 0.0 && cutoff[row] <= 0.5)) return row;
        for (int s = 0; s < (order + 1) / 2; ++s) {
            const FaSos section = fa_butterworth_section(cutoff[row], highpass[row] != 0, static_cast<int>(order), s);
            for (int i = 0; i < kSosNumbers; ++i) *sos++ = fa_sos_number(section, i);
        }
    }
    return -1;
}

long long fa_biquads(int kind, const double* frequency, const double* q, const double* gain_db, double* sos,
                     long long rows) {
    for (long long row = 0; row < rows; ++row) {
        const bool audible = frequency[row] >= 0.0 && frequency[row] <= 0.5, finite = gain_db[row] - gain_db[row] == 0;
        if (!(audible && finite && q[row] > 0.0)) return row;
        const FaSos section = fa_biquad(kind, frequency[row], q[row], gain_db[row]);
        for (int i = 0; i < kSosNumbers; ++i) sos[kSosNumbers * row + i] = fa_sos_number(section, i);
    }
    return -1;
}
