// The Python module headrace.kernels.cpu._native. Arrays are checked here; everything below takes plain pointers.
#include "bindings.h"

#include <algorithm>

#include "decoder.h"

namespace headrace {
namespace {

std::shared_ptr<Matrix> make_matrix(Pool& pool, const std::string& kind_name, const Array<const uint8_t, 2>& data,
                                    int columns) {
    const Kind kind = kind_of(kind_name);
    const int64_t expected = stored_row_bytes(kind, columns);
    require(static_cast<int64_t>(data.shape(1)) == expected,
            "a row of " + std::to_string(columns) + " columns of kind " + kind_name + " takes " +
                std::to_string(expected) + " bytes, not " + std::to_string(data.shape(1)));
    const nb::gil_scoped_release unlocked;
    return std::make_shared<Matrix>(*pool.threads, pool.kernels, pool.memory, kind, data.data(), static_cast<int>(data.shape(0)),
                                    columns);
}

std::shared_ptr<Matrix> quantize_matrix(Pool& pool, const std::string& kind, const Array<const float, 2>& values) {
    const nb::gil_scoped_release unlocked;
    return std::make_shared<Matrix>(Matrix::quantize(*pool.threads, pool.kernels, pool.memory, kind_of(kind), values.data(),
                                                     static_cast<int>(values.shape(0)),
                                                     static_cast<int>(values.shape(1))));
}

void read_rows(const Matrix& matrix, const Array<const int64_t, 1>& rows, const Array<float, 2>& out) {
    require(out.shape(0) == rows.size() && static_cast<int>(out.shape(1)) == matrix.columns(),
            "out must be [rows asked for, columns]");
    for (size_t index = 0; index < rows.size(); ++index) {
        const int64_t row = rows.data()[index];
        require(row >= 0 && row < matrix.rows(), "row " + std::to_string(row) + " is not in the matrix");
        matrix.read_row(static_cast<int>(row), out.data() + index * out.shape(1));
    }
}

void apply_linear(const Pool& pool, const Matrices& parts, const FloatVector& bias,
                  const Array<const float, 2>& x, const Array<float, 2>& out, bool add) {
    const Linear layer = linear(parts, bias);
    const int rows = static_cast<int>(x.shape(0));
    require(static_cast<int>(x.shape(1)) == layer.columns(), "x must be [rows, columns of the matrices]");
    require(out.shape(0) == x.shape(0) && static_cast<int>(out.shape(1)) == layer.rows(),
            "out must be [rows, rows of the matrices]");
    const nb::gil_scoped_release unlocked;
    Activations activations(pool.kernels, layer.columns());
    activations.prepare(rows, layer);
    for (int row = 0; row < rows; ++row) {
        std::copy_n(x.data() + int64_t{row} * layer.columns(), layer.columns(), activations.row(row));
        activations.finish(row);
    }
    layer.apply(*pool.threads, pool.kernels, activations.view(), rows, out.data(), add);
}

// The cache and the memory that it is a view of.
struct BoundCache {
    BoundCache(const Array<uint8_t, 4>& array, const std::string& kind, int block_size, int num_kv_heads, int head_dim)
        : memory(array),
          view{array.data(), static_cast<int64_t>(array.shape(1)), static_cast<int64_t>(array.shape(0)),
               checked({kv_kind_of(kind), block_size, num_kv_heads, head_dim})} {
        require(array.shape(2) == 2 && static_cast<int64_t>(array.shape(3)) == view.block.bytes(),
                "memory must be [blocks, layers, 2, block_bytes]");
        require(reinterpret_cast<uintptr_t>(array.data()) % alignof(float) == 0, "memory must be aligned for floats");
    }

