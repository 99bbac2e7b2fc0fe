// Finds FLAC frames: the facts of a file, and the frames of a range. A header counts if its CRC-8 is right, it agrees
// with the stream and its number does not go back; it is believed only once its frame decodes with the right CRC-16.
#include "flac.h"

#include <string.h>

#include <algorithm>
#include <iterator>

#include "api.h"
#include "flac_frame.h"

namespace fa {
namespace {

constexpr int kFormatFlac = 2;                     // AudioFormat::kFlac of codecs/probe.h
constexpr long long kHeaderlessSearch = 64 << 10;  // bytes in which a stream without "fLaC" must begin
constexpr long long kSmallestFrame = 6 + 1 + 2;
constexpr long long kBudget = 1 << 26;  // samples that may be decoded in vain: half a second's work
constexpr long long kWalk = 32 << 10;   // bytes below which walking frame by frame beats guessing

struct Candidate {
    long long offset = -1;   // of its header
    long long position = 0;  // of its first sample
    FaFlacFrame frame = {};
};

// A place between frames: the next one should stand at `offset` and begin with sample `position`.
struct Cursor {
    long long offset, position;
};

class Reader {
  public:
    Reader(const uint8_t* data, const AudioInfo& info, FlacScratch& scratch)
        : data_(data), info_(info), scratch_(scratch) {
        budget_ = kBudget + 8 * info.data_end;
    }

    // A header at `offset` with the facts of the stream.
    bool header_at(long long offset, Candidate& found) const {
        if (!fa_flac_frame_header(data_ + offset, info_.data_end - offset, found.frame)) return false;
        if (!agrees(found.frame) || (info_.block && !found.frame.variable && found.frame.block > info_.block)) {
            return false;
        }
        found.offset = offset;
        found.position = position(found.frame);
        return true;
    }

    // A header at `offset` that is right but tells another rate, number of channels or depth.
    bool change_at(long long offset) const {
        FaFlacFrame frame;
        return fa_flac_frame_header(data_ + offset, info_.data_end - offset, frame) && !agrees(frame);
    }

    // The first header in [from, to) whose first sample is in [low, high].
    bool search(long long from, long long to, long long low, long long high, Candidate& found) const {
        to = std::min(to, info_.data_end - 1);
        while (from < to) {
            const void* sync = memchr(data_ + from, 0xFF, static_cast<size_t>(to - from));
            if (!sync) return false;
            from = static_cast<const uint8_t*>(sync) - data_;
            if ((data_[from + 1] & 0xFE) == 0xF8 && header_at(from, found) && found.position >= low &&
                found.position <= high) {
                return true;
            }
            ++from;
        }
        return false;
    }

    int decode(const Candidate& candidate, long long& next) {
        const FaFlacFrame& frame = candidate.frame;
        const int status = flac_frame(data_, info_.data_end, candidate.offset, frame, info_.bits, scratch_, next);
        if (status) scratch_.spent += frame.block * frame.channels + (next - candidate.offset);
        return status;
    }

    bool exhausted() const { return scratch_.spent > budget_; }

    // The header of the frame behind `here`, by its number alone.
    bool follower(const Candidate& here, Candidate& found) const {
        const long long position = here.position + here.frame.block;
        const long long from = here.offset + kSmallestFrame;
        return search(from, from + largest_frame(here.frame), position, position, found);
    }

    // From the start of the stream to the frame that holds sample `target`, or to the end. Headers lead from frame to
    // frame; where the next is missing, or with `surely`, frames are decoded to find out what is one.
    Cursor walk(long long target, bool surely) {
        Cursor at = {info_.data_offset, 0};
        long long from = at.offset, behind = 0;
        Candidate here, next, before;  // before: whose number alone led to `at`
        while (!exhausted() && search(from, info_.data_end, at.position, target, here)) {
            const bool expected = here.offset == at.offset && here.position == at.position;
            const long long end = here.position + here.frame.block;
            if (expected && end > target) return at;
            if (expected && !surely && follower(here, next)) {
                at = {next.offset, next.position};
                before = here;
            } else if (decode(here, behind) != kOk) {
                const bool misled = before.offset >= 0 && (decode(before, behind) != kOk || behind != at.offset);
                if (misled) return walk(target, true);
                before.offset = -1;
                from = here.offset + 1;
                continue;
            } else if (end > target) {
                return {here.offset, here.position};
            } else {
                scratch_.spent += here.frame.block * here.frame.channels;
                at = {behind, end};
                before.offset = -1;
            }
            from = at.offset;
        }
        return at;
    }

