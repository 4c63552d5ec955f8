#include "gguf_blocks.h"

#include <cmath>
#include <cstring>

#include "half.h"

namespace headrace {
namespace {

uint16_t read_u16(const uint8_t* bytes) {
    uint16_t value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

// 16 bytes of nibbles: the low ones are the first half of a block.
void unpack_nibbles(const uint8_t* packed, uint8_t* quants) {
    for (int i = 0; i < 16; ++i) {
        quants[i] = packed[i] & 15;
        quants[16 + i] = packed[i] >> 4;
    }
}

void add_fifth_bits(const uint8_t* packed, uint8_t* quants) {
    uint32_t bits;
    std::memcpy(&bits, packed, sizeof bits);
    for (int i = 0; i < kBlock; ++i) quants[i] |= static_cast<uint8_t>((bits >> i & 1) << 4);
}

// Scale and minimum of block `index`, 6 bits each, of the 12 bytes in which q4_k and q5_k keep those of 8 blocks.
void unpack_scales_k(const uint8_t* packed, int index, uint8_t& scale, uint8_t& minimum) {
    if (index < 4) {
        scale = packed[index] & 63;
        minimum = packed[index + 4] & 63;
    } else {
        scale = static_cast<uint8_t>((packed[index + 4] & 15) | (packed[index - 4] >> 6) << 4);
        minimum = static_cast<uint8_t>((packed[index + 4] >> 4) | (packed[index] >> 6) << 4);
    }
}

// q4_k: scale, minimum, 12 bytes of scales, 128 of nibbles; q5_k has 32 bytes of fifth bits before the nibbles.
void unpack_k(Kind kind, const uint8_t* super, int index, UnpackedBlock& out) {
    out.scale = read_u16(super);
    out.minimum = read_u16(super + 2);
    unpack_scales_k(super + 4, index, out.a, out.b);
    const uint8_t* nibbles = super + (kind == Kind::q5_k ? 48 : 16) + index / 2 * 32;
    for (int i = 0; i < kBlock; ++i) out.quants[i] = index % 2 ? nibbles[i] >> 4 : nibbles[i] & 15;
    if (kind == Kind::q5_k) {
        const uint8_t* fifth = super + 16;
        for (int i = 0; i < kBlock; ++i) out.quants[i] |= static_cast<uint8_t>((fifth[i] >> index & 1) << 4);
    }
}

// q6_k: 128 bytes of low nibbles, 64 of high bit pairs, 16 int8 scales, float16 scale. Elements 128 n + 32 q + i have
// their nibble in byte 64 n + 32 (q % 2) + i (low for q < 2) and their pair q in byte 32 n + i of the high bits.
void unpack_q6_k(const uint8_t* super, int index, UnpackedBlock& out) {
    const int n = index / 4, q = index % 4;
    const uint8_t* nibbles = super + 64 * n + 32 * (q % 2);
    const uint8_t* pairs = super + 128 + 32 * n;
    for (int i = 0; i < kBlock; ++i) {
        const int low = q < 2 ? nibbles[i] & 15 : nibbles[i] >> 4;
        out.quants[i] = static_cast<uint8_t>(low | (pairs[i] >> (2 * q) & 3) << 4);
    }
    out.a = super[192 + 2 * index];
    out.b = super[192 + 2 * index + 1];
    out.scale = read_u16(super + 208);
}

// 0, or NaN if a value is not finite: a block that cannot be quantised should not look as if it were.
float poison(const float* values) {
    float sum = 0.0f;
    for (int i = 0; i < kBlock; ++i) sum += values[i] * 0.0f;
    return sum;
}

}  // namespace

int stored_block_bytes(Kind kind) {
    switch (kind) {
        case Kind::q4_0: return 18;
        case Kind::q4_1: return 20;
        case Kind::q5_0: return 22;
        case Kind::q5_1: return 24;
        case Kind::q8_0: return 34;
        case Kind::q4_k: return 144;
        case Kind::q5_k: return 176;
        case Kind::q6_k: return 210;
        default: return 0;
    }
}

UnpackedBlock unpack_block(Kind kind, const uint8_t* row, int index) {
    UnpackedBlock out;
    if (kind >= Kind::q4_k) {
        constexpr int kBlocks = kSuperBlock / kBlock;
        const uint8_t* super = row + static_cast<int64_t>(index / kBlocks) * stored_block_bytes(kind);
        if (kind == Kind::q6_k) {
            unpack_q6_k(super, index % kBlocks, out);
        } else {
            unpack_k(kind, super, index % kBlocks, out);
        }
        return out;
    }
    const uint8_t* block = row + static_cast<int64_t>(index) * stored_block_bytes(kind);
    out.scale = read_u16(block);
    block += 2;
    if (kind == Kind::q8_0) {
        for (int i = 0; i < kBlock; ++i) out.quants[i] = static_cast<uint8_t>(block[i] + 128);
        return out;
    }
    if (kind == Kind::q4_1 || kind == Kind::q5_1) {
        out.minimum = read_u16(block);
        block += 2;
    }
    const bool fifth = kind == Kind::q5_0 || kind == Kind::q5_1;
    unpack_nibbles(block + (fifth ? 4 : 0), out.quants);
    if (fifth) add_fifth_bits(block, out.quants);
    return out;
}

void store_q8_0(const float* values, uint8_t* block) {
    float peak = 0.0f;
    for (int i = 0; i < kBlock; ++i) peak = std::fmax(peak, std::fabs(values[i]));
    const uint16_t bits = narrow(peak / 127.0f + poison(values)).bits;
    // Against the scale as it is stored: rounding it may put the largest beyond 127.
    const float scale = widen(Half{bits});
    std::memcpy(block, &bits, 2);
    for (int i = 0; i < kBlock; ++i) {
        const float whole = scale > 0.0f ? std::nearbyint(values[i] / scale) : 0.0f;
        block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::fmin(127.0f, std::fmax(-127.0f, whole))));
    }
}

void store_q4_1(const float* values, uint8_t* block) {
    float low = values[0], high = values[0];
    for (int i = 1; i < kBlock; ++i) {
        low = std::fmin(low, values[i]);
        high = std::fmax(high, values[i]);
    }
    const uint16_t bits[2] = {narrow((high - low) / 15.0f + poison(values)).bits, narrow(low).bits};
    const float scale = widen(Half{bits[0]}), minimum = widen(Half{bits[1]});
    std::memcpy(block, bits, 4);
    uint8_t quants[kBlock];
    for (int i = 0; i < kBlock; ++i) {
        const float whole = scale > 0.0f ? std::nearbyint((values[i] - minimum) / scale) : 0.0f;
        quants[i] = static_cast<uint8_t>(std::fmin(15.0f, std::fmax(0.0f, whole)));
    }
    for (int i = 0; i < 16; ++i) block[4 + i] = static_cast<uint8_t>(quants[i] | quants[16 + i] << 4);
}

}  // namespace headrace
