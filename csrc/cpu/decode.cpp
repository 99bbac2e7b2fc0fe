// Batches of encoded members to cropped, mixed and resampled rows. Each member is probed once; the source ranges of its
// crops are merged where they touch, so that nothing is decoded twice; a merged range is decoded into the scratch of
// its thread and resampled from there into the rows.
#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "../codecs/probe.h"
#include "api.h"
#include "parallel.h"
#include "wav.h"

namespace {

using namespace fa;

// Rows of int64 tables that fastaug/codecs/native.py makes; the order of the fields is a contract with it.
struct Member {
    long long address, size;          // given
    long long format, status, where;  // AudioFormat, Status, byte offset of the trouble
    long long rate, channels, bits;   // of the source
    long long frames;                 //
    long long kind, block, data;      // of WavInfo; FLAC: data_offset of AudioInfo
    long long end, origin;            // FLAC: data_end and origin of AudioInfo
    long long variant;                // WAVE: 1 extensible, 2 RF64 or BW64
    const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(address); }
};

struct Crop {
    long long member, row, plan;  // plan -1: no resampling
    long long at;                 // where in the row its first output goes
    long long first, count;       // outputs [first, first + count), all inside the file
    long long low, high;          // the source samples that they need, clipped to the file
    long long before, after;      // zeros to write left and right of them
};

struct Plan {  // the arguments of fa_resample
    long long up, down, taps, half, interpolated, sorted, spread;
};

struct Outcome {
    long long status, where;
};

struct Segment {
    long long low, high;       // source samples
    const Crop* const* crops;  // sorted by `low`
    long long count;
};

struct Output {
    float* y;  // (rows, channels, length)
    long long channels, length;
    float* row(const Crop& crop, long long channel) const {
        return y + (crop.row * channels + channel) * length + crop.at;
    }
};

// Memory of a thread, kept from call to call unless it has grown large.
class Scratch {
  public:
    float* floats(long long count) {
        if (count > capacity_) {
            data_.reset();
            capacity_ = 0;
            data_.reset(new float[static_cast<size_t>(count)]);
            capacity_ = count;
        }
        return data_.get();
    }
    void shrink() {
        if (capacity_ > kKept) {
            data_.reset();
            capacity_ = 0;
        }
    }

  private:
    static constexpr long long kKept = 1 << 22;
    std::unique_ptr<float[]> data_;
    long long capacity_ = 0;
};

WavInfo wav_info(const Member& member) {
    WavInfo info = {};
    info.kind = static_cast<int>(member.kind);
    info.channels = member.channels;
    info.block = member.block;
    info.data = member.data;
    return info;
}

void probe(Member& member) {
    if (member.size == 0) {
        member.status = kEmpty;
        return;
    }
    member.format = audio_format(member.bytes(), member.size);
    member.status = kUnsupported;
    if (member.format == kWav) {
        const WavInfo info = wav_probe(member.bytes(), member.size);
        member.status = info.status;
        member.where = info.where;
        member.rate = info.rate;
        member.channels = info.channels;
        member.frames = info.frames;
        member.kind = info.kind;
        member.block = info.block;
        member.data = info.data;
        member.variant = wav_is(member.bytes(), "RIFF") ? info.extensible : 2;
    }
}

// Source samples [low, high) as rows of floats, `stride` apart: the channels, or their mean.
Outcome read_source(const Member& member, long long low, long long high, bool mix, float* x, long long stride) {
    wav_read(member.bytes(), wav_info(member), low, high, mix, x, stride);
    return {kOk, 0};
}

long long first_not_finite(const float* x, long long count) {
    int finite = 1;
    for (long long i = 0; i < count; ++i) finite &= fabsf(x[i]) <= 3.4028234663852886e38f;
    if (finite) return count;
    long long i = 0;
    while (fabsf(x[i]) <= 3.4028234663852886e38f) ++i;
    return i;
}

bool may_hold_nan(const Member& member) {
    return member.format == kWav && (member.kind == kWavF32 || member.kind == kWavF64);
}

// Where a crop's source has the first sample that is not finite. x: source samples from `start` on.
Outcome check_finite(const Member& member, const Crop& crop, const float* x, long long start, long long channels,
                     long long stride) {
    const long long count = crop.high - crop.low;
    long long first = count;
    for (long long c = 0; c < channels; ++c) {
        first = std::min(first, first_not_finite(x + c * stride + crop.low - start, count));
    }
    if (first == count) return {kOk, 0};
    return {kNotFinite, member.data + (crop.low + first) * member.block};
}

// The outputs of one crop from source samples [start, start + count), and the zeros around them.
void render(const Crop& crop, const Plan* plan, const float* x, long long start, long long count, long long stride,
            long long channels, const Output& out) {
    for (long long c = 0; c < channels; ++c) {
        const float* source = x + c * stride;
        float* y = out.row(crop, c);
        if (!plan) {
            std::copy_n(source + crop.low - start, crop.count, y);
        } else if (crop.count) {
            fa_resample(source, y, 1, count, count, start, crop.first, crop.count, plan->up, plan->down,
                        reinterpret_cast<const float*>(plan->taps), plan->half, static_cast<int>(plan->interpolated),
                        reinterpret_cast<const float*>(plan->sorted), plan->spread, 1);
        }
    }
}

