// What the attention kernels do with numbers that are none; test_decoder.cpp has the rest.
#include <limits>

#include "kv_cache.h"
#include "test.h"

namespace headrace::test {
namespace {

constexpr int kHeadDim = 8, kBlockSize = 64, kBlocks = 2, kTokens = 2 * kBlockSize;

// One head's cache of 128 tokens, all of them stored.
struct Cache {
    Cache(const Kernels& level, KvKind kind, std::vector<float> keys, const std::vector<float>& values)
        : block{kind, kBlockSize, 1, kHeadDim}, keys(kBlocks * block.bytes(), 0xff),
          values(kBlocks * block.bytes(), 0xff) {
        for (int token = 0; token < kTokens; ++token) {
            const int64_t first = token / kBlockSize * block.bytes(), slot = token % kBlockSize;
            const int64_t scale = first + block.scale(0, slot);
            const bool scaled = kind == KvKind::i8;
            level.store_key(keys.data() + token * kHeadDim, kHeadDim, kind,
                            this->keys.data() + first + block.key_group(0, slot), slot % kKeyGroup,
                            scaled ? reinterpret_cast<float*>(this->keys.data() + scale) : nullptr);
            level.store_value(values.data() + token * kHeadDim, kHeadDim, kind,
                              this->values.data() + first + block.value(0, slot),
                              scaled ? reinterpret_cast<float*>(this->values.data() + scale) : nullptr);
        }
    }

    KvBlock block;
    std::vector<uint8_t> keys, values;
};

// One query at `position` that sees `window` keys.
std::vector<float> attend(const Kernels& level, const Cache& cache, const std::vector<float>& query, int position,
                          int window) {
    std::vector<float> out(kHeadDim), scratch(attention_scratch(kHeadDim));
    const int64_t table[] = {0, 1};
    const AttentionLayer layer{query.data(), out.data(), cache.keys.data(), cache.values.data(), kHeadDim,
                               cache.block.bytes(), cache.block, 1, 1.0f, 0.0f, window};
    const int oldest = position + 1 - window;
    level.attend(layer, {table, 0, 1, position, 0, oldest / kKeyTile, position / kKeyTile + 1, nullptr},
                 scratch.data());
    return out;
}

bool any_nan(const std::vector<float>& values) {
    for (const float value : values) {
        if (std::isnan(value)) return true;
    }
    return false;
}

// Also where it is the only key of its tile that is seen.
TEST(attention_sees_a_key_that_is_nan) {
    const std::vector<float> query = Random(1).normals(kHeadDim), values = Random(2).normals(kTokens * kHeadDim);
    for (const Kernels* level : levels()) {
        for (const KvKind kind : {KvKind::f32, KvKind::f16, KvKind::bf16, KvKind::i8}) {
            for (const int poisoned : {50, 63, 64, 70}) {
                std::vector<float> keys = Random(3).normals(kTokens * kHeadDim);
                keys[poisoned * kHeadDim + 5] = std::numeric_limits<float>::quiet_NaN();
                const Cache cache(*level, kind, keys, values);
                for (const int window : {1, 2, 3, 20}) {
                    for (int position = 40; position < 100; ++position) {
                        const bool seen = poisoned <= position && poisoned > position - window;
                        const bool nan = any_nan(attend(*level, cache, query, position, window));
                        CHECK(nan == seen, level->name, static_cast<int>(kind), poisoned, window, position);
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace headrace::test
