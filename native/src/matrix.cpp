#include "matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "gguf_blocks.h"
#include "half.h"
#include "layout.h"

namespace headrace {
namespace {

// The places in a panel where one block of one output column is kept.
class PanelBlock {
public:
    PanelBlock(Kind kind, int lanes, uint8_t* panel, int block)
        : kind_(kind),
          lanes_(lanes),
          quants_(panel + block_offset(kind, lanes, block)),
          scales_(quants_ + quant_bytes(kind, lanes)),
          header_(panel + block_offset(kind, lanes, block - block % blocks_per_header(kind)) -
                  header_bytes(kind, lanes)) {}

    // Panels are zero before; every column is written once.
    void write(int column, const UnpackedBlock& block) {
        for (int k = 0; k < kBlock; ++k) {
            const int quad = k / 4, j = quad % 4, half = quad / 4, q = block.quants[k];
            if (quant_bits(kind_) == 8) {
                *at(quad, column, k) = static_cast<uint8_t>(q);
                continue;
            }
            *at(j, column, k) |= static_cast<uint8_t>((q & 15) << (4 * half));
            if (quant_bits(kind_) == 5) *at(4, column, k) |= static_cast<uint8_t>((q >> 4) << quad);
            if (quant_bits(kind_) == 6) *at(4 + half, column, k) |= static_cast<uint8_t>((q >> 4) << (2 * j));
        }
        const int columns = 2 * lanes_;
        if (has_header(kind_)) {
            std::memcpy(header_ + 2 * column, &block.scale, 2);
            if (has_minimum_k(kind_)) std::memcpy(header_ + 2 * (columns + column), &block.minimum, 2);
            scales_[column] = block.a;
            scales_[columns + column] = block.b;
        } else {
            std::memcpy(scales_ + 2 * column, &block.scale, 2);
            if (has_minimum(kind_)) std::memcpy(scales_ + 2 * (columns + column), &block.minimum, 2);
        }
    }

    void read(int column, float* out) const {
        const int columns = 2 * lanes_;
        float scale[2], minimum;
        const uint8_t* sixteen = has_header(kind_) ? header_ : scales_;
        scale[0] = scale[1] = half_at(sixteen, column);
        if (has_minimum_k(kind_)) {
            scale[0] = scale[1] = scale[0] * scales_[column];
            minimum = -half_at(sixteen, columns + column) * scales_[columns + column];
        } else if (kind_ == Kind::q6_k) {
            scale[0] *= static_cast<int8_t>(scales_[column]);
            scale[1] *= static_cast<int8_t>(scales_[columns + column]);
            minimum = 0.0f;
        } else {
            minimum = has_minimum(kind_) ? half_at(sixteen, columns + column) : 0.0f;
        }
        const int offset = has_minimum(kind_) || has_minimum_k(kind_) ? 0 : quant_offset(kind_);
        for (int k = 0; k < kBlock; ++k) {
            out[k] = scale[k / 16] * static_cast<float>(quant(column, k) - offset) + minimum;
        }
    }

private:
    // The byte of vector `vector` that belongs to element k of a column.
    uint8_t* at(int vector, int column, int k) const {
        const int v = column / lanes_, lane = column % lanes_;
        return quants_ + ((vector * 2 + v) * lanes_ + lane) * 4 + k % 4;
    }

    int quant(int column, int k) const {
        const int quad = k / 4, j = quad % 4, half = quad / 4;
        if (quant_bits(kind_) == 8) return *at(quad, column, k);
        int q = *at(j, column, k) >> (4 * half) & 15;
        if (quant_bits(kind_) == 5) q |= (*at(4, column, k) >> quad & 1) << 4;
        if (quant_bits(kind_) == 6) q |= (*at(4 + half, column, k) >> (2 * j) & 3) << 4;
        return q;
    }

    static float half_at(const uint8_t* halves, int index) {
        uint16_t bits;
        std::memcpy(&bits, halves + 2 * index, 2);
        return widen(Half{bits});
    }

    Kind kind_;
    int lanes_;
    uint8_t* quants_;
    uint8_t* scales_;
    uint8_t* header_;
};

// One output column of a panel of i16.
class ShortColumn {
public:
    ShortColumn(int lanes, uint8_t* panel, int columns, int column)
        : lanes_(lanes), columns_(columns), at_(panel + 4 * column) {}

    void write(const float* values) const {
        for (int first = 0; first < columns_; first += kRun) {
            const int end = std::min(first + kRun, columns_);
            float peak = 0.0f, poison = 0.0f;
            for (int k = first; k < end; ++k) {
                peak = std::max(peak, std::fabs(values[k]));
                poison += values[k] * 0.0f;  // 0, or NaN where a value is not finite
            }
            const float factor = peak > 1e-35f ? kMostShort / peak : 0.0f, scale = peak / kMostShort + poison;
            for (int k = first; k < end; ++k) {
                const float whole = std::nearbyint(values[k] * factor);
                const int16_t quant = std::fabs(whole) <= kMostShort ? static_cast<int16_t>(whole) : int16_t{0};
                std::memcpy(quant_at(k), &quant, sizeof quant);
            }
            std::memcpy(at_ + short_scale_offset(lanes_, columns_, first / kRun), &scale, sizeof scale);
        }
    }

