// The polynomials of the short filter's taps, and which way a row goes.
#include <algorithm>

#include "../fa_simd.h"
#include "../repitch_cpu.h"

namespace {

constexpr int kNodes = 16;    // those of an interpolation and numbers behind, so that loops run over whole vectors
constexpr int kTogether = 4;  // pairs whose series run side by side

struct Interpolation {
    int count;
    double nodes[kNodes] = {};
    float weights[kNodes * kNodes] = {};  // [i * kNodes + p]; see repitch.h

    explicit Interpolation(int degree) : count(degree + 1) {
        for (int i = 0; i < count; ++i) nodes[i] = fa_short_node(i, count);
        for (int i = 0; i < count; ++i) {
            for (int p = 0; p < count; ++p) weights[i * kNodes + p] = fa_short_weight(p, i, count);
        }
    }
};

FA_CLONES void fill_arguments(const FaRepitch& plan, int first, const double* nodes, float* arguments) {
    for (int j = 0; j < kTogether; ++j) {
        for (int i = 0; i < kNodes; ++i) {
            arguments[j * kNodes + i] = fa_short_argument(plan, first + j + 0.5 + 0.5 * nodes[i]);
        }
    }
}

// Taps of kTogether pairs at the nodes, and coefficients from them.
template <class Vector>
FA_HD void fit_lanes(const float* arguments, float height, const Interpolation& points, float* coefficients) {
    constexpr int width = sizeof(Vector) / sizeof(float);
    for (int first = 0; first < kNodes; first += width) {
        Vector q[kTogether], tap[kTogether];
        FA_UNROLL(4) for (int j = 0; j < kTogether; ++j) memcpy(&q[j], arguments + j * kNodes + first, sizeof q[j]);
        fa_short_bessel(q, tap);
        FA_UNROLL(4) for (int j = 0; j < kTogether; ++j) {
            tap[j] *= height;
            memcpy(coefficients + j * kNodes + first, &tap[j], sizeof tap[j]);
        }
    }
    float taps[kTogether * kNodes];
    memcpy(taps, coefficients, sizeof taps);
    for (int first = 0; first < kNodes; first += width) {
        Vector sum[kTogether] = {};
        for (int i = 0; i < points.count; ++i) {
            Vector weight;
            memcpy(&weight, points.weights + i * kNodes + first, sizeof weight);
            FA_UNROLL(4) for (int j = 0; j < kTogether; ++j) sum[j] += weight * fa_splat<Vector>(taps[j * kNodes + i]);
        }
        FA_UNROLL(4) for (int j = 0; j < kTogether; ++j) {
            memcpy(coefficients + j * kNodes + first, &sum[j], sizeof sum[j]);
        }
    }
}

FA_BY_WIDTH(fit, (const float* arguments, float height, const Interpolation& points, float* coefficients),
            (arguments, height, points, coefficients))

void fill_coefficients(const FaRepitch& plan, float* coefficients) {
    static const Interpolation low(kLowDegree), high(kHighDegree);
    const Interpolation& points = plan.degree() == kHighDegree ? high : low;
    float arguments[kTogether * kNodes], found[kTogether * kNodes];
    for (int first = 0; first < plan.pairs; first += kTogether) {
        fill_arguments(plan, first, points.nodes, arguments);
        fit(arguments, fa_short_height(plan), points, found);
        for (int j = 0; j < std::min(kTogether, plan.pairs - first); ++j, coefficients += points.count) {
            std::copy_n(found + j * kNodes, points.count, coefficients);
        }
    }
}

// Pitched down, the short filter is always the same.
struct Down {
    float coefficients[kMostCoefficients];

    Down() { fill_coefficients(fa_repitch(2.0), coefficients); }
};

}  // namespace

const float* fa_repitch_fit(const FaRepitch& plan, float* room) {
    if (plan.scale == 1.0 && plan.gain == 1.0) {
        static const Down down;
        return down.coefficients;
    }
    fill_coefficients(plan, room);
    return room;
}

long long fa_repitch_margin(double factor, long long length) {
    return length <= kShortRow ? fa_repitch_short_margin(factor) : fa_repitch_long_margin(factor);
}

void fa_repitch_row(const float* x, long long count, float* y, long long length, double factor,
                    const float* half_band) {
    float room[kMostCoefficients];
    const float* coefficients = fa_repitch_fit(fa_repitch(factor), room);
    if (length <= kShortRow)
        fa_repitch_short(x, static_cast<int>(count), y, static_cast<int>(length), factor, coefficients, half_band);
    else
        fa_repitch_long(x, y, length, factor, coefficients, half_band);
}
