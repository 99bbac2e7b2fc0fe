// The guess of the format, probe and ranges of any bytes: no access outside them or outside the rows, samples that lie
// in the file, and the same samples of a range as of two ranges that meet, alone and mixed.
#include "../../csrc/codecs/probe.h"
#include "../../csrc/cpu/wav.h"
#include "fuzz.h"

namespace {

constexpr long long kLongest = 3000;

std::vector<float> range(const uint8_t* data, const fa::WavInfo& info, long long low, long long high, bool mix) {
    const long long rows = mix ? 1 : info.channels, frames = high - low;
    std::vector<float> out(static_cast<size_t>(rows * frames));
    fa::wav_read(data, info, low, high, mix, out.data(), frames);
    return out;
}

uint32_t bits(float value) { return fa_float_to_bits(value); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    const long long size = static_cast<long long>(bytes);
    if (size == 0 || fa::audio_format(data, size) != fa::kWav) return 0;
    const fa::WavInfo info = fa::wav_probe(data, size);
    FUZZ_CHECK(info.where >= 0 && info.where <= size);
    if (info.status) return 0;
    FUZZ_CHECK(info.rate > 0 && info.channels >= 1 && info.channels <= fa::kWavMostChannels);
    FUZZ_CHECK(info.data >= 20 && info.frames >= 0 && info.data + info.frames * info.block <= size);

    FuzzNumbers numbers(data, bytes);
    const long long low = numbers.next(info.frames + 1);
    const long long high = low + numbers.next(std::min(info.frames - low, kLongest) + 1);
    const long long middle = low + numbers.next(high - low + 1);
    for (const bool mix : {false, true}) {
        const long long rows = mix ? 1 : info.channels;
        const std::vector<float> all = range(data, info, low, high, mix);
        const std::vector<float> left = range(data, info, low, middle, mix),
                                 right = range(data, info, middle, high, mix);
        for (long long c = 0; c < rows; ++c) {
            for (long long i = low; i < high; ++i) {
                const float part = i < middle ? left[static_cast<size_t>(c * (middle - low) + i - low)]
                                              : right[static_cast<size_t>(c * (high - middle) + i - middle)];
                const float whole = all[static_cast<size_t>(c * (high - low) + i - low)];
                FUZZ_CHECK(bits(part) == bits(whole) || (part != part && whole != whole));
            }
        }
    }
    return 0;
}
