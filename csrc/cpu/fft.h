// The FFTs of this process: passes and tables of each length, made at its first use and kept.
#pragma once

#include <vector>

#include "../fft.h"

namespace fa {

struct Fft {
    FaFft fft;
    std::vector<float> table;
    std::vector<int32_t> position;  // of each bin in the transform
    std::vector<float> turns;       // sin and cos of pi k / size, k <= size / 2, for real signals of twice the length
    Fft* next;
};

// n: at least 2, without prime factors above 7.
const Fft& fft_of(int n);

}  // namespace fa
