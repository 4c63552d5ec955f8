// Storage types of 16 bits, told apart so that loads know how to widen them.
#pragma once

#include <cstdint>

namespace headrace {

struct Half {
    uint16_t bits;
};

struct Brain {
    uint16_t bits;
};

}  // namespace headrace