    Array<uint8_t, 4> memory;
    KvCache view;
};

int64_t block_bytes(const std::string& kind, int block_size, int num_kv_heads, int head_dim) {
    return checked({kv_kind_of(kind), block_size, num_kv_heads, head_dim}).bytes();
}

void init_decoder(Decoder* self, const Pool& pool, int hidden_size, int intermediate_size, int num_heads,
                  int num_kv_heads, int head_dim, int vocab_size, float norm_eps, const std::string& activation,
                  float embedding_scale, std::optional<float> logit_soft_cap) {
    new (self) Decoder(pool.threads, pool.kernels,
                       DecoderShape{hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim, vocab_size,
                                    norm_eps, activation_of(activation), embedding_scale, logit_soft_cap.value_or(0.0f)});
}

void set_ends(Decoder& self, std::shared_ptr<Matrix> embedding, const Array<const float, 1>& final_norm,
              std::shared_ptr<Matrix> lm_head) {
    self.set_ends(std::move(embedding), {final_norm.data(), final_norm.data() + final_norm.size()}, std::move(lm_head));
}

void add_layer(Decoder& self, const Matrices& qkv, std::shared_ptr<Matrix> attention_out,
               const Matrices& gate_up, std::shared_ptr<Matrix> down,
               const FloatVector& qkv_bias, const FloatVector& attention_out_bias, const FloatVector& gate_up_bias,
               const FloatVector& down_bias, const FloatVector& attention_input_norm,
               const FloatVector& attention_output_norm, const FloatVector& mlp_input_norm,
               const FloatVector& mlp_output_norm, const FloatMatrix& qk_norm, const FloatVector& q_norm,
               const FloatVector& k_norm, int rotation, float scale, std::optional<int> window,
               std::optional<float> soft_cap) {
    DecoderLayer layer;
    layer.qkv = linear(qkv, qkv_bias);
    layer.attention_out = linear({std::move(attention_out)}, attention_out_bias);
    layer.gate_up = linear(gate_up, gate_up_bias);
    layer.down = linear({std::move(down)}, down_bias);
    layer.attention_input_norm = copy(attention_input_norm);
    layer.attention_output_norm = copy(attention_output_norm);
    layer.mlp_input_norm = copy(mlp_input_norm);
    layer.mlp_output_norm = copy(mlp_output_norm);
    layer.qk_norm = copy(qk_norm);
    layer.q_norm = copy(q_norm);
    layer.k_norm = copy(k_norm);
    layer.rotation = rotation;
    layer.scale = scale;
    layer.window = window.value_or(0);
    layer.soft_cap = soft_cap.value_or(0.0f);
    self.add_layer(std::move(layer));
}

void forward(Decoder& self, const Array<const int64_t, 1>& token_ids,
             const std::vector<Array<const float, 2>>& angles, const std::vector<float>& magnitudes,
             const Array<const int64_t, 1>& slot_mapping, const Array<const int64_t, 2>& block_tables,
             const Array<const int64_t, 1>& context_lens, const Array<const int64_t, 1>& query_start,
             const Array<const int64_t, 1>& output_start, const BoundCache& cache, const Array<float, 2>& hidden) {
    const size_t tokens = token_ids.size(), sequences = context_lens.size();
    require(slot_mapping.size() == tokens && block_tables.shape(0) == sequences &&
                query_start.size() == sequences + 1 && output_start.size() == sequences + 1,
            "slot_mapping must be [tokens], block_tables [sequences, blocks], query_start and output_start "
            "[sequences + 1]");
    require(static_cast<int64_t>(hidden.shape(0)) == output_start.data()[sequences] &&
                static_cast<int>(hidden.shape(1)) == self.shape().hidden_size,
            "hidden must be [tokens asked for, hidden_size]");
    require(angles.size() == magnitudes.size(), "every rotation needs angles and a magnitude");
    DecoderInput input{static_cast<int>(tokens), static_cast<int>(sequences), token_ids.data(), slot_mapping.data(),
                       block_tables.data(), static_cast<int64_t>(block_tables.shape(1)), context_lens.data(),
                       query_start.data(), output_start.data(), {}};
    for (size_t index = 0; index < angles.size(); ++index) {
        require(angles[index].shape(0) == tokens, "angles must be [tokens, dims / 2]");
        input.rotations.push_back({angles[index].data(), static_cast<int>(angles[index].shape(1)), magnitudes[index]});
    }
    const nb::gil_scoped_release unlocked;
    self.forward(input, cache.view, hidden.data());
}

void logits(Decoder& self, const Array<const float, 2>& hidden, const Array<float, 2>& out) {
    require(static_cast<int>(hidden.shape(1)) == self.shape().hidden_size, "hidden must be [rows, hidden_size]");
    require(out.shape(0) == hidden.shape(0) && static_cast<int>(out.shape(1)) == self.shape().vocab_size,
            "logits must be [rows, vocab_size]");
    const nb::gil_scoped_release unlocked;
    self.logits(hidden.data(), static_cast<int>(hidden.shape(0)), out.data());
}

void draw(const Pool& pool, const Array<const float, 2>& logits, const Array<const float, 1>& temperatures,
          const Array<const double, 1>& uniforms, const Array<int64_t, 1>& tokens, const Array<float, 1>& peaks) {
    const size_t rows = logits.shape(0);
    require(temperatures.size() == rows && uniforms.size() == rows && tokens.size() == rows && peaks.size() == rows,
            "temperatures, uniforms, tokens and peaks must be [rows of the logits]");
    const int size = static_cast<int>(logits.shape(1));
    const nb::gil_scoped_release unlocked;
    std::vector<std::vector<double>> scratch(pool.threads->threads(), std::vector<double>(draw_scratch(size)));
    pool.threads->run(static_cast<int>(rows), [&](int row, int thread) {
        tokens.data()[row] = pool.kernels.draw(logits.data() + int64_t{row} * size, size, temperatures.data()[row],
                                               uniforms.data()[row], scratch[thread].data(), peaks.data() + row);
    });
}

std::vector<std::string> isa_levels() {
    std::vector<std::string> names;
    for (const Kernels* level : usable_levels()) names.emplace_back(level->name);
    return names;
}

}  // namespace
}  // namespace headrace

