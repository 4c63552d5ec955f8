// Every kind of weights at every level, against a plain evaluation in double precision of the same quantised numbers.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>

#include "gguf_blocks.h"
#include "half.h"
#include "layout.h"
#include "linear.h"
#include "test.h"

namespace headrace::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<Kind> kinds() {
    std::vector<Kind> all;
    for (int index = 0; index < kNumKinds; ++index) all.push_back(static_cast<Kind>(index));
    return all;
}

void put_half(uint8_t* to, float value) {
    const uint16_t bits = narrow(value).bits;
    std::memcpy(to, &bits, sizeof bits);
}

// Rows as in a GGUF file: random quants, or all of them `filled`, and scales of ordinary size.
std::vector<uint8_t> stored_rows(Kind kind, int rows, int columns, Random& random, int filled = -1) {
    const int64_t row_bytes = stored_row_bytes(kind, columns);
    std::vector<uint8_t> data(rows * row_bytes);
    if (is_float(kind)) {
        for (int64_t i = 0; i < int64_t{rows} * columns; ++i) {
            const float value = random.normal();
            uint8_t* const to = data.data() + i * float_bytes(kind);
            if (kind == Kind::f16) put_half(to, value);
            if (kind == Kind::f32) std::memcpy(to, &value, 4);
            if (kind == Kind::bf16) std::memcpy(to, reinterpret_cast<const uint8_t*>(&value) + 2, 2);
        }
        return data;
    }
    for (uint8_t& byte : data) byte = filled < 0 ? random.byte() : static_cast<uint8_t>(filled);
    const int block_bytes = stored_block_bytes(kind);
    for (size_t at = 0; at < data.size(); at += block_bytes) {
        uint8_t* const block = data.data() + at;
        put_half(block + (kind == Kind::q6_k ? 208 : 0), 0.01f * (1.5f + random.normal()));
        const bool minimum = kind == Kind::q4_1 || kind == Kind::q5_1 || kind == Kind::q4_k || kind == Kind::q5_k;
        if (minimum) put_half(block + 2, 0.05f * random.normal());
    }
    return data;
}

// A level with threads of its own.
struct Setup {
    const Kernels& level;
    ThreadPool& pool;
    std::shared_ptr<WeightMemory> memory = std::make_shared<WeightMemory>();

    std::shared_ptr<const Matrix> matrix(Kind kind, int rows, int columns, uint32_t seed, int filled = -1) const {
        Random random(seed);
        if (kind == Kind::i16) {  // no file stores them
            std::vector<float> values = random.normals(int64_t{rows} * columns);
            if (filled >= 0) std::fill(values.begin(), values.end(), static_cast<float>(filled) - 127.5f);
            return std::make_shared<Matrix>(
                Matrix::quantize(pool, level, *memory, kind, values.data(), rows, columns));
        }
        const std::vector<uint8_t> data = stored_rows(kind, rows, columns, random, filled);
        return std::make_shared<Matrix>(pool, level, *memory, kind, data.data(), rows, columns);
    }
};

Activations activations(const Kernels& level, const std::vector<float>& x, const Linear& linear) {
    const int columns = linear.columns(), rows = static_cast<int>(x.size()) / columns;
    Activations out(level, columns);
    out.prepare(rows, linear);
    for (int row = 0; row < rows; ++row) {
        std::copy_n(x.data() + int64_t{row} * columns, columns, out.row(row));
        out.finish(row);
    }
    return out;
}

std::vector<float> apply(const Setup& setup, const Linear& linear, const std::vector<float>& x,
                         const std::vector<float>* added_to = nullptr) {
    const int rows = static_cast<int>(x.size()) / linear.columns();
    const Activations in = activations(setup.level, x, linear);
    std::vector<float> out = added_to ? *added_to : std::vector<float>(int64_t{rows} * linear.rows(), kNan);
    linear.apply(setup.pool, setup.level, in.view(), rows, out.data(), added_to != nullptr);
    return out;
}

