// The precisions in which weights and the KV cache are kept.
#pragma once

#include <string>

namespace headrace {

// How the elements of a weight matrix are stored. The integer kinds are GGUF's, with blocks of 32 elements that share
// a scale (q6_k: 16); those ending in _k group 8 blocks under a common scale.
enum class Kind { f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k };

constexpr int kNumKinds = 11;

// How keys and values are stored; i8 has one float32 scale for each head of each token.
enum class KvKind { f32, f16, bf16, i8 };

constexpr int kBlock = 32;       // elements of a weight row, and of an activation row, that share a scale
constexpr int kSuperBlock = 256; // elements of a _k block

constexpr bool is_float(Kind kind) { return kind <= Kind::bf16; }

// Elements that the columns of a matrix of this kind must be a multiple of.
constexpr int column_multiple(Kind kind) {
    return is_float(kind) ? 1 : kind >= Kind::q4_k ? kSuperBlock : kBlock;
}

// Both throw std::invalid_argument for a name that is not known.
Kind kind_of(const std::string& name);
KvKind kv_kind_of(const std::string& name);
const char* name_of(Kind kind);

}  // namespace headrace
