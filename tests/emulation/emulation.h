// Runs a CUDA kernel on the CPU: one fiber per thread, one block at a time. Include it, then the .cu file.
//
// What it shows: wrong indices (every FA_LD and FA_ST must fall inside an argument array), barriers that not all
// threads reach, reads of uninitialised shared memory (it is filled with NaN before each block), how many 32-byte
// sectors each warp access touches, and races: between two barriers the threads of a block run one after another,
// forwards or backwards as asked, so a missing barrier makes the two runs differ. What it cannot show: fused
// multiply-adds, flushed denormals, the memory model of a real GPU, speed.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define FA_LD(pointer) fa_emu::load((pointer), fa_emu::Site{__COUNTER__, __FILE__, __LINE__})
#define FA_ST(pointer, value) fa_emu::store((pointer), (value), fa_emu::Site{__COUNTER__, __FILE__, __LINE__})
#define FA_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(fa_emu::machine().shared.data())

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __constant__ static const
// One block runs at a time, so a static serves as its shared memory. The section lets the scheduler poison all of it.
// GCC refuses the section inside templates and inline functions: declare shared arrays in the kernel itself.
#define __shared__ static __attribute__((section("fa_shared")))

#include "fa_compat.h"

struct dim3 {
    unsigned x, y, z;
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
struct int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

extern "C" char __start_fa_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_fa_shared[] __attribute__((weak, visibility("hidden")));

namespace fa_emu {

struct Site {
    int id;
    const char* file;
    int line;
};

// What the Python side passes and reads; mirrored by ctypes in __init__.py.
struct Range {
    uint64_t begin, end;
    int writable;
};
struct SiteCount {
    const char* file;
    int line, store;
    uint64_t accesses, sectors, minimum;
};
struct Launch {
    unsigned grid[3], block[3];
    uint64_t shared_bytes;
    int backwards, count;
    void** args;
    const Range* ranges;
    int range_count;
    SiteCount* sites;  // room for site_room of them
    int site_room, site_count;
};

enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state = State::done;
    unsigned mask = 0;                 // of the warp barrier it waits at
    uint64_t offered = 0;              // value given to the shuffle
    std::vector<uint32_t> occurrence;  // per site: accesses so far
};

// The accesses of one warp at one site at its n-th execution.
struct WarpAccess {
    uint64_t address[32];
    uint32_t present = 0;
    uint32_t bytes = 0;
};

struct Machine {
    const Launch* launch = nullptr;
    std::vector<Fiber> fibers;
    std::vector<char> shared;
    ucontext_t scheduler;
    size_t current = 0;
    std::string error;
    std::vector<uint64_t> snapshot;                         // per thread: what it gave to the last complete shuffle
    std::vector<uint32_t> arrived;                          // per thread: the mask of that shuffle
    std::vector<std::vector<std::vector<WarpAccess>>> log;  // [warp][site][occurrence]
    std::vector<SiteCount> counts;                          // per site
    size_t last_range = 0;
    void (*entry)(void**) = nullptr;
};

inline Machine& machine() {
    static Machine instance;
    return instance;
}

inline void check_range(uint64_t address, uint64_t bytes, bool store, Site site) {
    Machine& m = machine();
    for (int i = -1; i < m.launch->range_count; ++i) {
        const size_t index = i < 0 ? m.last_range : static_cast<size_t>(i);
        if (index >= static_cast<size_t>(m.launch->range_count)) continue;
        const Range& range = m.launch->ranges[index];
        if (address < range.begin || address + bytes > range.end) continue;
        m.last_range = index;
        if (store && !range.writable) break;
        if (address % bytes)
            throw std::runtime_error("misaligned access at " + std::string(site.file) + ":" +
                                     std::to_string(site.line));
        return;
    }
    throw std::runtime_error(std::string(store ? "store" : "load") + " outside the writable or given arrays at " +
                             site.file + ":" + std::to_string(site.line));
}

inline void record(uint64_t address, uint64_t bytes, bool store, Site site) {
    Machine& m = machine();
    check_range(address, bytes, store, site);
    if (!m.launch->count) return;
    const size_t id = static_cast<size_t>(site.id);
    if (m.counts.size() <= id) m.counts.resize(id + 1);
    m.counts[id].file = site.file;
    m.counts[id].line = site.line;
    m.counts[id].store = store;
    Fiber& fiber = m.fibers[m.current];
    if (fiber.occurrence.size() <= id) fiber.occurrence.resize(id + 1);
    const uint32_t nth = fiber.occurrence[id]++;
    auto& sites = m.log[m.current / 32];
    if (sites.size() <= id) sites.resize(id + 1);
    if (sites[id].size() <= nth) sites[id].resize(nth + 1);
    WarpAccess& access = sites[id][nth];
    access.address[m.current % 32] = address;
    access.present |= 1u << m.current % 32;
    access.bytes = static_cast<uint32_t>(bytes);
}

template <class T>
T load(const T* pointer, Site site) {
    record(reinterpret_cast<uint64_t>(pointer), sizeof(T), false, site);
    return *pointer;
}

template <class T, class V>
void store(T* pointer, V value, Site site) {
    record(reinterpret_cast<uint64_t>(pointer), sizeof(T), true, site);
    *pointer = static_cast<T>(value);
}

// Sectors touched, and the fewest that could hold as many distinct bytes.
inline void collapse_log() {
    Machine& m = machine();
    for (auto& sites : m.log) {
        for (size_t id = 0; id < sites.size(); ++id) {
            for (const WarpAccess& access : sites[id]) {
                std::vector<uint64_t> addresses, sectors;
                for (int lane = 0; lane < 32; ++lane) {
                    if (!(access.present >> lane & 1)) continue;
                    addresses.push_back(access.address[lane]);
                    sectors.push_back(access.address[lane] / 32);  // aligned and at most 16 bytes: never across sectors
                }
                const auto distinct = [](std::vector<uint64_t>& values) {
                    std::sort(values.begin(), values.end());
                    return static_cast<uint64_t>(std::unique(values.begin(), values.end()) - values.begin());
                };
                m.counts[id].accesses += 1;
                m.counts[id].sectors += distinct(sectors);
                m.counts[id].minimum += (distinct(addresses) * access.bytes + 31) / 32;
            }
            sites[id].clear();
        }
    }
}

inline void set_thread(size_t index) {
    machine().current = index;
    const unsigned i = static_cast<unsigned>(index);
    threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
}

inline void wait(State state, unsigned mask) {
    Machine& m = machine();
    Fiber& fiber = m.fibers[m.current];
    fiber.state = state;
    fiber.mask = mask;
    swapcontext(&fiber.context, &m.scheduler);
}

inline void fiber_main() {
    Machine& m = machine();
    try {
        m.entry(m.launch->args);
    } catch (const std::exception& error) {
        if (m.error.empty()) m.error = error.what();
    }
    m.fibers[m.current].state = State::done;
    swapcontext(&m.fibers[m.current].context, &m.scheduler);
}

// Lets every group of threads go on whose members have all arrived. False if nobody could.
inline bool release() {
    Machine& m = machine();
    bool any = false, all_at_barrier = true;
    for (const Fiber& fiber : m.fibers)
        all_at_barrier &= fiber.state == State::at_block_barrier || fiber.state == State::done;
    for (size_t i = 0; i < m.fibers.size(); ++i) {
        Fiber& fiber = m.fibers[i];
        if (fiber.state == State::at_block_barrier && all_at_barrier) {
            fiber.state = State::ready;
            any = true;
        }
        if (fiber.state != State::at_warp_barrier) continue;
        const size_t warp = i / 32 * 32, end = std::min(warp + 32, m.fibers.size());
        bool complete = true;
        for (size_t j = warp; j < end; ++j) {
            const Fiber& other = m.fibers[j];
            if (!(fiber.mask >> (j - warp) & 1) || other.state == State::done) continue;
            complete &= other.state == State::at_warp_barrier && other.mask == fiber.mask;
        }
        if (!complete) continue;
        const unsigned mask = fiber.mask;
        for (size_t j = warp; j < end; ++j) {
            Fiber& other = m.fibers[j];
            if (!(mask >> (j - warp) & 1) || other.state == State::done) continue;
            other.state = State::ready;
            m.snapshot[j] = other.offered;
            m.arrived[j] = mask;
        }
        any = true;
    }
    return any;
}

inline void run_block() {
    Machine& m = machine();
    constexpr size_t stack_bytes = 128 * 1024;
    for (size_t i = 0; i < m.fibers.size(); ++i) {
        Fiber& fiber = m.fibers[i];
        if (!fiber.stack) fiber.stack.reset(new char[stack_bytes]);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = stack_bytes;
        fiber.context.uc_link = &m.scheduler;
        makecontext(&fiber.context, fiber_main, 0);
        fiber.state = State::ready;
        fiber.occurrence.assign(fiber.occurrence.size(), 0);
    }
    for (;;) {
        bool live = false;
        for (size_t k = 0; k < m.fibers.size(); ++k) {
            const size_t i = m.launch->backwards ? m.fibers.size() - 1 - k : k;
            if (m.fibers[i].state != State::ready) continue;
            set_thread(i);
            swapcontext(&m.scheduler, &m.fibers[i].context);
            if (!m.error.empty()) return;
        }
        for (const Fiber& fiber : m.fibers) live |= fiber.state != State::done;
        if (!live) break;
        if (!release()) {
            m.error = "deadlock: the threads of a block wait at different barriers";
            return;
        }
    }
    if (m.launch->count) collapse_log();
}

inline const char* run_grid(Launch* launch, void (*entry)(void**)) {
    Machine& m = machine();
    const size_t threads = static_cast<size_t>(launch->block[0]) * launch->block[1] * launch->block[2];
    const size_t blocks = static_cast<size_t>(launch->grid[0]) * launch->grid[1] * launch->grid[2];
    m.launch = launch;
    m.entry = entry;
    m.error.clear();
    m.counts.clear();
    m.fibers.resize(threads);
    m.snapshot.assign(threads, 0);
    m.arrived.assign(threads, 0);
    m.log.assign((threads + 31) / 32, {});
    gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]};
    blockDim = {launch->block[0], launch->block[1], launch->block[2]};
    for (size_t k = 0; k < blocks && m.error.empty(); ++k) {
        const unsigned i = static_cast<unsigned>(launch->backwards ? blocks - 1 - k : k);
        blockIdx = {i % gridDim.x, i / gridDim.x % gridDim.y, i / (gridDim.x * gridDim.y)};
        m.shared.assign(launch->shared_bytes + 16, static_cast<char>(0xFF));
        if (__start_fa_shared)
            memset(__start_fa_shared, 0xFF, static_cast<size_t>(__stop_fa_shared - __start_fa_shared));
        run_block();
    }
    launch->site_count = 0;
    for (const SiteCount& count : m.counts) {
        if (count.accesses && launch->site_count < launch->site_room) launch->sites[launch->site_count++] = count;
    }
    return m.error.empty() ? nullptr : m.error.c_str();
}

