// The table of one instruction set level, made of the kernels compiled for it. Included once by each level's file,
// after HEADRACE_ISA and its vocabulary.
#pragma once

#include <cmath>
#include <cstring>

#include "rows.h"
// gemm.h and attention.h use what rows.h defines
#include "attention.h"
#include "draw.h"
#include "gemm.h"

namespace headrace::HEADRACE_ISA {

constexpr Kernels make_kernels(const char* name) {
    return Kernels{
        name,
        kLanes,
        kReadsWideQuants,
        {float_panel<float>, float_panel<Half>, float_panel<Brain>, integer_panel<Kind::q4_0>,
         integer_panel<Kind::q4_1>, integer_panel<Kind::q5_0>, integer_panel<Kind::q5_1>, integer_panel<Kind::q8_0>,
         integer_panel<Kind::q4_k>, integer_panel<Kind::q5_k>, integer_panel<Kind::q6_k>},
        rms_norm,
        add_rows,
        scale_row,
        quantize,
        silu_mul,
        gelu_tanh_mul,
        soft_cap,
        rotate,
        draw,
        store_key,
        store_value,
        attend,
        merge,
    };
}

}  // namespace headrace::HEADRACE_ISA