    // The same, guessed from the bytes: right unless frames are damaged or missing, which decoding then shows.
    Cursor locate(long long target) {
        Candidate low, found;
        if (!header_at(info_.data_offset, low) || low.position) return walk(target, false);
        Cursor high = {info_.data_end, info_.total};
        for (int i = 0; i < 32 && high.offset - low.offset > kWalk && !holds(low, target); ++i) {
            const double each =
                static_cast<double>(high.offset - low.offset) / static_cast<double>(high.position - low.position);
            const double ahead = (static_cast<double>(target - low.position) - low.frame.block) * each;
            const long long guess = low.offset + 1 + std::max(0ll, static_cast<long long>(ahead));
            if (guess >= high.offset || !search(guess, high.offset, low.position + 1, high.position - 1, found)) {
                high.offset = std::min(guess, high.offset - 1);
            } else if (found.position <= target) {
                low = found;
            } else {
                high = {found.offset, found.position};
            }
        }
        while (!holds(low, target)) {
            if (!follower(low, found)) return walk(target, false);
            low = found;
        }
        return {low.offset, low.position};
    }

  private:
    bool agrees(const FaFlacFrame& f) const {
        return (!f.rate || f.rate == info_.rate) && (!f.bits || f.bits == info_.bits) && f.channels == info_.channels;
    }

    long long position(const FaFlacFrame& f) const {
        return (f.variable || !info_.block ? f.number : f.number * info_.block) - info_.origin;
    }

    static bool holds(const Candidate& here, long long target) {
        return here.position <= target && target < here.position + here.frame.block;
    }

    // Twice the verbatim size, and some: no encoder writes more. A larger frame only makes the walk decode.
    long long largest_frame(const FaFlacFrame& f) const { return (info_.bits + 1ll) * f.channels * f.block / 4 + 4096; }

    const uint8_t* data_;
    const AudioInfo& info_;
    FlacScratch& scratch_;
    long long budget_;
};

// The first trouble is what a caller hears of.
void note(int& status, long long& trouble, int what, long long where) {
    if (status) return;
    status = what;
    trouble = where;
}

template <class Sample>
class Range {
  public:
    Range(const uint8_t* data, const AudioInfo& info, long long start, long long length, Sample* out, long long stride,
          FlacScratch& scratch)
        : reader_(data, info, scratch), info_(info), scratch_(scratch), start_(start), out_(out), stride_(stride) {
        low_ = std::clamp(start, 0ll, info.total);
        high_ = std::clamp(length > info.total - start ? info.total : start + length, low_, info.total);
        length_ = length;
    }

    int run() {
        int status = kOk;
        filled_ = start_;
        if (low_ < high_) {
            status = frames(reader_.locate(low_), kGuessed);
        }
        fill(start_ + length_);
        return status;
    }

  private:
    // How the first frame was found. Until one has decoded, trouble may come from where we looked: from a header inside
    // another frame, or behind damage. Then the next way is tried, so that a range tells what the whole would tell.
    enum Trust { kGuessed, kWalked, kDecoded };

    int frames(Cursor at, Trust trust) {
        int status = kOk;
        Candidate here;
        while (at.position < high_ && !reader_.exhausted()) {
            const bool inside = at.offset < info_.data_end;
            const bool expected = inside && reader_.header_at(at.offset, here) && here.position == at.position;
            long long next = 0;
            const int decoded = expected ? reader_.decode(here, next) : kGap;
            if (decoded && trust == kGuessed) return frames(reader_.walk(low_, false), kWalked);
            if (decoded && trust == kWalked) return frames(reader_.walk(low_, true), kDecoded);
            trust = kDecoded;
            if (decoded) {
                if (!skip(at, decoded, status)) break;
                continue;
            }
            emit(here);
            at = {next, here.position + here.frame.block};
        }
        if (at.position < high_) note(status, scratch_.trouble, reader_.exhausted() ? kCorrupt : kTruncated, at.offset);
        return status;
    }

