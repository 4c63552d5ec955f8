// The forward pass of a decoder-only transformer. What it computes is what models/decoder.py says in torch.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels.h"
#include "kv_cache.h"
#include "linear.h"
#include "matrix.h"
#include "thread_pool.h"

namespace headrace {

struct DecoderShape {
    int hidden_size;
    int intermediate_size;
    int num_heads;
    int num_kv_heads;
    int head_dim;
    int vocab_size;
    float norm_eps;
    Activation activation;
    float embedding_scale;
    float logit_soft_cap;  // 0: none
};

// Norms that a layer does without are empty.
struct DecoderLayer {
    Linear qkv, attention_out, gate_up, down;
    std::vector<float> attention_input_norm, attention_output_norm, mlp_input_norm, mlp_output_norm;
    std::vector<float> qk_norm;         // [heads + kv heads, head_dim]: each head by itself
    std::vector<float> q_norm, k_norm;  // all heads together
    int rotation;                       // index into DecoderInput::rotations
    float scale;
    int window;      // 0: none
    float soft_cap;  // 0: none
};

// The rotation of every token: angles [tokens, dims / 2] in radians.
struct RotationInput {
    const float* angles;
    int half;
    float magnitude;  // of cosine and sine
};

// A flat batch; see kernels/ops.py, AttentionBatch.
struct DecoderInput {
    int tokens;
    int sequences;
    const int64_t* token_ids;
    const int64_t* slots;
    const int64_t* block_tables;  // [sequences, table_stride]
    int64_t table_stride;
    const int64_t* context_lens;
    const int64_t* query_start;   // [sequences + 1]
    const int64_t* output_start;  // [sequences + 1]: how many of the last tokens of each sequence are asked for, added up
    std::vector<RotationInput> rotations;
};

// Holds its weights, and buffers that grow to the largest batch. One call at a time.
class Decoder {
public:
    Decoder(std::shared_ptr<ThreadPool> pool, const Kernels& kernels, const DecoderShape& shape);

    // `lm_head` null: the embedding is the output matrix too. Both throw std::invalid_argument for shapes that do not
    // belong to the decoder.
    void set_ends(std::shared_ptr<const Matrix> embedding, std::vector<float> final_norm,
                  std::shared_ptr<const Matrix> lm_head);
    void add_layer(DecoderLayer layer);

    // Writes keys and values to `cache` and the normalised hidden states of the tokens that are asked for to `hidden`
    // [output_start[sequences], hidden_size]. Throws std::invalid_argument if the input refers to tokens, blocks or
    // rotations that do not exist.
    void forward(const DecoderInput& input, const KvCache& cache, float* hidden);

    // `out` [rows, vocab_size] for rows `hidden` [rows, hidden_size] of what `forward` returned.
    void logits(const float* hidden, int rows, float* out);

    const DecoderShape& shape() const { return shape_; }

private:
    struct AttentionPlan {
        int window;
        bool outputs_only;
        std::vector<AttentionTask> tasks;
        std::vector<int> split_first;  // tasks that are parts of one: split_first[i]:split_first[i + 1]
        int64_t partials;              // floats
    };

    void check(const DecoderInput& input, const KvCache& cache) const;
    void prepare(const DecoderInput& input);
    void embed(const DecoderInput& input);
    void plan(const DecoderInput& input);
    // From here on, only the tokens that are asked for: the others' keys and values are all that is left to know of them.
    void keep_outputs(const DecoderInput& input);
    void attend(int index, const KvCache& cache);
    void rotate_and_store(const DecoderLayer& layer, int token, const DecoderInput& input, const KvCache& cache,
                          int index);
    void feed_forward(const DecoderLayer& layer, int begin, int end);
    // The input of a sublayer for rows begin:end: the residual stream, normalised or as it is, from row 0 of entered_.
    void enter(const std::vector<float>& norm, const Linear& next, int begin, int end);
    // Adds a sublayer's last product, of rows begin:end, to the residual stream, normalised or as it is.
    void leave(const Linear& linear, const ActivationRows& x, const std::vector<float>& norm, int begin, int end);
    AttentionPlan plan_attention(const DecoderInput& input, int window, bool outputs_only) const;

    std::shared_ptr<ThreadPool> pool_;
    const Kernels& kernels_;
    DecoderShape shape_;
    std::shared_ptr<const Matrix> embedding_;
    Linear lm_head_;
    std::vector<float> final_norm_;
    std::vector<DecoderLayer> layers_;

    int tokens_ = 0;  // that are worked on
    std::vector<float> residual_, qkv_;
    std::vector<float> gate_up_, branch_;  // of the rows that are worked on at once
    Activations entered_, attended_, gated_;  // entered_ and gated_ hold the rows that are worked on at once
    std::vector<std::vector<float>> cosines_, sines_;
    std::vector<AttentionPlan> plans_;
    std::vector<int> plan_of_layer_;
    std::vector<float> partials_;
    std::vector<std::vector<float>> scratch_;  // one for each thread
};

}  // namespace headrace
