// Reverb on the CPU. Nothing recurs within one delay, so each line is processed in blocks shorter than the shortest
// line: additions run over time on SIMD lanes, the combs' one-pole damping over combs (eight lanes).
#include "../reverb.h"

#include <algorithm>
#include <vector>

#include "../fa_simd.h"
#include "api.h"
#include "parallel.h"

namespace {

constexpr int kBlock = 64;
// Samples a line's buffer holds beyond its delay. When they are full the last `delay` samples move to the front.
constexpr int kSlack = 512;
constexpr int kTile = 8;  // samples per transposed tile: as many as there are combs

struct Line {
    float* buffer = nullptr;  // delay + kSlack samples; the line's past ends at `end`
    int delay = 0;
    int end = 0;
};

struct Side {
    Line lines[kReverbLines];
    fa_float8 damped = {};  // one-pole state of each comb
};

struct Unit {
    const float* in[2];
    float* out[2];
    int channels;  // in this unit: 1 or 2
    int sides;
    int mode;
};

#if defined(__clang__)
#define FA_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FA_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, fa_int8{__VA_ARGS__})
#endif

// Transposes an 8 x 8 tile: pairs, pairs of pairs, halves.
FA_HD void transpose(fa_float8* r) {
    fa_float8 t[kTile], u[kTile];
    for (int i = 0; i < kTile; i += 2) {
        t[i] = FA_SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = FA_SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < kTile; i += 4) {
        u[i] = FA_SHUFFLE(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        u[i + 1] = FA_SHUFFLE(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        u[i + 2] = FA_SHUFFLE(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        u[i + 3] = FA_SHUFFLE(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = FA_SHUFFLE(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = FA_SHUFFLE(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

// Room for n more samples behind the line's past; returns where they go.
FA_HD float* extend(Line& line, int n) {
    if (line.end + n > line.delay + kSlack) {
        memmove(line.buffer, line.buffer + line.end - line.delay, sizeof(float) * static_cast<size_t>(line.delay));
        line.end = line.delay;
    }
    float* write = line.buffer + line.end;
    line.end += n;
    return write;
}

// One block through the eight combs; wet gets the sum of their (undamped) outputs. Buffers hold kTile spare samples,
// so that whole tiles may be read and written: samples from n on are rewritten by the next block.
FA_HD void combs(Side& side, const float* x, float* wet, int n, float feedback, float damping) {
    const float* past[kReverbCombs];
    float* write[kReverbCombs];
    for (int i = 0; i < kReverbCombs; ++i) {
        write[i] = extend(side.lines[i], n);
        past[i] = write[i] - side.lines[i].delay;
    }
    fa_float8 state = side.damped;
    for (int start = 0; start < n; start += kTile) {
        fa_float8 tile[kTile], input, sum = {};
        for (int i = 0; i < kReverbCombs; ++i) {
            memcpy(&tile[i], past[i] + start, sizeof tile[i]);
            sum += tile[i];
        }
        memcpy(wet + start, &sum, sizeof sum);
        memcpy(&input, x + start, sizeof input);
        transpose(tile);
        for (int j = 0; j < kTile; ++j) {
            state = tile[j] + (state - tile[j]) * damping;
            tile[j] = state;
            if (start + j == n - 1) side.damped = state;
        }
        transpose(tile);
        for (int i = 0; i < kReverbCombs; ++i) {
            tile[i] = input + feedback * tile[i];
            memcpy(write[i] + start, &tile[i], sizeof tile[i]);
        }
    }
}

FA_HD void allpasses(Side& side, float* wet, int n) {
    for (int i = kReverbCombs; i < kReverbLines; ++i) {
        float* write = extend(side.lines[i], n);
        const float* past = write - side.lines[i].delay;
        for (int j = 0; j < n; ++j) {
            const float out = past[j], in = wet[j];
            write[j] = in + 0.5f * out;
            wet[j] = out - in;
        }
    }
}

FA_HD float delayed(const float* x, long long t, int clip) { return t < 0 ? 0.0f : fa_reverb_limit(x[t], clip); }

FA_CLONES void reverb_unit(Unit unit, Side* sides, const FaReverbCoefficients& c, long long length, int block,
                           int wet_only, int clip) {
    float heard[2][kBlock + kTile] = {}, wet[2][kBlock + kTile];
    const int second = unit.channels - 1;
    for (long long start = 0; start < length; start += block) {
        const int n = static_cast<int>(std::min<long long>(block, length - start));
        const long long from = start - c.pre_delay;
        for (int s = 0; s < unit.sides; ++s) {
            for (int j = 0; j < n; ++j) {
                heard[s][j] = fa_reverb_input(unit.mode, s, delayed(unit.in[0], from + j, clip),
                                              delayed(unit.in[second], from + j, clip));
            }
            combs(sides[s], heard[s], wet[s], n, c.feedback, c.damping);
            allpasses(sides[s], wet[s], n);
            for (int j = 0; j < n; ++j) wet[s][j] *= c.wet_gain;
        }
        const float* wet1 = wet[unit.sides - 1];
        for (int channel = 0; channel < unit.channels; ++channel) {
            for (int j = 0; j < n; ++j) {
                const float dry = wet_only ? 0.0f : fa_reverb_limit(unit.in[channel][start + j], clip);
                unit.out[channel][start + j] = fa_reverb_output(unit.mode, channel, dry, wet[0][j], wet1[j], clip);
            }
        }
    }
}

// Lays out the delay lines of `sides` in zeroed storage; returns the largest block that no line is shorter than.
int lay_out(std::vector<float>& storage, Side* sides, const Unit& unit, const FaReverbSettings& settings, double rate) {
    size_t size = 0;
    int block = kBlock;
    for (int s = 0; s < unit.sides; ++s) {
        for (int i = 0; i < kReverbLines; ++i) {
            const int detuned = unit.mode == kReverbPair ? 0 : s;
            const int delay = fa_reverb_delay(i, detuned, settings, rate);
            sides[s].lines[i] = {nullptr, delay, delay};
            size += static_cast<size_t>(delay + kSlack + kTile);
            block = std::min(block, delay);
        }
    }
    storage.assign(size, 0.0f);
    float* next = storage.data();
    for (int s = 0; s < unit.sides; ++s) {
        for (Line& line : sides[s].lines) {
            line.buffer = next;
            next += line.delay + kSlack + kTile;
        }
    }
    return block;
}

}  // namespace

void fa_reverb(const float* x, float* y, const float* settings, const unsigned char* active, long long rows,
               long long channels, long long length, double rate, int wet_only, int clip, int adjoint,
               long long threads) {
    fa::parallel_rows(rows, threads, [&](long long row) {
        const float* in = x + row * channels * length;
        float* out = y + row * channels * length;
        if (active && !active[row]) {
            std::copy(in, in + channels * length, out);
            return;
        }
        const float* p = settings + 6 * row;
        const FaReverbSettings s = {p[0], p[1], p[2], channels > 2 ? 0.0f : p[3], p[4], p[5]};
        const FaReverbCoefficients c = fa_reverb_coefficients(s, rate);
        std::vector<float> storage;
        for (long long channel = 0; channel < channels; channel += 2) {
            const bool two = channel + 1 < channels;
            const int mode = fa_reverb_mode(s.stereo_depth > 0.0f, two, adjoint);
            const float* first = in + channel * length;
            float* target = out + channel * length;
            const Unit unit = {{first, first + two * length},
                               {target, target + two * length},
                               1 + two,
                               mode == kReverbSingle ? 1 : 2,
                               mode};
            Side sides[2];
            const int block = lay_out(storage, sides, unit, s, rate);
            reverb_unit(unit, sides, c, length, block, wet_only, clip);
        }
    });
}