template <class... Args, size_t... Index>
void call(void (*kernel)(Args...), void** args, std::index_sequence<Index...>) {
    kernel(*static_cast<std::remove_reference_t<Args>*>(args[Index])...);
}

template <class... Args>
void call(void (*kernel)(Args...), void** args) {
    call(kernel, args, std::index_sequence_for<Args...>{});
}

template <class T>
constexpr char letter() {
    if (std::is_pointer_v<T>) return 'p';
    if (std::is_same_v<T, float>) return 'f';
    if (std::is_same_v<T, double>) return 'd';
    static_assert(std::is_pointer_v<T> || std::is_arithmetic_v<T>, "unsupported kernel parameter");
    return sizeof(T) == 8 ? 'q' : 'i';
}

// One letter per parameter: p pointer, f float, d double, q 64-bit, i 32-bit integer.
template <class... Args>
const char* signature(void (*)(Args...)) {
    static const char text[] = {letter<Args>()..., '\0'};
    return text;
}

// --- warps ---
inline uint64_t exchange(unsigned mask, uint64_t value) {
    Machine& m = machine();
    if (!(mask >> m.current % 32 & 1))
        throw std::runtime_error("a thread calls a warp function without being in its mask");
    m.fibers[m.current].offered = value;
    wait(State::at_warp_barrier, mask);
    return m.snapshot[m.current];
}

