// Scan and ranges of any bytes: no access outside them or outside the rows, no status off the list, finite samples, the
// same from a fresh and from a used scratch, and of a range as of two ranges that meet, alone and mixed.
#include "../../csrc/cpu/mp3.h"
#include "fuzz.h"

namespace {

constexpr long long kLongest = 2500;
constexpr float kUnwritten = 12345.0f;

std::vector<float> range(const uint8_t* data, long long size, const fa::Mp3Stream& stream, long long low,
                         long long high, bool mix, fa::Mp3Scratch& scratch) {
    const long long rows = mix ? 1 : stream.header.channels, length = high - low;
    std::vector<float> out(static_cast<size_t>(rows * length), kUnwritten);
    const int status = fa::mp3_decode_range(data, size, stream, low, length, mix, out.data(), length, scratch);
    FUZZ_CHECK(status == fa::kOk || status == fa::kCorrupt);
    FUZZ_CHECK(status == fa::kOk || (scratch.trouble >= 0 && scratch.trouble < size));
    return out;
}

void check_index(const fa::Mp3Stream& stream, long long size) {
    long long before = 0, end = 0;
    for (const fa::Mp3Frame& frame : stream.frames) {
        FUZZ_CHECK(frame.offset >= end && frame.main_offset > frame.offset && frame.main_bytes >= 0);
        FUZZ_CHECK(frame.main_before == before && frame.main_begin >= 0 && frame.main_begin < 512);
        before += frame.main_bytes;
        end = frame.main_offset + frame.main_bytes;
    }
    FUZZ_CHECK(end <= size);
    FUZZ_CHECK(stream.total >= 0 && stream.skip >= 0);
    FUZZ_CHECK(stream.silent >= 0 && stream.silent <= stream.total);
    FUZZ_CHECK(stream.total <= static_cast<long long>(stream.frames.size()) * stream.header.samples);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    const long long size = static_cast<long long>(bytes);
    static fa::Mp3Scratch used;
    fa::Mp3Stream stream;
    const int status = fa::mp3_scan(data, size, stream);
    FUZZ_CHECK(status == stream.status && stream.trouble <= size);
    if (!fa::status_usable(status)) return 0;
    FUZZ_CHECK(stream.header.layer == 3 && stream.header.rate > 0);
    FUZZ_CHECK(stream.header.channels == 1 || stream.header.channels == 2);
    check_index(stream, size);

    FuzzNumbers numbers(data, bytes);
    const long long low = numbers.next(stream.total + 100) - 50, high = low + 1 + numbers.next(kLongest);
    const long long middle = low + numbers.next(high - low);
    const bool mix = stream.header.channels > 1 && numbers.next(2);
    const long long rows = mix ? 1 : stream.header.channels;
    fa::Mp3Scratch fresh;
    const std::vector<float> all = range(data, size, stream, low, high, mix, used);
    const std::vector<float> left = range(data, size, stream, low, middle, mix, fresh),
                             right = range(data, size, stream, middle, high, mix, used);
    for (long long c = 0; c < rows; ++c) {
        for (long long i = low; i < high; ++i) {
            const float whole = all[static_cast<size_t>(c * (high - low) + i - low)];
            const float part = i < middle ? left[static_cast<size_t>(c * (middle - low) + i - low)]
                                          : right[static_cast<size_t>(c * (high - middle) + i - middle)];
            FUZZ_CHECK(std::isfinite(whole) && part == whole);
        }
    }
    return 0;
}
