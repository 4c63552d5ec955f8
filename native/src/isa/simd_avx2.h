// Vectors of 8 floats or 32 bytes: AVX2, FMA and F16C. The vocabulary that the kernels are written in; see
// simd_portable.h for what each word means.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "../half.h"

namespace headrace::avx2 {

constexpr int kLanes = 8;
constexpr int kRegisters = 16;
constexpr bool kReadsWideQuants = true;

using Floats = __m256;
using Ints = __m256i;
using Bytes = __m256i;

inline Floats zero() { return _mm256_setzero_ps(); }
inline Floats splat(float x) { return _mm256_set1_ps(x); }
inline Floats splat_from(const float* x) { return _mm256_broadcast_ss(x); }
inline Floats load(const float* x) { return _mm256_loadu_ps(x); }
inline Floats load(const Half* x) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))); }
inline Floats load(const Brain* x) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Floats load(const int8_t* x) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))));
}
inline Floats load(const uint8_t* x) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))));
}
inline void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
inline void store(Half* to, Floats x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_rounded(int8_t* to, Floats x) {
    const __m256i whole = _mm256_cvtps_epi32(x);
    const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(shorts, shorts));
}
inline void store_rounded(int16_t* to, Floats x) {
    const __m256i whole = _mm256_cvtps_epi32(x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
}

inline Ints first_lanes_mask(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Floats load_first(const float* x, int count) { return _mm256_maskload_ps(x, first_lanes_mask(count)); }
inline void store_first(float* to, Floats x, int count) { _mm256_maskstore_ps(to, first_lanes_mask(count), x); }
inline Floats keep_range(Floats x, int begin, int end, Floats other) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i inside = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(begin), lane),
                                               _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane));
    return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(inside));
}

inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Floats abs(Floats x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
inline Floats round(Floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Floats power_of_two(Floats whole) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
inline Floats zero_below(Floats x, Floats bound, Floats value) {
    return _mm256_andnot_ps(_mm256_cmp_ps(x, bound, _CMP_LT_OQ), value);
}
inline float sum(Floats x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float highest(Floats x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

inline Bytes load_bytes(const uint8_t* x) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)); }
inline Bytes splat_quad(const int8_t* x) {
    int32_t quad;
    std::memcpy(&quad, x, 4);
    return _mm256_set1_epi32(quad);
}
inline Bytes splat_pair(const int16_t* x) {
    int32_t pair;
    std::memcpy(&pair, x, 4);
    return _mm256_set1_epi32(pair);
}
inline Bytes bits_and(Bytes a, uint8_t mask) { return _mm256_and_si256(a, _mm256_set1_epi8(static_cast<char>(mask))); }
inline Bytes bits_or(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
template <int Count>
inline Bytes shift_right(Bytes x) { return _mm256_srli_epi16(x, Count); }
template <int Count>
inline Bytes shift_left(Bytes x) { return _mm256_slli_epi16(x, Count); }
inline Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }

// A sum that is needed now: otherwise the compiler computes all products first, to add them up in pairs, and runs out
// of registers.
inline __m256i keep_order(__m256i sum) {
    asm("" : "+x"(sum));
    return sum;
}

// The same, in the register that the sum is in: one instruction, where the compiler would copy it first.
inline Ints add_in_place(Ints sum, Ints x) {
    asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(x));
    return sum;
}

inline Ints no_ints() { return _mm256_setzero_si256(); }
inline Ints add_pairs(Ints sum, Bytes a, Bytes b) { return add_in_place(sum, _mm256_madd_epi16(a, b)); }

inline Ints widen(__m256i shorts) { return _mm256_madd_epi16(shorts, _mm256_set1_epi16(1)); }

// Sums of products of unsigned weights of so many bits with signed bytes, four neighbours to a lane; exact for the 8
// steps of a block. Without a byte dot product, pairs are summed in 16 bits, as many as cannot overflow:
// steps * 2 * (2^Bits - 1) * 127 < 2^15.
template <int Bits>
struct Dot {
    static constexpr int kSafeSteps = Bits == 5 ? 4 : 2;
    __m256i shorts = _mm256_setzero_si256();
    __m256i ints = _mm256_setzero_si256();
    static Bytes input(const int8_t* quants, const int16_t*, int64_t at) { return splat_quad(quants + at); }
    template <int Step>
    void step(Bytes weights, Bytes x) {
        shorts = keep_order(_mm256_add_epi16(shorts, _mm256_maddubs_epi16(weights, x)));
        if (Step % kSafeSteps == kSafeSteps - 1) {
            ints = _mm256_add_epi32(ints, widen(shorts));
            shorts = _mm256_setzero_si256();
        }
    }
    Floats total(const float* multiple, const int32_t*) const { return mul(to_floats(ints), splat_from(multiple)); }
};

// A whole block of 4 bits fits: the sums are widened once, which is where they are multiplied, and no register is taken
// for wider ones.
template <>
struct Dot<4> {
    __m256i shorts = _mm256_setzero_si256();
    static Bytes input(const int8_t* quants, const int16_t*, int64_t at) { return splat_quad(quants + at); }
    template <int Step>
    void step(Bytes weights, Bytes x) {
        shorts = keep_order(_mm256_add_epi16(shorts, _mm256_maddubs_epi16(weights, x)));
    }
    Floats total(const float*, const int32_t* paired_multiple) const {
        const __m256i both = _mm256_set1_epi32(*paired_multiple);
        return to_floats(_mm256_madd_epi16(shorts, both));
    }
};

// Whole bytes are multiplied as 16 bits, those of even places and those of odd places apart.
template <>
struct Dot<8> {
    struct Input {
        __m256i even, odd;
    };
    __m256i ints = _mm256_setzero_si256();
    static Input input(const int8_t*, const int16_t* wide, int64_t at) {
        return {splat_pair(wide + at), splat_pair(wide + at + 2)};
    }
    template <int Step>
    void step(Bytes weights, Input x) {
        const __m256i even = _mm256_madd_epi16(_mm256_and_si256(weights, _mm256_set1_epi16(255)), x.even);
        const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(weights, 8), x.odd);
        ints = add_in_place(ints, even);
        ints = add_in_place(ints, odd);
    }
    Floats total(const float* multiple, const int32_t*) const { return mul(to_floats(ints), splat_from(multiple)); }
};

}  // namespace headrace::avx2
