#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "share_rows.h"

namespace headrace {
namespace {

// Rows that pass through a sublayer together. Tokens meet in attention only; the rest is done part by part, so that what
// lies between two products stays in the caches and takes little memory.
constexpr int kRowsAtOnce = 256;

// Tiles of keys that are worth a task of their own where one sequence has to keep all threads busy.
constexpr int kTilesWorthSharing = 4;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

template <class Vector>
void grow(Vector& vector, int64_t size) {
    if (static_cast<int64_t>(vector.size()) < size) vector.resize(size);
}

bool fits(const std::vector<float>& norm, int size) { return norm.empty() || static_cast<int>(norm.size()) == size; }

}  // namespace

Decoder::Decoder(std::shared_ptr<ThreadPool> pool, const Kernels& kernels, const DecoderShape& shape)
    : pool_(std::move(pool)),
      kernels_(kernels),
      shape_(shape),
      entered_(kernels, shape.hidden_size),
      attended_(kernels, shape.num_heads * shape.head_dim),
      gated_(kernels, shape.intermediate_size) {
    require(shape.hidden_size > 0 && shape.intermediate_size > 0 && shape.head_dim > 0 && shape.num_kv_heads > 0 &&
                shape.num_heads > 0 && shape.num_heads % shape.num_kv_heads == 0,
            "a decoder's sizes must be positive and its heads a multiple of its key heads");
    require(shape.num_heads / shape.num_kv_heads <= kAttentionRows, "too many query heads share a key head");
    scratch_.resize(pool_->threads());
    for (auto& scratch : scratch_) scratch.resize(attention_scratch(shape.head_dim));
}

void Decoder::set_ends(std::shared_ptr<const Matrix> embedding, std::vector<float> final_norm,
                       std::shared_ptr<const Matrix> lm_head) {
    require(embedding && embedding->rows() == shape_.vocab_size && embedding->columns() == shape_.hidden_size,
            "the embedding must be [vocab_size, hidden_size]");
    require(static_cast<int>(final_norm.size()) == shape_.hidden_size, "the final norm must have hidden_size weights");
    embedding_ = embedding;
    final_norm_ = std::move(final_norm);
    lm_head_ = Linear({lm_head ? std::move(lm_head) : std::move(embedding)}, {});
    require(lm_head_.rows() == shape_.vocab_size && lm_head_.columns() == shape_.hidden_size,
            "the output matrix must be [vocab_size, hidden_size]");
}

void Decoder::add_layer(DecoderLayer layer) {
    const int hidden = shape_.hidden_size, inner = shape_.intermediate_size;
    const int query = shape_.num_heads * shape_.head_dim, key = shape_.num_kv_heads * shape_.head_dim;
    require(layer.qkv.rows() == query + 2 * key && layer.qkv.columns() == hidden, "qkv has the wrong shape");
    require(layer.attention_out.rows() == hidden && layer.attention_out.columns() == query,
            "attention_out has the wrong shape");
    require(layer.gate_up.rows() == 2 * inner && layer.gate_up.columns() == hidden, "gate_up has the wrong shape");
    require(layer.down.rows() == hidden && layer.down.columns() == inner, "down has the wrong shape");
    require(fits(layer.attention_input_norm, hidden) && fits(layer.attention_output_norm, hidden) &&
                fits(layer.mlp_input_norm, hidden) && fits(layer.mlp_output_norm, hidden) &&
                fits(layer.qk_norm, query + key) && fits(layer.q_norm, query) && fits(layer.k_norm, key),
            "a norm has the wrong size");
    require(layer.q_norm.empty() == layer.k_norm.empty(), "q_norm and k_norm come together");
    require(layer.rotation >= 0 && layer.window >= 0, "rotation and window must not be negative");
    layers_.push_back(std::move(layer));
}

void Decoder::forward(const DecoderInput& input, const KvCache& cache, float* hidden) {
    check(input, cache);
    prepare(input);
    embed(input);
    for (int index = 0; index < static_cast<int>(layers_.size()); ++index) {
        const DecoderLayer& layer = layers_[index];
        for (int begin = 0; begin < tokens_; begin += kRowsAtOnce) {
            const int end = std::min(begin + kRowsAtOnce, tokens_);
            enter(layer.attention_input_norm, layer.qkv, begin, end);
            layer.qkv.apply(*pool_, kernels_, entered_.view(), end - begin,
                            qkv_.data() + int64_t{begin} * layer.qkv.rows(), false);
        }
        each_row(*pool_, 0, tokens_, [&](int token) { rotate_and_store(layer, token, input, cache, index); });
        if (index + 1 == static_cast<int>(layers_.size())) {
            keep_outputs(input);
            if (tokens_ == 0) return;
        }
        attend(index, cache);
        for (int begin = 0; begin < tokens_; begin += kRowsAtOnce) {
            const int end = std::min(begin + kRowsAtOnce, tokens_);
            leave(layer.attention_out, attended_.view(begin), layer.attention_output_norm, begin, end);
            enter(layer.mlp_input_norm, layer.gate_up, begin, end);
            feed_forward(layer, begin, end);
        }
    }
    each_row(*pool_, 0, tokens_, [&](int token) {
        const int64_t at = int64_t{token} * shape_.hidden_size;
        kernels_.rms_norm(residual_.data() + at, final_norm_.data(), shape_.norm_eps, shape_.hidden_size, hidden + at);
    });
}

void Decoder::logits(const float* hidden, int rows, float* out) {
    require(embedding_ != nullptr, "the decoder has no weights yet");
    entered_.prepare(rows, lm_head_);
    for (int row = 0; row < rows; ++row) {
        std::memcpy(entered_.row(row), hidden + int64_t{row} * shape_.hidden_size, sizeof(float) * shape_.hidden_size);
        entered_.finish(row);
    }
    lm_head_.apply(*pool_, kernels_, entered_.view(), rows, out, false);
    if (shape_.logit_soft_cap > 0.0f) {
        pool_->run(rows, [&](int row, int) {
            kernels_.soft_cap(out + int64_t{row} * shape_.vocab_size, shape_.logit_soft_cap, shape_.vocab_size);
        });
    }
}

void Decoder::check(const DecoderInput& input, const KvCache& cache) const {
    require(embedding_ != nullptr && !layers_.empty(), "the decoder has no weights yet");
    require(cache.num_layers == static_cast<int64_t>(layers_.size()) && cache.block.heads == shape_.num_kv_heads &&
                cache.block.head_dim == shape_.head_dim,
            "the KV cache was made for another decoder");
    require(input.tokens > 0 && input.sequences > 0, "a batch needs a token");
    require(input.query_start[0] == 0 && input.query_start[input.sequences] == input.tokens,
            "query_start must cover the batch");
    require(input.output_start[0] == 0, "output_start must begin with 0");
    const int64_t slots = cache.num_blocks * cache.block.tokens;
    for (int token = 0; token < input.tokens; ++token) {
        require(input.token_ids[token] >= 0 && input.token_ids[token] < shape_.vocab_size,
                "a token id is not in the vocabulary");
        require(input.slots[token] >= 0 && input.slots[token] < slots, "a slot is not in the KV cache");
    }
    for (int sequence = 0; sequence < input.sequences; ++sequence) {
        const int64_t count = input.query_start[sequence + 1] - input.query_start[sequence];
        const int64_t outputs = input.output_start[sequence + 1] - input.output_start[sequence];
        const int64_t context = input.context_lens[sequence];
        require(count > 0 && context >= count, "a sequence needs a token, and a context that holds it");
        require(outputs >= 0 && outputs <= count, "more tokens are asked for than a sequence has here");
        const int64_t blocks = (context + cache.block.tokens - 1) / cache.block.tokens;
        require(blocks <= input.table_stride, "a block table is too short");
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t id = input.block_tables[sequence * input.table_stride + block];
            require(id >= 0 && id < cache.num_blocks, "a block is not in the KV cache");
        }
    }
    for (const RotationInput& rotation : input.rotations) {
        require(2 * rotation.half <= shape_.head_dim, "more dimensions to rotate than a head has");
    }
    for (const DecoderLayer& layer : layers_) {
        require(layer.rotation < static_cast<int>(input.rotations.size()), "a rotation is missing");
    }
}

