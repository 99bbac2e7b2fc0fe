// Probe and ranges of any bytes: no access outside them or outside the rows, no status off the list, the same samples
// from a fresh and from a used scratch, and of a range as of two ranges that meet. What a GPU would make of the frames
// of that range (flac_lanes.h, its CRC-16 not looked at) is refused where the CPU refuses it, and else the same.
#include "../../csrc/codecs/flac_lanes.h"
#include "../../csrc/cpu/flac_frame.h"
#include "fuzz.h"

#include <string.h>

namespace {

constexpr long long kLongest = 3000;
constexpr float kUnwritten = 12345.0f;

template <class Sample>
std::vector<Sample> range(const uint8_t* data, long long size, const fa::AudioInfo& info, long long start,
                          long long length, fa::FlacScratch& scratch) {
    std::vector<Sample> out(static_cast<size_t>(info.channels * length), Sample(kUnwritten));
    const int status = fa::flac_decode_range(data, size, info, start, length, out.data(), length, scratch);
    FUZZ_CHECK(fa::status_usable(status));
    FUZZ_CHECK(status == fa::kOk || (scratch.trouble >= 0 && scratch.trouble <= size));
    return out;
}

struct Lanes {
    std::vector<uint32_t> words;
    std::vector<int32_t> x, facts;

    // The samples of channel c from x[c * block * 32] on, each 32nd. `bytes`: the frame and no more.
    bool decode(const uint8_t* bytes, long long size, const FaFlacFrame& frame, int bits) {
        const size_t plane = static_cast<size_t>(frame.block) * kFlacLanes;
        words.assign(static_cast<size_t>((size + 3) / 4), 0);
        memcpy(words.data(), bytes, static_cast<size_t>(size));
        x.assign(plane * static_cast<size_t>(frame.channels + 1), 0);
        facts.assign(static_cast<size_t>(frame.channels * kFlacFacts * kFlacLanes), -1);
        FaWords reader = fa_words_open(reinterpret_cast<const uint8_t*>(words.data()), frame.bytes, size);
        const FaFlacShape shape = {frame.block, frame.channels, frame.stereo, bits};
        int32_t* above = x.data() + plane * static_cast<size_t>(frame.channels);
        bool good = true;
        for (int c = 0; c < frame.channels && good; ++c) {
            int32_t *mine = x.data() + plane * static_cast<size_t>(c), *fact = &facts[static_cast<size_t>(c) * 36 * 32];
            const bool wide = c == fa_flac_wide_channel(shape);
            good = fa_flac_read_channel(reader, frame.block, fa_flac_depth(frame, bits, c), fact, mine,
                                        wide ? above : nullptr);
            if (!good) break;
            good = wide ? fa_flac_restore_wide(fact, frame.block, mine, above)
                        : fa_flac_restore<32>(fact, frame.block, mine);
        }
        return good && (frame.bytes & ~3) + (fa_bits_position(reader) + 7) / 8 + 2 == size;
    }
};

// Frames that a GPU is given, one by one.
void compare_lanes(const uint8_t* data, long long size, const fa::AudioInfo& info, long long low, long long high) {
    static Lanes lanes;
    fa::FlacScratch scratch;
    std::vector<fa::FlacSpan> frames;
    fa::flac_find_frames(data, size, info, low, high, frames, scratch);
    for (const fa::FlacSpan& span : frames) {
        FUZZ_CHECK(span.offset >= 0 && span.end > span.offset + span.header && span.end <= size);
        FaFlacFrame frame;
        FUZZ_CHECK(fa_flac_frame_header(data + span.offset, span.end - span.offset, frame));
        if (frame.block > 4096) continue;
        long long next;
        const int status = fa::flac_frame(data, span.end, span.offset, frame, info.bits, scratch, next);
        const bool good = lanes.decode(data + span.offset, span.end - span.offset, frame, info.bits);
        FUZZ_CHECK(good == (status == fa::kOk && next == span.end));
        if (!good) continue;
        for (int c = 0; c < frame.channels; ++c) {
            if (fa_flac_depth(frame, info.bits, c) > 32) continue;  // elsewhere in the scratch
            const int32_t* expected = scratch.samples.data() + c * fa::flac_stride(frame.block);
            const int32_t* x = lanes.x.data() + static_cast<size_t>(c) * static_cast<size_t>(frame.block) * kFlacLanes;
            for (int i = 0; i < frame.block; ++i) FUZZ_CHECK(x[i * kFlacLanes] == expected[i]);
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    const long long size = static_cast<long long>(bytes);
    static fa::FlacScratch used;
    fa::AudioInfo info;
    const int status = fa::flac_probe(data, size, info);
    FUZZ_CHECK(status == info.status && info.trouble <= size);
    if (!fa::status_usable(status)) return 0;
    FUZZ_CHECK(info.rate > 0 && info.channels >= 1 && info.channels <= 8 && info.bits >= 4 && info.bits <= 32);
    FUZZ_CHECK(info.total > 0 && info.data_offset >= 0 && info.data_end <= size);

    FuzzNumbers numbers(data, bytes);
    const long long length = 1 + numbers.next(kLongest);
    const long long start = numbers.next(4) ? numbers.next(info.total + 100) - 50 : 0;
    fa::FlacScratch fresh;
    const std::vector<float> once = range<float>(data, size, info, start, length, used);
    FUZZ_CHECK(once == range<float>(data, size, info, start, length, fresh));
    const float scale = std::ldexp(1.0f, 1 - info.bits);
    const std::vector<int32_t> integers = range<int32_t>(data, size, info, start, length, used);
    for (size_t i = 0; i < once.size(); ++i) FUZZ_CHECK(once[i] == static_cast<float>(integers[i]) * scale);
    const long long low = std::min(std::max(start, 0ll), info.total - 1);
    compare_lanes(data, size, info, low, std::min(low + length, info.total));
    return 0;
}
