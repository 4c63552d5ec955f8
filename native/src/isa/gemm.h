// Products of rows of activations with one panel of a weight matrix, for every kind of weights.
//
// A result is one chain of additions over the columns, in order, whatever the number of rows.
#pragma once

#include "../kernels.h"
#include "../layout.h"
#include "unroll.h"

namespace headrace::HEADRACE_ISA {

// Adds a vector of a panel's results, the `v`th, to the output or puts it there.
inline void write(const GemmTarget& target, int row, int v, Floats result) {
    const int count = target.columns - v * kLanes;
    if (count <= 0) return;
    const bool whole = count >= kLanes;
    float* to = target.out + row * target.stride + v * kLanes;
    if (target.bias) {
        const float* bias = target.bias + v * kLanes;
        result = add(result, whole ? load(bias) : load_first(bias, count));
    }
    if (target.add) result = add(whole ? load(to) : load_first(to, count), result);
    if (whole) {
        store(to, result);
    } else {
        store_first(to, result, count);
    }
}

template <int Rows>
struct Sums {
    Floats part[Rows][kPanelVectors];

    Sums() {
        unrolled<Rows>([&](auto r) { unrolled<kPanelVectors>([&](auto v) { part[r][v] = zero(); }); });
    }
    void write_to(const GemmTarget& target, int row) const {
        unrolled<Rows>([&](auto r) {
            unrolled<kPanelVectors>([&](auto v) { write(target, row + r, v, part[r][v]); });
        });
    }
};

// --- float weights

template <class Element, int Rows>
inline void float_tile(const Element* panel, const ActivationRows& x, int row, const GemmTarget& target) {
    Sums<Rows> sums;
    const int64_t columns = x.columns;
    const float* in = x.values + row * columns;
    for (int64_t k = 0; k < columns; ++k) {
        Floats weights[kPanelVectors];
        unrolled<kPanelVectors>([&](auto v) { weights[v] = load(panel + v * kLanes); });
        unrolled<Rows>([&](auto r) {
            const Floats value = splat_from(in + r * columns + k);
            unrolled<kPanelVectors>([&](auto v) { sums.part[r][v] = fma(value, weights[v], sums.part[r][v]); });
        });
        panel += kPanelVectors * kLanes;
    }
    sums.write_to(target, row);
}

template <class Element, int Rows>
inline void float_rows(const Element* panel, const ActivationRows& x, int row, int end, const GemmTarget& target) {
    for (; row + Rows <= end; row += Rows) float_tile<Element, Rows>(panel, x, row, target);
    if constexpr (Rows > 1) {
        if (row < end) float_rows<Element, Rows - 1>(panel, x, row, end, target);
    }
}

template <class Element>
void float_panel(const uint8_t* panel, const ActivationRows& x, int begin, int end, const GemmTarget& target) {
    constexpr int kRows = kRegisters == 32 ? 8 : 6;
    float_rows<Element, kRows>(reinterpret_cast<const Element*>(panel), x, begin, end, target);
}

// --- integer weights

// Bits of quad 4 * Part + j of the panel's columns `v`.
template <Kind K, int Part>
inline Bytes load_quad(const uint8_t* block, int j, int v) {
    constexpr int kVector = 4 * kLanes;
    if constexpr (quant_bits(K) == 8) {
        return load_bytes(block + ((4 * Part + j) * kPanelVectors + v) * kVector);
    } else {
        Bytes low = load_bytes(block + (j * kPanelVectors + v) * kVector);
        low = bits_and(Part ? shift_right<4>(low) : low, 15);
        if constexpr (quant_bits(K) == 4) return low;
        const uint8_t* high = block + 4 * kPanelVectors * kVector;
        if constexpr (quant_bits(K) == 5) {
            const Bytes bits = load_bytes(high + v * kVector);
            Bytes fifth;
            switch (4 * Part + j) {
                case 0: fifth = shift_left<4>(bits); break;
                case 1: fifth = shift_left<3>(bits); break;
                case 2: fifth = shift_left<2>(bits); break;
                case 3: fifth = shift_left<1>(bits); break;
                case 4: fifth = bits; break;
                case 5: fifth = shift_right<1>(bits); break;
                case 6: fifth = shift_right<2>(bits); break;
                default: fifth = shift_right<3>(bits); break;
            }
            return bits_or(low, bits_and(fifth, 16));
        } else {
            const Bytes bits = load_bytes(high + (Part * kPanelVectors + v) * kVector);
            Bytes two;
            switch (j) {
                case 0: two = shift_left<4>(bits); break;
                case 1: two = shift_left<2>(bits); break;
                case 2: two = bits; break;
                default: two = shift_right<2>(bits); break;
            }
            return bits_or(low, bits_and(two, 48));
        }
    }
}

// A block's scales and minima of one vector of columns; value = scale * quant + minimum.
struct Scales {
    Floats scale[2];  // of both halves of the block; only q6_k tells them apart
    Floats minimum[2];
};

template <Kind K>
inline Scales scales_of(const uint8_t* header, const uint8_t* scales, int v) {
    const int column = v * kLanes;
    constexpr int kColumns = kPanelVectors * kLanes;
    Scales out;
    if constexpr (has_minimum_k(K)) {
        const Half* super = reinterpret_cast<const Half*>(header);
        out.scale[0] = mul(load(super + column), load(scales + column));
        out.minimum[0] = sub(zero(), mul(load(super + kColumns + column), load(scales + kColumns + column)));
    } else if constexpr (K == Kind::q6_k) {
        const Floats super = load(reinterpret_cast<const Half*>(header) + column);
        for (int half = 0; half < 2; ++half) {
            out.scale[half] = mul(super, load(reinterpret_cast<const int8_t*>(scales) + half * kColumns + column));
            out.minimum[half] = mul(out.scale[half], splat(-static_cast<float>(quant_offset(K))));
        }
    } else {
        const Half* halves = reinterpret_cast<const Half*>(scales);
        out.scale[0] = load(halves + column);
        out.minimum[0] = has_minimum(K) ? load(halves + kColumns + column)
                                        : mul(out.scale[0], splat(-static_cast<float>(quant_offset(K))));
    }
    return out;
}

// Adds one block to the sums of `Rows` rows.
template <Kind K, int Rows>
[[gnu::always_inline]] inline void add_block(const uint8_t* header, const uint8_t* block, const ActivationRows& x,
                                             int row, int index, Sums<Rows>& sums) {
    constexpr bool kHalves = K == Kind::q6_k;
    const int64_t columns = x.columns, at = row * (columns / kBlock) + index;
    const int64_t first = row * columns + index * kBlock;
    using Sum = Dot<quant_bits(K)>;
    Sum dots[Rows][kPanelVectors];
    const auto finish = [&](auto half) {
        unrolled<kPanelVectors>([&](auto w) {
            const Scales scales = scales_of<K>(header, block + quant_bytes(K, kLanes), w);
            unrolled<Rows>([&](auto r) {
                const int64_t here = at + r * (columns / kBlock);
                const Floats scale = splat_from(x.scales + here);
                const Floats sum = splat_from(kHalves ? x.half_sums + 2 * here + half : x.sums + here);
                Floats& total = sums.part[r][w];
                total = fma(mul(to_floats(dots[r][w].total()), scale), scales.scale[half], total);
                total = fma(sum, scales.minimum[half], total);
                if (kHalves) dots[r][w] = Sum{};
            });
        });
    };
    unrolled<2>([&](auto half) {
        unrolled<4>([&](auto j) {
            Bytes weights[kPanelVectors];
            unrolled<kPanelVectors>([&](auto w) { weights[w] = load_quad<K, half>(block, j, w); });
            unrolled<Rows>([&](auto r) {
                const auto in = Sum::input(x.quants, x.wide_quants, first + r * columns + (4 * half + j) * 4);
                unrolled<kPanelVectors>([&](auto w) {
                    dots[r][w].template step<kHalves ? int(j) : 4 * half + j>(weights[w], in);
                });
            });
        });
        if constexpr (kHalves) finish(half);
    });
    if constexpr (!kHalves) finish(Constant<0>{});
}

template <Kind K, int Rows>
inline void integer_tile(const uint8_t* panel, const ActivationRows& x, int row, const GemmTarget& target) {
    Sums<Rows> sums;
    const int blocks = x.columns / kBlock;
    const uint8_t* header = panel;
    const uint8_t* block = panel;
    for (int index = 0; index < blocks; ++index) {
        if (index % blocks_per_header(K) == 0) {
            header = block;
            block += header_bytes(K, kLanes);
        }
        add_block<K, Rows>(header, block, x, row, index, sums);
        block += block_bytes(K, kLanes);
    }
    sums.write_to(target, row);
}

template <Kind K, int Rows>
inline void integer_rows(const uint8_t* panel, const ActivationRows& x, int row, int end, const GemmTarget& target) {
    for (; row + Rows <= end; row += Rows) integer_tile<K, Rows>(panel, x, row, target);
    if constexpr (Rows > 1) {
        if (row < end) integer_rows<K, Rows - 1>(panel, x, row, end, target);
    }
}

template <Kind K>
void integer_panel(const uint8_t* panel, const ActivationRows& x, int begin, int end, const GemmTarget& target) {
    constexpr int kRows = kRegisters == 32 ? 8 : 4;
    integer_rows<K, kRows>(panel, x, begin, end, target);
}

}  // namespace headrace::HEADRACE_ISA
