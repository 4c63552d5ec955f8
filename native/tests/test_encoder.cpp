// Attention over whole sequences at every level, against the same in double precision; and the encoder around it: what
// it refuses, and that threads and neighbours change nothing.
#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>

#include "encoder.h"
#include "test.h"

namespace headrace::test {
namespace {

constexpr int kNoWindow = std::numeric_limits<int>::max();

// softmax(q k^T / 2 + bias) v of one head, plainly.
std::vector<double> attended(const WholeAttentionLayer& layer, int begin, int end, int head) {
    const int dim = layer.head_dim, width = layer.num_heads * dim;
    std::vector<double> out;
    for (int query = begin; query < end; ++query) {
        std::vector<double> sums(dim, 0.0);
        double total = 0.0;
        for (int key = begin; key < end; ++key) {
            if (std::abs(key - query) > layer.window) continue;
            double score = 0.0;
            for (int i = 0; i < dim; ++i) {
                score += double{layer.qkv[3 * width * query + head * dim + i]} *
                         layer.qkv[3 * width * key + width + head * dim + i];
            }
            score *= layer.scale;
            if (layer.bias) score += layer.bias[head * (2 * layer.reach + 1) + layer.reach + key - query];
            total += std::exp(score);
            for (int i = 0; i < dim; ++i) {
                sums[i] += std::exp(score) * layer.qkv[3 * width * key + 2 * width + head * dim + i];
            }
        }
        for (const double sum : sums) out.push_back(sum / total);
    }
    return out;
}

TEST(whole_attention) {
    for (const Kernels* level : levels()) {
        for (const int dim : {1, 8, 20, 32}) {
            for (const int tokens : {1, 2, 15, 16, 17, 100, 400}) {
                for (const int window : {kNoWindow, 0, 5, 16}) {
                    const int heads = 2, begin = 3, end = begin + tokens, reach = tokens + 1;
                    const std::vector<float> qkv = Random(tokens).normals(int64_t{end} * 3 * heads * dim);
                    const std::vector<float> bias = Random(dim).normals(heads * (2 * reach + 1) + 15);
                    for (const float* const used : {static_cast<const float*>(nullptr), bias.data()}) {
                        std::vector<float> out(end * heads * dim, 7.0f);
                        const WholeAttentionLayer layer{qkv.data(), out.data(), used, reach, heads, dim, window, 0.5f};
                        std::vector<float> scratch(whole_attention_scratch(dim, tokens));
                        level->attend_whole(layer, begin, end, 1, scratch.data());
                        std::vector<float> head;
                        for (int token = 0; token < end; ++token) {
                            const float* const row = out.data() + token * heads * dim;
                            for (int i = 0; i < dim; ++i) CHECK(row[i] == 7.0f, level->name, token, i);
                            if (token >= begin) head.insert(head.end(), row + dim, row + 2 * dim);
                        }
                        CHECK(distance(head, attended(layer, begin, end, 1)) < 3e-6, level->name, dim, tokens, window);
                    }
                }
            }
        }
    }
}

constexpr int kVocabulary = 30, kHidden = 36, kInner = 50, kHeads = 3, kHeadDim = 12, kPositions = 60;

std::shared_ptr<const Matrix> matrix(ThreadPool& pool, const Kernels& level, WeightMemory& memory, Kind kind, int rows,
                                     int columns, uint32_t seed) {
    const std::vector<float> values = Random(seed).normals(int64_t{rows} * columns, 0.2f);
    if (kind == Kind::i16) {
        return std::make_shared<Matrix>(Matrix::quantize(pool, level, memory, kind, values.data(), rows, columns));
    }
    const auto* const bytes = reinterpret_cast<const uint8_t*>(values.data());
    return std::make_shared<Matrix>(pool, level, memory, kind, bytes, rows, columns);
}

std::shared_ptr<const RowTable> table(WeightMemory& memory, int rows, uint32_t seed) {
    const std::vector<float> values = Random(seed).normals(int64_t{rows} * kHidden);
    return std::make_shared<RowTable>(memory, Kind::f32, reinterpret_cast<const uint8_t*>(values.data()), rows, kHidden);
}

LayerNorm norm(int size, uint32_t seed) { return {Random(seed).normals(size), Random(seed + 1).normals(size)}; }

// Norms of sums, types and positions; or norms of inputs, a rotation, a window and gates.
std::unique_ptr<Encoder> make(const std::shared_ptr<ThreadPool>& pool, const Kernels& level, Kind kind, bool modern) {
    WeightMemory memory;
    const auto linear = [&](int rows, int columns, uint32_t seed) {
        return Linear({matrix(*pool, level, memory, kind, rows, columns, seed)}, Random(seed + 9).normals(rows));
    };
    auto encoder = std::make_unique<Encoder>(
        pool, level,
        EncoderShape{kHidden, kHidden, kInner, kHeads, kHeadDim, 1e-6f, Activation::gelu, modern, !modern, 0});
    encoder->set_embeddings({table(memory, kVocabulary, 1), modern ? nullptr : table(memory, 2, 2),
                             modern ? nullptr : table(memory, kPositions, 3), norm(kHidden, 4), {}});
    if (modern) {
        encoder->set_final_norm(norm(kHidden, 5));
        encoder->add_rotation({Random(6).normals(kPositions * 6), Random(7).normals(kPositions * 6), 6});
    } else {
        encoder->set_distance_bias(Random(8).normals(kHeads * (2 * kPositions - 1)));
    }
    const int heads = kHeads * kHeadDim;
    for (uint32_t seed = 100; seed < 300; seed += 100) {
        encoder->add_layer({linear(3 * heads, kHidden, seed), linear(kHidden, heads, seed + 1),
                            linear(modern ? 2 * kInner : kInner, kHidden, seed + 2), linear(kHidden, kInner, seed + 3),
                            norm(kHidden, seed + 4), norm(kHidden, seed + 6), modern ? 0 : -1, modern ? 7 : kNoWindow});
    }
    return encoder;
}

std::vector<int64_t> ids(int count, uint32_t seed) {
    Random random(seed);
    std::vector<int64_t> out(count);
    for (int64_t& id : out) id = random.whole(0, kVocabulary - 1);
    return out;
}

std::vector<float> run(Encoder& encoder, const std::vector<std::vector<int64_t>>& sequences) {
    std::vector<int64_t> all, starts{0};
    for (const auto& sequence : sequences) {
        all.insert(all.end(), sequence.begin(), sequence.end());
        starts.push_back(static_cast<int64_t>(all.size()));
    }
    std::vector<float> hidden(all.size() * kHidden);
    encoder.forward({static_cast<int>(all.size()), static_cast<int>(sequences.size()), all.data(), nullptr, starts.data()},
                    hidden.data());
    return hidden;
}

TEST(encoder_threads_and_neighbours_change_nothing) {
    std::vector<std::vector<int64_t>> sequences;
    for (const int length : {40, 1, 17, 60, 5, 33, 2, 16}) sequences.push_back(ids(length, length));
    for (const Kernels* level : levels()) {
        for (const Kind kind : {Kind::f32, Kind::i16}) {
            for (const bool modern : {false, true}) {
                const auto alone = make(std::make_shared<ThreadPool>(1), *level, kind, modern);
                std::vector<float> expected;
                for (const auto& sequence : sequences) {
                    const std::vector<float> states = run(*alone, {sequence});
                    for (const float state : states) CHECK(std::isfinite(state), level->name);
                    expected.insert(expected.end(), states.begin(), states.end());
                }
                std::vector<std::vector<int64_t>> many;
                std::vector<float> expected_of_many;
                for (int copy = 0; copy < 3; ++copy) {
                    many.insert(many.end(), sequences.begin(), sequences.end());
                    expected_of_many.insert(expected_of_many.end(), expected.begin(), expected.end());
                }
                for (const int threads : {1, 2, 4}) {
                    const auto encoder = make(std::make_shared<ThreadPool>(threads), *level, kind, modern);
                    CHECK(same_bits(run(*encoder, sequences), expected), level->name, name_of(kind), modern, threads);
                    CHECK(same_bits(run(*encoder, many), expected_of_many), level->name, name_of(kind), modern, threads);
                }
            }
        }
    }
}

TEST(encoder_levels_agree) {
    const std::vector<std::vector<int64_t>> sequences{ids(40, 1), ids(9, 2)};
    for (const bool modern : {false, true}) {
        const auto pool = std::make_shared<ThreadPool>(2);
        const std::vector<float> plain = run(*make(pool, *levels().front(), Kind::f32, modern), sequences);
        for (const Kernels* level : levels()) {
            const std::vector<float> out = run(*make(pool, *level, Kind::f32, modern), sequences);
            CHECK(distance(out, {plain.begin(), plain.end()}) < 2e-4, level->name, modern);
            const std::vector<float> rounded = run(*make(pool, *level, Kind::i16, modern), sequences);
            CHECK(distance(rounded, {plain.begin(), plain.end()}) < 3e-2, level->name, modern);
        }
    }
}

TEST(encoder_refuses) {
    const auto pool = std::make_shared<ThreadPool>(1);
    const Kernels& level = *levels().front();
    const auto encoder = make(pool, level, Kind::f32, false), modern = make(pool, level, Kind::f32, true);
    const auto refuses = [](Encoder& one, const std::vector<std::vector<int64_t>>& sequences) {
        return throws<std::invalid_argument>([&] { run(one, sequences); });
    };
    CHECK(refuses(*encoder, {{kVocabulary}}));
    CHECK(refuses(*encoder, {{-1}}));
    CHECK(refuses(*encoder, {{1}, {}}));
    CHECK(refuses(*encoder, {ids(kPositions + 1, 1)}) && refuses(*modern, {ids(kPositions + 1, 1)}));
    CHECK(!refuses(*encoder, {ids(kPositions, 1)}) && !refuses(*modern, {ids(kPositions, 1)}));
    const int64_t id = 1, type = 2, starts[] = {0, 1};
    std::vector<float> hidden(kHidden);
    CHECK(throws<std::invalid_argument>([&] { encoder->forward({1, 1, &id, &type, starts}, hidden.data()); }));
    CHECK(throws<std::invalid_argument>([&] { modern->forward({1, 1, &id, &id, starts}, hidden.data()); }));

    WeightMemory memory;
    const EncoderShape shape{kHidden, 8, kInner, kHeads, kHeadDim, 1e-6f, Activation::relu, false, true, 0};
    Encoder empty(pool, level, shape);
    CHECK(refuses(empty, {{1}}));
    const auto refused = [&](auto fn) { return throws<std::invalid_argument>(fn); };
    CHECK(refused([&] { empty.set_embeddings({table(memory, 5, 1), nullptr, nullptr, norm(8, 1), {}}); }));
    CHECK(refused([&] { empty.set_final_norm(norm(kHidden, 1)); }));
    CHECK(refused([&] { empty.set_distance_bias(std::vector<float>(2 * kHeads)); }));
    CHECK(refused([&] { empty.add_rotation({{1.0f}, {1.0f, 2.0f}, 1}); }));
    CHECK(refused([&] { empty.add_rotation({std::vector<float>(7), std::vector<float>(7), 7}); }));
    CHECK(refused([&] { empty.add_layer({}); }));
    CHECK(refused([&] { Encoder(pool, level, {0, 8, kInner, kHeads, kHeadDim, 1e-6f, Activation::relu, false, true, 0}); }));
}

}  // namespace
}  // namespace headrace::test
