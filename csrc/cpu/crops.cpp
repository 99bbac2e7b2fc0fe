#include "crops.h"

#include <algorithm>

namespace fa {
namespace {

constexpr long long kFar = 1ll << 60;  // a start or length beyond is as good as this one

// a * b / c of numbers that are not negative; their product may have more than 64 bits.
long long multiply_divide(long long a, long long b, long long c, bool up) {
    const __int128 product = static_cast<__int128>(a) * b + (up ? c - 1 : 0);
    return static_cast<long long>(std::min<__int128>(product / c, kFar));
}

// The source samples that outputs [crop.first, crop.first + crop.count) need; source_range of fastaug/ops/resample.py.
void find_source(Crop& crop, long long frames) {
    const long long first = crop.first, last = crop.first + crop.count - 1;
    crop.low = crop.high = 0;
    if (crop.count <= 0) return;
    if (!crop.plan) {
        crop.low = first;
        crop.high = last + 1;
    } else if (crop.plan->outputs) {
        const Plan& plan = *crop.plan;
        crop.low = first / plan.outputs * plan.hop - plan.lead;
        crop.high = last / plan.outputs * plan.hop - plan.lead + plan.samples;
    } else {
        crop.low = multiply_divide(first, crop.plan->down, crop.plan->up, false) - crop.plan->half + 1;
        crop.high = multiply_divide(last, crop.plan->down, crop.plan->up, false) + crop.plan->half + 1;
    }
    crop.low = std::max(crop.low, 0ll);
    crop.high = std::min(crop.high, frames);
}

Crop make_crop(const Member& member, const Wanted& wanted, long long i, const Plan* plan, long long out_rate,
               long long width) {
    Crop crop = {};
    crop.wanted = i;
    crop.member = wanted.member[i];
    crop.row = wanted.row[i];
    crop.plan = plan;
    const long long total = plan ? multiply_divide(member.frames, out_rate, member.rate, true) : member.frames;
    const long long start = std::clamp(wanted.start[i], -kFar, kFar), length = wanted.length[i];
    const long long stop = std::min(length < 0 ? total : start + std::min(length, kFar), start + width);
    const long long first = std::max(start, 0ll), last = std::min(stop, total);
    if (first < last) {
        crop.at = crop.before = first - start;
        crop.first = first;
        crop.count = last - first;
    }
    crop.after = width - crop.at - crop.count;
    find_source(crop, member.frames);
    return crop;
}

// Edges between the pieces of a crop lie on a grid of the file, the same for all crops.
void cut(const Crop& crop, long long size, long long frames, std::vector<Crop>& crops) {
    const long long first = crop.first, last = crop.first + crop.count;
    for (long long begin = first, edge = (first / size + 2) * size; begin < last; edge += size) {
        const long long end = edge < last - size ? edge : last;
        Crop piece = crop;
        piece.first = begin;
        piece.count = end - begin;
        piece.at += begin - first;
        if (begin > first) piece.before = 0;
        if (end < last) piece.after = 0;
        find_source(piece, frames);
        crops.push_back(piece);
        begin = end;
    }
}

const Plan* plan_of(const Plan* plans, long long count, long long rate) {
    for (long long i = 0; i < count; ++i) {
        if (plans[i].rate == rate) return plans + i;
    }
    return nullptr;
}

}  // namespace

std::vector<Crop> make_crops(const Member* members, const Wanted& wanted, const Plan* plans, long long plan_count,
                             long long out_rate, long long width, long long longest) {
    std::vector<Crop> crops;
    crops.reserve(static_cast<size_t>(wanted.count));
    for (long long i = 0; i < wanted.count; ++i) {
        const Member& member = members[wanted.member[i]];
        const Plan* plan = plan_of(plans, plan_count, member.rate);
        const Crop crop = make_crop(member, wanted, i, plan, out_rate, width);
        if (crop.high - crop.low < 3 * longest) {
            crops.push_back(crop);
            continue;
        }
        const long long size = plan ? multiply_divide(longest, out_rate, member.rate, false) : longest;
        cut(crop, std::max(size, 1ll), member.frames, crops);
    }
    return crops;
}

}  // namespace fa