// Compares rows [rows of x, rows of the matrix] with sums in double precision; the tolerance is relative to the sum of
// the sizes of what is added up.
void check_product(const Setup& setup, const std::shared_ptr<const Matrix>& matrix, const std::vector<float>& x,
                   const std::vector<float>& out, int first_column, int stride, const std::vector<float>& bias) {
    const int columns = matrix->columns(), rows = static_cast<int>(x.size()) / columns;
    const bool quantised = is_blocked(matrix->kind()), shortened = matrix->kind() == Kind::i16;
    const Activations in = activations(setup.level, x, Linear({matrix}, {}));
    const ActivationRows view = in.view();
    std::vector<float> weights(columns);
    for (int column = 0; column < matrix->rows(); ++column) {
        matrix->read_row(column, weights.data());
        for (int row = 0; row < rows; ++row) {
            double total = bias.empty() ? 0.0 : bias[first_column + column], size = std::fabs(total);
            for (int64_t k = 0, at = int64_t{row} * columns; k < columns; ++k, ++at) {
                const double value =
                    quantised   ? double{view.row_scales[row]} * view.multiples[at / kBlock] * view.quants[at]
                    : shortened ? double{view.short_scales[row * short_runs(columns) + k / kRun]} * view.shorts[at]
                                : view.values[at];
                total += value * weights[k];
                // A scale times a quant may be much larger than the weight that is left after the minimum.
                size += std::fabs(value) * (std::fabs(weights[k]) + (quantised ? 1.0 : 0.0));
            }
            const double got = out[int64_t{row} * stride + first_column + column];
            CHECK(std::fabs(got - total) <= 2e-6 * size + 1e-30, setup.level.name, name_of(matrix->kind()), row, column,
                  got, total);
        }
    }
}

template <class Fn>
void each_setup(int threads, Fn fn) {
    ThreadPool pool(threads);
    for (const Kernels* level : levels()) fn(Setup{*level, pool});
}

int wide_columns(Kind kind) { return is_float(kind) ? 70 : kind == Kind::i16 ? 2 * kRun + 6 : 2 * column_multiple(kind); }

TEST(linear_every_kind_and_odd_shapes) {
    each_setup(1, [](const Setup& setup) {
        const int width = kPanelVectors * setup.level.lanes;
        for (const Kind kind : kinds()) {
            for (const int rows : {1, width - 1, width, width + 1, 2 * width + 3}) {
                for (const int columns : {column_multiple(kind), wide_columns(kind)}) {
                    const auto matrix = setup.matrix(kind, rows, columns, rows);
                    const std::vector<float> x = Random(columns).normals(int64_t{3} * columns);
                    check_product(setup, matrix, x, apply(setup, Linear({matrix}, {}), x), 0, rows, {});
                }
            }
        }
    });
}

TEST(linear_row_counts_do_not_change_a_row) {
    each_setup(1, [](const Setup& setup) {
        const int rows = kPanelVectors * setup.level.lanes + 5;
        for (const Kind kind : kinds()) {
            const int columns = wide_columns(kind);
            const Linear linear({setup.matrix(kind, rows, columns, 1)}, {});
            const std::vector<float> x = Random(2).normals(int64_t{33} * columns);
            const std::vector<float> all = apply(setup, linear, x);
            for (int count = 1; count < 33; ++count) {
                const std::vector<float> last(x.end() - int64_t{count} * columns, x.end());
                const std::vector<float> expected(all.end() - int64_t{count} * rows, all.end());
                CHECK(same_bits(apply(setup, linear, last), expected), setup.level.name, name_of(kind), count);
            }
        }
    });
}

