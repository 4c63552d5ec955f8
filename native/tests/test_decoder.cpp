// Whole decoders, paged attention included, against one written plainly in double precision; and against themselves:
// a token's result may not change with the batch, the chunks or the threads, bit for bit.
#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "decoder.h"
#include "test.h"

namespace headrace::test {
namespace {

using Doubles = std::vector<double>;

struct Options {
    int heads, kv_heads, head_dim, block_size;
    int window = 0;
    float soft_cap = 0.0f;
    bool rich = false;  // with everything that a layer may have: biases, all norms, q_norm and k_norm
    Kind weights = Kind::f32;
};

constexpr int kLayers = 2, kVocabulary = 50, kInner = 64;
constexpr float kEps = 1e-5f;

// The weights of a small decoder. Its first layer has no window and the first rotation, its second one the others.
struct Model {
    explicit Model(const Options& options) : o(options), hidden(64 + 32 * (options.heads % 3)), random(options.heads) {
        query = o.heads * o.head_dim;
        key = o.kv_heads * o.head_dim;
        embedding = random.normals(kVocabulary * hidden);
        final_norm = norm(hidden);
        for (Layer& layer : layers) {
            layer.qkv = weights(query + 2 * key, hidden);
            layer.out = weights(hidden, query);
            layer.gate_up = weights(2 * kInner, hidden);
            layer.down = weights(hidden, kInner);
            layer.input_norm = norm(hidden);
            layer.mlp_norm = norm(hidden);
            if (!o.rich) continue;
            layer.qkv_bias = random.normals(query + 2 * key, 0.1f);
            layer.down_bias = random.normals(hidden, 0.1f);
            layer.out_norm = norm(hidden);
            layer.mlp_out_norm = norm(hidden);
            if (&layer == &layers[0]) {
                layer.qk_norm = norm(query + key);
            } else {
                layer.q_norm = norm(query);
                layer.k_norm = norm(key);
            }
        }
    }

    struct Layer {
        std::vector<float> qkv, out, gate_up, down, qkv_bias, down_bias;
        std::vector<float> input_norm, out_norm, mlp_norm, mlp_out_norm, qk_norm, q_norm, k_norm;
    };

    int window(int layer) const { return layer == 1 ? o.window : 0; }
    int half(int rotation) const { return rotation == 0 ? o.head_dim / 2 : o.head_dim / 4; }
    float angle(int rotation, int64_t position, int i) const {
        return static_cast<float>(position) * std::pow(rotation == 0 ? 100.0f : 1000.0f, -1.0f * i / half(rotation));
    }
    float magnitude(int rotation) const { return rotation == 0 ? 1.0f : 1.1f; }
    float scale() const { return 1.0f / std::sqrt(static_cast<float>(o.head_dim)); }
    float embedding_scale() const { return o.rich ? 2.0f : 1.0f; }
    float logit_soft_cap() const { return o.rich ? 10.0f : 0.0f; }
    Activation activation() const { return o.rich ? Activation::gelu_tanh : Activation::silu; }

    std::shared_ptr<const Matrix> matrix(ThreadPool& pool, const Kernels& level, const std::vector<float>& values,
                                         int columns) const {
        const int rows = static_cast<int>(values.size()) / columns;
        if (o.weights != Kind::f32) {
            return std::make_shared<Matrix>(
                Matrix::quantize(pool, level, *memory, o.weights, values.data(), rows, columns));
        }
        return std::make_shared<Matrix>(pool, level, *memory, Kind::f32,
                                        reinterpret_cast<const uint8_t*>(values.data()), rows, columns);
    }

