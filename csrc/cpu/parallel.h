// Rows on threads: GCC's OpenMP (the libgomp that torch already runs) where built with it, std::thread elsewhere.
#pragma once

#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace fa {

// True in a process forked from one that had loaded this module: libgomp hangs in such a child if the parent used it.
bool in_forked_child();

// Registers the pthread_atfork handler. Called once, when the module is imported.
void install_fork_guard();

namespace detail {

// Keeps the first exception of a team, to be thrown again on the calling thread.
class FirstException {
  public:
    template <class Body>
    void guard(Body&& body) {
        try {
            body();
        } catch (...) {
            if (!taken_.exchange(true)) error_ = std::current_exception();
        }
    }
    bool failed() const { return taken_.load(std::memory_order_relaxed); }
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

  private:
    std::atomic<bool> taken_{false};
    std::exception_ptr error_;
};

template <class Body>
void rows_on_std_threads(long long rows, int threads, FirstException& first, Body& body) {
    std::atomic<long long> next{0};
    auto work = [&] {
        for (long long row = next++; row < rows && !first.failed(); row = next++) first.guard([&] { body(row); });
    };
    std::vector<std::thread> team;
    for (int i = 1; i < threads; ++i) team.emplace_back(work);
    work();
    for (std::thread& member : team) member.join();
}

}  // namespace detail

// The only row that ops work on while this thread takes a row through several of them; else -1.
inline thread_local long long only_row = -1;

// Whether a result of so many samples is written past the caches: all rows of an op's, and more than the caches hold.
inline bool past_caches(long long samples) { return only_row < 0 && samples > 1 << 21; }

// Calls body(row) once for each row in [0, rows), on up to `threads` threads. The order and the thread of a row are
// unspecified: a row's result must depend on that row alone.
template <class Body>
void parallel_rows(long long rows, long long threads, Body&& body) {
    if (only_row >= 0) return body(only_row);
    const int team = static_cast<int>(threads < rows ? threads : rows);
    if (team <= 1) {
        for (long long row = 0; row < rows; ++row) body(row);
        return;
    }
    detail::FirstException first;
#ifdef _OPENMP
    if (!in_forked_child()) {
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
        for (long long row = 0; row < rows; ++row) {
            if (!first.failed()) first.guard([&] { body(row); });
        }
        first.rethrow();
        return;
    }
#endif
    detail::rows_on_std_threads(rows, team, first, body);
    first.rethrow();
}

// Takes each row through all steps before its thread takes another one, so that it stays in that core's second cache:
// step() calls an op, whose parallel_rows sees the one row.
template <class Steps>
void rows_through(const Steps& steps, long long rows, long long threads) {
    parallel_rows(rows, threads, [&](long long row) {
        struct Only {
            explicit Only(long long row) { only_row = row; }
            ~Only() { only_row = -1; }
        } only(row);
        for (const auto& step : steps) step();
    });
}

}  // namespace fa