TEST(linear_threads_do_not_change_a_row) {
    ThreadPool one(1), four(4);
    for (const Kernels* level : levels()) {
        for (const Kind kind : {Kind::f32, Kind::q8_0, Kind::q4_1, Kind::q6_k, Kind::i16}) {
            const Setup alone{*level, one}, shared{*level, four};
            const int columns = column_multiple(kind) * 2;
            const std::vector<float> x = Random(3).normals(int64_t{300} * columns);
            const std::vector<float> out = apply(alone, Linear({alone.matrix(kind, 171, columns, 4)}, {}), x);
            CHECK(same_bits(apply(shared, Linear({shared.matrix(kind, 171, columns, 4)}, {}), x), out), level->name,
                  name_of(kind));
        }
    }
}

TEST(linear_stacked_parts_bias_and_add) {
    each_setup(3, [](const Setup& setup) {
        const int columns = 256, sizes[] = {5, 40, 33};
        const Kind stacked[] = {Kind::q4_k, Kind::f16, Kind::q8_0};
        std::vector<std::shared_ptr<const Matrix>> parts;
        for (int part = 0; part < 3; ++part) parts.push_back(setup.matrix(stacked[part], sizes[part], columns, part));
        const std::vector<float> bias = Random(5).normals(78), x = Random(6).normals(7 * columns);
        const Linear linear(parts, bias);
        const std::vector<float> out = apply(setup, linear, x);
        int first = 0;
        for (int part = 0; part < 3; first += sizes[part++]) {
            check_product(setup, parts[part], x, out, first, 78, bias);
        }
        const std::vector<float> base = Random(7).normals(7 * 78);
        const std::vector<float> sums = apply(setup, linear, x, &base);
        for (size_t i = 0; i < sums.size(); ++i) CHECK(sums[i] == base[i] + out[i], setup.level.name, i);
    });
}

// The largest quants with the largest activations: nothing that sums them up may overflow.
TEST(linear_extremes_do_not_overflow) {
    each_setup(1, [](const Setup& setup) {
        for (const Kind kind : kinds()) {
            if (is_float(kind)) continue;
            for (const int filled : {0x00, 0x7f, 0x80, 0xff}) {
                const int columns = kind == Kind::i16 ? 2 * kRun : column_multiple(kind);
                const int rows = kPanelVectors * setup.level.lanes;
                const auto matrix = setup.matrix(kind, rows, columns, 8, filled);
                std::vector<float> x(2 * columns, 1.0f);
                std::fill(x.begin() + columns, x.end(), -1.0f);
                check_product(setup, matrix, x, apply(setup, Linear({matrix}, {}), x), 0, rows, {});
            }
        }
    });
}

TEST(linear_nan_stays_in_its_row) {
    each_setup(1, [](const Setup& setup) {
        for (const Kind kind : kinds()) {
            const int columns = wide_columns(kind), rows = 40;
            const Linear linear({setup.matrix(kind, rows, columns, 9)}, {});
            std::vector<float> x = Random(10).normals(int64_t{7} * columns);
            const std::vector<float> clean = apply(setup, linear, x);
            x[3 * columns + columns / 2] = kNan;
            const std::vector<float> out = apply(setup, linear, x);
            for (int i = 0; i < 7 * rows; ++i) {
                const bool as_expected = i / rows == 3 ? std::isnan(out[i]) : out[i] == clean[i];
                CHECK(as_expected, setup.level.name, name_of(kind), i, out[i]);
            }
        }
    });
}

TEST(matrix_rows_are_the_same_at_every_level) {
    ThreadPool pool(1);
    const Setup plain{*levels().front(), pool};
    for (const Kernels* level : levels()) {
        const Setup setup{*level, pool};
        for (const Kind kind : kinds()) {
            const int columns = wide_columns(kind);
            const auto matrix = setup.matrix(kind, 45, columns, 11), expected = plain.matrix(kind, 45, columns, 11);
            for (int row = 0; row < 45; ++row) {
                std::vector<float> a(columns), b(columns);
                matrix->read_row(row, a.data());
                expected->read_row(row, b.data());
                CHECK(same_bits(a, b), level->name, name_of(kind), row);
            }
        }
    }
}

