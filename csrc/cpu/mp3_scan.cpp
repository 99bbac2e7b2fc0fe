// The frames of an MP3 file, and how much of them is the recording.
#include <string.h>

#include <algorithm>

#include "mp3.h"

namespace fa {
namespace {

constexpr int kAgreeing = 2;           // headers that must follow one another before a sync word is believed
constexpr int kUsualBytes = 128;       // of a frame, where the first one's tell nothing: room is made for as many
constexpr long long kAhead = 12;       // frames: where a constant rate has a header that no cache holds yet
constexpr int kLongestFree = 1 << 13;  // bytes of a frame of free format (640 kbit/s at 8 kHz is 5760)

struct Span {
    const uint8_t* data;
    long long begin, end;

    bool has(long long at, const char* text, size_t count) const {
        return at >= begin && at + static_cast<long long>(count) <= end && memcmp(data + at, text, count) == 0;
    }
};

long long big_endian(const uint8_t* p, int count) {
    long long value = 0;
    for (int i = 0; i < count; ++i) value = value << 8 | p[i];
    return value;
}

long long little_endian(const uint8_t* p, int count) {
    long long value = 0;
    for (int i = count; i-- > 0;) value = value << 8 | p[i];
    return value;
}

long long synchsafe(const uint8_t* p) {
    return static_cast<long long>(p[0] & 127) << 21 | (p[1] & 127) << 14 | (p[2] & 127) << 7 | (p[3] & 127);
}

// RIFF with MPEG inside: its data chunk is the stream.
void skip_riff(Span& span) {
    if (!span.has(span.begin, "RIFF", 4) || !span.has(span.begin + 8, "WAVE", 4)) return;
    for (long long at = span.begin + 12; at + 8 <= span.end;) {
        const long long size = little_endian(span.data + at + 4, 4);
        if (span.has(at, "data", 4)) {
            span.begin = at + 8;
            if (size && span.begin + size < span.end) span.end = span.begin + size;
            return;
        }
        at += 8 + size + (size & 1);
    }
}

void skip_leading_tags(Span& span) {
    while (span.begin + 10 <= span.end) {
        if (span.has(span.begin, "ID3", 3)) {
            const long long footer = span.data[span.begin + 5] & 0x10 ? 10 : 0;
            span.begin = std::min(span.end, span.begin + 10 + footer + synchsafe(span.data + span.begin + 6));
        } else if (span.has(span.begin, "APETAGEX", 8) && span.begin + 32 <= span.end) {
            span.begin = std::min(span.end, span.begin + 32 + little_endian(span.data + span.begin + 12, 4));
        } else {
            return;
        }
    }
}

// Drops what players append: ID3v1 and its extension, APE tags, Lyrics3, ID3v2 footers.
void drop_trailing_tags(Span& span) {
    for (;;) {
        const long long before = span.end;
        if (span.has(span.end - 128, "TAG", 3)) span.end -= 128;
        if (span.has(span.end - 227, "TAG+", 4)) span.end -= 227;
        if (span.has(span.end - 9, "LYRICS200", 9) && span.end - 15 >= span.begin) {
            long long size = 0;
            for (int i = 0; i < 6; ++i) size = 10 * size + (span.data[span.end - 15 + i] & 15);
            if (span.has(span.end - 15 - size, "LYRICSBEGIN", 11)) span.end -= 15 + size;
        }
        if (span.has(span.end - 32, "APETAGEX", 8)) {
            const uint8_t* footer = span.data + span.end - 32;
            const long long header = footer[23] & 0x80 ? 32 : 0, size = little_endian(footer + 12, 4) + header;
            if (size >= 32 && span.end - size >= span.begin) span.end -= size;
        }
        if (span.has(span.end - 10, "3DI", 3)) {
            const long long size = 20 + synchsafe(span.data + span.end - 4);
            if (span.has(span.end - size, "ID3", 3)) span.end -= size;
        }
        if (span.end == before || span.end <= span.begin) return;
    }
}

bool header_at(const Span& span, long long at, FaMp3Header& h) {
    return at >= span.begin && at + 4 <= span.end && fa_mp3_header(span.data + at, h);
}

bool same_stream(const FaMp3Header& a, const FaMp3Header& b) {
    return fa_mp3_same_stream(a, b) && a.channels == b.channels;
}

// Length of a frame of free format: the distance to the next header with the same fixed bits, less its padding.
int free_length(const Span& span, long long at, const FaMp3Header& h) {
    FaMp3Header next;
    for (int n = 4 + h.crc + h.side; n < kLongestFree && at + n + 4 <= span.end; ++n) {
        if (header_at(span, at + n, next) && next.kbps == 0 && fa_mp3_same_stream(h, next)) {
            const int bare = n - h.padding;
            FaMp3Header third;
            if (header_at(span, at + n + bare + next.padding, third) && fa_mp3_same_stream(h, third)) return bare;
        }
    }
    return 0;
}

int frame_bytes(const FaMp3Header& h, int free_bytes) {
    return h.kbps ? h.bytes : free_bytes ? free_bytes + h.padding : 0;
}

// Whether a chain of frames begins at `at`: kAgreeing headers follow, or the file ends with a whole frame.
bool chain_at(const Span& span, long long at, const FaMp3Header* stream, int& free_bytes) {
    FaMp3Header first, h;
    if (!header_at(span, at, first) || (stream && !same_stream(*stream, first))) return false;
    if (first.layer != 3) return false;
    int length = free_bytes;
    if (!first.kbps && !length && !(length = free_length(span, at, first))) return false;
    long long next = at + frame_bytes(first, length);
    for (int i = 0; i < kAgreeing && next != span.end; ++i) {
        if (next + 4 > span.end) return i > 0 || stream != nullptr;
        if (!header_at(span, next, h) || !same_stream(first, h)) return false;
        next += frame_bytes(h, length);
    }
    free_bytes = first.kbps ? free_bytes : length;
    return true;
}

// First chain at or behind `at`, or the end.
long long find_chain(const Span& span, long long at, const FaMp3Header* stream, int& free_bytes) {
    for (; at + 4 <= span.end; ++at) {
        const void* found = memchr(span.data + at, 0xFF, static_cast<size_t>(span.end - at));
        if (!found) break;
        at = static_cast<const uint8_t*>(found) - span.data;
        if (chain_at(span, at, stream, free_bytes)) return at;
    }
    return span.end;
}

// Layers I and II: nothing but their headers are known here, and those must repeat.
bool other_layer(const Span& span) {
    FaMp3Header h;
    return header_at(span, span.begin, h) && h.layer != 3;
}

// The frame of Xing, LAME or VBRI that holds no audio: trims the stream as it says.
bool read_tag(const Span& span, long long at, const FaMp3Header& h, int bytes, Mp3Stream& s, long long& tagged) {
    const Span frame = {span.data, at, std::min(at + bytes, span.end)};
    if (frame.has(at + 36, "VBRI", 4) && at + 54 <= frame.end) {
        tagged = big_endian(span.data + at + 50, 4);
        return true;
    }
    // Some encoders count the checksum before the tag, others do not.
    for (const int crc : {0, 2}) {
        long long p = at + 4 + h.side + crc;
        if (!frame.has(p, "Xing", 4) && !frame.has(p, "Info", 4)) continue;
        if (p + 8 > frame.end) return true;
        const long long flags = big_endian(span.data + p + 4, 4);
        p += 8;
        if (flags & 1 && p + 4 <= frame.end) tagged = big_endian(span.data + p, 4);
        p += (flags & 1 ? 4 : 0) + (flags & 2 ? 4 : 0) + (flags & 4 ? 100 : 0) + (flags & 8 ? 4 : 0);
        if (p + 24 <= frame.end && (frame.has(p, "LAME", 4) || frame.has(p, "Lav", 3) || frame.has(p, "L3.99", 5))) {
            const long long trims = big_endian(span.data + p + 21, 3), delay = trims >> 12, padding = trims & 0xFFF;
            s.skip = delay + 529;                             // the decoder's own delay
            s.total = std::max<long long>(0, padding - 529);  // to be taken off
        }
        return true;
    }
    return false;
}

void flag(Mp3Stream& s, int status, long long at) {
    if (s.status == kOk) {
        s.status = status;
        s.trouble = at;
    }
}

// Samples, at the rate of `s`, of another stream that begins at or behind `at`, where no more frames of `s` are; zero
// if there is none.
long long other_stream(const Span& span, long long at, const Mp3Stream& s, long long& found) {
    int free_bytes = 0;
    FaMp3Header h, first;
    found = at = find_chain(span, at, nullptr, free_bytes);
    if (!header_at(span, at, first)) return 0;
    long long frames = 0;
    while (header_at(span, at, h) && same_stream(first, h) && at + frame_bytes(h, free_bytes) <= span.end) {
        at += frame_bytes(h, free_bytes);
        ++frames;
    }
    return frames > kAgreeing ? frames * first.samples * s.header.rate / first.rate : 0;
}

}  // namespace

int mp3_scan(const uint8_t* data, long long size, Mp3Stream& s) {
    s = {};
    Span span = {data, 0, size};
    skip_leading_tags(span);
    skip_riff(span);
    skip_leading_tags(span);
    drop_trailing_tags(span);
    if (other_layer(span)) return s.status = kUnsupported;
    int free_bytes = 0;
    long long at = find_chain(span, span.begin, nullptr, free_bytes), main_before = 0, tagged = -1, changed = 0;
    if (at == span.end) return s.status = size ? kUnsupported : kEmpty;
    fa_mp3_header(data + at, s.header);
    const int first_bytes = frame_bytes(s.header, free_bytes);
    if (read_tag(span, at, s.header, first_bytes, s, tagged)) at += first_bytes;
    s.frames.reserve(static_cast<size_t>((span.end - at) / std::max(first_bytes, kUsualBytes) + 2));
    while (at + 4 <= span.end) {
        FaMp3Header h;
        if (!header_at(span, at, h) || !same_stream(s.header, h)) {
            const long long lost = at;
            at = find_chain(span, at + 1, &s.header, free_bytes);
            long long other;
            if (at == span.end && (changed = other_stream(span, lost, s, other)) > 0) {
                s.status = kChanged;
                s.trouble = other;
            }
            flag(s, kGap, lost);
            continue;
        }
        const int bytes = frame_bytes(h, free_bytes), head = 4 + h.crc + h.side;
        __builtin_prefetch(data + std::min(at + kAhead * bytes, span.end - 1));
        if (bytes < head) {
            flag(s, kCorrupt, at);
            at += 4;
            continue;
        }
        if (at + bytes > span.end) {
            flag(s, kTruncated, at);
            break;
        }
        const uint8_t* side = data + at + 4 + h.crc;
        const int main_begin = h.version == 0 ? side[0] << 1 | side[1] >> 7 : side[0];
        s.frames.push_back({at, at + head, main_before, bytes - head, main_begin});
        main_before += bytes - head;
        at += bytes;
    }
    const long long count = static_cast<long long>(s.frames.size()), padding = s.total;
    // A stream that was cut ends with sound, not with padding.
    const bool whole = tagged < 0 || count >= tagged;
    s.total = std::max<long long>(0, count * s.header.samples - s.skip - (whole ? padding : 0));
    long long cut = 0;
    while (cut < count &&
           s.frames[static_cast<size_t>(cut)].main_before < s.frames[static_cast<size_t>(cut)].main_begin)
        ++cut;
    s.silent = std::clamp(cut * s.header.samples - s.skip, 0ll, s.total);
    s.announced = tagged < 0 ? 0 : std::max<long long>(0, tagged * s.header.samples - s.skip - padding);
    if (changed > 0) s.announced = s.total + changed;
    return s.status;
}

}  // namespace fa