void Decoder::prepare(const DecoderInput& input) {
    tokens_ = input.tokens;
    const int64_t tokens = input.tokens;
    grow(residual_, tokens * shape_.hidden_size);
    grow(qkv_, tokens * (shape_.num_heads + 2 * shape_.num_kv_heads) * shape_.head_dim);
    const int64_t at_once = std::min(input.tokens, kRowsAtOnce);
    grow(branch_, at_once * shape_.hidden_size);
    grow(gate_up_, at_once * 2 * shape_.intermediate_size);

    const int rotations = static_cast<int>(input.rotations.size());
    cosines_.resize(rotations);
    sines_.resize(rotations);
    for (int index = 0; index < rotations; ++index) {
        const RotationInput& rotation = input.rotations[index];
        grow(cosines_[index], tokens * rotation.half);
        grow(sines_[index], tokens * rotation.half);
    }
    each_row(*pool_, 0, tokens_, [&](int token) {
        for (int index = 0; index < rotations; ++index) {
            const RotationInput& rotation = input.rotations[index];
            for (int64_t i = int64_t{token} * rotation.half; i < int64_t{token + 1} * rotation.half; ++i) {
                cosines_[index][i] = std::cos(rotation.angles[i]) * rotation.magnitude;
                sines_[index][i] = std::sin(rotation.angles[i]) * rotation.magnitude;
            }
        }
    });

    plan(input);
}

