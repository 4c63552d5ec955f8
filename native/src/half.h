// Storage types of 16 bits, told apart so that loads know how to widen them, and what they mean.
#pragma once

#include <cstdint>
#include <cstring>

namespace headrace {

struct Half {
    uint16_t bits;
};

struct Brain {
    uint16_t bits;
};

// Compiled for every instruction set level: inlined always, no level runs the copy of another.

[[gnu::always_inline]] inline float widen(Half x) {
    const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
    const uint32_t exponent = (x.bits >> 10) & 31, fraction = x.bits & 1023;
    uint32_t bits;
    if (exponent == 0) {  // zero, or a subnormal: fraction * 2^-24
        const float value = static_cast<float>(fraction) * 5.9604644775390625e-8f;
        std::memcpy(&bits, &value, 4);
        bits |= sign;
    } else {
        bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    }
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}

[[gnu::always_inline]] inline Half narrow(float x) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
    if (bits >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};
    if (bits < 0x38800000) {  // below the smallest normal: let the float unit round to a multiple of 2^-24
        float value;
        std::memcpy(&value, &bits, 4);
        const float shifted = value + 0.5f;  // 0.5 has an ulp of 2^-24
        std::memcpy(&bits, &shifted, 4);
        return {static_cast<uint16_t>(sign | (bits - 0x3f000000))};
    }
    bits += 0xfff + ((bits >> 13) & 1);
    return {static_cast<uint16_t>(sign | ((bits >> 13) - (112 << 10)))};
}

[[gnu::always_inline]] inline float widen(Brain x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}

}  // namespace headrace
