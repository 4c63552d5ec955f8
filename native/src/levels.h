// Which instruction set levels this build has and this machine can run.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace headrace {

// Worst first; never empty.
std::vector<const Kernels*> usable_levels();

// The best level, or the one called `name`. Throws std::invalid_argument if that one cannot be used.
const Kernels& select_level(const std::string* name);

}  // namespace headrace
