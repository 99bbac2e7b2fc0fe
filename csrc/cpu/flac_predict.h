// Predictors that work while the residual is being read: the processor overlaps the two chains of dependences.
#pragma once

#include "../codecs/flac.h"

typedef int32_t fa_int4 __attribute__((vector_size(16)));

FA_HD fa_int4 fa_load_int4(const int32_t* p) {
    fa_int4 value;
    memcpy(&value, p, sizeof value);
    return value;
}

// Adds y · taps to the sums of the following outputs. The sums of N vectors as a chain of members, not as an array:
// they then live in registers.
template <int N>
struct FaFlacSums {
    fa_int4 head = {0, 0, 0, 0};
    FaFlacSums<N - 1> tail;

    FA_HD void add(fa_int4 y, const fa_int4* taps) {
        head += y * taps[0];
        tail.add(y, taps + 1);
    }
    // Four outputs further.
    FA_HD void move() {
        head = tail.first();
        tail.move();
    }
    FA_HD fa_int4 first() const { return head; }
    FA_HD void set(const int32_t* sums) {
        head = fa_load_int4(sums);
        tail.set(sums + 4);
    }
};

template <>
struct FaFlacSums<0> {
    FA_HD void add(fa_int4, const fa_int4*) {}
    FA_HD void move() {}
    FA_HD fa_int4 first() const { return fa_int4{0, 0, 0, 0}; }
    FA_HD void set(const int32_t*) {}
};

// Linear prediction of order <= 4 N - 4 in the transposed form: each new sample is added, times its coefficients, to
// the sums of the 4 N outputs from its own group of four on. The chain from sample to sample is one shift, one shuffle,
// one product and two sums, whatever the order. Exact where no sum leaves 32 bits (fa_flac_narrow).
template <int N>
class FaFlacPredictor {
  public:
    // x: the warm-up samples; behind the block there must be room for 2 kFlacRun more.
    FA_HD FaFlacPredictor(const FaFlacSubframe& sub, const int32_t* x) : shift_(sub.shift), done_(sub.order) {
        int32_t padded[4 * N + 8] = {};  // coefficient of the sample `lag` before at 3 + lag
        for (int j = 0; j < sub.order; ++j) padded[4 + j] = sub.coefficient[j];
        for (int k = 0; k < 4; ++k) {
            for (int q = 0; q < N; ++q) taps_[k][q] = fa_load_int4(padded + 3 + 4 * q - k);
        }
        int32_t sums[4 * N] = {};
        for (int m = 0; m < sub.order; ++m) {
            uint32_t sum = 0;
            for (int j = m; j < sub.order; ++j) {
                sum += static_cast<uint32_t>(sub.coefficient[j]) * static_cast<uint32_t>(x[sub.order + m - 1 - j]);
            }
            sums[m] = static_cast<int32_t>(sum);
        }
        sums_.set(sums);
    }

    // Stays a run behind, so that the vectors it loads have left the store buffer.
    FA_HD void advance(int32_t* x, int ready) {
        while (ready - done_ >= 2 * kFlacRun) run(x);
    }

    FA_HD void finish(int32_t* x, int block) {
        while (done_ < block) run(x);
    }

  private:
    FA_HD void run(int32_t* x) {
        four(x + done_);
        four(x + done_ + 4);
        done_ += 8;
    }

    FA_HD void four(int32_t* x) {
        const fa_int4 residual = fa_load_int4(x);
        fa_int4 y = (sums_.head >> shift_) + residual;
        sums_.add(__builtin_shufflevector(y, y, 0, 0, 0, 0), taps_[0]);
        y = (sums_.head >> shift_) + residual;
        sums_.add(__builtin_shufflevector(y, y, 1, 1, 1, 1), taps_[1]);
        y = (sums_.head >> shift_) + residual;
        sums_.add(__builtin_shufflevector(y, y, 2, 2, 2, 2), taps_[2]);
        y = (sums_.head >> shift_) + residual;
        sums_.add(__builtin_shufflevector(y, y, 3, 3, 3, 3), taps_[3]);
        memcpy(x, &y, sizeof y);
        sums_.move();
    }

    fa_int4 taps_[4][N];
    FaFlacSums<N> sums_;
    int shift_, done_;
};

// Fixed predictors: the residual is the difference of that order, so a sample is as many running sums.
template <int kOrder>
class FaFlacDifferences {
  public:
    FA_HD explicit FaFlacDifferences(const int32_t* x) : done_(kOrder) {
        uint32_t row[5] = {};
        for (int i = 0; i < kOrder; ++i) row[i] = static_cast<uint32_t>(x[i]);
        // Row d: differences of order d; its last element is what the next sum starts from.
        for (int d = 0; d < kOrder; ++d) {
            state_[d] = row[kOrder - 1 - d];
            for (int i = 0; i + 1 < kOrder - d; ++i) row[i] = row[i + 1] - row[i];
        }
    }

    FA_HD void advance(int32_t* x, int ready) {
        for (; kOrder > 0 && done_ < ready; ++done_) {
            uint32_t sum = static_cast<uint32_t>(x[done_]);
            if (kOrder > 3) sum = state_[3] += sum;
            if (kOrder > 2) sum = state_[2] += sum;
            if (kOrder > 1) sum = state_[1] += sum;
            if (kOrder > 0) sum = state_[0] += sum;
            x[done_] = static_cast<int32_t>(sum);
        }
    }

    FA_HD void finish(int32_t*, int) {}

  private:
    uint32_t state_[4] = {};
    int done_;
};
