// Drawing a token from one row of logits without writing anything of the vocabulary's size.
#pragma once

#include "../kernels.h"
#include "rows.h"

namespace headrace::HEADRACE_ISA {

constexpr int kDrawTile = 128;

// e^((logit - peak) / temperature) of a tile, 0 beyond its end; returns their sum.
inline float tile_weights(const float* logits, int count, float peak, float inverse_temperature, float* weights) {
    Floats total = zero();
    for (int i = 0; i < kDrawTile; i += kLanes) {
        Floats weight = zero();
        if (i < count) {
            const int rest = count - i;
            const Floats logit = rest < kLanes ? load_first(logits + i, rest) : load(logits + i);
            weight = exponential(mul(sub(logit, splat(peak)), splat(inverse_temperature)));
            weight = keep_range(weight, 0, rest, zero());
        }
        store(weights + i, weight);
        total = add(total, weight);
    }
    return sum(total);
}

// The weights are summed in tiles, in float32 inside and in float64 beyond; the tile that holds the quantile is then
// computed again and walked. `peak` becomes the highest logit, or NaN if one is; where it is not finite, there is
// nothing to draw from and the token is 0.
inline int64_t draw(const float* logits, int size, float temperature, double uniform, double* tile_ends, float* peak) {
    Floats most = splat(-INFINITY);
    each_vector(size / kLanes * kLanes, [&](int i, auto get, auto) { most = max(get(logits + i), most); });
    *peak = highest(most);
    for (int i = size / kLanes * kLanes; i < size; ++i) *peak = logits[i] > *peak ? logits[i] : *peak;
    if (!(*peak > -INFINITY && *peak < INFINITY)) return 0;

    const float inverse = 1.0f / temperature;
    float weights[kDrawTile];
    double total = 0.0;
    const int tiles = (size + kDrawTile - 1) / kDrawTile;
    for (int tile = 0; tile < tiles; ++tile) {
        const int first = tile * kDrawTile;
        total += tile_weights(logits + first, size - first < kDrawTile ? size - first : kDrawTile, *peak, inverse, weights);
        tile_ends[tile] = total;
    }
    if (total != total) {
        *peak = NAN;
        return 0;
    }
    const double target = uniform * total;
    int low = 0, high = tiles - 1;  // the first tile that ends beyond the target
    while (low < high) {
        const int middle = (low + high) / 2;
        if (tile_ends[middle] > target) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    const double start = low > 0 ? tile_ends[low - 1] : 0.0;
    const int first = low * kDrawTile, count = size - first < kDrawTile ? size - first : kDrawTile;
    tile_weights(logits + first, count, *peak, inverse, weights);
    double inside = 0.0;
    for (int i = 0; i < count; ++i) inside += weights[i];
    // Summed in another order the tile may differ from its sum: carry the quantile over, not the amount.
    const double wanted = (target - start) / (tile_ends[low] - start) * inside;
    double running = 0.0;
    int last = 0;
    for (int i = 0; i < count; ++i) {
        running += weights[i];
        if (weights[i] > 0.0f) last = i;
        if (running > wanted) return first + i;
    }
    return first + last;  // rounding left the quantile at the very end
}

}  // namespace headrace::HEADRACE_ISA
