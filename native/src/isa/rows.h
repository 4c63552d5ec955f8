// What happens to one row of activations between the products: norms, gates, rotation, quantisation.
#pragma once

#include "../kernels.h"
#include "unroll.h"

namespace headrace::HEADRACE_ISA {

// Calls fn(index, load, store) for every vector of a row, the last one perhaps not full.
template <class Fn>
inline void each_vector(int size, Fn fn) {
    int index = 0;
    for (; index + kLanes <= size; index += kLanes) {
        fn(index, [](const float* x) { return load(x); }, [](float* to, Floats x) { store(to, x); });
    }
    if (const int rest = size - index; rest > 0) {
        fn(index, [rest](const float* x) { return load_first(x, rest); },
           [rest](float* to, Floats x) { store_first(to, x, rest); });
    }
}

// e^x to about one unit in the last place; 0 below -87.3. x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial for
// e^r whose coefficients are those of the Taylor series, the last ones fitted (Cephes, expf).
inline Floats exponential(Floats x) {
    const Floats lowest = splat(-87.33654f);
    const Floats clamped = min(splat(88.37626f), max(lowest, x));  // of a number and NaN, these return the second
    const Floats n = round(mul(clamped, splat(1.44269504f)));
    Floats r = fma(n, splat(-0.693359375f), clamped);
    r = fma(n, splat(2.12194440e-4f), r);
    Floats p = splat(1.9875691500e-4f);
    p = fma(p, r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    p = add(fma(p, mul(r, r), r), splat(1.0f));
    return zero_below(x, lowest, mul(p, power_of_two(n)));
}

inline float exponential(float x) {
    float lanes[kLanes];
    store(lanes, exponential(splat(x)));
    return lanes[0];
}

inline Floats sigmoid(Floats x) {
    return div(splat(1.0f), add(splat(1.0f), exponential(sub(zero(), x))));
}

inline Floats tanh(Floats x) {  // 2 * sigmoid(2x) - 1
    return fma(splat(2.0f), sigmoid(add(x, x)), splat(-1.0f));
}

inline void rms_norm(const float* x, const float* weight, float eps, int size, float* out) {
    Floats squares = zero();
    each_vector(size, [&](int i, auto get, auto) {
        const Floats value = get(x + i);
        squares = fma(value, value, squares);
    });
    const Floats factor = splat(1.0f / std::sqrt(sum(squares) / static_cast<float>(size) + eps));
    each_vector(size, [&](int i, auto get, auto put) { put(out + i, mul(mul(get(x + i), factor), get(weight + i))); });
}

inline void add_rows(float* x, const float* y, int size) {
    each_vector(size, [&](int i, auto get, auto put) {
        put(x + i, add(get(x + i), get(y + i)));
    });
}

inline void scale_row(float* x, float factor, int size) {
    each_vector(size, [&](int i, auto get, auto put) { put(x + i, mul(get(x + i), splat(factor))); });
}

// What brings numbers up to `peak` in size to -127 ... 127. Those too small for its float32 count as zeros, and so does
// NaN: the poison in the scale stands for it.
inline float quant_factor(float peak) { return peak > 1e-35f ? 127.0f / peak : 0.0f; }

inline void quantize(const float* x, int size, const QuantisedRow& out) {
    int8_t* quants = out.quants;
    for (int block = 0; block < size / kBlock; ++block, x += kBlock, quants += kBlock) {
        Floats most = zero(), poison = zero();
        for (int i = 0; i < kBlock; i += kLanes) {
            most = max(most, abs(load(x + i)));
            poison = fma(load(x + i), zero(), poison);  // 0, or NaN where a value is not finite
        }
        const float peak = highest(most);
        const Floats inverse = splat(quant_factor(peak));
        const float scale = peak / 127.0f + sum(poison);
        float halves[2];
        for (int half = 0; half < 2; ++half) {
            Floats total = zero();
            for (int i = half * kBlock / 2; i < (half + 1) * kBlock / 2; i += kLanes) {
                const Floats whole = round(mul(load(x + i), inverse));
                store_rounded(quants + i, whole);
                total = add(total, whole);
            }
            halves[half] = sum(total);
        }
        out.scales[block] = scale;
        out.sums[block] = scale * (halves[0] + halves[1]);
        out.half_sums[2 * block] = scale * halves[0];
        out.half_sums[2 * block + 1] = scale * halves[1];
    }
    if (out.wide_quants) {
        for (int quad = 0; quad < size; quad += 4) {
            for (int i = 0; i < 4; ++i) out.wide_quants[quad + i] = out.quants[quad + (2 * i) % 4 + i / 2];
        }
    }
}

inline void silu_mul(const float* gate, const float* up, int size, float* out) {
    each_vector(size, [&](int i, auto get, auto put) {
        const Floats g = get(gate + i);
        put(out + i, mul(mul(g, sigmoid(g)), get(up + i)));
    });
}

inline void gelu_tanh_mul(const float* gate, const float* up, int size, float* out) {
    // 0.5 g (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3))) = g * sigmoid(2 sqrt(2 / pi) (...))
    each_vector(size, [&](int i, auto get, auto put) {
        const Floats g = get(gate + i);
        const Floats inner = mul(splat(1.5957691216f), fma(mul(splat(0.044715f), mul(g, g)), g, g));
        put(out + i, mul(mul(g, sigmoid(inner)), get(up + i)));
    });
}

inline Floats capped(Floats x, Floats cap) { return mul(cap, tanh(div(x, cap))); }

inline void soft_cap(float* x, float cap, int size) {
    each_vector(size, [&](int i, auto get, auto put) { put(x + i, capped(get(x + i), splat(cap))); });
}

inline void rotate(float* x, const float* cos, const float* sin, int half) {
    each_vector(half, [&](int i, auto get, auto put) {
        const Floats first = get(x + i), second = get(x + half + i);
        const Floats c = get(cos + i), s = get(sin + i);
        put(x + i, sub(mul(first, c), mul(second, s)));
        put(x + half + i, fma(first, s, mul(second, c)));
    });
}

}  // namespace headrace::HEADRACE_ISA
