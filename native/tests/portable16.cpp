// The portable words with 16 lanes: the panels, and the loops over them, that the AVX-512 levels use.
#include <cmath>
#define HEADRACE_ISA portable16
#define HEADRACE_PORTABLE_LANES 16
#include "isa/simd_portable.h"
#include "isa/table.h"
#include "test.h"

namespace headrace::test {

const Kernels& portable16() {
    static constexpr Kernels kernels = headrace::portable16::make_kernels("portable16");
    return kernels;
}

}  // namespace headrace::test
