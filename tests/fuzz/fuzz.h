// What the fuzz targets share: numbers drawn from the input, and checks that abort.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#define FUZZ_CHECK(condition)                                                             \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

// Numbers that depend on the whole input, so that a finding repeats. (FNV-1a, then xorshift.)
class FuzzNumbers {
  public:
    FuzzNumbers(const uint8_t* data, size_t size) {
        for (size_t i = 0; i < size; ++i) state_ = (state_ ^ data[i]) * 1099511628211ull;
        state_ |= 1;
    }
    // In [0, below).
    long long next(long long below) {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return static_cast<long long>(state_ % static_cast<uint64_t>(below));
    }

  private:
    uint64_t state_ = 14695981039346656037ull;
};
