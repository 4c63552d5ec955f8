// The blocks of quantised weights as GGUF files store them.
#pragma once

#include <cstdint>

#include "kinds.h"

namespace headrace {

// 32 elements: value[i] = scale * quants[i] + minimum, with quants unsigned as in layout.h. For kinds with a header,
// `scale` and `minimum` are those of the header and `a` and `b` the block's own bytes (see layout.h).
struct UnpackedBlock {
    uint8_t quants[kBlock];
    uint16_t scale = 0;    // float16
    uint16_t minimum = 0;  // float16
    uint8_t a = 0;         // q6_k: the scale of the first half, as int8
    uint8_t b = 0;         // q6_k: of the second half
};

// Bytes of the stored block, or group of 8 blocks for a _k kind.
int stored_block_bytes(Kind kind);

// Block `index` of a stored row.
UnpackedBlock unpack_block(Kind kind, const uint8_t* row, int index);

// Stores 32 values as a block of q8_0 or q4_1.
void store_q8_0(const float* values, uint8_t* block);
void store_q4_1(const float* values, uint8_t* block);

}  // namespace headrace