    std::unique_ptr<Decoder> decoder(const std::shared_ptr<ThreadPool>& pool, const Kernels& level) const {
        const auto linear = [&](const std::vector<float>& values, int columns, const std::vector<float>& bias) {
            return Linear({matrix(*pool, level, values, columns)}, bias);
        };
        auto decoder = std::make_unique<Decoder>(
            pool, level,
            DecoderShape{hidden, kInner, o.heads, o.kv_heads, o.head_dim, kVocabulary, kEps, activation(),
                         embedding_scale(), logit_soft_cap()});
        decoder->set_ends(matrix(*pool, level, embedding, hidden), final_norm, nullptr);
        for (int index = 0; index < kLayers; ++index) {
            const Layer& from = layers[index];
            DecoderLayer layer;
            layer.qkv = linear(from.qkv, hidden, from.qkv_bias);
            layer.attention_out = linear(from.out, query, {});
            layer.gate_up = linear(from.gate_up, hidden, {});
            layer.down = linear(from.down, kInner, from.down_bias);
            layer.attention_input_norm = from.input_norm;
            layer.attention_output_norm = from.out_norm;
            layer.mlp_input_norm = from.mlp_norm;
            layer.mlp_output_norm = from.mlp_out_norm;
            layer.qk_norm = from.qk_norm;
            layer.q_norm = from.q_norm;
            layer.k_norm = from.k_norm;
            layer.rotation = index;
            layer.scale = scale();
            layer.window = window(index);
            layer.soft_cap = o.soft_cap;
            decoder->add_layer(std::move(layer));
        }
        return decoder;
    }

