// What a GPU needs of crops of WAV and FLAC members: the bytes that hold them, one behind the other, and tables that
// say where each clip and each frame lies and where its samples go. Frames are found here (their headers tell how they
// are to be read) and their CRC-16 is checked here, at the speed of memory; the codes inside are left to the GPU.
#include <string.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "../codecs/flac_lanes.h"
#include "api.h"
#include "member.h"
#include "parallel.h"

namespace {

using namespace fa;

constexpr long long kPadding = 8, kAlignment = 16;  // of fastaug/codecs/staging.py

// Rows of an int64 table that fastaug/codecs/device.py makes; the order of the fields is a contract with it.
struct StageCrop {
    long long member, row;  // of the batch: where its status goes
    long long low, high;    // source samples, 0 <= low < high <= frames of the member
    long long to;           // float of the batch that sample `low` becomes; ~float of the other array
    long long stride;       // floats from channel to channel
    long long status;       // written
};

struct Clip {
    const uint8_t* bytes = nullptr;
    long long size = 0, at = 0;  // at: where they go
    std::vector<FlacSpan> frames;
};

struct Lane {
    long long crop;
    const FlacSpan* frame;
    FaFlacShape shape;
};

struct Plan {
    std::vector<Clip> clips;  // one a crop
    std::vector<StageCrop> crops;
    std::vector<const Member*> members;
    std::vector<long long> waves;                  // crops of WAV members
    std::vector<Lane> lanes;                       // 32 a group; crop -1: none
    std::vector<long long> x, first_plane, block;  // of the groups
    std::vector<long long> planes;                 // group << 4 | channel
};

// The bytes of a crop; its frames if it is FLAC.
int locate(const Member& member, const StageCrop& crop, Clip& clip) {
    if (crop.high > member.present) return static_cast<int>(member.cut);
    if (member.format == kWav) {
        clip.bytes = member.bytes() + member.data + crop.low * member.block;
        clip.size = (crop.high - crop.low) * member.block;
        return kOk;
    }
    if (member.format != kFlac) return kUnsupported;
    static thread_local FlacScratch scratch;
    const int status =
        flac_find_frames(member.bytes(), member.size, flac_info(member), crop.low, crop.high, clip.frames, scratch);
    if (status) return status;
    clip.bytes = member.bytes() + clip.frames.front().offset;
    clip.size = clip.frames.back().end - clip.frames.front().offset;
    return kOk;
}

// Planes of int32 that a frame needs.
int planes_of(const FaFlacShape& shape) { return shape.channels + (fa_flac_wide_channel(shape) >= 0); }

// Frames with as many planes and about as many samples side by side: a group is as large as its largest frame.
void make_groups(Plan& plan) {
    for (size_t i = 0; i < plan.clips.size(); ++i) {
        const int bits = static_cast<int>(plan.members[i]->bits);
        for (const FlacSpan& frame : plan.clips[i].frames) {
            plan.lanes.push_back(
                {static_cast<long long>(i), &frame, {frame.block, frame.channels, frame.stereo, bits}});
        }
    }
    const auto key = [](const Lane& lane) {
        const FaFlacShape& s = lane.shape;
        return ((static_cast<long long>(s.channels) << 8 | planes_of(s)) << 20) + s.block;
    };
    std::stable_sort(plan.lanes.begin(), plan.lanes.end(),
                     [&](const Lane& a, const Lane& b) { return key(a) > key(b); });
    std::vector<Lane> sorted;
    sorted.swap(plan.lanes);
    for (const Lane& lane : sorted) {
        const size_t full = plan.lanes.size() % kFlacLanes;
        const Lane* first = full ? &plan.lanes[plan.lanes.size() - full] : nullptr;
        const bool fits = first && key(*first) >> 20 == key(lane) >> 20;
        if (!fits) {
            plan.lanes.resize((plan.lanes.size() + kFlacLanes - 1) / kFlacLanes * kFlacLanes, {-1, nullptr, {}});
            plan.block.push_back(lane.shape.block);
            plan.first_plane.push_back(static_cast<long long>(plan.planes.size()));
            for (int c = 0; c < lane.shape.channels; ++c) {
                plan.planes.push_back(static_cast<long long>(plan.block.size() - 1) << 4 | c);
            }
        }
        plan.lanes.push_back(lane);
    }
    plan.lanes.resize(plan.block.size() * kFlacLanes, {-1, nullptr, {}});
    long long x = 0;
    for (size_t g = 0; g < plan.block.size(); ++g) {
        plan.x.push_back(x);
        x += plan.block[g] * kFlacLanes * planes_of(plan.lanes[g * kFlacLanes].shape);
    }
    plan.x.push_back(x);
}

long long moved(long long to, long long by) { return to < 0 ? to - by : to + by; }

// Column by column, `count` rows apart.
void put(long long* table, long long count, long long row, std::initializer_list<long long> values) {
    for (const long long value : values) {
        table[row] = value;
        table += count;
    }
}

void fill_wave(const Plan& plan, long long offset, long long* table, long long row) {
    const long long i = plan.waves[static_cast<size_t>(row)];
    const StageCrop& crop = plan.crops[static_cast<size_t>(i)];
    const Member& member = *plan.members[static_cast<size_t>(i)];
    put(table, static_cast<long long>(plan.waves.size()), row,
        {offset + plan.clips[static_cast<size_t>(i)].at, crop.high - crop.low, member.kind | member.channels << 8,
         crop.row, crop.to, crop.stride});
}

void fill_lane(const Plan& plan, long long offset, long long* table, long long row) {
    const long long count = static_cast<long long>(plan.lanes.size());
    const Lane& lane = plan.lanes[static_cast<size_t>(row)];
    if (lane.crop < 0) return put(table, count, row, {0, 0, 0, 0, 0, 0, 0});
    const StageCrop& crop = plan.crops[static_cast<size_t>(lane.crop)];
    const Clip& clip = plan.clips[static_cast<size_t>(lane.crop)];
    const FlacSpan& frame = *lane.frame;
    const long long at = offset + clip.at + frame.offset - clip.frames.front().offset;
    const long long first = std::max(frame.position, crop.low);
    const long long last = std::min(frame.position + frame.block, crop.high);
    put(table, count, row,
        {at + frame.header, at + frame.end - frame.offset, fa_flac_pack(lane.shape), crop.row,
         moved(crop.to, first - crop.low), (first - frame.position) | (last - first) << 16, crop.stride});
}

}  // namespace

