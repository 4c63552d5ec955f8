// The precisions in which weights and the KV cache are kept.
#pragma once

#include <string>

namespace headrace {

// How the elements of a weight matrix are stored. The integer kinds are GGUF's, with blocks of 32 elements that share
// a scale (q6_k: 16); those ending in _k group 8 blocks under a common scale. i16 are whole numbers of 13 bits, kept in
// 16, with a float32 scale for each run of 128 elements: not stored by any file, but made from floats, for processors
// that multiply such numbers faster.
enum class Kind { f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k, i16 };

constexpr int kNumKinds = 12;

// How keys and values are stored; i8 has one float32 scale for each head of each token.
enum class KvKind { f32, f16, bf16, i8 };

constexpr int kBlock = 32;       // elements of a weight row, and of an activation row, that share a scale
constexpr int kSuperBlock = 256; // elements of a _k block
constexpr int kRun = 128;        // elements of a row of 16-bit integers, of weights or activations, that share a scale

// The largest size of those: kRun products of two of them still fit 32 bits.
constexpr int kMostShort = 4095;

constexpr bool is_float(Kind kind) { return kind <= Kind::bf16; }
// Whether it consists of GGUF's blocks.
constexpr bool is_blocked(Kind kind) { return kind >= Kind::q4_0 && kind <= Kind::q6_k; }

// Elements that the columns of a matrix of this kind must be a multiple of.
constexpr int column_multiple(Kind kind) {
    return is_float(kind) ? 1 : kind == Kind::i16 ? 2 : kind >= Kind::q4_k ? kSuperBlock : kBlock;
}

// Both throw std::invalid_argument for a name that is not known.
Kind kind_of(const std::string& name);
KvKind kv_kind_of(const std::string& name);
const char* name_of(Kind kind);

}  // namespace headrace
