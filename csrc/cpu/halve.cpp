// Half the sample rate on the CPU: pairs of neighbouring blocks of one row, on threads.
#include "../halve.h"

#include <algorithm>

#include "api.h"
#include "fft.h"
#include "parallel.h"
#include "room.h"

namespace {

constexpr long long kPairsATask = 8;

template <class Piece>
FA_HD void halve_lanes(const FaHalves& halves, const float* a, const float* b, const FaAhead& ahead, float* room,
                       int begin, int end, float* y, float* sick) {
    fa_halve_pair<Piece>(halves, a, b, ahead, room);
    fa_halve_outputs<Piece>(halves, room, begin, end, y, sick);
}

FA_BY_WIDTH(halve,
            (const FaHalves& halves, const float* a, const float* b, const FaAhead& ahead, float* room, int begin,
             int end, float* y, float* sick),
            (halves, a, b, ahead, room, begin, end, y, sick))

}  // namespace

void fa_halve_rate(const float* x, float* y, long long rows, long long stride, long long count, long long x_start,
                   long long start, long long length, const float* taps, long long half, long long outputs,
                   long long lead, int size, const float* factors, long long threads) {
    const FaHalves halves = {fa::fft_of(size).fft, factors};
    const long long first = start / outputs, per_row = (start + length + outputs - 1) / outputs - first;
    const long long tasks = (per_row + kPairsATask - 1) / kPairsATask;
    const long long samples = kHalveIn * size + outputs;  // of both blocks: the second begins `outputs` after the first
    const int begin = static_cast<int>(lead / 2), end = begin + static_cast<int>(outputs / 2);
    fa::parallel_rows(rows * tasks, threads, [&](long long task) {
        const long long row = task / tasks, from_pair = task % tasks * kPairsATask;
        const FaStretch source = {x + row * stride, x_start, count};
        const long long work = fa_halve_room(halves);
        float *room = fa::aligned_room(work + samples + outputs), *edge = room + work, *part = edge + samples;
        for (long long pair = from_pair; pair < std::min(from_pair + kPairsATask, per_row); ++pair) {
            const long long at = (first + pair) * outputs, next = 2 * (at + outputs) - lead - x_start;
            const long long from = std::max(at, start), to = std::min(at + outputs, start + length);
            float *out = y + row * length + (from - start), sick = 0.0f;
            const float* a = fa_window(source, 2 * at - lead, samples, edge);
            const bool whole = to - from == outputs, more = next >= 0 && next < count;
            const FaAhead ahead = {source.x + (more ? next : 0), more ? std::min(samples, count - next) : 0, out,
                                   to - from};
            halve(halves, a, a + outputs, ahead, room, begin, end, whole ? out : part, &sick);
            if (sick != 0.0f) {  // a NaN or Inf, or an overflow, has spread over both blocks
                fa_resample(x + row * stride, out, 1, stride, count, x_start, from, to - from, 1, 2, taps, half, 0, 1);
            } else if (!whole) {
                std::copy(part + (from - at), part + (to - at), out);
            }
        }
    });
}
