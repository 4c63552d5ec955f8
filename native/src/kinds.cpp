#include "kinds.h"

#include <stdexcept>

namespace headrace {
namespace {

constexpr const char* kNames[kNumKinds] = {"f32",  "f16",  "bf16", "q4_0", "q4_1", "q5_0",
                                           "q5_1", "q8_0", "q4_k", "q5_k", "q6_k", "i16"};
constexpr const char* kKvNames[] = {"f32", "f16", "bf16", "i8"};

}  // namespace

Kind kind_of(const std::string& name) {
    for (int index = 0; index < kNumKinds; ++index) {
        if (name == kNames[index]) return static_cast<Kind>(index);
    }
    throw std::invalid_argument("unknown kind of weights: " + name);
}

KvKind kv_kind_of(const std::string& name) {
    for (int index = 0; index < 4; ++index) {
        if (name == kKvNames[index]) return static_cast<KvKind>(index);
    }
    throw std::invalid_argument("unknown kind of KV cache: " + name);
}

const char* name_of(Kind kind) { return kNames[static_cast<int>(kind)]; }

}  // namespace headrace
