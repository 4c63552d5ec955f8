// Attention over the paged cache, and the writing of keys and values to it.
//
// A group of 16 keys lies dimension by dimension, so that a vector holds one dimension of several keys; a value lies
// as a row. Scores and sums are then plain chains of multiplications and additions, without sums across a vector: the
// same numbers come out whether a query stands alone or among others. Keys are taken in tiles of 64; each tile has its
// own maximum and sum, and tiles are merged in order (online softmax, arXiv 1805.02867), so it does not matter which
// thread has done which tile.
#pragma once

#include "../kernels.h"
#include "rows.h"

namespace headrace::HEADRACE_ISA {

constexpr int kGroupVectors = kKeyGroup / kLanes;
constexpr float kNone = -INFINITY;

// A matrix in parts of `lines` lines, each part as one pointer for every 16 columns: a key group has its dimensions as
// lines, a group of values its tokens. `later` are the parts that will be read in the place of these next time.
template <class Element>
struct Parts {
    const Element* const* now;
    const Element* const* later;
    int lines;
    int line_stride;
};

// Asks for line `k` of two parts. Blocks lie far apart, so the machine does not see by itself what will be read; and it
// forgets requests that come all at once, so they are made one by one, between the multiplications.
template <class Element>
inline void fetch(const Element* const* parts, int k, int offset) {
    constexpr bool kLongLines = sizeof(Element) * kKeyGroup >= 64;  // as long as a line of the cache
    if (kLongLines || k % 2 == 0) __builtin_prefetch(parts[0] + offset);
    if (kLongLines || k % 2 == 1) __builtin_prefetch(parts[1] + offset);
}

// sums[r] = x[r][0:count] * matrix[0:count][0:16 * Blocks]
template <int Rows, int Blocks, class Element>
inline void multiply_tile(const float* x, int x_stride, Parts<Element> parts, int count, float* sums,
                          int sums_stride) {
    constexpr int kVectors = Blocks * kGroupVectors;
    Floats totals[Rows][kVectors];
    unrolled<Rows>([&](auto r) { unrolled<kVectors>([&](auto v) { totals[r][v] = zero(); }); });
    for (; count > 0; count -= parts.lines, x += parts.lines, parts.now += Blocks, parts.later += Blocks) {
        const int here = count < parts.lines ? count : parts.lines;
        for (int k = 0; k < here; ++k) {
            if constexpr (Blocks == 2) fetch(parts.later, k, k * parts.line_stride);
            const auto line = [&](auto v) {
                return load(parts.now[v / kGroupVectors] + k * parts.line_stride + v % kGroupVectors * kLanes);
            };
            const auto value = [&](auto r) { return splat_from(x + r * x_stride + k); };
            // What there is less of stays in registers beside the totals: all of it must fit.
            if constexpr (Rows < kVectors) {
                Floats values[Rows];
                unrolled<Rows>([&](auto r) { values[r] = value(r); });
                unrolled<kVectors>([&](auto v) {
                    const Floats column = line(v);
                    unrolled<Rows>([&](auto r) { totals[r][v] = fma(values[r], column, totals[r][v]); });
                });
            } else {
                Floats lines[kVectors];
                unrolled<kVectors>([&](auto v) { lines[v] = line(v); });
                unrolled<Rows>([&](auto r) {
                    const Floats row = value(r);
                    unrolled<kVectors>([&](auto v) { totals[r][v] = fma(row, lines[v], totals[r][v]); });
                });
            }
        }
    }
    unrolled<Rows>([&](auto r) {
        unrolled<kVectors>([&](auto v) { store(sums + r * sums_stride + v * kLanes, totals[r][v]); });
    });
}

// Rows whose sums of 32 columns fit the registers; with more rows, 16 columns are taken at a time.
constexpr int kFewRows = 3;

template <int Blocks, int Rows = Blocks == 2 ? kFewRows : 2 * kFewRows, class Element>
inline void multiply(int rows, const float* x, int x_stride, const Parts<Element>& parts, int count, float* sums,
                     int sums_stride) {
    for (; rows >= Rows; rows -= Rows, x += Rows * x_stride, sums += Rows * sums_stride) {
        multiply_tile<Rows, Blocks>(x, x_stride, parts, count, sums, sums_stride);
    }
    if constexpr (Rows > 1) {
        if (rows > 0) {
            multiply<Blocks, Rows - 1>(rows, x, x_stride, parts, count, sums, sums_stride);
        }
    }
}

// Where the parts of a sequence's cache are, for one key head.
template <class Element>
struct CachedHead {
    const AttentionLayer& layer;
    const int64_t* block_table;
    int kv_head;