    Options o;
    int hidden, query = 0, key = 0;
    Random random;
    std::vector<float> embedding, final_norm;
    Layer layers[kLayers];
    std::shared_ptr<WeightMemory> memory = std::make_shared<WeightMemory>();

private:
    std::vector<float> norm(int size) {
        std::vector<float> values = random.normals(size, 0.2f);
        for (float& value : values) value += 1.0f;
        return values;
    }
    std::vector<float> weights(int rows, int columns) {
        return random.normals(int64_t{rows} * columns, 1.0f / std::sqrt(static_cast<float>(columns)));
    }
};

// --- the plain decoder

Doubles product(const std::vector<float>& weights, const Doubles& x, const std::vector<float>& bias) {
    Doubles out(weights.size() / x.size());
    for (size_t row = 0; row < out.size(); ++row) {
        out[row] = bias.empty() ? 0.0 : bias[row];
        for (size_t k = 0; k < x.size(); ++k) out[row] += weights[row * x.size() + k] * x[k];
    }
    return out;
}

void normalise(double* x, const float* weight, int size) {
    double squares = 0.0;
    for (int i = 0; i < size; ++i) squares += x[i] * x[i];
    for (int i = 0; i < size; ++i) x[i] *= weight[i] / std::sqrt(squares / size + kEps);
}

void normalise(Doubles& x, const std::vector<float>& weight) {
    if (!weight.empty()) normalise(x.data(), weight.data(), static_cast<int>(x.size()));
}

// What one head reads of the earlier keys and values.
void attend_plainly(const Model& m, int layer, int head, const std::vector<Doubles>& qkv, int position, double* out) {
    const int head_dim = m.o.head_dim, kv_head = head / (m.o.heads / m.o.kv_heads);
    const int first = m.window(layer) > 0 ? std::max(0, position + 1 - m.window(layer)) : 0;
    Doubles weights;
    double total = 0.0;
    for (int other = first; other <= position; ++other) {
        const double* const key = qkv[other].data() + m.query + kv_head * head_dim;
        const double* const query = qkv[position].data() + head * head_dim;
        double score = std::inner_product(query, query + head_dim, key, 0.0) * m.scale();
        if (m.o.soft_cap > 0.0f) score = m.o.soft_cap * std::tanh(score / m.o.soft_cap);
        weights.push_back(std::exp(score));
        total += weights.back();
    }
    for (int other = first; other <= position; ++other) {
        const double* const value = qkv[other].data() + m.query + m.key + kv_head * head_dim;
        for (int i = 0; i < head_dim; ++i) out[i] += weights[other - first] / total * value[i];
    }
}

void rotate_plainly(const Model& m, int layer, int position, double* head) {
    const int half = m.half(layer);
    for (int i = 0; i < half; ++i) {
        const double angle = m.angle(layer, position, i), a = head[i], b = head[half + i];
        head[i] = (a * std::cos(angle) - b * std::sin(angle)) * m.magnitude(layer);
        head[half + i] = (a * std::sin(angle) + b * std::cos(angle)) * m.magnitude(layer);
    }
}

Doubles qkv_plainly(const Model& m, int index, int position, Doubles x) {
    const Model::Layer& layer = m.layers[index];
    normalise(x, layer.input_norm);
    Doubles qkv = product(layer.qkv, x, layer.qkv_bias);
    if (!layer.q_norm.empty()) {
        normalise(qkv.data(), layer.q_norm.data(), m.query);
        normalise(qkv.data() + m.query, layer.k_norm.data(), m.key);
    }
    for (int head = 0; head < m.o.heads + m.o.kv_heads; ++head) {
        double* const at = qkv.data() + head * m.o.head_dim;
        if (!layer.qk_norm.empty()) normalise(at, layer.qk_norm.data() + head * m.o.head_dim, m.o.head_dim);
        rotate_plainly(m, index, position, at);
    }
    return qkv;
}

void add_branch(Doubles& residual, Doubles branch, const std::vector<float>& norm) {
    normalise(branch, norm);
    for (size_t i = 0; i < residual.size(); ++i) residual[i] += branch[i];
}

Doubles feed_plainly(const Model& m, const Model::Layer& layer, Doubles x) {
    normalise(x, layer.mlp_norm);
    const Doubles gate_up = product(layer.gate_up, x, {});
    Doubles gated(kInner);
    for (int i = 0; i < kInner; ++i) {
        const double g = gate_up[i];
        const double gelu = 0.5 * g * (1.0 + std::tanh(std::sqrt(2.0 / std::acos(-1.0)) * (g + 0.044715 * g * g * g)));
        gated[i] = (m.activation() == Activation::silu ? g / (1.0 + std::exp(-g)) : gelu) * gate_up[kInner + i];
    }
    return product(layer.down, gated, layer.down_bias);
}

// The normalised hidden states of one sequence, one token after the other.
std::vector<Doubles> decode_plainly(const Model& m, const std::vector<int64_t>& ids) {
    std::vector<Doubles> x;
    for (const int64_t id : ids) {
        x.emplace_back(m.embedding.begin() + id * m.hidden, m.embedding.begin() + (id + 1) * m.hidden);
        for (double& value : x.back()) value *= m.embedding_scale();
    }
    for (int index = 0; index < kLayers; ++index) {
        std::vector<Doubles> qkv;
        for (size_t t = 0; t < x.size(); ++t) qkv.push_back(qkv_plainly(m, index, static_cast<int>(t), x[t]));
        for (size_t t = 0; t < x.size(); ++t) {
            Doubles attended(m.query, 0.0);
            for (int head = 0; head < m.o.heads; ++head) {
                attend_plainly(m, index, head, qkv, static_cast<int>(t), attended.data() + head * m.o.head_dim);
            }
            const Model::Layer& layer = m.layers[index];
            add_branch(x[t], product(layer.out, attended, {}), layer.out_norm);
            add_branch(x[t], feed_plainly(m, layer, x[t]), layer.mlp_out_norm);
        }
    }
    for (Doubles& row : x) normalise(row, m.final_norm);
    return x;
}

// --- running the real one

// Some tokens of sequence `sequence`, in a batch; the last `outputs` of them are asked for.
struct Chunk {
    Chunk(int sequence, int count) : Chunk(sequence, count, count) {}
    Chunk(int sequence, int count, int outputs) : sequence(sequence), count(count), outputs(outputs) {}
    int sequence, count, outputs;
};
using Batch = std::vector<Chunk>;
using Sequences = std::vector<std::vector<int64_t>>;

// A decoder with its cache and the sequences it works on. Memory of the cache is all ones before: NaN, in every kind.
class Session {
public:
    Session(const Model& model, const Kernels& level, int threads, KvKind kind, const Sequences& sequences,
            uint32_t seed)
        : model_(model), pool_(std::make_shared<ThreadPool>(threads)), decoder_(model.decoder(pool_, level)),
          sequences_(sequences), done_(sequences.size(), 0), hidden(sequences.size()) {
        const Options& o = model.o;
        for (const auto& ids : sequences) {
            blocks_each_ = std::max<int64_t>(blocks_each_, (ids.size() + o.block_size - 1) / o.block_size);
        }
        const int64_t blocks = blocks_each_ * sequences.size() + 3;
        const KvBlock block{kind, o.block_size, o.kv_heads, o.head_dim};
        memory.assign(kLayers * 2 * blocks * block.bytes(), 0xff);
        cache = {memory.data(), kLayers, blocks, block};
        tables_.resize(blocks);
        std::iota(tables_.begin(), tables_.end(), 0);
        std::shuffle(tables_.begin(), tables_.end(), std::mt19937(seed));
    }