void Decoder::plan(const DecoderInput& input) {
    plans_.clear();
    plan_of_layer_.clear();
    int64_t partials = 0;
    const bool all = input.output_start[input.sequences] == input.tokens;
    for (const DecoderLayer& layer : layers_) {
        const bool outputs_only = !all && &layer == &layers_.back();
        const auto found = std::find_if(plans_.begin(), plans_.end(), [&](const AttentionPlan& plan) {
            return plan.window == layer.window && plan.outputs_only == outputs_only;
        });
        plan_of_layer_.push_back(static_cast<int>(found - plans_.begin()));
        if (found != plans_.end()) continue;
        plans_.push_back(plan_attention(input, layer.window, outputs_only));
        partials = std::max(partials, plans_.back().partials);
    }
    grow(partials_, partials);
    for (AttentionPlan& plan : plans_) {  // offsets until now, since the memory may have moved
        float* next = partials_.data();
        for (int task = plan.split_first.front(); task < plan.split_first.back(); ++task) {
            plan.tasks[task].partials = next;
            next += int64_t{plan.tasks[task].tile_end - plan.tasks[task].tile_begin} *
                    (shape_.num_heads / shape_.num_kv_heads) * partial_size(shape_.head_dim);
        }
    }
}

void Decoder::embed(const DecoderInput& input) {
    each_row(*pool_, 0, tokens_, [&](int token) {
        float* row = residual_.data() + int64_t{token} * shape_.hidden_size;
        embedding_->read_row(static_cast<int>(input.token_ids[token]), row);
        if (shape_.embedding_scale != 1.0f) kernels_.scale(row, shape_.embedding_scale, shape_.hidden_size);
    });
}

void Decoder::enter(const std::vector<float>& norm, const Linear& next, int begin, int end) {
    entered_.prepare(end - begin, next);
    each_row(*pool_, begin, end, [&](int token) {
        const float* from = residual_.data() + int64_t{token} * shape_.hidden_size;
        float* const to = entered_.row(token - begin);
        if (norm.empty()) {
            std::memcpy(to, from, sizeof(float) * shape_.hidden_size);
        } else {
            kernels_.rms_norm(from, norm.data(), shape_.norm_eps, shape_.hidden_size, to);
        }
        entered_.finish(token - begin);
    });
}

void Decoder::leave(const Linear& linear, const ActivationRows& x, const std::vector<float>& norm, int begin, int end) {
    float* const residual = residual_.data() + int64_t{begin} * shape_.hidden_size;
    if (norm.empty()) {
        linear.apply(*pool_, kernels_, x, end - begin, residual, true);
        return;
    }
    linear.apply(*pool_, kernels_, x, end - begin, branch_.data(), false);
    each_row(*pool_, 0, end - begin, [&](int row) {
        const int64_t at = int64_t{row} * shape_.hidden_size;
        kernels_.rms_norm(branch_.data() + at, norm.data(), shape_.norm_eps, shape_.hidden_size, branch_.data() + at);
        kernels_.add(residual + at, branch_.data() + at, shape_.hidden_size);
    });
}

