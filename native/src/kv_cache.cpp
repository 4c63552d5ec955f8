#include "kv_cache.h"

#include <stdexcept>
#include <string>

#include "kernels.h"

namespace headrace {

int64_t KvCache::block_bytes(KvKind kind, int block_size, int num_kv_heads, int head_dim) {
    if (block_size < kKeyGroup || block_size % kKeyGroup != 0) {
        throw std::invalid_argument("the block size must be a multiple of " + std::to_string(kKeyGroup) + ", not " +
                                    std::to_string(block_size));
    }
    const int64_t padded = (head_dim + 15) / 16 * 16;
    const int64_t tokens = int64_t{num_kv_heads} * block_size;
    switch (kind) {
        case KvKind::f32: return tokens * padded * 4;
        case KvKind::i8: return tokens * (padded + 4);
        default: return tokens * padded * 2;
    }
}

}  // namespace headrace
