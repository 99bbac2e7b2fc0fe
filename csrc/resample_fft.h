// CPU only: sample-rate conversion by overlap-save. A block of source samples goes through a real FFT, its spectrum is
// multiplied by the filter's and cut or padded to the other rate's length, and an inverse FFT of that length gives the
// block's outputs. Blocks lie side by side in the lanes of a vector.
//
// Blocks lie on a grid of output indices that does not depend on the range asked for, and lanes do not mix: an output's
// bits depend on its block's source samples alone. The two FFTs are complex ones of half the length over (even, odd)
// samples (Press et al., Numerical Recipes, 12.3); untangling, filter and tangling are one step of four products.
// Decimation in frequency, then in time: the spectrum stays in digit-reversed order, which tables of indices undo.
#pragma once

#include "fft.h"
#include "resample_cpu.h"

// Outputs [block * outputs, (block + 1) * outputs) come from source samples from block * hop - lead on.
struct FaBlocks {
    FaFft forward, inverse;  // complex sizes: half the numbers of real samples
    long long outputs, hop, lead;
    // Number k of the spectrum of (even, odd) outputs, stored at target[k], is the sum over four terms:
    // c0 Z[i0] + c1 conj(Z[i1]) + c2 Z[i2] + c3 conj(Z[i3]), Z the spectrum of (even, odd) source samples.
    const int32_t* target;   // (inverse.size)
    const int32_t* sources;  // (inverse.size, 4)
    const float* factors;    // (inverse.size, 4, 2)
};

// The filter: spectrum (forward.size) to result (inverse.size).
template <class Piece>
FA_HD void fa_filter_spectrum(const FaBlocks& blocks, const FaComplex<Piece>* spectrum, FaComplex<Piece>* result) {
    for (int k = 0; k < blocks.inverse.size; ++k) {
        const int32_t* at = blocks.sources + 4 * k;
        const float* factor = blocks.factors + 8 * k;
        FaComplex<Piece> sum = {Piece{}, Piece{}};
        FA_UNROLL(4)
        for (int term = 0; term < 4; ++term) {
            FaComplex<Piece> z = spectrum[at[term]];
            if (term % 2) z.im = -z.im;
            const Piece c = fa_splat<Piece>(factor[2 * term]), s = fa_splat<Piece>(factor[2 * term + 1]);
            sum = {fa_fma(-z.im, s, fa_fma(z.re, c, sum.re)), fa_fma(z.im, c, fa_fma(z.re, s, sum.im))};
        }
        result[blocks.target[k]] = sum;
    }
}

// kResampleLanes blocks: their source samples (2 forward.size each) to their outputs, each row with room for a multiple
// of 4. room: (forward.size + inverse.size) * 32 floats, aligned to 64 bytes. sick[lane] is NaN where an output is not
// finite: a NaN or Inf, or an overflow, has spread over the whole block; else 0.
template <class Piece>
FA_HD void fa_run_blocks(const FaBlocks& blocks, const float* const* inputs, float* room, float* const* rows,
                         float* sick) {
    constexpr int kLanes = sizeof(Piece) / sizeof(float);
    FaComplex<Piece>* z = reinterpret_cast<FaComplex<Piece>*>(room);
    FaComplex<Piece>* result = z + blocks.forward.size;
    for (int first = 0; first < kResampleLanes; first += kLanes) {
        fa_side_by_side<kLanes>(inputs + first, 2 * blocks.forward.size, room);
        fa_fft_forward(blocks.forward, z);
        fa_filter_spectrum(blocks, z, result);
        fa_fft_inverse(blocks.inverse, result);
        const Piece* outputs = reinterpret_cast<const Piece*>(result);
        Piece sum = {};
        for (long long n = 0; n < blocks.outputs; ++n) sum += outputs[n] * fa_splat<Piece>(0.0f);
        memcpy(sick + first, &sum, sizeof sum);
        for (int r = 0; r < kLanes; r += 4) {
            const float* columns = reinterpret_cast<const float*>(outputs) + r;
            fa_four_below_another<kLanes>(columns, (blocks.outputs + 3) / 4 * 4, rows + first + r);
        }
    }
}