    void run(const Batch& batch) {
        std::vector<int64_t> ids, slots, tables, contexts, starts{0}, outputs{0}, positions;
        for (const Chunk& chunk : batch) {
            const int64_t* const table = tables_.data() + chunk.sequence * blocks_each_;
            for (int i = 0; i < chunk.count; ++i) {
                const int64_t position = done_[chunk.sequence]++;
                ids.push_back(sequences_[chunk.sequence][position]);
                slots.push_back(table[position / cache.block.tokens] * cache.block.tokens + position % cache.block.tokens);
                positions.push_back(position);
            }
            tables.insert(tables.end(), table, table + blocks_each_);
            contexts.push_back(done_[chunk.sequence]);
            starts.push_back(static_cast<int64_t>(ids.size()));
            outputs.push_back(outputs.back() + chunk.outputs);
        }
        std::vector<float> angles[kLayers];
        DecoderInput input{static_cast<int>(ids.size()), static_cast<int>(batch.size()), ids.data(), slots.data(),
                           tables.data(), blocks_each_, contexts.data(), starts.data(), outputs.data(), {}};
        for (int rotation = 0; rotation < kLayers; ++rotation) {
            for (const int64_t position : positions) {
                for (int i = 0; i < model_.half(rotation); ++i) {
                    angles[rotation].push_back(model_.angle(rotation, position, i));
                }
            }
            input.rotations.push_back({angles[rotation].data(), model_.half(rotation), model_.magnitude(rotation)});
        }
        if (change) change(input);
        std::vector<float> out(outputs.back() * model_.hidden, std::numeric_limits<float>::quiet_NaN());
        decoder_->forward(input, cache, out.data());
        auto from = out.begin();
        for (const Chunk& chunk : batch) {
            const auto end = from + int64_t{chunk.outputs} * model_.hidden;
            hidden[chunk.sequence].insert(hidden[chunk.sequence].end(), from, end);
            from = end;
        }
    }

