// The forward pass of an encoder. What it computes is what models/torch_encoder.py says in torch.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"
#include "linear.h"
#include "row_table.h"
#include "thread_pool.h"

namespace headrace {

struct EncoderShape {
    int hidden_size;
    int embedding_size;
    int intermediate_size;
    int num_heads;
    int head_dim;
    float norm_eps;
    Activation activation;
    bool gated;          // the rows of a layer's `up` are [gate | up]
    bool norm_of_sum;    // a sublayer's norm is of the sum of its input and its output; else it is of its input
    int position_offset; // position p has row `position_offset` + p of its table
};

struct LayerNorm {
    std::vector<float> weight;  // empty: there is no norm
    std::vector<float> bias;    // or empty
};

struct EncoderEmbeddings {
    std::shared_ptr<const RowTable> tokens;
    std::shared_ptr<const RowTable> types;      // or null
    std::shared_ptr<const RowTable> positions;  // or null
    LayerNorm norm;
    Linear projection;  // from embedding_size to hidden_size, where these differ
};

// Cosines and sines by position, [positions, half] each.
struct RotationTable {
    std::vector<float> cosines, sines;
    int half;
};

// Added to the score of a key at position k and a query at position q: values[head][k - q + reach].
struct DistanceBias {
    std::vector<float> values;  // [num_heads, 2 * reach + 1]; empty: there is none
    int reach = 0;
};

struct EncoderLayer {
    Linear qkv, attention_out, up, down;
    LayerNorm attention_norm, mlp_norm;
    int rotation;  // number of a rotation; -1: none
    int window;    // positions on either side that a token sees
};

// Sequences end to end.
struct EncoderInput {
    int tokens;
    int sequences;
    const int64_t* token_ids;
    const int64_t* type_ids;  // null: all of type 0
    const int64_t* starts;    // [sequences + 1]
};

// Holds its weights, and buffers that grow to the largest batch. One call at a time. All parts are to be set before the
// first; those that set them throw std::invalid_argument for shapes that do not belong to the encoder.
class Encoder {
public:
    Encoder(std::shared_ptr<ThreadPool> pool, const Kernels& kernels, const EncoderShape& shape);

    void set_embeddings(EncoderEmbeddings embeddings);
    void set_distance_bias(std::vector<float> values);
    // The norm of what the last layer leaves, where norms are of inputs.
    void set_final_norm(LayerNorm norm);
    void add_rotation(RotationTable rotation);
    void add_layer(EncoderLayer layer);

    // Writes the hidden states to `hidden` [tokens, hidden_size]. Throws std::invalid_argument if the input refers to
    // tokens, types or positions that do not exist.
    void forward(const EncoderInput& input, float* hidden);

    const EncoderShape& shape() const { return shape_; }

private:
    struct Workspace {
        Workspace(const Kernels& kernels, const EncoderShape& shape);

        std::vector<float> qkv, up;
        Activations embedded, entered, attended, inner;
    };

    // Consecutive sequences that go through all layers together, and their tokens.
    struct Portion {
        int first_sequence, last_sequence;
        int begin, end;
    };

    // Who takes a portion through the layers, and the memory for it; `scratch` is one for each of the threads.
    struct Crew {
        ThreadPool& threads;
        Workspace& work;
        std::vector<float>* scratch;
    };

    void check(const EncoderInput& input) const;
    std::vector<Portion> divide(const EncoderInput& input) const;
    bool keeps_threads_busy(const std::vector<Portion>& portions, int tokens) const;
    void reserve(Workspace& work, int tokens);
    void pass(const Crew& crew, const EncoderInput& input, const Portion& portion, float* hidden);
    void embed(const Crew& crew, const EncoderInput& input, int begin, int end, float* rows);
    // The input of `next` for `count` rows of the residual stream: each normalised in place first, and then, with
    // `input_norm`, on the way.
    void enter(const Crew& crew, const LayerNorm* in_place, const LayerNorm* input_norm, const Linear& next, int count,
               float* rows) const;
    void attend(const Crew& crew, const EncoderLayer& layer, const EncoderInput& input, const Portion& portion) const;
    void rotate(const EncoderLayer& layer, int position, float* qkv) const;
    void feed_forward(const Crew& crew, const EncoderLayer& layer, int count, float* rows) const;
    void normalise(const LayerNorm& norm, const float* x, float* out) const;

    std::shared_ptr<ThreadPool> pool_;
    ThreadPool alone_{1};
    const Kernels& kernels_;
    EncoderShape shape_;
    EncoderEmbeddings embeddings_;
    DistanceBias bias_;
    LayerNorm final_norm_;
    std::vector<RotationTable> rotations_;
    std::vector<EncoderLayer> layers_;

    std::vector<int> positions_;                // of the batch's tokens
    std::vector<Workspace> workspaces_;         // one for each thread
    std::vector<std::vector<float>> scratch_;   // likewise
};

}  // namespace headrace
