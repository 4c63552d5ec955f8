#include "linear.h"

#include <algorithm>
#include <stdexcept>

#include "layout.h"

namespace headrace {
namespace {

// Rows of one task: enough that reading the weights once for all of them costs little.
constexpr int kRowsOfTask = 256;

// Float rows that go through all panels of a task before the next ones do should stay in a core's nearest caches, while
// the panels, which are read front to back, come from farther away. (Integer kernels see to it themselves.) They are
// multiples of the rows of any level's tile.
constexpr int kFloatsAtOnce = 18432;
constexpr int kTileMultiple = 24;

// More than one for each thread, so that a thread that starts late, or is put aside, leaves its share to others.
constexpr int kTasksPerThread = 6;

// Of `count` pieces that lie side by side, the one to take as the `turn`th: threads that take turns walk through a part
// of their own each, front to back, which is what memory is read fastest in.
int piece_of_turn(int turn, int count, int threads) {
    const int thread = turn % threads;
    return thread * (count / threads) + std::min(thread, count % threads) + turn / threads;
}

template <class Vector>
void grow(Vector& vector, int64_t size) {
    if (static_cast<int64_t>(vector.size()) < size) vector.resize(size);
}

}  // namespace

void Activations::prepare(int rows, const Linear& reader) {
    quantised_ = reader.reads_quants();
    wide_ = kernels_->reads_wide_quants && reader.reads_wide_quants();
    short_ = reader.reads_shorts();
    const int64_t count = int64_t{rows} * columns_;
    grow(values_, count);
    if (short_) {
        grow(shorts_, count);
        grow(short_scales_, int64_t{rows} * short_runs(columns_));
    }
    if (!quantised_) return;
    grow(quants_, count);
    if (wide_) grow(wide_quants_, count);
    grow(row_scales_, rows);
    grow(multiples_, count / kBlock);
    grow(paired_multiples_, count / kBlock);
    grow(sums_, count / kBlock);
    grow(half_sums_, count / kBlock * 2);
}

void Activations::finish(int index) {
    const int64_t at = int64_t{index} * columns_, block = at / kBlock;
    if (short_) {
        kernels_->quantize_short(values_.data() + at, columns_, shorts_.data() + at,
                                 short_scales_.data() + int64_t{index} * short_runs(columns_));
    }
    if (!quantised_) return;
    int16_t* const wide = wide_ ? wide_quants_.data() + at : nullptr;
    kernels_->quantize(values_.data() + at, columns_,
                       {quants_.data() + at, wide, row_scales_.data() + index, multiples_.data() + block,
                        paired_multiples_.data() + block, sums_.data() + block, half_sums_.data() + 2 * block});
}

ActivationRows Activations::view(int first) const {
    const int64_t at = int64_t{first} * columns_, block = at / kBlock;
    return {values_.data() + at,
            quantised_ ? quants_.data() + at : nullptr,
            wide_ ? wide_quants_.data() + at : nullptr,
            quantised_ ? row_scales_.data() + first : nullptr,
            quantised_ ? multiples_.data() + block : nullptr,
            quantised_ ? paired_multiples_.data() + block : nullptr,
            quantised_ ? sums_.data() + block : nullptr,
            quantised_ ? half_sums_.data() + 2 * block : nullptr,
            short_ ? shorts_.data() + at : nullptr,
            short_ ? short_scales_.data() + int64_t{first} * short_runs(columns_) : nullptr,
            columns_};
}

Linear::Linear(std::vector<std::shared_ptr<const Matrix>> parts, std::vector<float> bias)
    : parts_(std::move(parts)), bias_(std::move(bias)) {
    const bool complete = std::all_of(parts_.begin(), parts_.end(), [](const auto& part) { return part != nullptr; });
    if (parts_.empty() || !complete) throw std::invalid_argument("a linear layer needs a matrix");
    columns_ = parts_.front()->columns();
    for (const auto& part : parts_) {
        if (part->columns() != columns_) throw std::invalid_argument("stacked matrices differ in columns");
        rows_ += part->rows();
        panels_ += part->panels();
        reads_quants_ = reads_quants_ || is_blocked(part->kind());
        reads_shorts_ = reads_shorts_ || part->kind() == Kind::i16;
        reads_wide_quants_ = reads_wide_quants_ || part->kind() == Kind::q8_0;
    }
    if (!bias_.empty() && static_cast<int>(bias_.size()) != rows_) {
        throw std::invalid_argument("a bias needs one element for each row of its matrices");
    }
}

void Linear::apply(ThreadPool& pool, const Kernels& kernels, const ActivationRows& x, int count, float* out,
                   bool add) const {
    if (count == 0) return;
    const int row_chunks = (count + kRowsOfTask - 1) / kRowsOfTask;
    const int wanted = std::max(1, pool.threads() * kTasksPerThread / row_chunks);
    const int panels_each = std::max(1, (panels_ + wanted - 1) / wanted);
    const int panel_chunks = (panels_ + panels_each - 1) / panels_each;
    const int rows_at_once =
        reads_quants_ ? kMostGemmRows : std::clamp(kFloatsAtOnce / columns_ / kTileMultiple, 1, 2) * kTileMultiple;
    pool.run(row_chunks * panel_chunks, [&](int index, int) {
        const int end = std::min((index / panel_chunks + 1) * kRowsOfTask, count);
        const int first = piece_of_turn(index % panel_chunks, panel_chunks, pool.threads()) * panels_each;
        const int last = std::min(first + panels_each, panels_);
        for (int row = index / panel_chunks * kRowsOfTask; row < end; row += rows_at_once) {
            for (int panel = first; panel < last; ++panel) {
                apply_panel(kernels, x, row, std::min(row + rows_at_once, end), panel, out, add);
            }
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
