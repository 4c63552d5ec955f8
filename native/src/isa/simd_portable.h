// The vocabulary that the kernels are written in, in plain C++: what every word means, and what runs where there is
// nothing better. The compiler turns the short loops into whatever vectors the target has.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../half.h"

// The native tests compile these words with 16 lanes as well: the layout of AVX-512, on machines that lack it.
#ifndef HEADRACE_PORTABLE_LANES
#define HEADRACE_PORTABLE_LANES 8
#endif

namespace headrace::HEADRACE_ISA {

constexpr int kLanes = HEADRACE_PORTABLE_LANES;
constexpr int kRegisters = 8;  // such vectors as a machine without wide ones may keep at hand
constexpr bool kReadsWideQuants = false;  // whether Dot<8> takes its input in 16 bits

struct Floats {
    float lane[kLanes];
};

struct Ints {
    int32_t lane[kLanes];
};

struct Bytes {
    uint8_t lane[4 * kLanes];
};

template <class Fn>
inline Floats each(Fn fn) {
    Floats out;
    for (int i = 0; i < kLanes; ++i) out.lane[i] = fn(i);
    return out;
}

inline Floats splat(float x) { return each([&](int) { return x; }); }
inline Floats splat_from(const float* x) { return splat(*x); }
inline Floats zero() { return splat(0.0f); }
inline Floats load(const float* x) { return each([&](int i) { return x[i]; }); }
inline Floats load(const Half* x) { return each([&](int i) { return widen(x[i]); }); }
inline Floats load(const Brain* x) { return each([&](int i) { return widen(x[i]); }); }
inline Floats load(const int8_t* x) { return each([&](int i) { return static_cast<float>(x[i]); }); }
inline Floats load(const uint8_t* x) { return each([&](int i) { return static_cast<float>(x[i]); }); }
inline void store(float* to, Floats x) {
    for (int i = 0; i < kLanes; ++i) to[i] = x.lane[i];
}
inline void store(Half* to, Floats x) {
    for (int i = 0; i < kLanes; ++i) to[i] = narrow(x.lane[i]);
}
// To the nearest whole number, ties to even; within -128 to 127.
inline void store_rounded(int8_t* to, Floats x) {
    for (int i = 0; i < kLanes; ++i) {
        const float whole = std::nearbyint(x.lane[i]);
        to[i] = whole >= -128.0f && whole <= 127.0f ? static_cast<int8_t>(whole) : int8_t{-128};
    }
}
// The same within -32768 to 32767.
inline void store_rounded(int16_t* to, Floats x) {
    for (int i = 0; i < kLanes; ++i) {
        const float whole = std::nearbyint(x.lane[i]);
        to[i] = whole >= -32768.0f && whole <= 32767.0f ? static_cast<int16_t>(whole) : int16_t{-32768};
    }
}

// The first `count` lanes, fewer than all; what is not loaded is 0.
inline Floats load_first(const float* x, int count) {
    return each([&](int i) { return i < count ? x[i] : 0.0f; });
}
inline void store_first(float* to, Floats x, int count) {
    for (int i = 0; i < count; ++i) to[i] = x.lane[i];
}
// Lanes begin:end of x, the others of `other`; the bounds may lie outside the vector.
inline Floats keep_range(Floats x, int begin, int end, Floats other) {
    return each([&](int i) { return i >= begin && i < end ? x.lane[i] : other.lane[i]; });
}

inline Floats add(Floats a, Floats b) { return each([&](int i) { return a.lane[i] + b.lane[i]; }); }
inline Floats sub(Floats a, Floats b) { return each([&](int i) { return a.lane[i] - b.lane[i]; }); }
inline Floats mul(Floats a, Floats b) { return each([&](int i) { return a.lane[i] * b.lane[i]; }); }
inline Floats div(Floats a, Floats b) { return each([&](int i) { return a.lane[i] / b.lane[i]; }); }
// a * b + c, rounded once where the machine can.
inline Floats fma(Floats a, Floats b, Floats c) {
    return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
inline Floats max(Floats a, Floats b) { return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; }); }
inline Floats min(Floats a, Floats b) { return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; }); }
inline Floats abs(Floats x) { return each([&](int i) { return std::fabs(x.lane[i]); }); }
inline Floats round(Floats x) { return each([&](int i) { return std::nearbyint(x.lane[i]); }); }
// 2^x for whole x from -126 to 127.
inline Floats power_of_two(Floats whole) {
    return each([&](int i) {
        // NaN has no int: any result will do, since it is multiplied with NaN
        const float exponent = whole.lane[i] >= -126.0f && whole.lane[i] <= 127.0f ? whole.lane[i] : 0.0f;
        const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(exponent) + 127) << 23;
        float out;
        std::memcpy(&out, &bits, 4);
        return out;
    });
}
// `value` where x >= bound or x is not a number, else 0.
inline Floats zero_below(Floats x, Floats bound, Floats value) {
    return each([&](int i) { return x.lane[i] < bound.lane[i] ? 0.0f : value.lane[i]; });
}
inline float sum(Floats x) {
    float total = 0.0f;
    for (int i = 0; i < kLanes; ++i) total += x.lane[i];
    return total;
}
inline float highest(Floats x) {
    float best = x.lane[0];
    for (int i = 1; i < kLanes; ++i) best = x.lane[i] > best ? x.lane[i] : best;
    return best;
}