    // Past what is no frame at `at` (for the reason `why`) to the next one that decodes.
    bool skip(Cursor& at, int why, int& status) {
        if (at.offset < info_.data_end && reader_.change_at(at.offset)) why = kChanged;
        Candidate here;
        long long from = at.offset + (why == kGap ? 0 : 1), next;
        while (!reader_.exhausted() && reader_.search(from, info_.data_end, at.position, info_.total - 1, here)) {
            if (reader_.decode(here, next) == kOk) {
                note(status, scratch_.trouble, why == kTruncated ? kCorrupt : why, at.offset);
                emit(here);
                at = {next, here.position + here.frame.block};
                return true;
            }
            from = here.offset + 1;
        }
        if (why != kGap) note(status, scratch_.trouble, why, at.offset);
        return false;
    }

    // Zeros from what is filled up to sample `to`.
    void fill(long long to) {
        for (int c = 0; c < info_.channels && to > filled_; ++c) {
            std::fill_n(out_ + c * stride_ + (filled_ - start_), to - filled_, Sample(0));
        }
        filled_ = std::max(filled_, to);
    }

    void emit(const Candidate& here) {
        const long long first = std::max({here.position, low_, filled_});
        const long long last = std::min(here.position + here.frame.block, high_);
        if (first >= last) return;
        fill(first);
        flac_emit(here.frame, info_.bits, scratch_, first - here.position, last - first, out_ + (first - start_),
                  stride_);
        filled_ = last;
    }

