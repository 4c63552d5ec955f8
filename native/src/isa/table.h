// The table of one instruction set level, made of the kernels compiled for it. Included once by each level's file,
// after HEADRACE_ISA and its vocabulary.
#pragma once

#include <cmath>
#include <cstring>

#include "rows.h"
// the others use what rows.h defines, and whole_attention.h what attention.h does
#include "activations.h"
#include "attention.h"
#include "draw.h"
#include "gemm.h"
#include "short_gemm.h"
#include "whole_attention.h"

namespace headrace::HEADRACE_ISA {

constexpr Kernels make_kernels(const char* name) {
    return Kernels{
        name,
        kLanes,
        kReadsWideQuants,
        {float_panel<float>, float_panel<Half>, float_panel<Brain>, integer_panel<Kind::q4_0>,
         integer_panel<Kind::q4_1>, integer_panel<Kind::q5_0>, integer_panel<Kind::q5_1>, integer_panel<Kind::q8_0>,
         integer_panel<Kind::q4_k>, integer_panel<Kind::q5_k>, integer_panel<Kind::q6_k>, short_panel},
        rms_norm,
        layer_norm,
        add_rows,
        scale_row,
        quantize,
        quantize_short,
        {activate<Silu>, activate<GeluTanh>, activate<Gelu>, activate<Relu>},
        {gate<Silu>, gate<GeluTanh>, gate<Gelu>, gate<Relu>},
        soft_cap,
        rotate,
        draw,
        store_key,
        store_value,
        attend,
        merge,
        attend_whole,
    };
}

}  // namespace headrace::HEADRACE_ISA