    const Element* key_group(int64_t position) const {
        const int64_t offset = layer.block.key_group(kv_head, position % layer.block.tokens);
        return reinterpret_cast<const Element*>(block(layer.keys, position) + offset);
    }
    const Element* value(int64_t position) const {
        const int64_t offset = layer.block.value(kv_head, position % layer.block.tokens);
        return reinterpret_cast<const Element*>(block(layer.values, position) + offset);
    }
    // The scales of i8: of the tokens from `position` on, within its block.
    const float* scales(const uint8_t* cache, int64_t position) const {
        const int64_t offset = layer.block.scale(kv_head, position % layer.block.tokens);
        return reinterpret_cast<const float*>(block(cache, position) + offset);
    }

private:
    const uint8_t* block(const uint8_t* cache, int64_t position) const {
        return cache + block_table[position / layer.block.tokens] * layer.block_stride;
    }
};

// What the rows of a task have gathered so far: the sums weighted relative to e^highest.
struct SoftmaxState {
    float* sums;  // [rows, padded head_dim]
    float* highest;
    float* totals;
};

// Merge a tile's part of one row into what it has so far.
inline void merge_part(float* sums, float& highest, float& total, const float* part, float part_highest,
                       float part_total, int head_dim) {
    const float top = highest > part_highest ? highest : part_highest;
    const float keep = exponential(highest - top), take = exponential(part_highest - top);
    each_vector(head_dim, [&](int i, auto get, auto put) {
        put(sums + i, fma(get(part + i), splat(take), mul(get(sums + i), splat(keep))));
    });
    total = total * keep + part_total * take;
    highest = top;
}

// Turns the scores of one row, of which begin:end count, into weights e^(score - highest), 0 where none counts.
// Returns the sum of the weights and sets `highest`.
inline float softmax_tile(float* scores, int begin, int end, float soft_cap, float& highest) {
    constexpr int kVectors = kKeyTile / kLanes;
    Floats parts[kVectors];
    Floats most = splat(kNone);
    for (int v = 0; v < kVectors; ++v) {
        Floats score = load(scores + v * kLanes);
        if (soft_cap > 0.0f) score = capped(score, splat(soft_cap));
        parts[v] = keep_range(score, begin - v * kLanes, end - v * kLanes, splat(kNone));
        most = max(parts[v], most);
    }
    highest = headrace::HEADRACE_ISA::highest(most);
    if (highest == kNone) highest = NAN;  // no score is a number, and "none" is for rows that see no key of the tile
    Floats total = zero();
    for (int v = 0; v < kVectors; ++v) {
        // Beyond the range: -inf - highest, whose exponential is 0.
        parts[v] = exponential(sub(parts[v], splat(highest)));
        total = add(total, parts[v]);
        store(scores + v * kLanes, parts[v]);
    }
    return sum(total);
}

template <class Element>
inline void attend_as(const AttentionLayer& layer, const AttentionTask& task, float* scratch) {
    const int head_dim = layer.block.head_dim, width = static_cast<int>(layer.block.padded());
    const int group = layer.num_heads / layer.block.heads;
    const int rows = (task.token_end - task.token_begin) * group;
    float* const queries = scratch;
    float* const part = queries + kAttentionRows * width;
    float* const scores = part + kAttentionRows * width;
    const SoftmaxState state{scores + kAttentionRows * kKeyTile, scores + kAttentionRows * (kKeyTile + width),
                             scores + kAttentionRows * (kKeyTile + width + 1)};
    const auto query_of = [&](int row) {
        return int64_t{task.kv_head} * group * head_dim + (task.token_begin + row / group) * layer.query_stride +
               row % group * head_dim;
    };
    for (int row = 0; row < rows; ++row) {
        const float* from = layer.queries + query_of(row);
        each_vector(head_dim, [&](int i, auto get, auto put) {
            put(queries + row * width + i, mul(get(from + i), splat(layer.scale)));
        });
        std::memset(state.sums + row * width, 0, sizeof(float) * width);
        state.highest[row] = kNone;
        state.totals[row] = 0.0f;
    }

    const CachedHead<Element> cached{layer, task.block_table, task.kv_head};
    const int64_t keys_end = task.position + task.token_end - task.token_begin;
    const int64_t keys_begin = layer.window > 0 && task.position + 1 > layer.window ? task.position + 1 - layer.window : 0;
    for (int tile = task.tile_begin; tile < task.tile_end; ++tile) {
        const int64_t first = int64_t{tile} * kKeyTile;
        const int begin = keys_begin > first ? static_cast<int>(keys_begin - first) / kKeyGroup * kKeyGroup : 0;
        const int end = keys_end - first < kKeyTile ? static_cast<int>(keys_end - first) : kKeyTile;
        const auto later_than = [&](int64_t position) {
            return position + kKeyTile < keys_end ? position + kKeyTile : position;
        };
        // Scores of keys before `begin` and after `end` are not written, and masked below.
        for (int key = begin; key < end; key += kKeyGroup) {
            const int64_t at = first + key;
            const Element* const groups[2] = {cached.key_group(at),
                                              key + kKeyGroup < end ? cached.key_group(at + kKeyGroup) : nullptr};
            if (rows <= kFewRows && groups[1]) {
                const Element* const later[2] = {cached.key_group(later_than(at)),
                                                 cached.key_group(later_than(at + kKeyGroup))};
                multiply<2>(rows, queries, width, Parts<Element>{groups, later, head_dim, kKeyGroup}, head_dim,
                            scores + key, kKeyTile);
                key += kKeyGroup;
            } else {
                multiply<1>(rows, queries, width, Parts<Element>{groups, groups, head_dim, kKeyGroup}, head_dim,
                            scores + key, kKeyTile);
            }
        }
        if constexpr (sizeof(Element) == 1) {
            for (int key = begin; key < end; key += kKeyGroup) {
                for (int v = 0; v < kGroupVectors; ++v) {
                    const Floats scale = load(cached.scales(layer.keys, first + key) + v * kLanes);
                    for (int row = 0; row < rows; ++row) {
                        float* at = scores + row * kKeyTile + key + v * kLanes;
                        store(at, mul(load(at), scale));
                    }
                }
            }
        }

        float highest[kAttentionRows], totals[kAttentionRows];
        for (int row = 0; row < rows; ++row) {
            const int64_t position = task.position + row / group;
            const int64_t oldest = layer.window > 0 ? position + 1 - layer.window : 0;
            const int row_begin = oldest > first ? static_cast<int>(oldest - first < kKeyTile ? oldest - first : kKeyTile) : 0;
            const int row_end = position + 1 - first < kKeyTile ? static_cast<int>(position + 1 - first) : kKeyTile;
            if (row_begin < row_end) {
                totals[row] = softmax_tile(scores + row * kKeyTile, row_begin, row_end, layer.soft_cap, highest[row]);
            } else {
                highest[row] = kNone;
                std::memset(scores + row * kKeyTile, 0, sizeof(float) * kKeyTile);
            }
        }

        const Element *values[kKeyTile / kKeyGroup], *later_values[kKeyTile / kKeyGroup];
        for (int key = begin; key < end; key += kKeyGroup) {
            values[(key - begin) / kKeyGroup] = cached.value(first + key);
            later_values[(key - begin) / kKeyGroup] = cached.value(later_than(first + key));
            if constexpr (sizeof(Element) == 1) {
                const float* scales = cached.scales(layer.values, first + key);
                const int count = end - key < kKeyGroup ? end - key : kKeyGroup;
                for (int row = 0; row < rows; ++row) {
                    float* at = scores + row * kKeyTile + key;
                    for (int i = 0; i < count; ++i) at[i] *= scales[i];
                }
            }
        }
        const int groups = (end - begin + kKeyGroup - 1) / kKeyGroup;
        for (int i = 0; i < width;) {
            const bool both = rows <= kFewRows && i + kKeyGroup < width;
            const Element *columns[2 * kKeyTile / kKeyGroup], *later_columns[2 * kKeyTile / kKeyGroup];
            for (int group = 0; group < groups; ++group) {
                if (both) {
                    columns[2 * group] = values[group] + i;
                    columns[2 * group + 1] = values[group] + i + kKeyGroup;
                    later_columns[2 * group] = later_values[group] + i;
                    later_columns[2 * group + 1] = later_values[group] + i + kKeyGroup;
                } else {
                    columns[group] = values[group] + i;
                }
            }
            const auto sum = both ? multiply<2, kFewRows, Element> : multiply<1, 2 * kFewRows, Element>;
            sum(rows, scores + begin, kKeyTile, {columns, later_columns, kKeyGroup, width}, end - begin, part + i, width);
            i += both ? 2 * kKeyGroup : kKeyGroup;
        }
        for (int row = 0; row < rows; ++row) {
            if (task.partials) {
                float* to = task.partials + (int64_t{tile - task.tile_begin} * rows + row) * partial_size(head_dim);
                std::memcpy(to, part + row * width, sizeof(float) * head_dim);
                to[head_dim] = highest[row];
                to[head_dim + 1] = highest[row] == kNone ? 0.0f : totals[row];
            } else if (highest[row] != kNone) {
                merge_part(state.sums + row * width, state.highest[row], state.totals[row], part + row * width,
                           highest[row], totals[row], head_dim);
            }
        }
    }
    if (task.partials) return;
    for (int row = 0; row < rows; ++row) {
        float* to = layer.out + (task.token_begin + row / group) * int64_t{layer.num_heads} * head_dim +
                    (int64_t{task.kv_head} * group + row % group) * head_dim;
        const Floats total = splat(state.totals[row]);
        each_vector(head_dim, [&](int i, auto get, auto put) { put(to + i, div(get(state.sums + row * width + i), total)); });
    }
}

inline void attend(const AttentionLayer& layer, const AttentionTask& task, float* scratch) {
    switch (layer.block.kind) {
        case KvKind::f32: return attend_as<float>(layer, task, scratch);
        case KvKind::f16: return attend_as<Half>(layer, task, scratch);
        case KvKind::bf16: return attend_as<Brain>(layer, task, scratch);
        case KvKind::i8: return attend_as<int8_t>(layer, task, scratch);
    }
}

inline void merge(const float* partials, int tiles, int rows, int row, int head_dim, float* out) {
    float highest = kNone, total = 0.0f;
    std::memset(out, 0, sizeof(float) * head_dim);
    for (int tile = 0; tile < tiles; ++tile) {
        const float* part = partials + (int64_t{tile} * rows + row) * partial_size(head_dim);
        if (part[head_dim] == kNone) continue;
        merge_part(out, highest, total, part, part[head_dim], part[head_dim + 1], head_dim);
    }
    each_vector(head_dim, [&](int i, auto get, auto put) { put(out + i, div(get(out + i), splat(total))); });
}

// --- writing

inline uint16_t brain_bits(float x) {  // to nearest, ties to even; NaN stays NaN
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 64);
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Calls put(index, element) for each of a head's elements, as `kind` stores them; returns the scale of i8.
template <class Put>
inline float convert_head(const float* x, int head_dim, KvKind kind, Put put) {
    float scale = 1.0f;
    if (kind == KvKind::i8) {
        Floats most = zero(), poison = zero();
        each_vector(head_dim, [&](int i, auto get, auto) {
            most = max(most, abs(get(x + i)));
            poison = fma(get(x + i), zero(), poison);
        });
        const float peak = highest(most);
        scale = peak / 127.0f + sum(poison);
        const Floats inverse = splat(quant_factor(peak, 127.0f));
        for (int i = 0; i < head_dim; i += kLanes) {
            const int count = head_dim - i < kLanes ? head_dim - i : kLanes;
            int8_t bytes[kLanes];
            store_rounded(bytes, mul(count < kLanes ? load_first(x + i, count) : load(x + i), inverse));
            for (int k = 0; k < count; ++k) put(i + k, bytes[k]);
        }
        return scale;
    }
    for (int i = 0; i < head_dim; i += kLanes) {
        const int count = head_dim - i < kLanes ? head_dim - i : kLanes;
        if (kind == KvKind::f16) {
            Half halves[kLanes];
            store(halves, count < kLanes ? load_first(x + i, count) : load(x + i));
            for (int k = 0; k < count; ++k) put(i + k, halves[k]);
        } else {
            for (int k = 0; k < count; ++k) {
                if (kind == KvKind::f32) {
                    put(i + k, x[i + k]);
                } else {
                    put(i + k, Brain{brain_bits(x[i + k])});
                }
            }
        }
    }
    return scale;
}

inline void store_key(const float* key, int head_dim, KvKind kind, uint8_t* group, int lane, float* scale) {
    const float used = convert_head(key, head_dim, kind, [&](int i, auto element) {
        std::memcpy(group + (int64_t{i} * kKeyGroup + lane) * sizeof element, &element, sizeof element);
    });
    if (kind == KvKind::i8) *scale = used;
}

inline void store_value(const float* value, int head_dim, KvKind kind, uint8_t* row, float* scale) {
    const float used = convert_head(value, head_dim, kind, [&](int i, auto element) {
        std::memcpy(row + int64_t{i} * sizeof element, &element, sizeof element);
    });
    if (kind == KvKind::i8) *scale = used;
}

}  // namespace headrace::HEADRACE_ISA