template <class T>
T shuffle(unsigned mask, T value, int source_lane) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "shuffles move 4 or 8 bytes");
    Machine& m = machine();
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    exchange(mask, bits);
    const size_t source = m.current / 32 * 32 + static_cast<size_t>(source_lane);
    if (!(mask >> source_lane & 1) || source >= m.fibers.size())
        throw std::runtime_error("shuffle from a lane outside the mask");
    memcpy(&value, &m.snapshot[source], sizeof(T));
    return value;
}

inline unsigned ballot(unsigned mask, bool predicate) {
    Machine& m = machine();
    exchange(mask, predicate);
    unsigned bits = 0;
    const size_t warp = m.current / 32 * 32;
    for (size_t lane = 0; lane < 32 && warp + lane < m.fibers.size(); ++lane) {
        if (mask >> lane & 1 && m.snapshot[warp + lane]) bits |= 1u << lane;
    }
    return bits;
}

inline int lane() { return static_cast<int>(machine().current % 32); }

}  // namespace fa_emu

inline void __syncthreads() { fa_emu::wait(fa_emu::State::at_block_barrier, 0); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { fa_emu::exchange(mask, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return fa_emu::shuffle(mask, value, fa_emu::lane() / width * width + (source & (width - 1)));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = fa_emu::lane(), source = lane + static_cast<int>(delta);
    return fa_emu::shuffle(mask, value, source / width == lane / width ? source : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = fa_emu::lane(), source = lane - static_cast<int>(delta);
    return fa_emu::shuffle(mask, value, source >= lane / width * width ? source : lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const int lane = fa_emu::lane(), source = lane ^ bits;
    return fa_emu::shuffle(mask, value, source / width <= lane / width ? source : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return fa_emu::ballot(mask, predicate != 0); }
inline int __any_sync(unsigned mask, int predicate) { return fa_emu::ballot(mask, predicate != 0) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return fa_emu::ballot(mask, predicate == 0) == 0; }

// Threads run one at a time, so plain operations are atomic. Float sums still depend on the order: the backwards run
// will say so, rightly.
template <class T>
T atomicAdd(T* address, T value) {
    return std::exchange(*address, static_cast<T>(*address + value));
}
template <class T>
T atomicMax(T* address, T value) {
    return std::exchange(*address, std::max(*address, value));
}
template <class T>
T atomicMin(T* address, T value) {
    return std::exchange(*address, std::min(*address, value));
}
template <class T>
T atomicExch(T* address, T value) {
    return std::exchange(*address, value);
}
template <class T>
T atomicCAS(T* address, T compare, T value) {
    return std::exchange(*address, *address == compare ? value : *address);
}
template <class T>
T atomicOr(T* address, T value) {
    return std::exchange(*address, *address | value);
}

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
inline int __ffs(int value) { return __builtin_ffs(value); }