long long fa_stage_plan(const long long* members, long long* crops, long long count, long long* sizes,
                        long long threads) {
    auto plan = std::make_unique<Plan>();
    StageCrop* rows = reinterpret_cast<StageCrop*>(crops);
    plan->clips.resize(static_cast<size_t>(count));
    for (long long i = 0; i < count; ++i) {
        plan->members.push_back(reinterpret_cast<const Member*>(members) + rows[i].member);
    }
    fa::parallel_queue(count, threads, [&](long long i) {
        Clip& clip = plan->clips[static_cast<size_t>(i)];
        rows[i].status = locate(*plan->members[static_cast<size_t>(i)], rows[i], clip);
        if (rows[i].status) clip = Clip();
    });
    plan->crops.assign(rows, rows + count);
    long long bytes = 0, pieces = 0;
    for (long long i = 0; i < count; ++i) {
        Clip& clip = plan->clips[static_cast<size_t>(i)];
        if (rows[i].status) continue;
        clip.at = bytes;
        bytes += (clip.size + kPadding + kAlignment - 1) / kAlignment * kAlignment;
        if (!clip.frames.empty()) continue;
        plan->waves.push_back(i);
        const long long piece = kWavPiece / plan->members[static_cast<size_t>(i)]->block;
        pieces = std::max(pieces, (rows[i].high - rows[i].low + piece - 1) / piece);
    }
    make_groups(*plan);
    const long long found[] = {bytes,
                               static_cast<long long>(plan->waves.size()),
                               static_cast<long long>(plan->lanes.size()),
                               static_cast<long long>(plan->block.size()),
                               static_cast<long long>(plan->planes.size()),
                               plan->x.back(),
                               pieces};
    std::copy(std::begin(found), std::end(found), sizes);
    return static_cast<long long>(reinterpret_cast<intptr_t>(plan.release()));
}

void fa_stage_fill(long long handle, unsigned char* audio, long long offset, long long* tables, long long threads) {
    const std::unique_ptr<Plan> plan(reinterpret_cast<Plan*>(handle));
    if (!audio) return;
    fa::parallel_queue(static_cast<long long>(plan->clips.size()), threads, [&](long long i) {
        const Clip& clip = plan->clips[static_cast<size_t>(i)];
        if (!clip.bytes) return;
        memcpy(audio + clip.at, clip.bytes, static_cast<size_t>(clip.size));
        const long long end = (clip.size + kPadding + kAlignment - 1) / kAlignment * kAlignment;
        memset(audio + clip.at + clip.size, 0, static_cast<size_t>(end - clip.size));
    });
    const long long waves = static_cast<long long>(plan->waves.size()),
                    lanes = static_cast<long long>(plan->lanes.size());
    for (long long row = 0; row < waves; ++row) fill_wave(*plan, offset, tables, row);
    tables += 6 * waves;
    for (long long row = 0; row < lanes; ++row) fill_lane(*plan, offset, tables, row);
    tables += 7 * lanes;
    const long long groups = static_cast<long long>(plan->block.size());
    for (long long g = 0; g < groups; ++g) {
        const size_t i = static_cast<size_t>(g);
        put(tables, groups, g, {plan->x[i], plan->first_plane[i], plan->block[i]});
    }
    std::copy(plan->planes.begin(), plan->planes.end(), tables + 3 * groups);
}