void Decoder::keep_outputs(const DecoderInput& input) {
    const int outputs = static_cast<int>(input.output_start[input.sequences]);
    if (outputs == tokens_) return;
    const int64_t hidden = shape_.hidden_size, heads = int64_t{shape_.num_heads} * shape_.head_dim;
    const int64_t stride = heads + 2 * int64_t{shape_.num_kv_heads} * shape_.head_dim;
    for (int sequence = 0; sequence < input.sequences; ++sequence) {
        const int64_t end = input.output_start[sequence + 1];
        const int64_t ahead = input.query_start[sequence + 1] - end;  // a row never moves back, so none is overwritten
        for (int64_t to = input.output_start[sequence]; ahead > 0 && to < end; ++to) {
            std::copy_n(residual_.data() + (to + ahead) * hidden, hidden, residual_.data() + to * hidden);
            std::copy_n(qkv_.data() + (to + ahead) * stride, heads, qkv_.data() + to * stride);
        }
    }
    tokens_ = outputs;
}

void Decoder::attend(int index, const KvCache& cache) {
    const DecoderLayer& layer = layers_[index];
    attended_.prepare(tokens_, layer.attention_out);
    const AttentionLayer attention{
        qkv_.data(),      attended_.values(),   cache.keys(index), cache.values(index), layer.qkv.rows(),
        cache.block_stride(), cache.block,      shape_.num_heads,  layer.scale,         layer.soft_cap,
        layer.window,
    };
    const AttentionPlan& plan = plans_[plan_of_layer_[index]];
    pool_->run(static_cast<int>(plan.tasks.size()), [&](int task, int thread) {
        kernels_.attend(attention, plan.tasks[task], scratch_[thread].data());
    });
    const int group = shape_.num_heads / shape_.num_kv_heads;
    pool_->run(static_cast<int>(plan.split_first.size()) - 1, [&](int split, int) {
        const AttentionTask& first = plan.tasks[plan.split_first[split]];
        const int tiles = plan.tasks[plan.split_first[split + 1] - 1].tile_end - first.tile_begin;
        float* out = attended_.row(first.token_begin) + int64_t{first.kv_head} * group * shape_.head_dim;
        for (int row = 0; row < group; ++row) {
            kernels_.merge(first.partials, tiles, group, row, shape_.head_dim, out + int64_t{row} * shape_.head_dim);
        }
    });
    if (attended_.quantised()) each_row(*pool_, 0, tokens_, [&](int token) { attended_.finish(token); });
}

void Decoder::rotate_and_store(const DecoderLayer& layer, int token, const DecoderInput& input, const KvCache& cache,
                               int index) {
    const int head_dim = shape_.head_dim, heads = shape_.num_heads, kv_heads = shape_.num_kv_heads;
    float* const queries = qkv_.data() + int64_t{token} * layer.qkv.rows();
    float* const keys = queries + heads * head_dim;
    float* const values = keys + kv_heads * head_dim;
    if (!layer.q_norm.empty()) {
        kernels_.rms_norm(queries, layer.q_norm.data(), shape_.norm_eps, heads * head_dim, queries);
        kernels_.rms_norm(keys, layer.k_norm.data(), shape_.norm_eps, kv_heads * head_dim, keys);
    }
    const int half = input.rotations[layer.rotation].half;
    const float* const cosine = cosines_[layer.rotation].data() + int64_t{token} * half;
    const float* const sine = sines_[layer.rotation].data() + int64_t{token} * half;
    for (int head = 0; head < heads + kv_heads; ++head) {
        float* const x = queries + head * head_dim;
        if (!layer.qk_norm.empty()) {
            kernels_.rms_norm(x, layer.qk_norm.data() + head * head_dim, shape_.norm_eps, head_dim, x);
        }
        kernels_.rotate(x, cosine, sine, half);
    }

    const KvBlock& block = cache.block;
    const int64_t slot = input.slots[token] % block.tokens;
    const int64_t offset = input.slots[token] / block.tokens * cache.block_stride();
    uint8_t* const key_block = cache.keys(index) + offset;
    uint8_t* const value_block = cache.values(index) + offset;
    for (int head = 0; head < kv_heads; ++head) {
        const int64_t scale = block.scale(head, slot);
        kernels_.store_key(keys + head * head_dim, head_dim, block.kind, key_block + block.key_group(head, slot),
                           static_cast<int>(slot % kKeyGroup), reinterpret_cast<float*>(key_block + scale));
        kernels_.store_value(values + head * head_dim, head_dim, block.kind, value_block + block.value(head, slot),
                             reinterpret_cast<float*>(value_block + scale));
    }
}

