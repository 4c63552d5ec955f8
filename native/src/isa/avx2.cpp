#include <cmath>
#define HEADRACE_ISA avx2
#include "simd_avx2.h"
#include "table.h"

namespace headrace {

const Kernels* avx2_kernels() {
    static constexpr Kernels kernels = avx2::make_kernels("avx2");
    return &kernels;
}

}  // namespace headrace