    int left(int sequence) const { return static_cast<int>(sequences_[sequence].size() - done_[sequence]); }
    bool done() const {
        for (size_t sequence = 0; sequence < sequences_.size(); ++sequence) {
            if (left(static_cast<int>(sequence)) > 0) return false;
        }
        return true;
    }

private:
    const Model& model_;
    std::shared_ptr<ThreadPool> pool_;
    std::unique_ptr<Decoder> decoder_;
    const Sequences& sequences_;
    std::vector<int64_t> done_, tables_;
    int64_t blocks_each_ = 0;

public:
    std::vector<std::vector<float>> hidden;  // of each sequence's tokens so far that were asked for
    std::vector<uint8_t> memory;
    KvCache cache{};
    std::function<void(DecoderInput&)> change;  // of what a batch would be
};

Sequences sequences(const std::vector<int>& lengths) {
    Random random(static_cast<uint32_t>(lengths.size()));
    Sequences all;
    for (const int length : lengths) {
        all.emplace_back(length);
        for (int64_t& id : all.back()) id = random.whole(0, kVocabulary - 1);
    }
    return all;
}

using Hidden = std::vector<std::vector<float>>;

Hidden run_whole(const Model& model, const Kernels& level, int threads, KvKind kind, const Sequences& all) {
    Session session(model, level, threads, kind, all, 1);
    for (int sequence = 0; sequence < static_cast<int>(all.size()); ++sequence) {
        session.run({{sequence, session.left(sequence)}});
    }
    return session.hidden;
}

// Chunks of random sizes, often single tokens, of the sequences that are not done yet.
Hidden run_mixed(const Model& model, const Kernels& level, int threads, KvKind kind, const Sequences& all) {
    Session session(model, level, threads, kind, all, 2);
    Random random(17);
    while (true) {
        Batch batch;
        for (int sequence = 0; sequence < static_cast<int>(all.size()); ++sequence) {
            const int left = session.left(sequence);
            if (left == 0 || (random.whole(0, 3) == 0 && left < 60)) continue;
            batch.push_back({sequence, std::min(left, random.whole(0, 1) ? 1 : random.whole(2, 70))});
        }
        if (!batch.empty()) session.run(batch);
        if (session.done()) return session.hidden;
    }
}

constexpr KvKind kKvKinds[] = {KvKind::f32, KvKind::f16, KvKind::bf16, KvKind::i8};

// How far a decoder may be from a precise one, given how it keeps keys and values.
double tolerance(KvKind kind) {
    switch (kind) {
        case KvKind::f32: return 2e-5;
        case KvKind::f16: return 4e-3;
        case KvKind::bf16: return 3e-2;
        default: return 6e-2;
    }
}

std::vector<Options> all_options() {
    return {
        {1, 1, 8, 16},
        {4, 2, 64, 16, 0, 0.0f, true},
        {3, 1, 80, 32, 20, 0.0f},
        {5, 1, 16, 64, 0, 5.0f},
        {2, 2, 128, 16, 1, 0.0f, true},
        {8, 1, 96, 64, 33, 20.0f},
        {7, 1, 8, 32, 64, 0.0f, true},
        {12, 2, 20, 16, 100, 0.0f},
    };
}

TEST(decoder_computes_what_it_should) {
    int turn = -1;
    for (const Options& options : all_options()) {
        const Model model(options);
        ++turn;
        const Sequences all = sequences({1, 65, 129});
        std::vector<Doubles> expected;
        for (const auto& ids : all) {
            expected.emplace_back();
            for (const Doubles& row : decode_plainly(model, ids)) {
                expected.back().insert(expected.back().end(), row.begin(), row.end());
            }
        }
        for (const Kernels* level : levels()) {
            // Two kinds for each of the options, all of them in turn: everything with everything takes minutes.
            for (const KvKind kind : {kKvKinds[turn % 4], kKvKinds[(turn + 1) % 4]}) {
                const Hidden whole = run_whole(model, *level, 1, kind, all);
                for (size_t i = 0; i < all.size(); ++i) {
                    const double off = distance(whole[i], expected[i]);
                    CHECK(off < tolerance(kind), level->name, options.heads, static_cast<int>(kind), i, off);
                }
                if (kind != kKvKinds[turn % 4]) continue;
                const Hidden mixed = run_mixed(model, *level, 3, kind, all);
                for (size_t i = 0; i < all.size(); ++i) {
                    CHECK(same_bits(whole[i], mixed[i]), level->name, options.heads, static_cast<int>(kind), i);
                }
            }
        }
    }
}

TEST(decoder_with_integer_weights_is_the_same_in_chunks) {
    for (const Kind weights : {Kind::q8_0, Kind::q4_1}) {
        Options options{4, 2, 32, 32, 40, 0.0f, true};
        options.weights = weights;
        const Model model(options);
        const Sequences all = sequences({100, 300, 7});
        for (const Kernels* level : levels()) {
            const Hidden whole = run_whole(model, *level, 1, KvKind::f16, all);
            const Hidden mixed = run_mixed(model, *level, 4, KvKind::f16, all);
            for (size_t i = 0; i < all.size(); ++i) {
                CHECK(same_bits(whole[i], mixed[i]), level->name, name_of(weights), i);
                for (const float value : whole[i]) CHECK(std::isfinite(value), level->name, name_of(weights));
            }
        }
    }
}

// Long contexts of single tokens are cut at their tiles and shared by the threads.
TEST(decoder_long_context_is_the_same_when_it_is_shared) {
    for (const int window : {0, 450}) {
        const Model model({2, 1, 8, 16, window, 0.0f, true});
        for (const int length : {257, 321, 700}) {
            const Sequences all = sequences({length});
            const auto last_token = [&](const Kernels& level, int threads, KvKind kind) {
                Session session(model, level, threads, kind, all, 3);
                session.run({{0, length - 1}});
                session.run({{0, 1}});
                return session.hidden[0];
            };
            for (const Kernels* level : levels()) {
                for (const KvKind kind : {KvKind::f32, KvKind::i8}) {
                    const std::vector<float> alone = last_token(*level, 1, kind);
                    CHECK(same_bits(alone, last_token(*level, 4, kind)), level->name, length, window);
                    if (length != 321) continue;
                    CHECK(same_bits(alone, run_whole(model, *level, 1, kind, all)[0]), level->name, length, window);
                }
            }
        }
    }
}

// What is not asked for is not returned, and is in the cache all the same.
TEST(decoder_returns_what_is_asked_for) {
    for (const int window : {0, 20}) {
        Options options{4, 2, 32, 16, window, 0.0f, true};
        options.weights = Kind::q4_1;
        const Model model(options);
        const Sequences all = sequences({41, 101, 38, 61, 21, 300});
        const std::vector<int> outputs{40, 1, 0, 60, 5, 1};
        for (const Kernels* level : levels()) {
            for (const int threads : {1, 3}) {
                Session everything(model, *level, threads, KvKind::f16, all, 6);
                Session some(model, *level, threads, KvKind::f16, all, 6);
                Batch first, asked, nothing, rest;
                for (int i = 0; i < static_cast<int>(all.size()); ++i) {
                    const int count = static_cast<int>(all[i].size()) - 1, half = count / 2;
                    nothing.push_back({i, half, 0});
                    asked.push_back({i, count - half, std::min(outputs[i], count - half)});
                    first.push_back({i, count});
                    rest.push_back({i, 1});
                }
                everything.run(first);
                some.run(nothing);
                for (const auto& states : some.hidden) CHECK(states.empty(), level->name);
                some.run(asked);
                for (size_t i = 0; i < all.size(); ++i) {
                    const int64_t count = int64_t{asked[i].outputs} * model.hidden;
                    const std::vector<float>& states = everything.hidden[i];
                    CHECK(same_bits(some.hidden[i], {states.end() - count, states.end()}), level->name, threads, i);
                }
                CHECK(some.memory == everything.memory, level->name, threads);
                everything.run(rest);
                some.run(rest);
                for (size_t i = 0; i < all.size(); ++i) {
                    const std::vector<float> last(some.hidden[i].end() - model.hidden, some.hidden[i].end());
                    CHECK(same_bits(last, {everything.hidden[i].end() - model.hidden, everything.hidden[i].end()}), i);
                }
            }
        }
    }
}

TEST(decoder_logits) {
    const Model model({2, 1, 16, 16, 0, 0.0f, true});
    const std::vector<float> hidden = Random(1).normals(5 * model.hidden);
    std::vector<double> expected;
    for (int row = 0; row < 5; ++row) {
        const Doubles x(hidden.begin() + row * model.hidden, hidden.begin() + (row + 1) * model.hidden);
        for (const double logit : product(model.embedding, x, {})) expected.push_back(10.0 * std::tanh(logit / 10.0));
    }
    for (const Kernels* level : levels()) {
        std::vector<float> out(5 * kVocabulary);
        model.decoder(std::make_shared<ThreadPool>(2), *level)->logits(hidden.data(), 5, out.data());
        CHECK(distance(out, expected) < 1e-5, level->name);
    }
}

// Whole sequences in one batch, one of them with a token whose embedding is NaN.
TEST(decoder_nan_stays_in_its_sequence) {
    for (const Kind weights : {Kind::f32, Kind::q8_0}) {
        Options options{4, 2, 16, 16};
        options.weights = weights;
        Model model(options);
        Sequences all = sequences({70, 90, 40});
        for (auto& ids : all) std::replace(ids.begin(), ids.end(), int64_t{7}, int64_t{8});
        const auto run = [&](const Kernels& level, KvKind kind) {
            Session session(model, level, 2, kind, all, 4);
            session.run({{0, 69}, {1, 89}, {2, 39}});
            session.run({{0, 1}, {1, 1}, {2, 1}});
            return session.hidden;
        };
        for (const Kernels* level : levels()) {
            for (const KvKind kind : kKvKinds) {
                const Hidden clean = run(*level, kind);
                model.embedding[7 * model.hidden + 3] = std::numeric_limits<float>::quiet_NaN();
                const int64_t before = std::exchange(all[1][64], 7);
                const Hidden out = run(*level, kind);
                all[1][64] = before;
                model.embedding[7 * model.hidden + 3] = 0.5f;
                CHECK(same_bits(out[0], clean[0]) && same_bits(out[2], clean[2]), level->name, static_cast<int>(kind));
                for (int t = 64; t < 90; ++t) {
                    for (int i = 0; i < model.hidden; ++i) {
                        CHECK(std::isnan(out[1][t * model.hidden + i]), level->name, static_cast<int>(kind), t, i);
                    }
                }
            }
        }
    }
}

TEST(decoder_refuses_wrong_input) {
    const Model model({2, 1, 8, 16});
    const Sequences all = sequences({20});
    const auto refuses = [&](const std::function<void(DecoderInput&)>& change) {
        Session session(model, *levels().front(), 1, KvKind::f32, all, 5);
        session.change = change;
        return throws<std::invalid_argument>([&] { session.run({{0, 20}}); });
    };
    std::vector<int64_t> wrong(20, 0);
    CHECK(!refuses([](DecoderInput&) {}));
    for (const int64_t value : {int64_t{-1}, int64_t{1} << 40}) {
        wrong[19] = value;
        CHECK(refuses([&](DecoderInput& input) { input.token_ids = wrong.data(); }), value);
        CHECK(refuses([&](DecoderInput& input) { input.slots = wrong.data(); }), value);
        wrong[19] = 0;
        wrong[1] = value;
        CHECK(refuses([&](DecoderInput& input) { input.block_tables = wrong.data(); }), value);
        CHECK(refuses([&](DecoderInput& input) { input.query_start = wrong.data(); }), value);
        CHECK(refuses([&](DecoderInput& input) { input.output_start = wrong.data(); }), value);
        CHECK(refuses([&](DecoderInput& input) { input.output_start = wrong.data() + 1; }), value);
        CHECK(refuses([&](DecoderInput& input) { input.context_lens = wrong.data() + 1; }), value);
        wrong[1] = 0;
    }
    CHECK(refuses([](DecoderInput& input) { input.table_stride = 1; }));
    CHECK(refuses([](DecoderInput& input) { input.rotations.pop_back(); }));
    CHECK(refuses([](DecoderInput& input) { input.rotations[0].half = 5; }));
    CHECK(refuses([](DecoderInput& input) { input.tokens = 0; }));
}

TEST(decoder_refuses_wrong_shapes) {
    const auto pool = std::make_shared<ThreadPool>(1);
    const Kernels& level = *levels().front();
    const auto refuses = [&](int heads, int kv_heads, int head_dim) {
        return throws<std::invalid_argument>([&] {
            Decoder(pool, level, {64, 64, heads, kv_heads, head_dim, 10, kEps, Activation::silu, 1.0f, 0.0f});
        });
    };
    CHECK(!refuses(4, 2, 8));
    CHECK(refuses(3, 2, 8));
    CHECK(refuses(0, 1, 8));
    CHECK(refuses(4, 0, 8));
    CHECK(refuses(65, 1, 8));
    CHECK(refuses(4, 2, 0));
    CHECK(throws<std::invalid_argument>([] { checked(KvBlock{KvKind::f32, 24, 1, 8}); }));

    const Model model({2, 1, 8, 16});
    const auto decoder = model.decoder(pool, level);
    const auto square = model.matrix(*pool, level, std::vector<float>(64 * 64, 0.0f), 64);
    const std::vector<float> norm(model.hidden, 1.0f);
    CHECK(throws<std::invalid_argument>([&] { decoder->set_ends(square, norm, nullptr); }));
    DecoderLayer layer{};
    layer.qkv = layer.attention_out = layer.gate_up = layer.down = Linear({square}, {});
    CHECK(throws<std::invalid_argument>([&] { decoder->add_layer(layer); }));
}

}  // namespace
}  // namespace headrace::test
