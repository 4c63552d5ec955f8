// What happens to one row of activations between the products: norms, rotation, quantisation.
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

// In two passes: differences from the mean are squared, so that nothing cancels.
inline void layer_norm(const float* x, const float* weight, const float* bias, float eps, int size, float* out) {
    Floats total = zero();
    each_vector(size, [&](int i, auto get, auto) { total = add(total, get(x + i)); });
    const Floats mean = splat(sum(total) / static_cast<float>(size));
    Floats squares = zero();
    int i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        const Floats away = sub(load(x + i), mean);
        squares = fma(away, away, squares);
    }
    if (const int rest = size - i; rest > 0) {
        const Floats away = keep_range(sub(load_first(x + i, rest), mean), 0, rest, zero());
        squares = fma(away, away, squares);
    }
    const Floats factor = splat(1.0f / std::sqrt(sum(squares) / static_cast<float>(size) + eps));
    each_vector(size, [&](int at, auto get, auto put) {
        const Floats scaled = mul(mul(sub(get(x + at), mean), factor), get(weight + at));
        put(out + at, bias ? add(scaled, get(bias + at)) : scaled);
    });
}

inline void add_rows(float* x, const float* y, int size) {
    each_vector(size, [&](int i, auto get, auto put) {
        put(x + i, add(get(x + i), get(y + i)));
    });
}

inline void scale_row(float* x, float factor, int size) {
    each_vector(size, [&](int i, auto get, auto put) { put(x + i, mul(get(x + i), splat(factor))); });
}

// What brings numbers up to `peak` in size to -most ... most. Those too small for its float32, or for that of its
// inverse, count as zeros, and so does NaN: the poison in the scale stands for it.
inline float quant_factor(float peak, float most) { return peak > most * 1e-37f ? most / peak : 0.0f; }

inline void quantize(const float* x, int size, const QuantisedRow& out) {
    float row_peak = 0.0f;
    Floats poison = zero();
    for (int block = 0; block < size / kBlock; ++block) {
        Floats most = zero();
        for (int i = block * kBlock; i < (block + 1) * kBlock; i += kLanes) {
            most = max(most, abs(load(x + i)));
            poison = fma(load(x + i), zero(), poison);  // 0, or NaN where a value is not finite
        }
        const float peak = highest(most);
        out.multiples[block] = peak;  // for now
        row_peak = peak > row_peak ? peak : row_peak;
    }
    const float most_steps = 127.0f * kMostMultiple, steps = quant_factor(row_peak, most_steps);
    *out.row_scale = row_peak / most_steps + sum(poison);

    int8_t* quants = out.quants;
    for (int block = 0; block < size / kBlock; ++block, x += kBlock, quants += kBlock) {
        const float wanted = std::ceil(out.multiples[block] * (steps / 127.0f));
        const int multiple = wanted >= kMostMultiple ? kMostMultiple : wanted > 0.0f ? static_cast<int>(wanted) : 0;
        const Floats inverse = splat(multiple ? steps / static_cast<float>(multiple) : 0.0f);
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
        const float factor = static_cast<float>(multiple);
        out.multiples[block] = factor;
        out.paired_multiples[block] = multiple << 16 | multiple;
        out.sums[block] = factor * (halves[0] + halves[1]);
        out.half_sums[2 * block] = factor * halves[0];
        out.half_sums[2 * block + 1] = factor * halves[1];
    }
    if (out.wide_quants) {
        for (int quad = 0; quad < size; quad += 4) {
            for (int i = 0; i < 4; ++i) out.wide_quants[quad + i] = out.quants[quad + (2 * i) % 4 + i / 2];
        }
    }
}

inline void quantize_short(const float* x, int size, int16_t* shorts, float* scales) {
    for (int first = 0; first < size; first += kRun, ++scales) {
        const int count = size - first < kRun ? size - first : kRun;
        Floats most = zero(), poison = zero();
        each_vector(count, [&](int i, auto get, auto) {
            const Floats value = get(x + first + i);
            most = max(most, abs(value));
            poison = fma(value, zero(), poison);
        });
        const float peak = highest(most);
        *scales = peak / kMostShort + sum(poison);
        const Floats inverse = splat(quant_factor(peak, kMostShort)), high = splat(kMostShort);
        each_vector(count, [&](int i, auto get, auto) {
            int16_t whole[kLanes];
            // What is not a number becomes one here, so that no sum overflows: of it and a number, min is the second.
            store_rounded(whole, max(min(mul(get(x + first + i), inverse), high), sub(zero(), high)));
            const int rest = count - i;
            std::memcpy(shorts + first + i, whole, sizeof(int16_t) * (rest < kLanes ? rest : kLanes));
        });
    }
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
