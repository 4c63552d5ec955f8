// What an instruction set level implements: one table of functions, and the plain structs they take.
//
// Every function computes a row, or a head of a row, by itself: its arithmetic and the order of its sums never depend
// on how many other rows there are. That is what makes results independent of neighbours, chunks and threads.
#pragma once

#include <cstdint>

#include "kinds.h"
#include "kv_block.h"

namespace headrace {

// A panel is this many vectors of output columns wide.
constexpr int kPanelVectors = 2;

// Keys per tile of the online softmax: tiles start at multiples of it, whatever the chunk or the batch.
constexpr int kKeyTile = 64;

// Most rows (tokens times query heads of a group) of one attention task.
constexpr int kAttentionRows = 64;

// What is applied to the elements of a feed-forward layer: gelu with the error function, gelu_tanh with its
// approximation.
enum class Activation { silu, gelu_tanh, gelu, relu };

constexpr int kNumActivations = 4;

// The scale of a block of activations is its row's times a whole number of at most so much: 14 bits, so that a block's
// sum of products times it still fits 32.
constexpr int kMostMultiple = 16383;

// Rows of input to a linear layer, [rows, columns], in float32 and, where a weight is integer, quantised: for GGUF's
// kinds to int8 with one scale for each block of 32, value = row_scale * multiple * quant; for i16 to 13 bits with one
// scale for each run of 128.
struct ActivationRows {
    const float* values;
    const int8_t* quants;
    const int16_t* wide_quants;       // the same for kernels that read 16 bits: of every four, elements 0, 2, 1, 3
    const float* row_scales;          // [rows]
    const float* multiples;           // [rows, columns / 32]: whole numbers
    const int32_t* paired_multiples;  // the same, once in each half of 32 bits
    const float* sums;                // [rows, columns / 32]: multiple * sum of the block's quants
    const float* half_sums;           // [rows, columns / 16]: the same for each half of a block
    const int16_t* shorts;
    const float* short_scales;  // [rows, short_runs(columns)]
    int columns;
};

// Where one row of them goes as it is quantised; `wide_quants` is null where they are not wanted.
struct QuantisedRow {
    int8_t* quants;
    int16_t* wide_quants;
    float* row_scale;
    float* multiples;
    int32_t* paired_multiples;
    float* sums;
    float* half_sums;
};

// Where one panel's results go.
struct GemmTarget {
    float* out;         // [rows, ...], at the panel's first column
    int64_t stride;     // floats from one row to the next
    const float* bias;  // of the panel's columns, or null
    int columns;        // how many of the panel's columns exist
    bool add;           // to what is there, instead of replacing it
};

// Rows of activations that a panel is multiplied with in one call, at most.
constexpr int kMostGemmRows = 64;

// The rows row_begin:row_end.
using GemmPanel = void (*)(const uint8_t* panel, const ActivationRows& x, int row_begin, int row_end,
                           const GemmTarget& target);

// One layer's keys and values and how its queries look at them.
struct AttentionLayer {
    const float* queries;  // [tokens, stride]: rotated; head h at h * head_dim
    float* out;            // [tokens, num_heads * head_dim]
    const uint8_t* keys;
    const uint8_t* values;
    int64_t query_stride;
    int64_t block_stride;  // bytes
    KvBlock block;
    int num_heads;
    float scale;
    float soft_cap;  // 0: none
    int window;      // 0: none
};

// The queries `token_begin:token_end` of one sequence, those of them that share one key head, over tiles of keys.
struct AttentionTask {
    const int64_t* block_table;
    int token_begin;
    int token_end;
    int64_t position;  // of the first token
    int kv_head;
    int tile_begin;
    int tile_end;
    float* partials;  // null: the task has all tiles of its rows. Otherwise where its tiles' parts go, see partial_size
};

// One layer's queries, keys and values of sequences whose tokens see each other in both directions.
struct WholeAttentionLayer {
    const float* qkv;   // [tokens, 3 * num_heads * head_dim]: queries and keys rotated; head h of each at h * head_dim
    float* out;         // [tokens, num_heads * head_dim]
    const float* bias;  // [num_heads, 2 * reach + 1 (and 15 more behind the last)], see EncoderShape; or null
    int reach;
    int num_heads;
    int head_dim;
    int window;  // a token sees what is at most so many positions away
    float scale;
};

// Rows of queries that go through one head's keys together, at most and for a sequence of so many tokens: their scores
// should stay in a core's second cache.
constexpr int kMostWholeRows = 48;
constexpr int whole_attention_rows(int tokens) {
    const int fitting = 16384 / (tokens + 1) / 6 * 6;
    return fitting < 6 ? 6 : fitting > kMostWholeRows ? kMostWholeRows : fitting;
}

// Floats of scratch that a thread needs for one head of a sequence.
constexpr int64_t whole_attention_scratch(int head_dim, int tokens) {
    const int64_t width = (head_dim + 15) / 16 * 16, keys = (tokens + 15) / 16 * 16;
    return 2 * keys * width + whole_attention_rows(tokens) * (2 * width + keys);
}

// Floats of one row's part of one tile: [head_dim sums | highest score | sum of weights].
constexpr int partial_size(int head_dim) { return head_dim + 2; }

// Floats of scratch that a thread needs for attention.
constexpr int64_t attention_scratch(int head_dim) {
    const int64_t padded = (head_dim + 15) / 16 * 16;
    return kAttentionRows * (2 * padded + padded + kKeyTile + 2);
}

// Doubles of scratch to draw from a row of logits.
constexpr int draw_scratch(int size) { return (size + 127) / 128; }

struct Kernels {
    const char* name;
    int lanes;  // float32 values in a vector
    bool reads_wide_quants;

