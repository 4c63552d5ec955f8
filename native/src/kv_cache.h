// The paged KV cache, as the kernels see it. The memory belongs to the caller.
#pragma once

#include <cstdint>

#include "kinds.h"

namespace headrace {

// [blocks, layers, 2, block_bytes]; index 0 of the third dimension are the keys. Each block of them holds, head by
// head, groups of 16 keys [padded head_dim, 16], or values [block_size, padded head_dim]; padded to a multiple of 16.
// i8 has the float32 scales [heads, block_size] after that.
struct KvCache {
    uint8_t* memory;
    int64_t num_layers;
    int64_t num_blocks;
    KvKind kind;
    int block_size;
    int num_kv_heads;
    int head_dim;

    // Throws std::invalid_argument for a block size that is not a multiple of 16.
    static int64_t block_bytes(KvKind kind, int block_size, int num_kv_heads, int head_dim);

    int64_t block_bytes() const { return block_bytes(kind, block_size, num_kv_heads, head_dim); }
    // From one block of a layer's keys, or values, to the next.
    int64_t block_stride() const { return 2 * num_layers * block_bytes(); }
    uint8_t* keys(int layer) const { return memory + 2 * layer * block_bytes(); }
    uint8_t* values(int layer) const { return keys(layer) + block_bytes(); }
};

}  // namespace headrace
