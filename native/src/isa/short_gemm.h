// Products of rows of activations with one panel of i16.
//
// The products of a run are summed exactly, whatever their order; runs are added up as floats, front to back.
#pragma once

#include "gemm.h"

namespace headrace::HEADRACE_ISA {

template <int Rows>
inline void short_tile(const uint8_t* panel, const ActivationRows& x, int row, const GemmTarget& target) {
    constexpr int kVector = 4 * kLanes;
    Sums<Rows> sums;
    const int columns = x.columns, runs = short_runs(columns);
    const int16_t* const in = x.shorts + int64_t{row} * columns;
    const float* const in_scales = x.short_scales + int64_t{row} * runs;
    for (int run = 0; run < runs; ++run) {
        Ints dots[Rows][kPanelVectors];
        unrolled<Rows>([&](auto r) { unrolled<kPanelVectors>([&](auto v) { dots[r][v] = no_ints(); }); });
        const int64_t end = (run + 1) * kRun < columns ? (run + 1) * kRun : columns;
        for (int64_t k = int64_t{run} * kRun; k < end; k += 2) {
            Bytes weights[kPanelVectors];
            unrolled<kPanelVectors>([&](auto v) { weights[v] = load_bytes(panel + v * kVector); });
            unrolled<Rows>([&](auto r) {
                const Bytes pair = splat_pair(in + r * int64_t{columns} + k);
                unrolled<kPanelVectors>([&](auto v) { dots[r][v] = add_pairs(dots[r][v], weights[v], pair); });
            });
            panel += kPanelVectors * kVector;
        }
        unrolled<kPanelVectors>([&](auto v) {
            const Floats scale = load(reinterpret_cast<const float*>(panel) + v * kLanes);
            unrolled<Rows>([&](auto r) {
                const Floats in_scale = splat_from(in_scales + r * runs + run);
                sums.part[r][v] = fma(mul(to_floats(dots[r][v]), in_scale), scale, sums.part[r][v]);
            });
        });
        panel += kPanelVectors * kVector;
    }
    sums.write_to(target, row);
}

template <int Rows>
inline void short_rows(const uint8_t* panel, const ActivationRows& x, int row, int end, const GemmTarget& target) {
    for (; row + Rows <= end; row += Rows) short_tile<Rows>(panel, x, row, target);
    if constexpr (Rows > 1) {
        if (row < end) short_rows<smaller_tile(Rows)>(panel, x, row, end, target);
    }
}

inline void short_panel(const uint8_t* panel, const ActivationRows& x, int begin, int end, const GemmTarget& target) {
    constexpr int kRows = kRegisters == 32 ? 8 : kRegisters == 16 ? 6 : 2;
    short_rows<kRows>(panel, x, begin, end, target);
}

}  // namespace headrace::HEADRACE_ISA