    GemmPanel gemm[kNumKinds];

    // out = x / sqrt(mean(x^2) + eps) * weight
    void (*rms_norm)(const float* x, const float* weight, float eps, int size, float* out);
    // out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias; `bias` may be null, `out` may be `x`
    void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int size, float* out);
    void (*add)(float* x, const float* y, int size);
    void (*scale)(float* x, float factor, int size);
    // `size` is a multiple of 32. A row that holds NaN or infinity gets NaN as its scale.
    void (*quantize)(const float* x, int size, const QuantisedRow& out);
    // The same to `shorts` [size] and `scales` [short_runs(size)]; `size` is even.
    void (*quantize_short)(const float* x, int size, int16_t* shorts, float* scales);
    // By Activation: out = activation(x); out = activation(gate) * up.
    void (*activate[kNumActivations])(const float* x, int size, float* out);
    void (*gate[kNumActivations])(const float* gate, const float* up, int size, float* out);
    void (*soft_cap)(float* x, float cap, int size);
    // Turns the pairs (x[i], x[i + half]).
    void (*rotate)(float* x, const float* cos, const float* sin, int half);

    // A token of one row of logits, by the quantile `uniform` in [0, 1) of softmax(logits / temperature); see draw.h.
    // `tile_ends` is scratch of draw_scratch(size).
    int64_t (*draw)(const float* logits, int size, float temperature, double uniform, double* tile_ends, float* peak);

    // Write one head of one token: `key` to lane `slot % 16` of its group, `value` to its row.
    void (*store_key)(const float* key, int head_dim, KvKind kind, uint8_t* group, int lane, float* scale);
    void (*store_value)(const float* value, int head_dim, KvKind kind, uint8_t* row, float* scale);
    void (*attend)(const AttentionLayer& layer, const AttentionTask& task, float* scratch);
    // Merge the parts of tiles [tiles, rows of a task] of row `row` into `out`.
    void (*merge)(const float* partials, int tiles, int rows, int row, int head_dim, float* out);
    // Head `head` of the sequence that is the tokens begin:end.
    void (*attend_whole)(const WholeAttentionLayer& layer, int begin, int end, int head, float* scratch);
};

// The tables that this build has, worst first; null where it has none.
const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512vnni_kernels();

}  // namespace headrace
