// Sample-rate conversion by FFT on the CPU: sixteen blocks at a time, of whichever rows, on threads.
#include "../resample_fft.h"

#include <algorithm>

#include "api.h"
#include "fft.h"
#include "parallel.h"
#include "room.h"

namespace {

template <class Piece>
FA_HD void run_blocks_lanes(const FaBlocks& blocks, const float* const* inputs, float* room, float* const* rows,
                            float* sick) {
    fa_run_blocks<Piece>(blocks, inputs, room, rows, sick);
}

FA_BY_WIDTH(run_blocks,
            (const FaBlocks& blocks, const float* const* inputs, float* room, float* const* rows, float* sick),
            (blocks, inputs, room, rows, sick))

}  // namespace

void fa_resample_blocks(const float* x, float* y, long long rows, long long stride, long long count, long long x_start,
                        long long start, long long length, long long up, long long down, const float* taps,
                        long long half, int interpolated, long long outputs_a_block, long long hop, long long lead,
                        int forward_size, int inverse_size, const int* target, const int* sources, const float* factors,
                        long long threads) {
    if (!sources) {  // half the rate: the inverse FFT's size is not used
        return fa_halve_rate(x, y, rows, stride, count, x_start, start, length, taps, half, outputs_a_block, lead,
                             forward_size, factors, threads);
    }
    const FaFft &forward = fa::fft_of(forward_size).fft, &inverse = fa::fft_of(inverse_size).fft;
    const FaBlocks blocks = {forward, inverse, outputs_a_block, hop, lead, target, sources, factors};
    const long long samples = 2 * blocks.forward.size, row_room = (blocks.outputs + 3) / 4 * 4;
    const long long first = start / blocks.outputs;
    const long long per_row = (start + length + blocks.outputs - 1) / blocks.outputs - first;
    const long long total = rows * per_row;
    fa::parallel_rows((total + kResampleLanes - 1) / kResampleLanes, threads, [&](long long task) {
        const long long work = (blocks.forward.size + blocks.inverse.size) * 2 * kResampleLanes;
        float* room = fa::aligned_room(work + kResampleLanes * (samples + row_room));
        float *edges = room + work, *results = edges + kResampleLanes * samples;
        const float* inputs[kResampleLanes];
        float *outputs[kResampleLanes], sick[kResampleLanes];
        const int used = static_cast<int>(std::min<long long>(kResampleLanes, total - task * kResampleLanes));
        for (int lane = 0; lane < kResampleLanes; ++lane) {
            const long long index = task * kResampleLanes + (lane < used ? lane : 0);
            const FaStretch source = {x + index / per_row * stride, x_start, count};
            const long long begin = (first + index % per_row) * blocks.hop - blocks.lead;
            inputs[lane] = lane < used ? fa_window(source, begin, samples, edges + lane * samples) : inputs[0];
            outputs[lane] = results + lane * row_room;
        }
        run_blocks(blocks, inputs, room, outputs, sick);
        for (int lane = 0; lane < used; ++lane) {
            const long long index = task * kResampleLanes + lane, row = index / per_row;
            const long long begin = (first + index % per_row) * blocks.outputs;
            const long long from = std::max(begin, start), to = std::min(begin + blocks.outputs, start + length);
            float* out = y + row * length + (from - start);
            if (sick[lane] == 0.0f) {
                std::copy(outputs[lane] + (from - begin), outputs[lane] + (to - begin), out);
            } else {
                fa_resample(x + row * stride, out, 1, stride, count, x_start, from, to - from, up, down, taps, half,
                            interpolated, 1);
            }
        }
    });
}
