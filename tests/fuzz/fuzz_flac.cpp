// Probe and ranges of any bytes: no access outside them or outside the rows, no status off the list, the same samples
// from a fresh and from a used scratch, and of a range as of two ranges that meet.
#include "../../csrc/cpu/flac.h"
#include "fuzz.h"

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
    return 0;
}
