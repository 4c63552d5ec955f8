// Rows of floats that are looked up by number: the embeddings of tokens, positions and types.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels.h"
#include "weight_memory.h"

namespace headrace {

// A table [rows, columns] that never changes; rows lie as they are stored.
class RowTable {
public:
    // `data` [rows, columns] of a kind of floats. Throws std::invalid_argument for another kind.
    RowTable(WeightMemory& memory, Kind kind, const uint8_t* data, int rows, int columns);

    int rows() const { return rows_; }
    int columns() const { return columns_; }

    // Writes row `row` to `out` [columns], or adds it to what is there.
    void read(int64_t row, float* out) const;
    void add(const Kernels& kernels, int64_t row, float* out) const;

private:
    const uint8_t* at(int64_t row) const;

    Kind kind_;
    int rows_;
    int columns_;
    std::shared_ptr<uint8_t> data_;
};

}  // namespace headrace
