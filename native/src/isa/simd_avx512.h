// Vectors of 16 floats or 64 bytes: AVX-512 F, BW, DQ and VL, with the byte dot product (VNNI) where the compiler is
// told that it is there. See simd_portable.h for what each word means.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "../half.h"

namespace headrace::HEADRACE_ISA {

constexpr int kLanes = 16;
constexpr int kRegisters = 32;
#ifdef __AVX512VNNI__
constexpr bool kReadsWideQuants = false;
#else
constexpr bool kReadsWideQuants = true;
#endif

using Floats = __m512;
using Ints = __m512i;
using Bytes = __m512i;

inline Floats zero() { return _mm512_setzero_ps(); }
inline Floats splat(float x) { return _mm512_set1_ps(x); }
inline Floats splat_from(const float* x) { return _mm512_set1_ps(*x); }
inline Floats load(const float* x) { return _mm512_loadu_ps(x); }
inline Floats load(const Half* x) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))); }
inline Floats load(const Brain* x) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline Floats load(const int8_t* x) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
}
inline Floats load(const uint8_t* x) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
}
inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
inline void store(Half* to, Floats x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void store_rounded(int8_t* to, Floats x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}
inline void store_rounded(int16_t* to, Floats x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
}

inline __mmask16 first_lanes_mask(int count) { return static_cast<__mmask16>((1u << count) - 1u); }
inline Floats load_first(const float* x, int count) { return _mm512_maskz_loadu_ps(first_lanes_mask(count), x); }
inline void store_first(float* to, Floats x, int count) { _mm512_mask_storeu_ps(to, first_lanes_mask(count), x); }
inline int clamp_lane(int lane) { return lane < 0 ? 0 : lane > kLanes ? kLanes : lane; }
inline Floats keep_range(Floats x, int begin, int end, Floats other) {
    const unsigned inside = ((1u << clamp_lane(end)) - 1u) & ~((1u << clamp_lane(begin)) - 1u);
    return _mm512_mask_blend_ps(static_cast<__mmask16>(inside), other, x);
}

inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats abs(Floats x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x); }
inline Floats round(Floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Floats power_of_two(Floats whole) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
}
inline Floats zero_below(Floats x, Floats bound, Floats value) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), value);
}
inline float sum(Floats x) { return _mm512_reduce_add_ps(x); }
inline float highest(Floats x) { return _mm512_reduce_max_ps(x); }

inline Bytes load_bytes(const uint8_t* x) { return _mm512_loadu_si512(x); }
inline Bytes splat_quad(const int8_t* x) {
    int32_t quad;
    std::memcpy(&quad, x, 4);
    return _mm512_set1_epi32(quad);
}
inline Bytes splat_pair(const int16_t* x) {
    int32_t pair;
    std::memcpy(&pair, x, 4);
    return _mm512_set1_epi32(pair);
}
inline Bytes bits_and(Bytes a, uint8_t mask) { return _mm512_and_si512(a, _mm512_set1_epi8(static_cast<char>(mask))); }
inline Bytes bits_or(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
template <int Count>
inline Bytes shift_right(Bytes x) { return _mm512_srli_epi16(x, Count); }
template <int Count>
inline Bytes shift_left(Bytes x) { return _mm512_slli_epi16(x, Count); }
inline Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
inline Ints no_ints() { return _mm512_setzero_si512(); }

#ifdef __AVX512VNNI__

inline Ints add_pairs(Ints sum, Bytes a, Bytes b) { return _mm512_dpwssd_epi32(sum, a, b); }

template <int Bits>
struct Dot {
    __m512i ints = _mm512_setzero_si512();
    static Bytes input(const int8_t* quants, const int16_t*, int64_t at) { return splat_quad(quants + at); }
    template <int Step>
    void step(Bytes weights, Bytes x) { ints = _mm512_dpbusd_epi32(ints, weights, x); }
    Floats total(const float* multiple, const int32_t*) const { return mul(to_floats(ints), splat_from(multiple)); }
};

#else

// A sum that is needed now: otherwise the compiler computes all products first, to add them up in pairs, and runs out
// of registers.
inline __m512i keep_order(__m512i sum) {
    asm("" : "+v"(sum));
    return sum;
}

// The same, in the register that the sum is in: one instruction, where the compiler would copy it first.
inline Ints add_in_place(Ints sum, Ints x) {
    asm("vpaddd %1, %0, %0" : "+v"(sum) : "v"(x));
    return sum;
}

inline Ints add_pairs(Ints sum, Bytes a, Bytes b) { return add_in_place(sum, _mm512_madd_epi16(a, b)); }

inline Ints widen(__m512i shorts) { return _mm512_madd_epi16(shorts, _mm512_set1_epi16(1)); }

// As in simd_avx2.h: pairs are summed in 16 bits, as many as cannot overflow.
template <int Bits>
struct Dot {
    static constexpr int kSafeSteps = Bits == 5 ? 4 : 2;
    __m512i shorts = _mm512_setzero_si512();
    __m512i ints = _mm512_setzero_si512();
    static Bytes input(const int8_t* quants, const int16_t*, int64_t at) { return splat_quad(quants + at); }
    template <int Step>
    void step(Bytes weights, Bytes x) {
        shorts = keep_order(_mm512_add_epi16(shorts, _mm512_maddubs_epi16(weights, x)));
        if (Step % kSafeSteps == kSafeSteps - 1) {
            ints = _mm512_add_epi32(ints, widen(shorts));
            shorts = _mm512_setzero_si512();
        }
    }
    Floats total(const float* multiple, const int32_t*) const { return mul(to_floats(ints), splat_from(multiple)); }
};

// As in simd_avx2.h: a whole block of 4 bits fits.
template <>
struct Dot<4> {
    __m512i shorts = _mm512_setzero_si512();
    static Bytes input(const int8_t* quants, const int16_t*, int64_t at) { return splat_quad(quants + at); }
    template <int Step>
    void step(Bytes weights, Bytes x) {
        shorts = keep_order(_mm512_add_epi16(shorts, _mm512_maddubs_epi16(weights, x)));
    }
    Floats total(const float*, const int32_t* paired_multiple) const {
        return to_floats(_mm512_madd_epi16(shorts, _mm512_set1_epi32(*paired_multiple)));
    }
};

// Whole bytes are multiplied as 16 bits, those of even places and those of odd places apart.
template <>
struct Dot<8> {
    struct Input {
        __m512i even, odd;
    };
    __m512i ints = _mm512_setzero_si512();
    static Input input(const int8_t*, const int16_t* wide, int64_t at) {
        return {splat_pair(wide + at), splat_pair(wide + at + 2)};
    }
    template <int Step>
    void step(Bytes weights, Input x) {
        const __m512i even = _mm512_madd_epi16(_mm512_and_si512(weights, _mm512_set1_epi16(255)), x.even);
        const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(weights, 8), x.odd);
        ints = add_in_place(ints, even);
        ints = add_in_place(ints, odd);
    }
    Floats total(const float* multiple, const int32_t*) const { return mul(to_floats(ints), splat_from(multiple)); }
};

#endif

}  // namespace headrace::HEADRACE_ISA
