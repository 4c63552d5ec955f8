#include "row_table.h"

#include <cstring>
#include <stdexcept>

#include "half.h"
#include "layout.h"

namespace headrace {

RowTable::RowTable(WeightMemory& memory, Kind kind, const uint8_t* data, int rows, int columns)
    : kind_(kind), rows_(rows), columns_(columns) {
    if (!is_float(kind)) throw std::invalid_argument("a table of rows holds floats");
    if (rows < 1 || columns < 1) throw std::invalid_argument("a table of rows needs a row and a column");
    const size_t bytes = size_t{1} * rows * columns * float_bytes(kind);
    data_ = memory.take(bytes);
    std::memcpy(data_.get(), data, bytes);
}

void RowTable::read(int64_t row, float* out) const {
    switch (kind_) {
        case Kind::f16:
            for (int i = 0; i < columns_; ++i) out[i] = widen(reinterpret_cast<const Half*>(at(row))[i]);
            return;
        case Kind::bf16:
            for (int i = 0; i < columns_; ++i) out[i] = widen(reinterpret_cast<const Brain*>(at(row))[i]);
            return;
        default: std::memcpy(out, at(row), sizeof(float) * columns_);
    }
}

void RowTable::add(const Kernels& kernels, int64_t row, float* out) const {
    switch (kind_) {
        case Kind::f16:
            for (int i = 0; i < columns_; ++i) out[i] += widen(reinterpret_cast<const Half*>(at(row))[i]);
            return;
        case Kind::bf16:
            for (int i = 0; i < columns_; ++i) out[i] += widen(reinterpret_cast<const Brain*>(at(row))[i]);
            return;
        default: kernels.add(out, reinterpret_cast<const float*>(at(row)), columns_);
    }
}

const uint8_t* RowTable::at(int64_t row) const { return data_.get() + row * columns_ * float_bytes(kind_); }

}  // namespace headrace
