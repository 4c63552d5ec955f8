#include "encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "share_rows.h"

namespace headrace {
namespace {

// Rows that pass through a sublayer together. Tokens meet in attention only; the rest is done part by part, so that what
// lies between two products stays in the caches.
constexpr int kRowsAtOnce = 96;

// Where there are enough sequences, each thread takes some of its own through all layers, and waits for nobody. Portions
// of fewer tokens would read the weights too often; of more, leave too few to even out what the threads do.
constexpr int kFewestTokens = 32;
constexpr int kMostTokens = 192;
constexpr int kPortionsPerThread = 6;

// A batch may take so much longer than it had to, for threads that have nothing left to do.
constexpr double kIdle = 1.15;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

template <class Vector>
void grow(Vector& vector, int64_t size) {
    if (static_cast<int64_t>(vector.size()) < size) vector.resize(size);
}

bool fits(const LayerNorm& norm, int size) {
    return static_cast<int>(norm.weight.size()) == size &&
           (norm.bias.empty() || static_cast<int>(norm.bias.size()) == size);
}

}  // namespace

Encoder::Workspace::Workspace(const Kernels& kernels, const EncoderShape& shape)
    : embedded(kernels, shape.embedding_size),
      entered(kernels, shape.hidden_size),
      attended(kernels, shape.num_heads * shape.head_dim),
      inner(kernels, shape.intermediate_size) {}

Encoder::Encoder(std::shared_ptr<ThreadPool> pool, const Kernels& kernels, const EncoderShape& shape)
    : pool_(std::move(pool)), kernels_(kernels), shape_(shape) {
    require(shape.hidden_size > 0 && shape.embedding_size > 0 && shape.intermediate_size > 0 && shape.num_heads > 0 &&
                shape.head_dim > 0,
            "an encoder's sizes must be positive");
    require(shape.position_offset >= 0, "position_offset must not be negative");
    workspaces_.assign(pool_->threads(), Workspace(kernels, shape));
    scratch_.resize(pool_->threads());
}

void Encoder::set_embeddings(EncoderEmbeddings embeddings) {
    const int size = shape_.embedding_size;
    const auto has_size = [size](const std::shared_ptr<const RowTable>& table) { return table->columns() == size; };
    require(embeddings.tokens != nullptr, "an encoder needs embeddings of tokens");
    require(has_size(embeddings.tokens) && (!embeddings.types || has_size(embeddings.types)) &&
                (!embeddings.positions || has_size(embeddings.positions)),
            "embeddings must have embedding_size columns");
    require(fits(embeddings.norm, size), "the norm of the embeddings has the wrong size");
    const Linear& projection = embeddings.projection;
    require(size == shape_.hidden_size ? projection.rows() == 0
                                       : projection.rows() == shape_.hidden_size && projection.columns() == size,
            "a projection must be [hidden_size, embedding_size], and is needed where these differ");
    embeddings_ = std::move(embeddings);
}

void Encoder::set_distance_bias(std::vector<float> values) {
    const int64_t distances = static_cast<int64_t>(values.size()) / shape_.num_heads;
    require(distances % 2 == 1 && distances * shape_.num_heads == static_cast<int64_t>(values.size()),
            "a bias by distance must be [num_heads, an odd number]");
    values.resize(values.size() + 15);  // kernels read whole vectors
    bias_ = {std::move(values), static_cast<int>(distances / 2)};
}

void Encoder::set_final_norm(LayerNorm norm) {
    require(!shape_.norm_of_sum && fits(norm, shape_.hidden_size), "this final norm does not belong to the encoder");
    final_norm_ = std::move(norm);
}

void Encoder::add_rotation(RotationTable rotation) {
    require(rotation.half > 0 && 2 * rotation.half <= shape_.head_dim, "more dimensions to rotate than a head has");
    require(!rotation.cosines.empty() && rotation.cosines.size() == rotation.sines.size() &&
                rotation.cosines.size() % rotation.half == 0,
            "cosines and sines must be [positions, half]");
    rotations_.push_back(std::move(rotation));
}

void Encoder::add_layer(EncoderLayer layer) {
    const int hidden = shape_.hidden_size, inner = shape_.intermediate_size, heads = shape_.num_heads * shape_.head_dim;
    require(layer.qkv.rows() == 3 * heads && layer.qkv.columns() == hidden, "qkv has the wrong shape");
    require(layer.attention_out.rows() == hidden && layer.attention_out.columns() == heads,
            "attention_out has the wrong shape");
    require(layer.up.rows() == (shape_.gated ? 2 : 1) * inner && layer.up.columns() == hidden,
            "up has the wrong shape");
    require(layer.down.rows() == hidden && layer.down.columns() == inner, "down has the wrong shape");
    const bool may_lack_norm = !shape_.norm_of_sum && layer.attention_norm.weight.empty();
    require((may_lack_norm || fits(layer.attention_norm, hidden)) && fits(layer.mlp_norm, hidden),
            "a norm has the wrong size");
    require(layer.rotation >= -1 && layer.rotation < static_cast<int>(rotations_.size()), "a rotation is missing");
    require(layer.window >= 0, "a window must not be negative");
    layers_.push_back(std::move(layer));
}

void Encoder::forward(const EncoderInput& input, float* hidden) {
    check(input);
    grow(positions_, input.tokens);
    int longest = 0;
    for (int sequence = 0; sequence < input.sequences; ++sequence) {
        const int begin = static_cast<int>(input.starts[sequence]), end = static_cast<int>(input.starts[sequence + 1]);
        for (int token = begin; token < end; ++token) positions_[token] = token - begin;
        longest = std::max(longest, end - begin);
    }
    for (auto& scratch : scratch_) grow(scratch, whole_attention_scratch(shape_.head_dim, longest));

    const std::vector<Portion> portions = divide(input);
    if (!keeps_threads_busy(portions, input.tokens)) {
        reserve(workspaces_.front(), input.tokens);
        pass({*pool_, workspaces_.front(), scratch_.data()}, input, {0, input.sequences, 0, input.tokens}, hidden);
        return;
    }
    const int most = portions.front().end - portions.front().begin;
    for (Workspace& work : workspaces_) reserve(work, most);
    pool_->run(static_cast<int>(portions.size()), [&](int index, int thread) {
        pass({alone_, workspaces_[thread], &scratch_[thread]}, input, portions[index], hidden);
    });
}

void Encoder::check(const EncoderInput& input) const {
    require(embeddings_.tokens != nullptr && !layers_.empty() &&
                (shape_.norm_of_sum || !final_norm_.weight.empty()),
            "the encoder has no weights yet");
    require(input.tokens > 0 && input.sequences > 0, "a batch needs a token");
    require(input.starts[0] == 0 && input.starts[input.sequences] == input.tokens, "starts must cover the batch");
    int64_t longest = 0;
    for (int sequence = 0; sequence < input.sequences; ++sequence) {
        const int64_t length = input.starts[sequence + 1] - input.starts[sequence];
        require(length > 0, "a sequence needs a token");
        longest = std::max(longest, length);
    }
    for (int token = 0; token < input.tokens; ++token) {
        require(input.token_ids[token] >= 0 && input.token_ids[token] < embeddings_.tokens->rows(),
                "a token id is not in the vocabulary");
    }
    if (input.type_ids) {
        const int types = embeddings_.types ? embeddings_.types->rows() : 0;
        for (int token = 0; token < input.tokens; ++token) {
            require(input.type_ids[token] >= 0 && input.type_ids[token] < types, "there is no such type of tokens");
        }
    }
    const bool has_positions =
        (!embeddings_.positions || shape_.position_offset + longest <= embeddings_.positions->rows()) &&
        (bias_.values.empty() || longest <= bias_.reach + 1) &&
        std::all_of(rotations_.begin(), rotations_.end(), [&](const RotationTable& rotation) {
            return longest * rotation.half <= static_cast<int64_t>(rotation.cosines.size());
        });
    require(has_positions, "a sequence is longer than the encoder has positions");
}

std::vector<Encoder::Portion> Encoder::divide(const EncoderInput& input) const {
    const int most =
        std::clamp(input.tokens / (pool_->threads() * kPortionsPerThread), kFewestTokens, kMostTokens);
    std::vector<Portion> portions;
    for (int sequence = 0; sequence < input.sequences; ++sequence) {
        const int begin = static_cast<int>(input.starts[sequence]), end = static_cast<int>(input.starts[sequence + 1]);
        if (!portions.empty() && end - portions.back().begin <= most) {
            portions.back().last_sequence = sequence + 1;
            portions.back().end = end;
        } else {
            portions.push_back({sequence, sequence + 1, begin, end});
        }
    }
    std::stable_sort(portions.begin(), portions.end(),
                     [](const Portion& a, const Portion& b) { return a.end - a.begin > b.end - b.begin; });
    return portions;
}

bool Encoder::keeps_threads_busy(const std::vector<Portion>& portions, int tokens) const {
    // Whoever is free takes the next one.
    std::vector<int> taken(pool_->threads(), 0);
    for (const Portion& portion : portions) {
        *std::min_element(taken.begin(), taken.end()) += portion.end - portion.begin;
    }
    return *std::max_element(taken.begin(), taken.end()) * static_cast<double>(pool_->threads()) <= kIdle * tokens;
}

// Tasks must not throw, so that memory is taken before they run.
void Encoder::reserve(Workspace& work, int tokens) {
    const int rows = std::min(tokens, kRowsAtOnce);
    grow(work.qkv, int64_t{tokens} * 3 * shape_.num_heads * shape_.head_dim);
    grow(work.up, int64_t{rows} * (shape_.gated ? 2 : 1) * shape_.intermediate_size);
    if (embeddings_.projection.rows() > 0) work.embedded.prepare(rows, embeddings_.projection);
    for (const EncoderLayer& layer : layers_) {
        work.entered.prepare(rows, layer.qkv);
        work.entered.prepare(rows, layer.up);
        work.attended.prepare(tokens, layer.attention_out);
        work.inner.prepare(rows, layer.down);
    }
}

void Encoder::pass(const Crew& crew, const EncoderInput& input, const Portion& portion, float* hidden) {
    const int64_t width = shape_.hidden_size, qkv_width = 3 * int64_t{shape_.num_heads} * shape_.head_dim;
    const int tokens = portion.end - portion.begin;
    float* const rows = hidden + portion.begin * width;
    const auto each_part = [&](auto fn) {
        for (int begin = 0; begin < tokens; begin += kRowsAtOnce) fn(begin, std::min(begin + kRowsAtOnce, tokens));
    };
    const auto start = [&](const LayerNorm* in_place, const EncoderLayer& layer, int begin, int end) {
        const bool on_the_way = !shape_.norm_of_sum && !layer.attention_norm.weight.empty();
        enter(crew, in_place, on_the_way ? &layer.attention_norm : nullptr, layer.qkv, end - begin, rows + begin * width);
        layer.qkv.apply(crew.threads, kernels_, crew.work.entered.view(), end - begin,
                        crew.work.qkv.data() + begin * qkv_width, false);
    };
    each_part([&](int begin, int end) {
        embed(crew, input, portion.begin + begin, portion.begin + end, rows + begin * width);
        start(nullptr, layers_.front(), begin, end);
    });
    for (size_t index = 0; index < layers_.size(); ++index) {
        const EncoderLayer& layer = layers_[index];
        attend(crew, layer, input, portion);
        each_part([&](int begin, int end) {
            float* const part = rows + begin * width;
            layer.attention_out.apply(crew.threads, kernels_, crew.work.attended.view(begin), end - begin, part, true);
            feed_forward(crew, layer, end - begin, part);
            const LayerNorm* const in_place = shape_.norm_of_sum ? &layer.mlp_norm : nullptr;
            if (index + 1 < layers_.size()) {
                start(in_place, layers_[index + 1], begin, end);
            } else {
                each_row(crew.threads, 0, end - begin, [&](int row) {
                    normalise(in_place ? *in_place : final_norm_, part + row * width, part + row * width);
                });
            }
        });
    }
}

void Encoder::embed(const Crew& crew, const EncoderInput& input, int begin, int end, float* rows) {
    const bool projected = embeddings_.projection.rows() > 0;
    const int size = shape_.embedding_size;
    Activations& embedded = crew.work.embedded;
    if (projected) embedded.prepare(end - begin, embeddings_.projection);
    each_row(crew.threads, 0, end - begin, [&](int row) {
        const int token = begin + row;
        float* const to = projected ? embedded.row(row) : rows + int64_t{row} * size;
        embeddings_.tokens->read(input.token_ids[token], to);
        if (embeddings_.types) embeddings_.types->add(kernels_, input.type_ids ? input.type_ids[token] : 0, to);
        if (embeddings_.positions) {
            embeddings_.positions->add(kernels_, positions_[token] + shape_.position_offset, to);
        }
        normalise(embeddings_.norm, to, to);
        if (projected) embedded.finish(row);
    });
    if (projected) {
        embeddings_.projection.apply(crew.threads, kernels_, embedded.view(), end - begin, rows, false);
    }
}

void Encoder::enter(const Crew& crew, const LayerNorm* in_place, const LayerNorm* input_norm, const Linear& next,
                    int count, float* rows) const {
    Activations& entered = crew.work.entered;
    entered.prepare(count, next);
    each_row(crew.threads, 0, count, [&](int row) {
        float* const from = rows + int64_t{row} * shape_.hidden_size;
        if (in_place) normalise(*in_place, from, from);
        if (input_norm) {
            normalise(*input_norm, from, entered.row(row));
        } else {
            std::memcpy(entered.row(row), from, sizeof(float) * shape_.hidden_size);
        }
        entered.finish(row);
    });
}

void Encoder::attend(const Crew& crew, const EncoderLayer& layer, const EncoderInput& input,
                     const Portion& portion) const {
    const int tokens = portion.end - portion.begin, heads = shape_.num_heads;
    float* const qkv = crew.work.qkv.data();
    if (layer.rotation >= 0) {
        each_row(crew.threads, 0, tokens, [&](int row) {
            rotate(layer, positions_[portion.begin + row], qkv + int64_t{row} * layer.qkv.rows());
        });
    }
    Activations& attended = crew.work.attended;
    attended.prepare(tokens, layer.attention_out);
    const WholeAttentionLayer attention{qkv,
                                        attended.values(),
                                        bias_.values.empty() ? nullptr : bias_.values.data(),
                                        bias_.reach,
                                        heads,
                                        shape_.head_dim,
                                        layer.window,
                                        1.0f / std::sqrt(static_cast<float>(shape_.head_dim))};
    const int sequences = portion.last_sequence - portion.first_sequence;
    crew.threads.run(sequences * heads, [&](int task, int thread) {
        const int64_t* const start = input.starts + portion.first_sequence + task / heads;
        kernels_.attend_whole(attention, static_cast<int>(start[0]) - portion.begin,
                              static_cast<int>(start[1]) - portion.begin, task % heads, crew.scratch[thread].data());
    });
    if (attended.quantised()) each_row(crew.threads, 0, tokens, [&](int row) { attended.finish(row); });
}

void Encoder::rotate(const EncoderLayer& layer, int position, float* qkv) const {
    const RotationTable& rotation = rotations_[layer.rotation];
    const int64_t at = int64_t{position} * rotation.half;
    for (int head = 0; head < 2 * shape_.num_heads; ++head) {
        kernels_.rotate(qkv + head * shape_.head_dim, rotation.cosines.data() + at, rotation.sines.data() + at,
                        rotation.half);
    }
}

void Encoder::feed_forward(const Crew& crew, const EncoderLayer& layer, int count, float* rows) const {
    const int inner = shape_.intermediate_size;
    enter(crew, shape_.norm_of_sum ? &layer.attention_norm : nullptr, shape_.norm_of_sum ? nullptr : &layer.mlp_norm,
          layer.up, count, rows);
    float* const up = crew.work.up.data();
    layer.up.apply(crew.threads, kernels_, crew.work.entered.view(), count, up, false);
    Activations& activated = crew.work.inner;
    activated.prepare(count, layer.down);
    const int activation = static_cast<int>(shape_.activation);
    each_row(crew.threads, 0, count, [&](int row) {
        if (shape_.gated) {
            const float* const from = up + int64_t{row} * 2 * inner;
            kernels_.gate[activation](from, from + inner, inner, activated.row(row));
        } else {
            kernels_.activate[activation](up + int64_t{row} * inner, inner, activated.row(row));
        }
        activated.finish(row);
    });
    layer.down.apply(crew.threads, kernels_, activated.view(), count, rows, true);
}

void Encoder::normalise(const LayerNorm& norm, const float* x, float* out) const {
    const int size = static_cast<int>(norm.weight.size());
    kernels_.layer_norm(x, norm.weight.data(), norm.bias.empty() ? nullptr : norm.bias.data(), shape_.norm_eps, size,
                        out);
}

}  // namespace headrace
