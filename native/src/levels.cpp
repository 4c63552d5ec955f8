#include "levels.h"

#include <stdexcept>

namespace headrace {

std::vector<const Kernels*> usable_levels() {
    std::vector<const Kernels*> levels{portable_kernels()};
#if HEADRACE_HAS_AVX2
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        levels.push_back(avx2_kernels());
#if HEADRACE_HAS_AVX512
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            levels.push_back(avx512_kernels());
#if HEADRACE_HAS_AVX512VNNI
            if (__builtin_cpu_supports("avx512vnni")) levels.push_back(avx512vnni_kernels());
#endif
        }
#endif
    }
#endif
    return levels;
}

const Kernels& select_level(const std::string* name) {
    const std::vector<const Kernels*> levels = usable_levels();
    if (!name) return *levels.back();
    std::string known;
    for (const Kernels* level : levels) {
        if (*name == level->name) return *level;
        known += (known.empty() ? "" : ", ") + std::string(level->name);
    }
    throw std::invalid_argument("no instruction set level " + *name + " here; there is " + known);
}

}  // namespace headrace