TEST(matrix_quantise) {
    each_setup(2, [](const Setup& setup) {
        const int rows = 35, columns = 3 * kBlock;
        std::vector<float> values = Random(12).normals(rows * columns, 0.1f);
        std::fill_n(values.begin(), kBlock, 0.0f);
        std::fill_n(values.begin() + kBlock, kBlock, -0.75f);
        for (const Kind kind : {Kind::q8_0, Kind::q4_1}) {
            const Matrix matrix =
                Matrix::quantize(setup.pool, setup.level, *setup.memory, kind, values.data(), rows, columns);
            std::vector<float> row(columns);
            for (int i = 0; i < rows * columns; ++i) {
                if (i % columns == 0) matrix.read_row(i / columns, row.data());
                const auto block = values.begin() + i / kBlock * kBlock;
                const auto [low, high] = std::minmax_element(block, block + kBlock);
                const float peak = std::max(-*low, *high);
                // Half a step, and what rounding the scale (and the minimum) to float16 costs.
                const float step = kind == Kind::q8_0 ? peak / 127.0f : (*high - *low) / 15.0f;
                const float allowed = 0.501f * step + peak * (kind == Kind::q8_0 ? 0.0005f : 0.0015f);
                CHECK(std::fabs(row[i % columns] - values[i]) <= allowed, setup.level.name, name_of(kind), i);
            }
        }
    });
}

TEST(matrix_quantise_to_shorts) {
    each_setup(2, [](const Setup& setup) {
        const int rows = 35, columns = kRun + 10;
        std::vector<float> values = Random(12).normals(rows * columns, 0.1f);
        std::fill_n(values.begin(), kRun, 0.0f);
        std::fill_n(values.begin() + columns, kRun, -0.75f);
        const Matrix matrix =
            Matrix::quantize(setup.pool, setup.level, *setup.memory, Kind::i16, values.data(), rows, columns);
        std::vector<float> row(columns);
        for (int i = 0; i < rows; ++i) {
            matrix.read_row(i, row.data());
            for (const auto& [first, last] : {std::pair{0, kRun}, std::pair{kRun, columns}}) {
                float peak = 0.0f;
                for (int k = first; k < last; ++k) peak = std::max(peak, std::fabs(values[i * columns + k]));
                for (int k = first; k < last; ++k) {
                    const float error = std::fabs(row[k] - values[i * columns + k]);
                    CHECK(error <= 0.501f * peak / kMostShort, setup.level.name, i, k, error);
                }
            }
        }
    });
}

TEST(matrix_and_linear_refuse_wrong_shapes) {
    ThreadPool pool(1);
    const Setup setup{*levels().front(), pool};
    CHECK(throws<std::invalid_argument>([] { stored_row_bytes(Kind::q4_0, 33); }));
    CHECK(throws<std::invalid_argument>([] { stored_row_bytes(Kind::q4_k, 128); }));
    CHECK(throws<std::invalid_argument>([] { stored_row_bytes(Kind::f32, 0); }));
    CHECK(throws<std::invalid_argument>([] { stored_row_bytes(Kind::i16, 32); }));
    CHECK(throws<std::invalid_argument>([&] { setup.matrix(Kind::i16, 2, 31, 0); }));
    CHECK(throws<std::invalid_argument>([&] { setup.matrix(Kind::f32, 0, 4, 0); }));
    const std::vector<float> values(64, 1.0f);
    CHECK(throws<std::invalid_argument>(
        [&] { Matrix::quantize(pool, setup.level, *setup.memory, Kind::q6_k, values.data(), 2, 32); }));
    const auto narrow = setup.matrix(Kind::f32, 2, 4, 0), wide = setup.matrix(Kind::f32, 2, 5, 0);
    CHECK(throws<std::invalid_argument>([&] { Linear({narrow, wide}, {}); }));
    CHECK(throws<std::invalid_argument>([&] { Linear({narrow}, {1.0f}); }));
    CHECK(throws<std::invalid_argument>([] { Linear({}, {}); }));
}

}  // namespace
}  // namespace headrace::test
