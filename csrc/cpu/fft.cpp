// Tables of FFTs.
#include "fft.h"

#include <atomic>
#include <memory>

#include "api.h"

namespace {

std::unique_ptr<fa::Fft> make(int n) {
    auto made = std::make_unique<fa::Fft>();
    fa_fft_plan(n, made->fft);
    made->table.resize(static_cast<size_t>(fa_fft_table_size(made->fft)));
    fa_fft_fill_table(made->fft, made->table.data());
    made->fft.table = made->table.data();
    for (int k = 0; k < n; ++k) made->position.push_back(fa_fft_position(made->fft, k));
    for (int k = 0; k <= n / 2; ++k) {
        made->turns.push_back(static_cast<float>(sin(FA_PI * k / n)));
        made->turns.push_back(static_cast<float>(cos(FA_PI * k / n)));
    }
    return made;
}

}  // namespace

// A list that only grows, at its head: no lock, which a fork could leave taken. Two threads may make the same length at
// once; both tables stay, and are equal.
const fa::Fft& fa::fft_of(int n) {
    static std::atomic<Fft*> newest{nullptr};
    for (const Fft* known = newest.load(std::memory_order_acquire); known; known = known->next) {
        if (known->fft.size == n) return *known;
    }
    Fft* mine = make(n).release();
    mine->next = newest.load(std::memory_order_relaxed);
    while (!newest.compare_exchange_weak(mine->next, mine, std::memory_order_release, std::memory_order_relaxed)) {
    }
    return *mine;
}

int fa_fft_order(int n, int* radices, int* positions) {
    FaFft fft;
    if (!fa_fft_plan(n, fft)) return 0;
    for (int pass = 0; pass < fft.passes; ++pass) radices[pass] = fft.radix[pass];
    for (int k = 0; positions && k < n; ++k) positions[k] = fa_fft_position(fft, k);
    return fft.passes;
}
