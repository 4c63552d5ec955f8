#include "linear.h"

#include <algorithm>
#include <stdexcept>

namespace headrace {
namespace {

// Rows that go through a panel before the next panel is read: their activations should stay in a core's cache.
constexpr int kRowsAtOnce = 128;

// More than one for each thread, so that a thread that starts late, or is put aside, leaves its share to others.
constexpr int kTasksPerThread = 6;

template <class Vector>
void grow(Vector& vector, int64_t size) {
    if (static_cast<int64_t>(vector.size()) < size) vector.resize(size);
}

}  // namespace

void Activations::prepare(int rows, bool quantised) {
    quantised_ = quantised;
    const int64_t count = int64_t{rows} * columns_;
    grow(values_, count);
    if (!quantised) return;
    grow(quants_, count);
    if (kernels_->reads_wide_quants) grow(wide_quants_, count);
    grow(scales_, count / kBlock);
    grow(sums_, count / kBlock);
    grow(half_sums_, count / kBlock * 2);
}

void Activations::finish(int index) {
    if (!quantised_) return;
    const int64_t at = int64_t{index} * columns_, block = at / kBlock;
    int16_t* const wide = kernels_->reads_wide_quants ? wide_quants_.data() + at : nullptr;
    kernels_->quantize(values_.data() + at, columns_,
                       {quants_.data() + at, wide, scales_.data() + block, sums_.data() + block,
                        half_sums_.data() + 2 * block});
}

ActivationRows Activations::view() const {
    return {values_.data(), quants_.data(), wide_quants_.data(), scales_.data(), sums_.data(), half_sums_.data(), columns_};
}

Linear::Linear(std::vector<std::shared_ptr<const Matrix>> parts, std::vector<float> bias)
    : parts_(std::move(parts)), bias_(std::move(bias)) {
    if (parts_.empty()) throw std::invalid_argument("a linear layer needs a matrix");
    columns_ = parts_.front()->columns();
    for (const auto& part : parts_) {
        if (part->columns() != columns_) throw std::invalid_argument("stacked matrices differ in columns");
        rows_ += part->rows();
        panels_ += part->panels();
        reads_quants_ = reads_quants_ || !is_float(part->kind());
    }
    if (!bias_.empty() && static_cast<int>(bias_.size()) != rows_) {
        throw std::invalid_argument("a bias needs one element for each row of its matrices");
    }
}

void Linear::apply(ThreadPool& pool, const Kernels& kernels, const ActivationRows& x, int count, float* out,
                   bool add) const {
    const int row_chunks = (count + kRowsAtOnce - 1) / kRowsAtOnce;
    const int wanted = std::max(1, pool.threads() * kTasksPerThread / row_chunks);
    const int panels_each = std::max(1, (panels_ + wanted - 1) / wanted);
    const int panel_chunks = (panels_ + panels_each - 1) / panels_each;
    pool.run(row_chunks * panel_chunks, [&](int index, int) {
        const int begin = index / panel_chunks * kRowsAtOnce;
        const int end = std::min(begin + kRowsAtOnce, count);
        const int first = index % panel_chunks * panels_each;
        for (int panel = first; panel < std::min(first + panels_each, panels_); ++panel) {
            apply_panel(kernels, x, begin, end, panel, out, add);
        }
    });
}

void Linear::apply_panel(const Kernels& kernels, const ActivationRows& x, int begin, int end, int panel, float* out,
                         bool add) const {
    int first_row = 0;
    for (const auto& part : parts_) {
        if (panel < part->panels()) {
            const int column = panel * part->panel_width();
            const GemmTarget target{out + first_row + column, rows_, bias_.empty() ? nullptr : bias_.data() + first_row + column,
                                    std::min(part->panel_width(), part->rows() - column), add};
            kernels.gemm[static_cast<int>(part->kind())](part->panel(panel), x, begin, end, target);
            return;
        }
        panel -= part->panels();
        first_row += part->rows();
    }
}

}  // namespace headrace