void Decoder::feed_forward(const DecoderLayer& layer, int begin, int end) {
    const int rows = end - begin;
    layer.gate_up.apply(*pool_, kernels_, entered_.view(), rows, gate_up_.data(), false);
    gated_.prepare(rows, layer.down);
    const auto gate = kernels_.gate[static_cast<int>(shape_.activation)];
    each_row(*pool_, 0, rows, [&](int row) {
        const float* from = gate_up_.data() + int64_t{row} * 2 * shape_.intermediate_size;
        gate(from, from + shape_.intermediate_size, shape_.intermediate_size, gated_.row(row));
        gated_.finish(row);
    });
    leave(layer.down, gated_.view(), layer.mlp_output_norm, begin, end);
}

Decoder::AttentionPlan Decoder::plan_attention(const DecoderInput& input, int window, bool outputs_only) const {
    const int64_t* const query_start = outputs_only ? input.output_start : input.query_start;
    const int group = shape_.num_heads / shape_.num_kv_heads;
    const int tokens_each = std::max(1, kAttentionRows / group);
    AttentionPlan plan{window, outputs_only, {}, {}, 0};
    for (int sequence = 0; sequence < input.sequences; ++sequence) {
        const int begin = static_cast<int>(query_start[sequence]), end = static_cast<int>(query_start[sequence + 1]);
        const int64_t first = input.context_lens[sequence] - (end - begin);
        for (int token = begin; token < end; token += tokens_each) {
            const int last = std::min(token + tokens_each, end);
            const int64_t position = first + token - begin, keys_end = first + last - begin;
            const int64_t oldest = window > 0 ? std::max<int64_t>(position + 1 - window, 0) : 0;
            for (int head = 0; head < shape_.num_kv_heads; ++head) {
                plan.tasks.push_back({input.block_tables + sequence * input.table_stride, token, last, position, head,
                                      static_cast<int>(oldest / kKeyTile),
                                      static_cast<int>((keys_end + kKeyTile - 1) / kKeyTile), nullptr});
            }
        }
    }
    const auto tiles = [](const AttentionTask& task) { return task.tile_end - task.tile_begin; };
    const auto work = [&](const AttentionTask& task) { return tiles(task) * (task.token_end - task.token_begin); };
    std::stable_sort(plan.tasks.begin(), plan.tasks.end(),
                     [&](const AttentionTask& a, const AttentionTask& b) { return work(a) > work(b); });

    // With fewer tasks than would keep the threads busy, long ones of single tokens are cut at their tiles.
    plan.split_first.push_back(0);
    const int wanted = 4 * pool_->threads();
    if (pool_->threads() == 1 || plan.tasks.empty() || static_cast<int>(plan.tasks.size()) >= wanted) return plan;
    const int parts = wanted / static_cast<int>(plan.tasks.size());
    std::vector<AttentionTask> split, whole;
    for (const AttentionTask& task : plan.tasks) {
        const int each = std::max(kTilesWorthSharing, (tiles(task) + parts - 1) / parts);
        if (task.token_end - task.token_begin > 1 || tiles(task) <= each) {
            whole.push_back(task);
            continue;
        }
        for (int tile = task.tile_begin; tile < task.tile_end; tile += each) {
            split.push_back(task);
            split.back().tile_begin = tile;
            split.back().tile_end = std::min(tile + each, task.tile_end);
        }
        plan.partials += int64_t{tiles(task)} * group * partial_size(shape_.head_dim);
        plan.split_first.push_back(static_cast<int>(split.size()));
    }
    split.insert(split.end(), whole.begin(), whole.end());
    plan.tasks = std::move(split);
    return plan;
}

}  // namespace headrace
