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

// Of `Rows` rows. Those of integer weights are in units of their row's scale.
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
    void scale_and_write_to(const GemmTarget& target, int row, const float* row_scales) const {
        unrolled<Rows>([&](auto r) {
            const Floats scale = splat_from(row_scales + row + r);
            unrolled<kPanelVectors>([&](auto v) { write(target, row + r, v, mul(part[r][v], scale)); });
        });
    }
};

// The next smaller tile, for the rows that are left over. Not every size is compiled: each takes a second.
constexpr int smaller_tile(int rows) { return rows > 4 ? 4 : rows - 1; }

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
        if (row < end) float_rows<Element, smaller_tile(Rows)>(panel, x, row, end, target);
    }
}

template <class Element>
void float_panel(const uint8_t* panel, const ActivationRows& x, int begin, int end, const GemmTarget& target) {
    constexpr int kRows = kRegisters == 32 ? 8 : kRegisters == 16 ? 6 : 2;
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

// A block as it lies in its panel. For a few rows it is unpacked on the way to the multiplier.
template <Kind K>
struct PackedBlock {
    const uint8_t* header;
    const uint8_t* block;

    template <int Quad>
    Bytes quad(int v) const {
        return load_quad<K, Quad / 4>(block, Quad % 4, v);
    }
    Scales scales(int v) const { return scales_of<K>(header, block + quant_bytes(K, kLanes), v); }
};

// A block in the form that is multiplied. For many rows it is written down once.
template <Kind K>
class ReadyBlock {
public:
    void read(const PackedBlock<K>& packed) {
        unrolled<kPanelVectors>([&](auto v) {
            unrolled<8>([&](auto q) { quads_[q][v] = packed.template quad<q>(v); });
            scales_[v] = packed.scales(v);
        });
    }
    template <int Quad>
    Bytes quad(int v) const {
        return quads_[Quad][v];
    }
    const Scales& scales(int v) const { return scales_[v]; }

private:
    Bytes quads_[8][kPanelVectors];
    Scales scales_[kPanelVectors];
};

// Goes through the blocks of a panel, front to back.
template <Kind K>
class PanelReader {
public:
    explicit PanelReader(const uint8_t* panel) : next_(panel) {}

    // Block `index`; to be called for 0, 1, 2, …
    PackedBlock<K> block(int index) {
        if (index % blocks_per_header(K) == 0) {
            header_ = next_;
            next_ += header_bytes(K, kLanes);
        }
        const PackedBlock<K> block{header_, next_};
        next_ += block_bytes(K, kLanes);
        return block;
    }

private:
    const uint8_t* next_;
    const uint8_t* header_ = nullptr;
};

// Adds one block, the `index`th of the columns, to the sums of `Rows` rows.
template <Kind K, int Rows, class Block>
[[gnu::always_inline]] inline void add_block(const Block& block, const ActivationRows& x, int row, int index,
                                             Sums<Rows>& sums) {
    constexpr bool kHalves = K == Kind::q6_k;
    const int64_t columns = x.columns, blocks = columns / kBlock;
    const int64_t first = row * columns + index * kBlock, at = row * blocks + index;
    const float* const multiples = x.multiples + at;
    const int32_t* const paired_multiples = x.paired_multiples + at;
    const float* const row_sums = kHalves ? x.half_sums + 2 * at : x.sums + at;
    using Sum = Dot<quant_bits(K)>;
    Sum dots[Rows][kPanelVectors];
    const auto finish = [&](auto half) {
        Scales scales[kPanelVectors];
        unrolled<kPanelVectors>([&](auto v) { scales[v] = block.scales(v); });
        unrolled<Rows>([&](auto r) {
            const Floats sum = splat_from(row_sums + (kHalves ? 2 * r * blocks + half : r * blocks));
            unrolled<kPanelVectors>([&](auto v) {
                const Floats dot = dots[r][v].total(multiples + r * blocks, paired_multiples + r * blocks);
                Floats& total = sums.part[r][v];
                total = fma(dot, scales[v].scale[half], total);
                total = fma(sum, scales[v].minimum[half], total);
                if (kHalves) dots[r][v] = Sum{};
            });
        });
    };
    unrolled<8>([&](auto q) {
        Bytes weights[kPanelVectors];
        unrolled<kPanelVectors>([&](auto v) { weights[v] = block.template quad<q>(v); });
        unrolled<Rows>([&](auto r) {
            const auto in = Sum::input(x.quants, x.wide_quants, first + r * columns + q * 4);
            unrolled<kPanelVectors>([&](auto v) { dots[r][v].template step<kHalves ? q % 4 : +q>(weights[v], in); });
        });
        if constexpr (kHalves && q % 4 == 3) finish(Constant<q / 4>{});
    });
    if constexpr (!kHalves) finish(Constant<0>{});
}

// Each tile of rows reads the whole panel.
template <Kind K, int Rows>
inline void few_rows(const uint8_t* panel, const ActivationRows& x, int row, int end, const GemmTarget& target) {
    for (; row + Rows <= end; row += Rows) {
        Sums<Rows> sums;
        PanelReader<K> reader(panel);
        for (int index = 0; index < x.columns / kBlock; ++index) add_block<K>(reader.block(index), x, row, index, sums);
        sums.scale_and_write_to(target, row, x.row_scales);
    }
    if constexpr (Rows > 1) {
        if (row < end) few_rows<K, smaller_tile(Rows)>(panel, x, row, end, target);
    }
}

// Adds `count` blocks, from `index` on, to the sums of the rows row:end, [rows][kPanelVectors].
template <Kind K, int Rows>
inline void add_blocks(const ReadyBlock<K>* blocks, int count, const ActivationRows& x, int row, int end, int index,
                       Floats (*sums)[kPanelVectors]) {
    for (; row + Rows <= end; row += Rows, sums += Rows) {
        Sums<Rows> tile;
        unrolled<Rows>([&](auto r) { unrolled<kPanelVectors>([&](auto v) { tile.part[r][v] = sums[r][v]; }); });
        for (int b = 0; b < count; ++b) add_block<K>(blocks[b], x, row, index + b, tile);
        unrolled<Rows>([&](auto r) { unrolled<kPanelVectors>([&](auto v) { sums[r][v] = tile.part[r][v]; }); });
    }
    if constexpr (Rows > 1) {
        if (row < end) add_blocks<K, smaller_tile(Rows)>(blocks, count, x, row, end, index, sums);
    }
}

// Many rows: so many blocks at a time are unpacked, and all rows pass them. Those blocks, and what the rows have of their
// columns, stay in a core's first cache.
template <Kind K, int Rows>
inline void many_rows(const uint8_t* panel, const ActivationRows& x, int begin, int end, const GemmTarget& target) {
    constexpr int kBlocksAtOnce = 8;
    ReadyBlock<K> unpacked[kBlocksAtOnce];
    Floats sums[kMostGemmRows][kPanelVectors];
    for (int row = 0; row < end - begin; ++row) {
        unrolled<kPanelVectors>([&](auto v) { sums[row][v] = zero(); });
    }
    PanelReader<K> reader(panel);
    const int blocks = x.columns / kBlock;
    for (int index = 0; index < blocks; index += kBlocksAtOnce) {
        const int count = blocks - index < kBlocksAtOnce ? blocks - index : kBlocksAtOnce;
        for (int b = 0; b < count; ++b) unpacked[b].read(reader.block(index + b));
        add_blocks<K, Rows>(unpacked, count, x, begin, end, index, sums);
    }
    for (int row = begin; row < end; ++row) {
        const Floats scale = splat_from(x.row_scales + row);
        unrolled<kPanelVectors>([&](auto v) { write(target, row, v, mul(sums[row - begin][v], scale)); });
    }
}

template <Kind K>
void integer_panel(const uint8_t* panel, const ActivationRows& x, int begin, int end, const GemmTarget& target) {
    constexpr int kRows = kRegisters / 4;
    // Other quants take so little unpacking that writing them down gains nothing.
    constexpr bool kUnpacksLong = quant_bits(K) == 5 || quant_bits(K) == 6;
    if constexpr (kUnpacksLong) {
        if (end - begin >= 2 * kRows) {
            many_rows<K, kRows>(panel, x, begin, end, target);
            return;
        }
    }
    few_rows<K, kRows>(panel, x, begin, end, target);
}

}  // namespace headrace::HEADRACE_ISA
