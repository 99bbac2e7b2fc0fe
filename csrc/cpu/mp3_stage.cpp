// MP3 crops for csrc/cuda/mp3_*.cu: the frames that each needs, their main data back to back, a descriptor for each
// granule and channel, and the order in which neighbouring threads have about as much to do.
#include <string.h>

#include <algorithm>
#include <memory>

#include "../codecs/mp3_gpu.h"
#include "api.h"
#include "mp3.h"
#include "parallel.h"

namespace {

using namespace fa;

// Rows of an int64 table that fastaug/codecs/device_mp3.py makes; the order of the fields is a contract with it.
struct Piece {
    long long address, index;    // of the member and its Mp3Stream, as in decode.cpp
    long long low, high;         // source samples, inside the file
    long long to, stride, row;   // as in FaMp3Crop
    long long from, last;        // found by fa_mp3_measure: first and last frame
    long long bytes, units;      // likewise: room for main data (kMp3Guard zeros at the end), number of units
    long long granules;          // likewise, those with samples of the crop
    long long status, where;     // likewise, and by fa_mp3_stage: as fa_audio_decode would say
    long long main_at, unit_at;  // given to fa_mp3_stage: where they begin
    const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(address); }
    const Mp3Stream& stream() const { return *reinterpret_cast<const Mp3Stream*>(index); }
    const Mp3Frame& frame(long long k) const { return stream().frames[static_cast<size_t>(k)]; }
};

// The first frame with main data that frames [from, to] may read.
long long first_with_data(const Piece& p) {
    long long needed = p.frame(p.from).main_before, at = p.from;
    for (long long k = p.from; k <= p.last; ++k)
        needed = std::min(needed, p.frame(k).main_before - p.frame(k).main_begin);
    while (at > 0 && p.frame(at).main_before > needed) --at;
    return at;
}

// As mp3_decode_range: two granules of warm-up, whole frames.
void measure(Piece& p) {
    const Mp3Stream& s = p.stream();
    const long long granules = s.header.samples / 576;
    p.bytes = p.units = p.granules = 0;
    p.status = p.high > s.total ? kTruncated : kOk;
    p.where = s.trouble;
    if (p.low >= p.high || p.status) return;
    const long long first = (p.low + s.skip) / 576, last = (p.high - 1 + s.skip) / 576;
    p.from = std::max<long long>(first - 2, 0) / granules;
    p.last = std::min(last / granules, static_cast<long long>(s.frames.size()) - 1);
    const Mp3Frame &begin = p.frame(first_with_data(p)), &end = p.frame(p.last);
    p.bytes = end.main_before + end.main_bytes - begin.main_before + kMp3Guard;
    p.units = (p.last - p.from + 1) * granules * s.header.channels;
    p.granules = last - first + 1;
}

FaMp3Crop crop_of(const Piece& p) {
    const Mp3Stream& s = p.stream();
    if (!p.units) return {0, 0, 0, -1, 0, 0, p.to, p.stride, p.row};
    const long long start = p.from * (s.header.samples / 576), first = (p.low + s.skip) / 576 - start;
    return {p.unit_at, s.header.channels, first, first + p.granules - 1, start * 576 - s.skip - p.low, p.high - p.low,
            p.to,      p.stride,          p.row};
}

// `count` bits from bit `at` on, left aligned; nine bytes are read.
uint64_t bits_at(const uint8_t* bytes, int at, int count) {
    const uint8_t* p = bytes + at / 8;
    const uint64_t next = p[8], word = at % 8 ? fa_mp3_load(p) << at % 8 | next >> (8 - at % 8) : fa_mp3_load(p);
    return word >> (64 - count) << (64 - count);
}

