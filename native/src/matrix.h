// A weight matrix in the layout that the kernels read.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"
#include "thread_pool.h"
#include "weight_memory.h"

namespace headrace {

// Bytes of a row as a GGUF file stores it. Throws std::invalid_argument if the kind cannot have so many columns.
int64_t stored_row_bytes(Kind kind, int columns);

// A matrix [rows, columns] that never changes. See layout.h for what is in a panel.
class Matrix {
public:
    // `data` [rows, row_bytes] as in a GGUF file.
    Matrix(ThreadPool& pool, const Kernels& kernels, WeightMemory& memory, Kind kind, const uint8_t* data, int rows,
           int columns);

    // Rounds `values` [rows, columns] to q8_0, q4_1 or i16. Throws std::invalid_argument for another kind.
    static Matrix quantize(ThreadPool& pool, const Kernels& kernels, WeightMemory& memory, Kind kind,
                           const float* values, int rows, int columns);

    int rows() const { return rows_; }
    int columns() const { return columns_; }
    Kind kind() const { return kind_; }
    int64_t bytes() const { return panels() * panel_bytes_; }

    int panels() const { return (rows_ + panel_width_ - 1) / panel_width_; }
    int panel_width() const { return panel_width_; }
    const uint8_t* panel(int index) const { return data_.get() + index * panel_bytes_; }

    // Writes row `row` to `out` [columns], exactly as its kind defines it.
    void read_row(int row, float* out) const;

private:
    // Full of zeros.
    Matrix(const Kernels& kernels, WeightMemory& memory, Kind kind, int rows, int columns);

    Kind kind_;
    int rows_;
    int columns_;
    int lanes_;
    int panel_width_;
    int64_t panel_bytes_;
    std::shared_ptr<uint8_t> data_;
};

}  // namespace headrace
