// A linear layer: matrices stacked along their rows, with or without a bias.
#pragma once

#include <memory>
#include <vector>

#include "kernels.h"
#include "matrix.h"
#include "thread_pool.h"

namespace headrace {

class Linear;

// Rows of input to linear layers, in the forms that these read. Memory grows to the most rows ever asked for.
class Activations {
public:
    Activations(const Kernels& kernels, int columns) : kernels_(&kernels), columns_(columns) {}

    // Makes room for what `reader` will read.
    void prepare(int rows, const Linear& reader);

    float* row(int index) { return values_.data() + int64_t{index} * columns_; }
    float* values() { return values_.data(); }

    // To be called once a row is written and before it is read.
    void finish(int index);

    // Whether `finish` does anything.
    bool quantised() const { return quantised_ || short_; }

    // From row `first` on.
    ActivationRows view(int first = 0) const;

private:
    const Kernels* kernels_;
    int columns_;
    bool quantised_ = false;
    bool wide_ = false;
    bool short_ = false;
    std::vector<float> values_;
    std::vector<int8_t> quants_;
    std::vector<int16_t> wide_quants_;
    std::vector<float> row_scales_, multiples_, sums_, half_sums_;
    std::vector<int32_t> paired_multiples_;
    std::vector<int16_t> shorts_;
    std::vector<float> short_scales_;
};

class Linear {
public:
    Linear() = default;
    // All `parts` have the same number of columns; `bias` is empty or has as many elements as they have rows. Throws
    // std::invalid_argument if not.
    Linear(std::vector<std::shared_ptr<const Matrix>> parts, std::vector<float> bias);

    int rows() const { return rows_; }
    int columns() const { return columns_; }
    // Whether there are weights in GGUF's blocks; whether there are some of 8 bits; whether there are some of i16.
    bool reads_quants() const { return reads_quants_; }
    bool reads_wide_quants() const { return reads_wide_quants_; }
    bool reads_shorts() const { return reads_shorts_; }

    // out[row, :] = x[row] @ weights^T + bias, or added to what is there, for rows 0:count; `out` is [count, rows()].
    // Waits for all of it.
    void apply(ThreadPool& pool, const Kernels& kernels, const ActivationRows& x, int count, float* out,
               bool add) const;

private:
    void apply_panel(const Kernels& kernels, const ActivationRows& x, int begin, int end, int panel, float* out,
                     bool add) const;

    std::vector<std::shared_ptr<const Matrix>> parts_;
    std::vector<float> bias_;
    int rows_ = 0;
    int columns_ = 0;
    int panels_ = 0;
    bool reads_quants_ = false;
    bool reads_wide_quants_ = false;
    bool reads_shorts_ = false;
};

}  // namespace headrace
