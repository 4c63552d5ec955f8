#include "weight_memory.h"

#include <algorithm>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#else
#include <cstdlib>
#endif

namespace headrace {
namespace {

constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kChunk = 8 * kHugePage;
constexpr size_t kCacheLine = 64;

constexpr size_t round_up(size_t bytes, size_t multiple) { return (bytes + multiple - 1) / multiple * multiple; }

#if defined(__linux__)

std::shared_ptr<uint8_t> map_chunk(size_t bytes) {
    // One page more than is needed, so that an aligned part lies inside.
    const size_t mapped = bytes + kHugePage;
    void* const memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    uint8_t* const aligned = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<uintptr_t>(memory), kHugePage));
    madvise(aligned, bytes, MADV_HUGEPAGE);  // advice: where it is not taken, pages are small
    return {aligned, [memory, mapped](uint8_t*) { munmap(memory, mapped); }};
}

#else

std::shared_ptr<uint8_t> map_chunk(size_t bytes) {
    void* const memory = std::calloc(1, bytes + kCacheLine);
    if (!memory) throw std::bad_alloc();
    return {reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<uintptr_t>(memory), kCacheLine)),
            [memory](uint8_t*) { std::free(memory); }};
}

#endif

}  // namespace

std::shared_ptr<uint8_t> WeightMemory::take(size_t bytes) {
    bytes = round_up(bytes, kCacheLine);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!chunk_ || bytes > size_ - used_) {
        const size_t size = std::max(kChunk, round_up(bytes, kHugePage));
        chunk_ = map_chunk(size);
        size_ = size;
        used_ = 0;
    }
    const std::shared_ptr<uint8_t> part(chunk_, chunk_.get() + used_);
    used_ += bytes;
    return part;
}

}  // namespace headrace
