#include <cmath>
#define HEADRACE_ISA avx512vnni
#include "simd_avx512.h"
#include "table.h"

namespace headrace {

const Kernels* avx512vnni_kernels() {
    static constexpr Kernels kernels = avx512vnni::make_kernels("avx512vnni");
    return &kernels;
}

}  // namespace headrace
