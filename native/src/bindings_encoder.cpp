#include <algorithm>
#include <limits>

#include "bindings.h"
#include "encoder.h"
#include "layout.h"

namespace headrace {
namespace {

std::shared_ptr<RowTable> make_table(Pool& pool, const std::string& kind_name, const Array<const uint8_t, 2>& data,
                                     int columns) {
    const Kind kind = kind_of(kind_name);
    const int64_t expected = stored_row_bytes(kind, columns);
    require(static_cast<int64_t>(data.shape(1)) == expected,
            "a row of " + std::to_string(columns) + " columns of kind " + kind_name + " takes " +
                std::to_string(expected) + " bytes, not " + std::to_string(data.shape(1)));
    return std::make_shared<RowTable>(pool.memory, kind, data.data(), static_cast<int>(data.shape(0)), columns);
}

LayerNorm layer_norm(const FloatVector& weight, const FloatVector& bias) { return {copy(weight), copy(bias)}; }

void init_encoder(Encoder* self, const Pool& pool, int hidden_size, int embedding_size, int intermediate_size,
                  int num_heads, int head_dim, float norm_eps, const std::string& activation, bool gated,
                  bool norm_of_sum, int position_offset) {
    new (self) Encoder(pool.threads, pool.kernels,
                       EncoderShape{hidden_size, embedding_size, intermediate_size, num_heads, head_dim, norm_eps,
                                    activation_of(activation), gated, norm_of_sum, position_offset});
}

void set_embeddings(Encoder& self, std::shared_ptr<RowTable> tokens, std::shared_ptr<RowTable> types,
                    std::shared_ptr<RowTable> positions, const FloatVector& norm, const FloatVector& norm_bias,
                    std::shared_ptr<Matrix> projection, const FloatVector& projection_bias) {
    EncoderEmbeddings embeddings{std::move(tokens), std::move(types), std::move(positions), layer_norm(norm, norm_bias),
                                 {}};
    if (projection) embeddings.projection = linear({std::move(projection)}, projection_bias);
    self.set_embeddings(std::move(embeddings));
}

void set_distance_bias(Encoder& self, const Array<const float, 2>& values) {
    require(static_cast<int>(values.shape(0)) == self.shape().num_heads, "a bias by distance has a row for each head");
    self.set_distance_bias({values.data(), values.data() + values.size()});
}

void set_final_norm(Encoder& self, const FloatVector& norm, const FloatVector& norm_bias) {
    self.set_final_norm(layer_norm(norm, norm_bias));
}

void add_rotation(Encoder& self, const Array<const float, 2>& cosines, const Array<const float, 2>& sines) {
    require(cosines.shape(0) == sines.shape(0) && cosines.shape(1) == sines.shape(1),
            "cosines and sines must be [positions, dims / 2]");
    self.add_rotation({{cosines.data(), cosines.data() + cosines.size()},
                       {sines.data(), sines.data() + sines.size()},
                       static_cast<int>(cosines.shape(1))});
}

void add_layer(Encoder& self, const Matrices& qkv, std::shared_ptr<Matrix> attention_out, const Matrices& up,
               std::shared_ptr<Matrix> down, const FloatVector& qkv_bias, const FloatVector& attention_out_bias,
               const FloatVector& up_bias, const FloatVector& down_bias, const FloatVector& attention_norm,
               const FloatVector& attention_norm_bias, const FloatVector& mlp_norm, const FloatVector& mlp_norm_bias,
               std::optional<int> rotation, std::optional<int> window) {
    self.add_layer({linear(qkv, qkv_bias), linear({std::move(attention_out)}, attention_out_bias), linear(up, up_bias),
                    linear({std::move(down)}, down_bias), layer_norm(attention_norm, attention_norm_bias),
                    layer_norm(mlp_norm, mlp_norm_bias), rotation.value_or(-1),
                    window.value_or(std::numeric_limits<int>::max())});
}

void forward(Encoder& self, const Array<const int64_t, 1>& token_ids,
             const std::optional<Array<const int64_t, 1>>& token_type_ids, const Array<const int64_t, 1>& starts,
             const Array<float, 2>& hidden) {
    const size_t tokens = token_ids.size();
    require(!token_type_ids || token_type_ids->size() == tokens, "token_type_ids must be [tokens]");
    require(starts.size() > 1, "starts must be [sequences + 1]");
    require(hidden.shape(0) == tokens && static_cast<int>(hidden.shape(1)) == self.shape().hidden_size,
            "hidden must be [tokens, hidden_size]");
    const EncoderInput input{static_cast<int>(tokens), static_cast<int>(starts.size()) - 1, token_ids.data(),
                             token_type_ids ? token_type_ids->data() : nullptr, starts.data()};
    const nb::gil_scoped_release unlocked;
    self.forward(input, hidden.data());
}

}  // namespace

void bind_encoder(nb::module_& m) {
    nb::class_<RowTable>(m, "RowTable")
        .def(nb::new_(&make_table), "pool"_a, "kind"_a, "data"_a, "columns"_a);

    nb::class_<Encoder>(m, "Encoder")
        .def("__init__", &init_encoder, "pool"_a, nb::kw_only(), "hidden_size"_a, "embedding_size"_a,
             "intermediate_size"_a, "num_heads"_a, "head_dim"_a, "norm_eps"_a, "activation"_a, "gated"_a,
             "norm_of_sum"_a, "position_offset"_a)
        .def("set_embeddings", &set_embeddings, nb::kw_only(), "tokens"_a, "types"_a.none(), "positions"_a.none(),
             "norm"_a, "norm_bias"_a.none(), "projection"_a.none(), "projection_bias"_a.none())
        .def("set_distance_bias", &set_distance_bias, "values"_a)
        .def("set_final_norm", &set_final_norm, "norm"_a, "norm_bias"_a.none())
        .def("add_rotation", &add_rotation, "cosines"_a, "sines"_a)
        .def("add_layer", &add_layer, nb::kw_only(), "qkv"_a, "attention_out"_a, "up"_a, "down"_a,
             "qkv_bias"_a.none(), "attention_out_bias"_a.none(), "up_bias"_a.none(), "down_bias"_a.none(),
             "attention_norm"_a.none(), "attention_norm_bias"_a.none(), "mlp_norm"_a, "mlp_norm_bias"_a.none(),
             "rotation"_a.none(), "window"_a.none())
        .def("forward", &forward, "token_ids"_a, "token_type_ids"_a.none(), "starts"_a, "hidden"_a.noconvert());
}

}  // namespace headrace
