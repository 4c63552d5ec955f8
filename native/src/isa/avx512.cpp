#include <cmath>
#define HEADRACE_ISA avx512
#include "simd_avx512.h"
#include "table.h"

namespace headrace {

const Kernels* avx512_kernels() {
    static constexpr Kernels kernels = avx512::make_kernels("avx512");
    return &kernels;
}

}  // namespace headrace
