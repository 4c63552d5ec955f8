#include <cmath>
#define HEADRACE_ISA portable
#include "simd_portable.h"
#include "table.h"

namespace headrace {

const Kernels* portable_kernels() {
    static constexpr Kernels kernels = portable::make_kernels("portable");
    return &kernels;
}

}  // namespace headrace