    Reader reader_;
    const AudioInfo& info_;
    FlacScratch& scratch_;
    long long start_, length_ = 0, low_, high_, filled_ = 0;
    Sample* out_;
    long long stride_;
};

template <class Sample>
int decode_range(const uint8_t* data, long long size, const AudioInfo& info, long long start, long long length,
                 Sample* out, long long stride, FlacScratch& scratch) {
    scratch.trouble = -1;
    scratch.spent = 0;
    if (length <= 0) return kOk;
    if (info.data_end > size) return kBadHeader;  // of other bytes
    start = std::clamp(start, -(1ll << 61), 1ll << 61);
    return Range<Sample>(data, info, start, length, out, stride, scratch).run();
}

bool starts_with(const uint8_t* data, long long size, const char* word) {
    const long long length = static_cast<long long>(strlen(word));
    return size >= length && memcmp(data, word, static_cast<size_t>(length)) == 0;
}

// Behind the ID3v2 tags, however many.
long long behind_id3(const uint8_t* data, long long size) {
    long long at = 0;
    while (size - at >= 10 && starts_with(data + at, size - at, "ID3")) {
        const uint8_t* p = data + at;
        if ((p[6] | p[7] | p[8] | p[9]) & 0x80) break;
        const long long body = p[6] << 21 | p[7] << 14 | p[8] << 7 | p[9];
        at = std::min(size, at + 10 + body + (p[5] & 0x10 ? 10 : 0));
    }
    return at;
}

struct Container {
    bool marked = false;     // "fLaC" stands there
    bool described = false;  // and a STREAMINFO
    long long search = 0;    // frames can begin here at the earliest
    long long first = 0;     // they should begin here
    long long end = 0;       // and end here at the latest
    FaFlacStream stream = {};
};

Container open_container(const uint8_t* data, long long size) {
    Container c;
    long long at = behind_id3(data, size);
    c.end = size - at > 128 && starts_with(data + size - 128, 128, "TAG") ? size - 128 : size;
    c.search = c.first = at;
    if (!starts_with(data + at, c.end - at, "fLaC")) return c;
    c.marked = true;
    at += 4;
    c.search = at;
    for (bool last = false; !last && c.end - at >= 4;) {
        const int type = data[at] & 127;
        const long long length = static_cast<long long>(fa_flac_integer(data + at + 1, 3));
        if (type == 127) break;  // forbidden, because a frame would begin so
        last = data[at] >> 7;
        if (type == 0 && !c.described && c.end - at >= 38) {
            c.stream = fa_flac_stream(data + at + 4);
            c.described = true;
            c.search = at + 38;
        }
        at += 4 + length;
    }
    c.first = std::min(at, c.end);
    return c;
}

// Rate, channels and depth that hold for `frame`; false where neither it nor STREAMINFO has them.
bool take_facts(const FaFlacFrame& frame, const Container& c, AudioInfo& info) {
    info.rate = frame.rate ? frame.rate : c.stream.rate;
    info.bits = frame.bits ? frame.bits : c.described ? c.stream.bits : 0;
    info.channels = frame.channels;
    return info.rate > 0 && info.bits >= 4;
}

// Whether a whole frame stands at `offset`; its facts become those of the stream.
bool whole_frame(const uint8_t* data, const Container& c, long long offset, AudioInfo& info, FlacScratch& scratch,
                 FaFlacFrame& frame) {
    if (!fa_flac_frame_header(data + offset, c.end - offset, frame) || !take_facts(frame, c, info)) return false;
    long long next;
    const int status = flac_frame(data, c.end, offset, frame, info.bits, scratch, next);
    if (status) scratch.spent += frame.block * frame.channels + (next - offset);
    return status == kOk;
}

// Where the frames begin, and the facts of the stream.
bool first_frame(const uint8_t* data, const Container& c, AudioInfo& info, FaFlacFrame& frame) {
    FlacScratch scratch;
    const FaFlacStream& s = c.stream;
    if (c.described && c.first < c.end && fa_flac_frame_header(data + c.first, c.end - c.first, frame) &&
        take_facts(frame, c, info) && info.rate == s.rate && info.bits == s.bits && info.channels == s.channels) {
        info.data_offset = c.first;
        return true;
    }
    if (c.first < c.end && whole_frame(data, c, c.first, info, scratch, frame)) {
        info.data_offset = c.first;
        return true;
    }
    const long long to = c.marked ? c.end - 1 : std::min(c.end - 1, c.search + kHeaderlessSearch);
    for (long long at = c.search; at < to && scratch.spent < (1 << 24); ++at) {
        const void* sync = memchr(data + at, 0xFF, static_cast<size_t>(to - at));
        if (!sync) break;
        at = static_cast<const uint8_t*>(sync) - data;
        if ((data[at + 1] & 0xFE) == 0xF8 && whole_frame(data, c, at, info, scratch, frame)) {
            info.data_offset = at;
            return true;
        }
    }
    return false;
}

// What the numbers in the headers count. Before FLAC 1.2.1 streams with changing block sizes counted samples without
// saying so (9.1.1 forbids it now): the second frame tells.
void understand_numbers(const uint8_t* data, const Container& c, const FaFlacFrame& first, AudioInfo& info) {
    const FaFlacStream& s = c.stream;
    const bool constant = c.described && s.smallest_block == s.largest_block;
    info.block = first.variable ? 0 : first.block;
    if (!first.variable && !(constant && first.block == s.largest_block)) {
        FlacScratch scratch;
        AudioInfo by_number = info;
        by_number.block = 0;
        const Reader reader(data, by_number, scratch);
        Candidate one, two;
        one.offset = info.data_offset;
        one.position = first.number;
        one.frame = first;
        const bool samples = reader.follower(one, two) && first.block > 1;
        one.position += 1 - first.block;
        const bool frames = reader.follower(one, two);
        if (samples && !frames) info.block = 0;
        if (!samples && !frames && constant && first.number > 0) info.block = s.largest_block;
    }
    const long long position = info.block ? first.number * info.block : first.number;
    const bool fits = s.total > 0 && position + first.block <= s.total;
    info.origin = fits ? 0 : position;
}

// The last frame if it ends with STREAMINFO's last sample and its CRC-16 is right up to the end of the data.
bool ends_as_told(const uint8_t* data, const Container& c, int block, const AudioInfo& info) {
    if (!c.stream.total) return false;
    FlacScratch scratch;
    const Reader reader(data, info, scratch);
    const long long window = (info.bits + 1ll) * info.channels * block / 8 + 4096;
    int tries = 0;
    for (long long at = c.end - kSmallestFrame; at >= std::max(info.data_offset, c.end - window); --at) {
        Candidate last;
        if (data[at] == 0xFF && (data[at + 1] & 0xFE) == 0xF8 && reader.header_at(at, last) &&
            last.position + last.frame.block == c.stream.total) {
            if (flac_crc16(data + at, c.end - at) == 0) return true;
            if (++tries == 8) return false;  // the header stood inside another frame
        }
    }
    return false;
}

}  // namespace

int flac_probe(const uint8_t* data, long long size, AudioInfo& info) {
    info = AudioInfo();
    if (size <= 0) return info.status = kEmpty;
    const Container c = open_container(data, size);
    info.data_end = c.end;
    FaFlacFrame first;
    if (!first_frame(data, c, info, first)) {
        info.format = c.marked ? kFormatFlac : 0;
        info.trouble = c.first;
        return info.status = c.marked ? kNoData : kUnsupported;
    }
    info.format = kFormatFlac;
    understand_numbers(data, c, first, info);
    const FaFlacStream& s = c.stream;
    if (c.described && (s.rate != info.rate || s.bits != info.bits || s.channels != info.channels)) {
        note(info.status, info.trouble, kMislabeled, c.search - 34);
    }
    if (info.data_offset != c.first) note(info.status, info.trouble, kGap, c.first);
    info.total = info.announced = s.total;
    if (ends_as_told(data, c, std::max(first.block, s.largest_block), info)) return info.status;

    FlacScratch scratch;
    info.total = 1ll << 62;
    const Cursor end = Reader(data, info, scratch).walk(info.total, false);
    info.total = end.position;
    const bool changed = end.offset < c.end && Reader(data, info, scratch).change_at(end.offset);
    if (changed) {
        note(info.status, info.trouble, kChanged, end.offset);
    } else if (s.total > end.position) {
        note(info.status, info.trouble, kTruncated, end.offset);
    } else if (s.total && s.total < end.position) {
        note(info.status, info.trouble, kMislabeled, c.search - 34);
    }
    info.data_end = end.offset;
    if (info.total == 0) info.status = kNoData;
    return info.status;
}

bool flac_md5(const uint8_t* data, long long size, uint8_t md5[16]) {
    const Container c = open_container(data, size);
    memcpy(md5, c.stream.md5, 16);
    return std::any_of(md5, md5 + 16, [](uint8_t byte) { return byte != 0; });
}

int flac_decode_range(const uint8_t* data, long long size, const AudioInfo& info, long long start, long long length,
                      float* out, long long out_stride, FlacScratch& scratch) {
    return decode_range(data, size, info, start, length, out, out_stride, scratch);
}

int flac_decode_range(const uint8_t* data, long long size, const AudioInfo& info, long long start, long long length,
                      int32_t* out, long long out_stride, FlacScratch& scratch) {
    return decode_range(data, size, info, start, length, out, out_stride, scratch);
}

int flac_find_frames(const uint8_t* data, long long size, const AudioInfo& info, long long low, long long high,
                     std::vector<FlacSpan>& frames, FlacScratch& scratch) {
    scratch.trouble = -1;
    scratch.spent = 0;
    if (info.data_end > size) return kBadHeader;  // of other bytes
    Reader reader(data, info, scratch);
    Cursor at = reader.locate(low);
    Candidate here, next;
    while (at.position < high) {
        if (at.offset >= info.data_end || !reader.header_at(at.offset, here) || here.position != at.position) {
            return kGap;
        }
        const long long position = here.position + here.frame.block;
        if (position < info.total && !reader.follower(here, next)) return kCorrupt;
        const long long end = position < info.total ? next.offset : info.data_end;
        if (!FA_FUZZING && flac_crc16(data + here.offset, end - here.offset) != 0) return kCorrupt;
        const FaFlacFrame& f = here.frame;
        frames.push_back({here.offset, end, here.position, f.bytes, f.block, f.channels, f.stereo});
        at = {end, position};
    }
    return kOk;
}

}  // namespace fa

int fa_flac_probe(const unsigned char* data, long long size, long long* facts, unsigned char* md5) {
    fa::AudioInfo info;
    const int status = fa::flac_probe(data, size, info);
    const long long values[] = {info.rate,  info.channels,    info.bits,     info.total,
                                info.block, info.data_offset, info.data_end, info.trouble};
    std::copy(std::begin(values), std::end(values), facts);
    if (size > 0) fa::flac_md5(data, size, md5);
    return status;
}

int fa_flac_decode(const unsigned char* data, long long size, long long start, long long length, float* floats,
                   int* integers, long long stride, long long* trouble) {
    static thread_local fa::FlacScratch scratch;
    fa::AudioInfo info;
    const int probed = fa::flac_probe(data, size, info);
    if (!fa::status_usable(probed)) return probed;
    const int status = floats ? fa::flac_decode_range(data, size, info, start, length, floats, stride, scratch)
                              : fa::flac_decode_range(data, size, info, start, length, integers, stride, scratch);
    *trouble = scratch.trouble;
    return status;
}
