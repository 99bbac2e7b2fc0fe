// Batches of encoded members to cropped, mixed and resampled rows. Each member is probed once; the source ranges of its
// crops are merged where they touch, so that nothing is decoded twice; a merged range is decoded into the scratch of
// its thread and resampled from there into the rows.
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "../codecs/probe.h"
#include "../fa_simd.h"
#include "api.h"
#include "crops.h"
#include "parallel.h"

namespace {

using namespace fa;

struct Outcome {
    long long status, where;
};

struct Segment {
    long long low, high;  // source samples
    Crop* const* crops;   // sorted by `low`
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

void probe_wav(Member& member) {
    const WavInfo info = wav_probe(member.bytes(), member.size);
    member.status = info.status;
    member.where = info.where;
    member.rate = info.rate;
    member.channels = info.channels;
    member.frames = member.present = info.frames;
    member.kind = info.kind;
    member.block = info.block;
    member.data = info.data;
    member.variant = wav_is(member.bytes(), "RIFF") ? info.extensible : 2;
}

void probe_flac(Member& member) {
    AudioInfo info;
    member.status = flac_probe(member.bytes(), member.size, info);
    member.where = info.trouble;
    if (!status_usable(info.status)) return;
    member.format = kFlac;
    member.rate = info.rate;
    member.channels = info.channels;
    member.bits = info.bits;
    member.frames = std::max(info.total, info.announced);
    member.present = info.total;
    // Frames of constant samples hold the most: 65535 in about ten bytes. A header may not promise more memory.
    if (member.present / 65536 > member.size / 10) {
        member.status = kBadHeader;
        member.where = info.data_offset;
        return;
    }
    member.cut = info.status == kChanged ? kChanged : kTruncated;
    if (member.cut == kTruncated && info.status != kTruncated) member.frames = member.present;
    member.status = kOk;
    member.block = info.block;
    member.data = info.data_offset;
    member.end = info.data_end;
    member.origin = info.origin;
}

void probe_mp3(Member& member) {
    auto stream = std::make_unique<Mp3Stream>();
    member.status = mp3_scan(member.bytes(), member.size, *stream);
    member.where = stream->trouble;
    if (!status_usable(member.status)) return;
    if (stream->total == 0) {
        member.status = kNoData;
        member.where = member.size;
        return;
    }
    member.format = kMp3;
    member.status = kOk;
    member.rate = stream->header.rate;
    member.channels = stream->header.channels;
    member.present = stream->total;
    member.frames = std::max(stream->total, stream->announced);
    member.silent = stream->silent;
    member.cut = stream->status == kChanged ? kChanged : kTruncated;
    member.index = static_cast<long long>(reinterpret_cast<intptr_t>(stream.release()));
}

// Bytes that may be MPEG frames after a cut, garbage or an APE tag: no other format's four letters at the start.
bool nameless(const uint8_t* bytes, long long size) {
    if (size < 12 || wav_is(bytes + 4, "ftyp")) return false;
    if (wav_is(bytes, "APET")) return true;
    int letters = 0;
    for (int i = 0; i < 4; ++i) letters += bytes[i] >= ' ' && bytes[i] < 127;
    return letters < 4;
}

void probe(Member& member) {
    const uint8_t* bytes = member.bytes();
    member.status = kEmpty;
    if (member.size == 0) return;
    member.format = audio_format(bytes, member.size);
    member.status = kUnsupported;
    const bool bare = member.size > 2 && bytes[0] == 0xFF && (bytes[1] & 0xFE) == 0xF8;  // frames without "fLaC"
    if (member.format == kWav) probe_wav(member);
    if (member.format == kFlac || (member.format == kOther && bare)) probe_flac(member);
    if (member.format == kMp3 || (member.format == kOther && !bare && nameless(bytes, member.size)) ||
        (member.format == kWav && member.status == kUnsupported)) {
        probe_mp3(member);
    }
}

// About how long that takes, in nanoseconds: all headers of an MP3 are read.
long long probing_work(const Member& member) {
    const int first = member.size ? *member.bytes() : 'R';
    return first == 'R' ? 500 : first == 'f' || first == 'O' ? 5'000 : 1'000 + member.size / 32;
}

// The mean of rows in place of the first: one by one in float32, then divided, as fastaug.functional.mix_down.
FA_CLONES void mix_rows(float* x, long long rows, long long count, long long stride) {
    const float* second = x + stride;
    if (rows == 2) {
        for (long long i = 0; i < count; ++i) x[i] = (x[i] + second[i]) * 0.5f;
        return;
    }
    for (long long c = 1; c < rows; ++c) {
        for (long long i = 0; i < count; ++i) x[i] += x[c * stride + i];
    }
    const float divisor = static_cast<float>(rows);
    for (long long i = 0; i < count; ++i) x[i] /= divisor;
}

// Source samples [low, high) as rows of floats, `stride` apart: the channels, or in the first row their mean.
Outcome read_source(const Member& member, long long low, long long high, bool mix, float* x, long long stride) {
    if (high > member.present) return {member.cut, member.where};
    if (member.format == kWav) {
        wav_read(member.bytes(), wav_info(member), low, high, mix, x, stride);
        return {kOk, 0};
    }
    if (member.format == kMp3) {
        static thread_local Mp3Scratch scratch;
        const int status = mp3_decode_range(member.bytes(), member.size, member.mp3(), low, high - low,
                                            mix && member.channels > 1, x, stride, scratch);
        return {status, scratch.trouble};
    }
    static thread_local FlacScratch scratch;
    const int status =
        flac_decode_range(member.bytes(), member.size, flac_info(member), low, high - low, x, stride, scratch);
    if (mix && member.channels > 1) mix_rows(x, member.channels, high - low, stride);
    return {status, scratch.trouble};
}

// Rows that read_source needs.
long long source_rows(const Member& member, bool mix) { return mix && member.format != kFlac ? 1 : member.channels; }

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

template <class T>
const T* table(long long address) {
    return reinterpret_cast<const T*>(address);
}

// Outputs of one crop and channel from source samples [start, start + count).
void resample_row(const Crop& crop, const float* x, long long start, long long count, float* y) {
    const Plan& plan = *crop.plan;
    const float* taps = table<float>(plan.taps);
    const int interpolated = static_cast<int>(plan.interpolated);
    if (!plan.outputs) {
        return fa_resample(x, y, 1, count, count, start, crop.first, crop.count, plan.up, plan.down, taps, plan.half,
                           interpolated, 1);
    }
    fa_resample_blocks(x, y, 1, count, count, start, crop.first, crop.count, plan.up, plan.down, taps, plan.half,
                       interpolated, plan.outputs, plan.hop, plan.lead, static_cast<int>(plan.forward_size),
                       static_cast<int>(plan.inverse_size), table<int>(plan.target), table<int>(plan.sources),
                       table<float>(plan.factors), 1);
}

// The outputs of one crop from source samples [start, start + count), rows `stride` apart.
void render(const Crop& crop, const float* x, long long start, long long count, long long stride, long long channels,
            const Output& out) {
    for (long long c = 0; c < channels; ++c) {
        const float* source = x + c * stride;
        if (!crop.plan) {
            std::copy_n(source + crop.low - start, crop.count, out.row(crop, c));
        } else if (crop.count) {
            resample_row(crop, source, start, count, out.row(crop, c));
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
    Batch(const Member* members, const Output& out) : members_(members), out_(out) {}

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
        if (segment.count == 1) return tell(*segment.crops[0], outcome);
        // The trouble may lie outside of some of them: what a row gets must not depend on the others.
        for (long long i = 0; i < segment.count; ++i) {
            run({segment.crops[i]->low, segment.crops[i]->high, segment.crops + i, 1});
        }
    }

  private:
    static void tell(Crop& crop, const Outcome& outcome) {
        crop.status = outcome.status;
        crop.where = outcome.where;
    }

    Outcome decode(const Segment& segment, Scratch& scratch) const {
        const Crop& one = *segment.crops[0];
        const Member& member = members_[one.member];
        const bool mix = out_.channels == 1;
        const long long channels = mix ? 1 : member.channels, count = segment.high - segment.low;
        const long long needed = source_rows(member, mix);
        // Nothing to do between decoder and row?
        const bool straight = segment.count == 1 && !one.plan && needed <= out_.channels;
        float* x = straight ? out_.row(one, 0) : scratch.floats(needed * count);
        const long long stride = straight ? out_.length : count;
        if (count) {
            const Outcome outcome = read_source(member, segment.low, segment.high, mix, x, stride);
            if (outcome.status) return outcome;
        }
        for (long long i = 0; i < segment.count; ++i) {
            Crop& crop = *segment.crops[i];
            if (may_hold_nan(member)) tell(crop, check_finite(member, crop, x, segment.low, channels, stride));
            if (crop.status) continue;
            if (!straight) render(crop, x, segment.low, count, stride, channels, out_);
            fill_around(crop, channels, out_);
        }
        return {kOk, 0};
    }

    const Member* members_;
    Output out_;
};

// Crops of one member whose source ranges touch, as one segment. A segment grows beyond `longest`, where it leaves the
// caches and keeps other threads from sharing a long file, only where that saves much decoding.
std::vector<Segment> merge(const std::vector<Crop*>& sorted, long long longest) {
    std::vector<Segment> segments;
    for (Crop* const& crop : sorted) {
        Segment* last = segments.empty() ? nullptr : &segments.back();
        const bool touches = last && last->crops[0]->member == crop->member && crop->low <= last->high;
        const long long high = touches ? std::max(last->high, crop->high) : 0;
        const long long shared = touches ? std::min(last->high, crop->high) - crop->low : 0;
        const bool much = touches && shared * 8 >= crop->high - crop->low && high - last->low <= 4 * longest;
        if (touches && (high == last->high || high - last->low <= longest || much)) {
            last->high = high;
            ++last->count;
        } else {
            segments.push_back({crop->low, crop->high, &crop, 1});
        }
    }
    return segments;
}

// About how long a segment takes, in nanoseconds: WAV is copied, in other formats every code is read.
long long work_of(const Segment& segment, const Member* members) {
    const Member& member = members[segment.crops[0]->member];
    long long outputs = 0;
    for (long long i = 0; i < segment.count; ++i) outputs += segment.crops[i]->count;
    return (segment.high - segment.low) * member.channels * (member.format == kWav ? 1 : 3) + 2 * outputs;
}

// Fresh memory of a large batch costs more than decoding WAV into it, a fault each 4 KiB (0.11 ms for 236 KB of it on
// Zen 4): ask for pages of 2 MiB. Rows next to each other share one, and of threads that touch it first at the same
// time each would clear all of it: they had better fetch whole pages before. Wishes; where not granted, nothing
// changes.
class LargePages {
  public:
    LargePages(float* y, long long count) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        const uintptr_t begin = (reinterpret_cast<uintptr_t>(y) + kSize - 1) / kSize * kSize;
        const uintptr_t end = reinterpret_cast<uintptr_t>(y + count) / kSize * kSize;
        if (begin >= end) return;
        begin_ = begin;
        count_ = static_cast<long long>((end - begin) / kSize);
        madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
        (void)y;
        (void)count;
#endif
    }
    long long count() const { return count_; }
    // Leaves what the page holds. From Linux 5.14 on.
    void fetch(long long i) const {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        constexpr int populate_write = 23;  // MADV_POPULATE_WRITE
        madvise(reinterpret_cast<void*>(begin_ + static_cast<uintptr_t>(i) * kSize), kSize, populate_write);
#else
        (void)i;
#endif
    }

  private:
    static constexpr uintptr_t kSize = 2 << 20;
    uintptr_t begin_ = 0;
    long long count_ = 0;
};

// Segments, and ~page for each page, shortly before the rows that lie there: fetched earlier it leaves the caches.
std::vector<long long> in_turns(long long segments, long long pages, long long threads) {
    const long long used = std::min(threads, segments) > 1 ? pages : 0;
    std::vector<long long> order;
    order.reserve(static_cast<size_t>(segments + used));
    for (long long i = 0, page = 0; i < segments; ++i) {
        for (; page < used && page < i * used / segments + threads; ++page) order.push_back(~page);
        order.push_back(i);
    }
    return order;
}

}  // namespace

void fa_audio_probe(long long* members, long long count, long long threads) {
    Member* table = reinterpret_cast<Member*>(members);
    long long work = 0;
    for (long long i = 0; i < count; ++i) work += probing_work(table[i]);
    // Waking a team takes tens of microseconds: each thread must have more than that to do.
    fa::parallel_queue(count, std::min(threads, work / 50'000), [&](long long i) { probe(table[i]); });
}

void fa_audio_release(long long* members, long long count) {
    Member* table = reinterpret_cast<Member*>(members);
    for (long long i = 0; i < count; ++i) {
        delete reinterpret_cast<Mp3Stream*>(table[i].index);
        table[i].index = 0;
    }
}

long long fa_audio_decode(const long long* members, const long long* wanted, long long count, long long rate,
                          const long long* plans, long long plan_count, long long* outcomes, float* y, long long rows,
                          long long channels, long long length, long long longest, long long threads) {
    const Member* table = reinterpret_cast<const Member*>(members);
    std::vector<Crop> crops = make_crops(table, {wanted, wanted + count, wanted + 2 * count, wanted + 3 * count, count},
                                         reinterpret_cast<const Plan*>(plans), plan_count, rate, length, longest);
    std::vector<Crop*> sorted;
    sorted.reserve(crops.size());
    for (Crop& crop : crops) sorted.push_back(&crop);
    std::sort(sorted.begin(), sorted.end(), [](const Crop* a, const Crop* b) {
        return a->member != b->member ? a->member < b->member : a->low != b->low ? a->low < b->low : a < b;
    });
    std::vector<Segment> segments = merge(sorted, longest);
    // What takes longest first: the threads then end at about the same time.
    std::stable_sort(segments.begin(), segments.end(),
                     [&](const Segment& a, const Segment& b) { return work_of(a, table) > work_of(b, table); });
    const Batch batch(table, {y, channels, length});
    const LargePages pages(y, rows * channels * length);
    const std::vector<long long> order = in_turns(static_cast<long long>(segments.size()), pages.count(), threads);
    fa::parallel_queue(static_cast<long long>(order.size()), threads, [&](long long i) {
        const long long item = order[static_cast<size_t>(i)];
        if (item < 0) return pages.fetch(~item);
        batch.run(segments[static_cast<size_t>(item)]);
    });
    long long failed = 0;
    for (auto crop = crops.rbegin(); crop != crops.rend(); ++crop) {  // of several pieces the first trouble is told
        if (!crop->status) continue;
        outcomes[2 * crop->wanted] = crop->status;
        outcomes[2 * crop->wanted + 1] = crop->where;
        ++failed;
    }
    return failed;
}