    void read(float* out) const {
        for (int k = 0; k < columns_; ++k) {
            float scale;
            int16_t quant;
            std::memcpy(&scale, at_ + short_scale_offset(lanes_, columns_, k / kRun), sizeof scale);
            std::memcpy(&quant, quant_at(k), sizeof quant);
            out[k] = scale * static_cast<float>(quant);
        }
    }

private:
    uint8_t* quant_at(int k) const { return at_ + short_offset(lanes_, k) + k % 2 * 2; }

    int lanes_;
    int columns_;
    uint8_t* at_;
};

void check_columns(Kind kind, int columns) {
    const int multiple = column_multiple(kind);
    if (columns < 1 || columns % multiple != 0) {
        throw std::invalid_argument("a matrix of kind " + std::string(name_of(kind)) + " cannot have " +
                                    std::to_string(columns) + " columns: they must be a multiple of " +
                                    std::to_string(multiple));
    }
}

}  // namespace

int64_t stored_row_bytes(Kind kind, int columns) {
    check_columns(kind, columns);
    if (is_float(kind)) return int64_t{columns} * float_bytes(kind);
    if (!is_blocked(kind)) throw std::invalid_argument("no file stores " + std::string(name_of(kind)));
    return int64_t{columns} / column_multiple(kind) * stored_block_bytes(kind);
}

Matrix::Matrix(const Kernels& kernels, WeightMemory& memory, Kind kind, int rows, int columns)
    : kind_(kind),
      rows_(rows),
      columns_(columns),
      lanes_(kernels.lanes),
      panel_width_(kPanelVectors * kernels.lanes),
      panel_bytes_(panel_bytes(kind, kernels.lanes, columns)) {
    check_columns(kind, columns);
    if (rows < 1) throw std::invalid_argument("a matrix needs at least one row");
    data_ = memory.take(static_cast<size_t>(bytes()));
}

Matrix::Matrix(ThreadPool& pool, const Kernels& kernels, WeightMemory& memory, Kind kind, const uint8_t* data,
               int rows, int columns)
    : Matrix(kernels, memory, kind, rows, columns) {
    const int64_t row_bytes = stored_row_bytes(kind, columns);
    pool.run(panels(), [&](int index, int) {
        uint8_t* const to = data_.get() + index * panel_bytes_;
        const int first = index * panel_width_;
        const int count = std::min(panel_width_, rows_ - first);
        for (int column = 0; column < count; ++column) {
            const uint8_t* row = data + (first + column) * row_bytes;
            if (is_float(kind)) {
                const int size = float_bytes(kind);
                for (int64_t k = 0; k < columns; ++k) {
                    std::memcpy(to + (k * panel_width_ + column) * size, row + k * size, size);
                }
            } else {
                for (int block = 0; block < columns / kBlock; ++block) {
                    PanelBlock(kind, lanes_, to, block).write(column, unpack_block(kind, row, block));
                }
            }
        }
    });
}

Matrix Matrix::quantize(ThreadPool& pool, const Kernels& kernels, WeightMemory& memory, Kind kind, const float* values,
                        int rows, int columns) {
    if (kind == Kind::i16) {
        Matrix matrix(kernels, memory, kind, rows, columns);
        pool.run(matrix.panels(), [&](int index, int) {
            const int first = index * matrix.panel_width_, last = std::min(first + matrix.panel_width_, rows);
            uint8_t* const panel = matrix.data_.get() + index * matrix.panel_bytes_;
            for (int row = first; row < last; ++row) {
                ShortColumn(matrix.lanes_, panel, columns, row - first).write(values + int64_t{row} * columns);
            }
        });
        return matrix;
    }
    if (kind != Kind::q8_0 && kind != Kind::q4_1) {
        throw std::invalid_argument("quantising to " + std::string(name_of(kind)) +
                                    " is not possible, to q8_0, q4_1 and i16 it is");
    }
    const int64_t row_bytes = stored_row_bytes(kind, columns);
    std::vector<uint8_t> stored(rows * row_bytes);
    pool.run(rows, [&](int row, int) {
        for (int block = 0; block < columns / kBlock; ++block) {
            const float* from = values + int64_t{row} * columns + block * kBlock;
            uint8_t* to = stored.data() + row * row_bytes + int64_t{block} * stored_block_bytes(kind);
            kind == Kind::q8_0 ? store_q8_0(from, to) : store_q4_1(from, to);
        }
    });
    return Matrix(pool, kernels, memory, kind, stored.data(), rows, columns);
}

void Matrix::read_row(int row, float* out) const {
    const int column = row % panel_width_;
    uint8_t* const from = const_cast<uint8_t*>(panel(row / panel_width_));
    if (kind_ == Kind::i16) {
        ShortColumn(lanes_, from, columns_, column).read(out);
        return;
    }
    if (!is_float(kind_)) {
        for (int block = 0; block < columns_ / kBlock; ++block) {
            PanelBlock(kind_, lanes_, from, block).read(column, out + block * kBlock);
        }
        return;
    }
    for (int64_t k = 0; k < columns_; ++k) {
        const uint8_t* element = from + (k * panel_width_ + column) * float_bytes(kind_);
        uint32_t bits = 0;
        std::memcpy(&bits, element, float_bytes(kind_));
        if (kind_ == Kind::f16) {
            out[k] = widen(Half{static_cast<uint16_t>(bits)});
        } else {
            if (kind_ == Kind::bf16) bits <<= 16;
            std::memcpy(out + k, &bits, 4);
        }
    }
}

}  // namespace headrace