NB_MODULE(_native, m) {
    // What is written to takes no conversion: a converted array is a copy, and what is written to that is lost.
    using namespace headrace;
    m.doc() = "Kernels for CPUs. headrace.kernels.native says what everything takes.";
    nb::set_leak_warnings(false);  // an engine that lives until the interpreter ends is no leak
    m.def("isa_levels", &isa_levels);

    nb::class_<Pool>(m, "Pool")
        .def(nb::init<int, std::optional<std::string>>(), "threads"_a, "isa"_a = nb::none())
        .def_prop_ro("threads", [](const Pool& self) { return self.threads->threads(); })
        .def_prop_ro("isa", [](const Pool& self) { return self.kernels.name; });

    nb::class_<Matrix>(m, "Matrix")
        .def(nb::new_(&make_matrix), "pool"_a, "kind"_a, "data"_a, "columns"_a)
        .def_static("quantize", &quantize_matrix, "pool"_a, "kind"_a, "values"_a)
        .def_prop_ro("rows", &Matrix::rows)
        .def_prop_ro("columns", &Matrix::columns)
        .def_prop_ro("kind", [](const Matrix& self) { return name_of(self.kind()); })
        .def_prop_ro("nbytes", &Matrix::bytes)
        .def("read_rows", &read_rows, "rows"_a, "out"_a.noconvert());
    m.def("linear", &apply_linear, "pool"_a, "parts"_a, "bias"_a.none(), "x"_a, "out"_a.noconvert(),
          "add"_a = false);

    m.def("draw", &draw, "pool"_a, "logits"_a, "temperatures"_a, "uniforms"_a, "tokens"_a.noconvert(),
          "peaks"_a.noconvert());

    nb::class_<BoundCache>(m, "KvCache")
        .def(nb::init<const Array<uint8_t, 4>&, const std::string&, int, int, int>(), "memory"_a.noconvert(),
             "kind"_a, "block_size"_a, "num_kv_heads"_a, "head_dim"_a)
        .def_static("block_bytes", &block_bytes, "kind"_a, "block_size"_a, "num_kv_heads"_a, "head_dim"_a);

    nb::class_<Decoder>(m, "Decoder")
        .def("__init__", &init_decoder, "pool"_a, nb::kw_only(), "hidden_size"_a, "intermediate_size"_a, "num_heads"_a,
             "num_kv_heads"_a, "head_dim"_a, "vocab_size"_a, "norm_eps"_a, "activation"_a, "embedding_scale"_a,
             "logit_soft_cap"_a.none())
        .def("set_ends", &set_ends, "embedding"_a, "final_norm"_a, "lm_head"_a.none())
        .def("add_layer", &add_layer, nb::kw_only(), "qkv"_a, "attention_out"_a, "gate_up"_a, "down"_a,
             "qkv_bias"_a.none(), "attention_out_bias"_a.none(), "gate_up_bias"_a.none(), "down_bias"_a.none(),
             "attention_input_norm"_a.none(), "attention_output_norm"_a.none(), "mlp_input_norm"_a.none(),
             "mlp_output_norm"_a.none(), "qk_norm"_a.none(), "q_norm"_a.none(), "k_norm"_a.none(), "rotation"_a,
             "scale"_a, "window"_a.none(), "soft_cap"_a.none())
        .def("forward", &forward, "token_ids"_a, "angles"_a, "magnitudes"_a, "slot_mapping"_a, "block_tables"_a,
             "context_lens"_a, "query_start"_a, "output_start"_a, "kv"_a, "hidden"_a.noconvert())
        .def("logits", &logits, "hidden"_a, "logits"_a.noconvert());
    bind_encoder(m);
}