inline Bytes load_bytes(const uint8_t* x) {
    Bytes out;
    std::memcpy(out.lane, x, sizeof out.lane);
    return out;
}
// The same four bytes again and again.
inline Bytes splat_quad(const int8_t* x) {
    Bytes out;
    for (int i = 0; i < kLanes; ++i) std::memcpy(out.lane + 4 * i, x, 4);
    return out;
}
inline Bytes splat_pair(const int16_t* x) {
    Bytes out;
    for (int i = 0; i < kLanes; ++i) std::memcpy(out.lane + 4 * i, x, 4);
    return out;
}
inline Bytes bits_and(Bytes a, uint8_t mask) {
    for (uint8_t& lane : a.lane) lane &= mask;
    return a;
}
inline Bytes bits_or(Bytes a, Bytes b) {
    for (int i = 0; i < 4 * kLanes; ++i) a.lane[i] |= b.lane[i];
    return a;
}
// Shifts may carry bits over from a neighbouring byte: mask afterwards.
template <int Count>
inline Bytes shift_right(Bytes x) {
    for (uint8_t& lane : x.lane) lane = static_cast<uint8_t>(lane >> Count);
    return x;
}
template <int Count>
inline Bytes shift_left(Bytes x) {
    for (uint8_t& lane : x.lane) lane = static_cast<uint8_t>(lane << Count);
    return x;
}
inline Floats to_floats(Ints x) {
    return each([&](int i) { return static_cast<float>(x.lane[i]); });
}
inline Ints no_ints() { return Ints{}; }
// Of two 16-bit integers in each lane, adds the sum of the products.
inline Ints add_pairs(Ints sum, Bytes a, Bytes b) {
    for (int i = 0; i < kLanes; ++i) {
        int16_t pair[2][2];
        std::memcpy(pair[0], a.lane + 4 * i, 4);
        std::memcpy(pair[1], b.lane + 4 * i, 4);
        sum.lane[i] += pair[0][0] * pair[1][0] + pair[0][1] * pair[1][1];
    }
    return sum;
}

// Sums of products of unsigned weights of so many bits with signed bytes, four neighbours to a lane; exact for the 8
// steps of a block. `Step` counts the calls since the sum began. `input` takes four elements from either of the forms
// in which a row is quantised, `total` the multiple of the row's block in either of its forms: it returns the sums times
// that.
template <int Bits>
struct Dot {
    Ints ints{};
    static Bytes input(const int8_t* quants, const int16_t*, int64_t at) { return splat_quad(quants + at); }
    template <int Step>
    void step(Bytes weights, Bytes x) {
        for (int i = 0; i < kLanes; ++i) {
            int32_t total = 0;
            for (int k = 4 * i; k < 4 * i + 4; ++k) total += weights.lane[k] * static_cast<int8_t>(x.lane[k]);
            ints.lane[i] += total;
        }
    }
    Floats total(const float* multiple, const int32_t*) const { return mul(to_floats(ints), splat_from(multiple)); }
};

}  // namespace headrace::HEADRACE_ISA
