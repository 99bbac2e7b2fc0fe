// Rows on threads: GCC's OpenMP (the libgomp that torch already runs) where built with it, std::thread elsewhere.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

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

// Rows [0, rows) in equal parts; who is done with his own takes rows of the next ones.
class Parts {
  public:
    Parts(long long rows, int count) : parts_(count) {
        for (int i = 0; i < count; ++i) {
            parts_[i].next = rows * i / count;
            parts_[i].end = rows * (i + 1) / count;
        }
    }

    template <class Body>
    void work(int member, FirstException& first, Body& body) {
        for (size_t i = 0; i < parts_.size(); ++i) {
            Part& part = parts_[(member + i) % parts_.size()];
            for (long long row = part.next++; row < part.end && !first.failed(); row = part.next++)
                first.guard([&] { body(row); });
        }
    }

  private:
    struct alignas(64) Part {  // a cache line each
        std::atomic<long long> next{0};
        long long end = 0;
    };
    std::vector<Part> parts_;
};

template <class Body>
void on_team(Parts& parts, int team, Body& body) {
    FirstException first;
#ifdef _OPENMP
    if (!in_forked_child()) {
#pragma omp parallel num_threads(team)
        parts.work(omp_get_thread_num(), first, body);
        first.rethrow();
        return;
    }
#endif
    std::vector<std::thread> others;
    for (int i = 1; i < team; ++i) others.emplace_back([&, i] { parts.work(i, first, body); });
    parts.work(0, first, body);
    for (std::thread& other : others) other.join();
    first.rethrow();
}

}  // namespace detail

// The only row that ops work on while this thread takes a row through several of them; else -1.
inline thread_local long long only_row = -1;

// Whether a result of so many samples is written past the caches: all rows of an op's, and more than the caches hold.
// One core alone gains by it from 8 MiB on. Several share a way to memory that one of them fills with such stores, so
// they gain only where the shared cache (32 MiB here) has no room for what is read and written.
inline bool past_caches(long long samples, long long threads) {
    return only_row < 0 && samples > (threads > 1 ? 1 << 22 : 1 << 21);
}

// Calls body(row) once for each row in [0, rows), on up to `threads` threads. The order and the thread of a row are
// unspecified: a row's result must depend on that row alone. But the same rows of one op after another mostly meet the
// same core, in whose caches they still lie: on two cores with a cache each, a gain over 64 clips takes two thirds of
// the time that it takes where each core gets whatever row comes next.
template <class Body>
void parallel_rows(long long rows, long long threads, Body&& body) {
    if (only_row >= 0) return body(only_row);
    const int team = static_cast<int>(threads < rows ? threads : rows);
    if (team <= 1) {
        for (long long row = 0; row < rows; ++row) body(row);
        return;
    }
    detail::Parts parts(rows, team);
    detail::on_team(parts, team, body);
}

// The same for work whose order matters: each thread takes the first task that nobody has taken yet.
template <class Body>
void parallel_queue(long long tasks, long long threads, Body&& body) {
    const int team = static_cast<int>(threads < tasks ? threads : tasks);
    detail::Parts parts(tasks, 1);
    if (team > 1) return detail::on_team(parts, team, body);
    for (long long task = 0; task < tasks; ++task) body(task);
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
