// How a weight matrix lies in memory once it is packed.
//
// Rows of the matrix are output columns of the layer. They are taken in panels of `2 * lanes`; a panel is one run of
// memory that a kernel reads from front to back. A float panel is [columns][2 * lanes]. An integer panel is a run of
// blocks of 32 columns; a _k panel has a header before every 8 blocks. Byte sizes below are for one panel.
//
// Quants are unsigned (an offset belongs to the scale). Where a vector has 4 bytes for each of its lanes, "quad q" of
// a block is the vector whose lane l holds elements 4q to 4q + 3 of output column l.
//   4 low bits of quads j and j + 4: one vector (low, high nibble), j = 0 to 3;
//   5 bits: then one vector, whose bit q is bit 4 of quad q;
//   6 bits: then two vectors; bits 2j, 2j + 1 of vector i are bits 4, 5 of quad 4i + j;
//   8 bits: 8 vectors.
// Each is stored for the first and then for the second half of the panel's columns.
//
// A panel of i16 is a run of pairs of columns, [pairs][2 * lanes][2], and after every 128 columns, and at the end, the
// scales of what went before, float32 [2 * lanes].
#pragma once

#include "kinds.h"

namespace headrace {

constexpr int quant_bits(Kind kind) {
    switch (kind) {
        case Kind::q4_0:
        case Kind::q4_1:
        case Kind::q4_k: return 4;
        case Kind::q5_0:
        case Kind::q5_1:
        case Kind::q5_k: return 5;
        case Kind::q6_k: return 6;
        default: return 8;
    }
}

// What is subtracted from the quants of kinds that have a scale and no minimum.
constexpr int quant_offset(Kind kind) {
    switch (kind) {
        case Kind::q4_0: return 8;
        case Kind::q5_0: return 16;
        case Kind::q6_k: return 32;
        default: return 128;
    }
}

// value = scale * quant + minimum, both float16
constexpr bool has_minimum(Kind kind) { return kind == Kind::q4_1 || kind == Kind::q5_1; }
// value = scale * a * quant - minimum * b, a and b bytes of the block, scale and minimum float16 of the header
constexpr bool has_minimum_k(Kind kind) { return kind == Kind::q4_k || kind == Kind::q5_k; }
constexpr bool has_header(Kind kind) { return kind >= Kind::q4_k && kind <= Kind::q6_k; }

constexpr int float_bytes(Kind kind) { return kind == Kind::f32 ? 4 : 2; }

constexpr int quant_bytes(Kind kind, int lanes) { return 2 * lanes * kBlock * quant_bits(kind) / 8; }

constexpr int scale_bytes(Kind kind, int lanes) {
    // Two bytes for each column, whatever they are: a float16 scale, bytes a and b, or scales of both halves.
    return 2 * lanes * (has_minimum(kind) ? 4 : 2);
}

constexpr int block_bytes(Kind kind, int lanes) { return quant_bytes(kind, lanes) + scale_bytes(kind, lanes); }

constexpr int header_bytes(Kind kind, int lanes) {
    return has_minimum_k(kind) ? 2 * lanes * 4 : has_header(kind) ? 2 * lanes * 2 : 0;
}

constexpr int blocks_per_header(Kind kind) { return has_header(kind) ? kSuperBlock / kBlock : 1; }

// Where block `block` begins in its panel, after its header.
constexpr long block_offset(Kind kind, int lanes, int block) {
    const int group = block / blocks_per_header(kind);
    return static_cast<long>(block) * block_bytes(kind, lanes) +
           static_cast<long>(group + 1) * header_bytes(kind, lanes);
}

// Runs of a row of i16.
constexpr int short_runs(int columns) { return (columns + kRun - 1) / kRun; }

// Where the pair of columns from `column` on begins in a panel of i16; where the scales of run `run` do.
constexpr long short_offset(int lanes, int column) {
    return (static_cast<long>(column / 2) + column / kRun) * 2 * lanes * 4;
}
constexpr long short_scale_offset(int lanes, int columns, int run) {
    const int end = (run + 1) * kRun < columns ? (run + 1) * kRun : columns;
    return (static_cast<long>(end / 2) + run) * 2 * lanes * 4;
}

constexpr long panel_bytes(Kind kind, int lanes, int columns) {
    if (kind == Kind::i16) return (static_cast<long>(columns / 2) + short_runs(columns)) * 2 * lanes * 4;
    if (is_float(kind)) return static_cast<long>(columns) * 2 * lanes * float_bytes(kind);
    const int blocks = columns / kBlock;
    return static_cast<long>(blocks) * block_bytes(kind, lanes) +
           static_cast<long>(blocks / blocks_per_header(kind)) * header_bytes(kind, lanes);
}

}  // namespace headrace
