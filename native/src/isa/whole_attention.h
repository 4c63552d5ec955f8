// Attention in both directions over whole sequences, which lie in memory as the product made them.
//
// One head of one sequence at a time: its keys are turned as in the paged cache, so that a vector holds one dimension of
// several keys. A row of scores is computed whole, since sequences are short.
#pragma once

#include "attention.h"

namespace headrace::HEADRACE_ISA {

// Turns the scores [0:count) of a row into weights e^(score - highest), 0 outside of begin:end; `bias` is null or is
// added to them. Returns the sum of the weights. Writes whole vectors.
inline float softmax_row(float* scores, int count, int begin, int end, const float* bias) {
    Floats most = splat(kNone);
    for (int i = 0; i < count; i += kLanes) {
        Floats score = load(scores + i);
        if (bias) score = add(score, load(bias + i));
        score = keep_range(score, begin - i, end - i, splat(kNone));
        most = max(score, most);
        store(scores + i, score);
    }
    const Floats peak = splat(highest(most));
    Floats total = zero();
    for (int i = 0; i < count; i += kLanes) {
        const Floats weight = exponential(sub(load(scores + i), peak));
        total = add(total, weight);
        store(scores + i, weight);
    }
    return sum(total);
}

// The keys of a head as [groups of 16][head_dim][16], its values as [tokens][width]; zero where there is none.
inline void pack_head(const float* keys, const float* values, int64_t stride, int count, int head_dim, int width,
                      float* key_groups, float* value_rows) {
    for (int key = 0; key < count; ++key, keys += stride, values += stride) {
        float* const group = key_groups + int64_t{key / kKeyGroup} * head_dim * kKeyGroup;
        if (key % kKeyGroup == 0) std::memset(group, 0, sizeof(float) * head_dim * kKeyGroup);
        for (int i = 0; i < head_dim; ++i) group[i * kKeyGroup + key % kKeyGroup] = keys[i];
        float* const row = value_rows + int64_t{key} * width;
        std::memcpy(row, values, sizeof(float) * head_dim);
        std::memset(row + head_dim, 0, sizeof(float) * (width - head_dim));
    }
}

inline void attend_whole(const WholeAttentionLayer& layer, int begin, int end, int head, float* scratch) {
    const int head_dim = layer.head_dim, width = (head_dim + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
    const int heads = layer.num_heads * head_dim, count = end - begin;
    const int padded = (count + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
    const int rows_at_once = whole_attention_rows(count);
    float* const key_groups = scratch;
    float* const value_rows = key_groups + int64_t{padded} * width;
    float* const queries = value_rows + int64_t{padded} * width;
    float* const sums = queries + rows_at_once * width;
    float* const scores = sums + rows_at_once * width;

    const int64_t stride = 3 * int64_t{heads};
    const float* const first_query = layer.qkv + begin * stride + head * head_dim;
    pack_head(first_query + heads, first_query + 2 * heads, stride, count, head_dim, width, key_groups, value_rows);
    for (int first = 0; first < count; first += rows_at_once) {
        const int rows = count - first < rows_at_once ? count - first : rows_at_once;
        const int low = first > layer.window ? (first - layer.window) / kKeyGroup * kKeyGroup : 0;
        const int high = count - first - rows > layer.window ? first + rows + layer.window : count;
        for (int row = 0; row < rows; ++row) {
            const float* const query = first_query + (first + row) * stride;
            each_vector(head_dim, [&](int i, auto get, auto put) {
                put(queries + row * width + i, mul(get(query + i), splat(layer.scale)));
            });
        }
        for (int key = low; key < high; key += kKeyGroup) {
            const float* const group = key_groups + int64_t{key} * head_dim;
            multiply<1>(rows, queries, width, Parts<float>{&group, &group, head_dim, kKeyGroup}, head_dim,
                        scores + key - low, padded);
        }
        float totals[kMostWholeRows];
        for (int row = 0; row < rows; ++row) {
            const int query = first + row;
            const int row_begin = query - low > layer.window ? query - low - layer.window : 0;
            const int row_end = high - query > layer.window ? query - low + layer.window + 1 : high - low;
            const float* const bias =
                layer.bias ? layer.bias + head * (2 * int64_t{layer.reach} + 1) + layer.reach + low - query : nullptr;
            totals[row] = softmax_row(scores + row * padded, high - low, row_begin, row_end, bias);
        }
        for (int i = 0; i < width; i += kKeyGroup) {
            const float* const columns = value_rows + int64_t{low} * width + i;
            multiply<1>(rows, scores, padded, Parts<float>{&columns, &columns, high - low, width}, high - low, sums + i,
                        width);
        }
        for (int row = 0; row < rows; ++row) {
            float* const to = layer.out + int64_t{begin + first + row} * heads + head * head_dim;
            const Floats total = splat(totals[row]);
            each_vector(head_dim, [&](int i, auto get, auto put) {
                put(to + i, div(get(sums + row * width + i), total));
            });
        }
    }
}

}  // namespace headrace::HEADRACE_ISA
