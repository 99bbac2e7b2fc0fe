// Memory of a thread for its work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fa {

// So many floats, aligned to 64 bytes. It grows to what a thread needs and stays: fresh pages for every task would cost
// as much as its work. A second call gives the same memory again.
inline float* aligned_room(long long floats) {
    thread_local std::vector<float> room;
    constexpr size_t line = 64 / sizeof(float);
    if (room.size() < static_cast<size_t>(floats) + line) room.resize(static_cast<size_t>(floats) + line);
    return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(room.data()) + 63) / 64 * 64);
}

}  // namespace fa
