// How the keys, or the values, of one layer lie in a block of the paged cache: for those that write and that read them.
//
// Head by head there are groups of 16 keys [padded head_dim, 16], or values [tokens, padded head_dim]; padded to a
// multiple of 16. After them i8 has its float32 scales [heads, tokens].
#pragma once

#include <cstdint>

#include "kinds.h"

namespace headrace {

// Keys that lie side by side, dimension by dimension.
constexpr int kKeyGroup = 16;

// Its functions are compiled for every instruction set level: inlined always, no level runs the copy of another.
struct KvBlock {
    KvKind kind;
    int tokens;
    int heads;
    int head_dim;

    [[gnu::always_inline]] int64_t padded() const { return (head_dim + 15) / 16 * 16; }
    // Of one head of one token, without its scale.
    [[gnu::always_inline]] int64_t row_bytes() const {
        return padded() * (kind == KvKind::f32 ? 4 : kind == KvKind::i8 ? 1 : 2);
    }
    // Where, in bytes, the group begins that holds the key `slot` of a head; that value; the scale of either.
    [[gnu::always_inline]] int64_t key_group(int head, int64_t slot) const {
        return value(head, slot / kKeyGroup * kKeyGroup);
    }
    [[gnu::always_inline]] int64_t value(int head, int64_t slot) const {
        return (int64_t{head} * tokens + slot) * row_bytes();
    }
    [[gnu::always_inline]] int64_t scale(int head, int64_t slot) const {
        return value(heads, 0) + 4 * (int64_t{head} * tokens + slot);
    }
    [[gnu::always_inline]] int64_t bytes() const { return kind == KvKind::i8 ? scale(heads, 0) : value(heads, 0); }
};

// Throws std::invalid_argument for a number of tokens that is not a multiple of 16.
KvBlock checked(const KvBlock& block);

}  // namespace headrace
