#include "parallel.h"

#include <pthread.h>

namespace fa {

static std::atomic<bool> forked{false};

bool in_forked_child() { return forked.load(std::memory_order_relaxed); }

void install_fork_guard() {
    static const int installed = pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
    (void)installed;
}

}  // namespace fa
