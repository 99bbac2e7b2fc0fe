// Predictors that work while the residual is being read: the processor overlaps the two chains of dependences.
#pragma once

#include "../codecs/flac.h"

typedef int32_t fa_int4 __attribute__((vector_size(16)));
typedef long long fa_long2 __attribute__((vector_size(16)));
typedef unsigned long long fa_ulong2 __attribute__((vector_size(16)));

// Products of the low halves of 64-bit lanes. kFast: the function it ends up in is compiled for SSE 4.1; without
// optimisation not all that lies between is inlined into it.
template <bool kFast>
FA_HD fa_long2 fa_multiply_low(fa_long2 a, fa_long2 b) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__)
    if constexpr (kFast) return __builtin_ia32_pmuldq128(reinterpret_cast<fa_int4>(a), reinterpret_cast<fa_int4>(b));
#endif
    return (a << 32 >> 32) * (b << 32 >> 32);
}

struct FaFlacNarrow {
    static constexpr int kLanes = 4;
    typedef int32_t Number;
    typedef fa_int4 Vector;
    FA_HD static Vector multiply(Vector a, Vector b) { return a * b; }
};

template <bool kFast>
struct FaFlacWide {
    static constexpr int kLanes = 2;
    typedef int64_t Number;
    typedef fa_long2 Vector;
    FA_HD static Vector multiply(Vector a, Vector b) { return fa_multiply_low<kFast>(a, b); }
};

// The sums of the following N vectors of outputs, as a chain of members, not as an array: they then live in registers.
template <class Kind, int N>
struct FaFlacSums {
    typename Kind::Vector head;
    FaFlacSums<Kind, N - 1> tail;

    // A new sample, in all lanes of y, times its coefficients.
    FA_HD void add(typename Kind::Vector y, const typename Kind::Vector* taps) {
        head += Kind::multiply(y, taps[0]);
        tail.add(y, taps + 1);
    }
    // One vector of outputs further.
    FA_HD void move() {
        head = tail.first();
        tail.move();
    }
    FA_HD typename Kind::Vector first() const { return head; }
    FA_HD void set(const typename Kind::Number* sums) {
        memcpy(&head, sums, sizeof head);
        tail.set(sums + Kind::kLanes);
    }
};

template <class Kind>
struct FaFlacSums<Kind, 0> {
    FA_HD void add(typename Kind::Vector, const typename Kind::Vector*) {}
    FA_HD void move() {}
    FA_HD typename Kind::Vector first() const { return typename Kind::Vector{}; }
    FA_HD void set(const typename Kind::Number*) {}
};

// Linear prediction of order <= kLanes (N - 1) in the transposed form: each new sample is added, times its
// coefficients, to the sums of the outputs from its own vector on. The chain from sample to sample is one shift, one
// shuffle, one product and two sums, whatever the order. Exact where the sums fit the lanes and predictions 32 bits.
template <class Kind, int N>
class FaFlacPredictor {
  public:
    // x: the warm-up samples; behind the block there must be room for 2 kFlacRun more.
    FA_HD FaFlacPredictor(const FaFlacSubframe& sub, const int32_t* x) : shift_(sub.shift), done_(sub.order) {
        typename Kind::Number padded[L * N + 2 * L] = {};  // coefficient of the sample `lag` before at L - 1 + lag
        for (int j = 0; j < sub.order; ++j) padded[L + j] = sub.coefficient[j];
        for (int k = 0; k < L; ++k) {
            for (int q = 0; q < N; ++q) memcpy(&taps_[k][q], padded + L - 1 + L * q - k, sizeof(Vector));
        }
        typename Kind::Number sums[L * N] = {};
        for (int m = 0; m < sub.order; ++m) {
            int64_t sum = 0;
            for (int j = m; j < sub.order; ++j) sum += int64_t{sub.coefficient[j]} * x[sub.order + m - 1 - j];
            sums[m] = static_cast<typename Kind::Number>(sum);
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
    typedef typename Kind::Vector Vector;
    static constexpr int L = Kind::kLanes;

    FA_HD void run(int32_t* x) {
        four(x + done_);
        four(x + done_ + 4);
        done_ += 8;
    }

    FA_HD void four(int32_t* x) {
        fa_int4 code;
        memcpy(&code, x, sizeof code);
        code = outputs((code >> 1 & 0x7FFFFFFF) ^ -(code & 1));
        memcpy(x, &code, sizeof code);
    }

    FA_HD fa_int4 outputs(fa_int4 residual) {
        if constexpr (L == 4) {
            fa_int4 y = (sums_.head >> shift_) + residual;
            sums_.add(__builtin_shufflevector(y, y, 0, 0, 0, 0), taps_[0]);
            y = (sums_.head >> shift_) + residual;
            sums_.add(__builtin_shufflevector(y, y, 1, 1, 1, 1), taps_[1]);
            y = (sums_.head >> shift_) + residual;
            sums_.add(__builtin_shufflevector(y, y, 2, 2, 2, 2), taps_[2]);
            y = (sums_.head >> shift_) + residual;
            sums_.add(__builtin_shufflevector(y, y, 3, 3, 3, 3), taps_[3]);
            sums_.move();
            return y;
        } else {
            const fa_int4 zero = {0, 0, 0, 0};
            const fa_int4 low = two(__builtin_shufflevector(residual, zero, 0, 4, 1, 5));
            const fa_int4 high = two(__builtin_shufflevector(residual, zero, 2, 6, 3, 7));
            return __builtin_shufflevector(low, high, 0, 2, 4, 6);
        }
    }

    // Only the low halves of the 64-bit lanes are samples. They do not see how the shift fills the high ones.
    FA_HD fa_int4 two(fa_int4 residuals) {
        const fa_long2 residual = reinterpret_cast<fa_long2>(residuals);
        fa_long2 y = shifted() + residual;
        sums_.add(__builtin_shufflevector(y, y, 0, 0), taps_[0]);
        y = shifted() + residual;
        sums_.add(__builtin_shufflevector(y, y, 1, 1), taps_[1]);
        sums_.move();
        return reinterpret_cast<fa_int4>(y);
    }

    FA_HD fa_long2 shifted() const {
        return reinterpret_cast<fa_long2>(reinterpret_cast<fa_ulong2>(sums_.head) >> shift_);
    }

    Vector taps_[L][N];
    FaFlacSums<Kind, N> sums_;
    int shift_, done_;
};

// Fixed predictors: the residual is the difference of that order, so a sample is as many running sums.
template <int kOrder>
class FaFlacDifferences {
  public:
    FA_HD FaFlacDifferences(const FaFlacSubframe&, const int32_t* x) : done_(kOrder) {
        uint32_t row[5] = {};
        for (int i = 0; i < kOrder; ++i) row[i] = static_cast<uint32_t>(x[i]);
        // Row d: differences of order d; its last element is what the next sum starts from.
        for (int d = 0; d < kOrder; ++d) {
            state_[d] = row[kOrder - 1 - d];
            for (int i = 0; i + 1 < kOrder - d; ++i) row[i] = row[i + 1] - row[i];
        }
    }

    FA_HD void advance(int32_t* x, int ready) {
        for (; done_ < ready; ++done_) {
            uint32_t sum = static_cast<uint32_t>(fa_flac_unfold(static_cast<uint32_t>(x[done_])));
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
