// Memory for weights, in huge pages where the system has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

namespace headrace {

// Weights are read from front to back at every step. Within a page of 4 KB the hardware fetches ahead; at its end it
// stops, and the next page's address has to be looked up. With pages of 2 MB that happens 500 times less often. Matrices
// are smaller than that, so they share chunks.
class WeightMemory {
public:
    // `bytes` of memory that is zero and aligned to a cache line; its chunk is given back with the last of its owners.
    // May be called by several threads. Throws std::bad_alloc.
    std::shared_ptr<uint8_t> take(size_t bytes);

private:
    std::mutex mutex_;
    std::shared_ptr<uint8_t> chunk_;
    size_t used_ = 0;
    size_t size_ = 0;
};

}  // namespace headrace
