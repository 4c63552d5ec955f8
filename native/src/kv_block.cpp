#include "kv_block.h"

#include <stdexcept>
#include <string>

namespace headrace {

KvBlock checked(const KvBlock& block) {
    if (block.tokens < kKeyGroup || block.tokens % kKeyGroup != 0) {
        throw std::invalid_argument("the block size must be a multiple of " + std::to_string(kKeyGroup) + ", not " +
                                    std::to_string(block.tokens));
    }
    return block;
}

}  // namespace headrace