// The units of a frame whose main data begin at bit `begin`. False if they cannot be: a granule outside of the `bits`
// that are there, or with more than 576 lines.
bool describe_frame(const FaMp3Header& h, const uint8_t* side, long long begin, long long bits, FaMp3Unit* units) {
    uint8_t bytes[48] = {};
    memcpy(bytes, side, static_cast<size_t>(h.side));
    const int granules = h.samples / 576, size = h.version == 0 ? 59 : 63;
    const int head = h.version == 0 ? (h.channels == 1 ? 18 : 20) : 8 + h.channels;
    const bool joint = h.mode == 1;
    bool sane = begin >= 0;
    for (int n = 0; n < granules * h.channels; ++n) {
        const int granule = n / h.channels, channel = n % h.channels;
        const uint64_t word = bits_at(bytes, head + size * n, size);
        const FaMp3Fields f = fa_mp3_fields(word, h.version);
        uint32_t flags = static_cast<uint32_t>(h.version) | static_cast<uint32_t>(h.band) << 2 | kMp3Whole;
        if (granule == 1) {
            const int scfsi_at = (h.channels == 1 ? 14 : 12) + 4 * channel;
            flags |= static_cast<uint32_t>(bits_at(bytes, scfsi_at, 4) >> 60) << 6;
        }
        if (joint && h.mode_extension & 1) flags |= kMp3Intensity;
        if (joint && h.mode_extension & 2) flags |= kMp3MiddleSide;
        if (channel == 1) flags |= kMp3Right;
        units[n] = {static_cast<uint32_t>(word >> 32), static_cast<uint32_t>(word), static_cast<uint32_t>(begin),
                    flags};
        begin += f.part23;
        sane = sane && f.big <= kMp3Lines && begin <= bits;
    }
    return sane;
}

void stage(Piece& p, uint8_t* main, FaMp3Unit* units) {
    if (p.units == 0) return;
    const long long start = first_with_data(p), base = p.frame(start).main_before;
    for (long long k = start; k <= p.last; ++k) {
        const Mp3Frame& f = p.frame(k);
        memcpy(main + f.main_before - base, p.data() + f.main_offset, static_cast<size_t>(f.main_bytes));
    }
    memset(main + p.bytes - kMp3Guard, 0, kMp3Guard);
    const long long a_frame = p.units / (p.last - p.from + 1), offset = 8 * p.main_at;
    for (long long k = p.from; k <= p.last; ++k, units += a_frame) {
        const Mp3Frame& f = p.frame(k);
        FaMp3Header h = p.stream().header;
        fa_mp3_header(p.data() + f.offset, h);
        const bool reaches_back = f.main_before < f.main_begin;  // a stream cut out of a longer one: silence, no fault
        const long long begin = offset + 8 * (f.main_before - f.main_begin - base);
        const long long available = offset + 8 * (f.main_before + f.main_bytes - base);
        if (!reaches_back && describe_frame(h, p.data() + f.offset + 4 + h.crc, begin, available, units)) continue;
        memset(units, 0, static_cast<size_t>(a_frame) * sizeof *units);
        if (!reaches_back && p.status == kOk) {
            p.status = kCorrupt;
            p.where = f.offset;
        }
    }
}

int bucket(const FaMp3Unit& unit) { return 255 - static_cast<int>(unit.high >> 24); }  // sixteen lengths each

// Units that are there, those with the most bits first: what begins last shall not end last.
long long sort_units(const FaMp3Unit* units, long long count, uint32_t* order) {
    long long next[257] = {};
    for (long long i = 0; i < count; ++i) next[bucket(units[i]) + 1] += (units[i].flags & kMp3Whole) != 0;
    for (int b = 0; b < 256; ++b) next[b + 1] += next[b];
    const long long total = next[256];
    for (long long i = 0; i < count; ++i) {
        if (units[i].flags & kMp3Whole) order[next[bucket(units[i])]++] = static_cast<uint32_t>(i);
    }
    return total;
}

}  // namespace

long long fa_mp3_gpu_tables(unsigned char* to) {
    if (to) {
        const auto tables = std::make_unique<FaMp3Tables>();
        fa_mp3_fill_tables(*tables);
        fa_mp3_fill_gpu_tables(*tables, *reinterpret_cast<FaMp3GpuTables*>(to));
    }
    return static_cast<long long>(sizeof(FaMp3GpuTables));
}

void fa_mp3_measure(long long* pieces, long long count) {
    Piece* table = reinterpret_cast<Piece*>(pieces);
    for (long long i = 0; i < count; ++i) measure(table[i]);
}

long long fa_mp3_stage(long long* pieces, long long count, unsigned char* main, unsigned* units, unsigned* order,
                       long long unit_count, long long* crops, long long threads) {
    Piece* table = reinterpret_cast<Piece*>(pieces);
    FaMp3Unit* all = reinterpret_cast<FaMp3Unit*>(units);
    fa::parallel_queue(count, threads, [&](long long i) {
        stage(table[i], main + table[i].main_at, all + table[i].unit_at);
        reinterpret_cast<FaMp3Crop*>(crops)[i] = crop_of(table[i]);
    });
    return sort_units(all, unit_count, order);
}
