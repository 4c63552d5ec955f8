// The paged KV cache, as the kernels see it. The memory belongs to the caller.
#pragma once

#include <cstdint>

#include "kv_block.h"

namespace headrace {

// [blocks, layers, 2, block.bytes()]; index 0 of the third dimension are the keys.
struct KvCache {
    uint8_t* memory;
    int64_t num_layers;
    int64_t num_blocks;
    KvBlock block;

    // From one block of a layer's keys, or values, to the next.
    int64_t block_stride() const { return 2 * num_layers * block.bytes(); }
    uint8_t* keys(int layer) const { return memory + 2 * layer * block.bytes(); }
    uint8_t* values(int layer) const { return keys(layer) + block.bytes(); }
};

}  // namespace headrace