void fill_around(const Crop& crop, long long channels, const Output& out) {
    for (long long c = 0; c < out.channels; ++c) {
        float* y = out.row(crop, c);
        if (c >= channels) std::copy_n(out.row(crop, 0), crop.count, y);  // mono repeated
        std::fill_n(y - crop.before, crop.before, 0.0f);
        std::fill_n(y + crop.count, crop.after, 0.0f);
    }
}

class Batch {
  public:
    Batch(const Member* members, const Crop* crops, const Plan* plans, Outcome* outcomes, const Output& out)
        : members_(members), crops_(crops), plans_(plans), outcomes_(outcomes), out_(out) {}

    // Decodes the union of some crops of one member, and renders each.
    void run(const Segment& segment) const {
        static thread_local Scratch scratch;
        Outcome outcome = {kOk, 0};
        try {
            outcome = decode(segment, scratch);
        } catch (const std::bad_alloc&) {
            outcome = {kNoMemory, 0};
        }
        scratch.shrink();
        if (outcome.status == kOk) return;
        if (segment.count == 1) {
            outcomes_[segment.crops[0] - crops_] = outcome;
            return;
        }
        // The trouble may lie outside of some of them: what a row gets must not depend on the others.
        for (long long i = 0; i < segment.count; ++i) {
            run({segment.crops[i]->low, segment.crops[i]->high, segment.crops + i, 1});
        }
    }

  private:
    Outcome decode(const Segment& segment, Scratch& scratch) const {
        const Crop& one = *segment.crops[0];
        const Member& member = members_[one.member];
        const bool mix = out_.channels == 1;
        const long long channels = mix ? 1 : member.channels, count = segment.high - segment.low;
        const bool straight = segment.count == 1 && one.plan < 0;  // nothing to do between decoder and row
        float* x = straight ? out_.row(one, 0) : scratch.floats(channels * count);
        const long long stride = straight ? out_.length : count;
        if (count) {
            const Outcome outcome = read_source(member, segment.low, segment.high, mix, x, stride);
            if (outcome.status) return outcome;
        }
        for (long long i = 0; i < segment.count; ++i) {
            const Crop& crop = *segment.crops[i];
            Outcome& outcome = outcomes_[&crop - crops_];
            if (may_hold_nan(member)) outcome = check_finite(member, crop, x, segment.low, channels, stride);
            if (outcome.status) continue;
            if (!straight) render(crop, plan(crop), x, segment.low, count, stride, channels, out_);
            fill_around(crop, channels, out_);
        }
        return {kOk, 0};
    }

    const Plan* plan(const Crop& crop) const { return crop.plan < 0 ? nullptr : plans_ + crop.plan; }

    const Member* members_;
    const Crop* crops_;
    const Plan* plans_;
    Outcome* outcomes_;
    Output out_;
};

// Crops of one member whose source ranges touch, as one segment. A segment grows beyond `longest`, where it leaves the
// caches and keeps other threads from sharing a long file, only where that saves much decoding.
std::vector<Segment> merge(const std::vector<const Crop*>& sorted, long long longest) {
    std::vector<Segment> segments;
    for (const Crop* const& crop : sorted) {
        Segment* last = segments.empty() ? nullptr : &segments.back();
        const bool touches = last && last->crops[0]->member == crop->member && crop->low <= last->high;
        const long long high = touches ? std::max(last->high, crop->high) : 0;
        const long long shared = touches ? std::min(last->high, crop->high) - crop->low : 0;
        const bool much = shared * 8 >= crop->high - crop->low && high - last->low <= 4 * longest;
        if (touches && (high == last->high || high - last->low <= longest || much)) {
            last->high = high;
            ++last->count;
        } else {
            segments.push_back({crop->low, crop->high, &crop, 1});
        }
    }
    return segments;
}

}  // namespace

void fa_audio_probe(long long* members, long long count, long long threads) {
    Member* table = reinterpret_cast<Member*>(members);
    fa::parallel_rows(count, threads, [&](long long i) { probe(table[i]); });
}

void fa_audio_decode(const long long* members, const long long* crops, long long count, const long long* plans,
                     long long* outcomes, float* y, long long channels, long long length, long long longest,
                     long long threads) {
    const Crop* table = reinterpret_cast<const Crop*>(crops);
    std::vector<const Crop*> sorted;
    for (long long i = 0; i < count; ++i) sorted.push_back(table + i);
    std::sort(sorted.begin(), sorted.end(), [](const Crop* a, const Crop* b) {
        return a->member != b->member ? a->member < b->member : a->low != b->low ? a->low < b->low : a < b;
    });
    const std::vector<Segment> segments = merge(sorted, longest);
    const Batch batch(reinterpret_cast<const Member*>(members), table, reinterpret_cast<const Plan*>(plans),
                      reinterpret_cast<Outcome*>(outcomes), {y, channels, length});
    fa::parallel_rows(static_cast<long long>(segments.size()), threads,
                      [&](long long i) { batch.run(segments[static_cast<size_t>(i)]); });
}
