// MP3 from the rows of mp3_lines.cu to samples. A block takes a run of granules of a crop through powers and gains,
// stereo, the mean of the channels where one is wanted, alias reduction, IMDCT and synthesis window in shared memory.
// The two granules before a run are computed again by each block (a third of the work up to the IMDCT): nothing waits
// for another block.
#include "mp3_filter.h"

// A crop's samples go to y + crop.to or, if that is negative, to other + ~crop.to; nothing else is written. Grid:
// (runs, crops, output channels). status: 1 at the rows of crops with a unit that cannot be.
extern "C" __global__ void __launch_bounds__(256, 3)
    fa_mp3_samples_kernel(const FaMp3GpuTables* tables, const FaMp3Unit* units, const uint32_t* counts,
                          const uint32_t* rows, const FaMp3Crop* crops, float* y, float* other, int* status,
                          long long channels) {
    __shared__ float lines[kGranules * kGranule];
    __shared__ FaSide sides[2 * kGranules];
    __shared__ float gains[2 * kGranules * kMp3Bands];
    __shared__ uint8_t factors[2 * kGranules * kMp3Bands];
    __shared__ int last[kGranules][4];
    __shared__ float powers[16];
    const FaMp3Crop* const crop = crops + blockIdx.y;
    const long long start =
        FA_LD(&crop->first) + static_cast<long long>(blockIdx.x) * kRun - 2;  // the block's granule 0
    const int granules = static_cast<int>(fa_min<long long>(kGranules, FA_LD(&crop->last) + 1 - start));
    if (granules <= 2) return;
    const int sources = static_cast<int>(FA_LD(&crop->channels));
    if (threadIdx.x < 2 * kGranules) {
        const int granule = threadIdx.x / 2, channel = threadIdx.x % 2;
        const bool there = granule < granules && start + granule >= 0 && channel < sources;
        const long long unit = FA_LD(&crop->unit) + (start + granule) * sources + channel;
        sides[threadIdx.x] = there ? fa_side(units, counts, unit, status + FA_LD(&crop->row)) : fa_silent_side();
    }
    if (threadIdx.x < 4 * kGranules) last[threadIdx.x / 4][threadIdx.x % 4] = -1;
    if (threadIdx.x < 16) powers[threadIdx.x] = FA_LD(tables->power + threadIdx.x);
    __syncthreads();
    const bool mix = sources == 2 && channels == 1;
    const FaBlock block = {
        tables, rows, sides, gains, factors, last, powers, lines, granules, sources, static_cast<int>(blockIdx.z), mix};
    const int granule = threadIdx.x / 32;
    FaSubband subband;
    if (granule < granules) fa_take_subband(block, granule, subband);
    if (granule < granules) fa_transform<0>(block, granule, subband);
    __syncthreads();
    if (granule + 1 < granules) fa_transform<1>(block, granule, subband);
    __syncthreads();
    const int slots = 18 * granules;
    const long long at = FA_LD(&crop->shift) + (start + 2) * 576, to = FA_LD(&crop->to);
    float* const out = (to < 0 ? other + ~to : y + to) + blockIdx.z * FA_LD(&crop->stride);
    fa_synthesis(block, tables->matrix, false, 21, slots, 0, 0, nullptr);
    __syncthreads();
    fa_synthesis(block, tables->taps, true, 36, slots, at, FA_LD(&crop->count), out);
}
