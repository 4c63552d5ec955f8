// The functions between the matrices of a feed-forward layer, by themselves and as gates.
#pragma once

#include "rows.h"

namespace headrace::HEADRACE_ISA {

struct Silu {
    static Floats of(Floats x) { return mul(x, sigmoid(x)); }
};

struct GeluTanh {
    // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x * sigmoid(2 sqrt(2 / pi) (...))
    static Floats of(Floats x) {
        const Floats inner = mul(splat(1.5957691216f), fma(mul(splat(0.044715f), mul(x, x)), x, x));
        return mul(x, sigmoid(inner));
    }
};

struct Gelu {
    // x times the normal distribution function, which is 0.5 + x P(x^2) / Q(x^2) to 2e-7, fitted for |x| < 5.54; beyond,
    // what it is there will do: it differs from 0 and 1 by less than that.
    static Floats of(Floats x) {
        const Floats above = max(splat(-5.54371716f), x);  // of a number and NaN, these return the second
        const Floats t = min(splat(5.54371716f), above);
        const Floats u = mul(t, t);
        Floats p = splat(2.24810517e-8f);
        p = fma(p, u, splat(6.35236211e-6f));
        p = fma(p, u, splat(1.70950792e-4f));
        p = fma(p, u, splat(4.68988763e-3f));
        p = fma(p, u, splat(3.40755843e-2f));
        p = fma(p, u, splat(3.98942232e-1f));
        Floats q = splat(1.18970604e-6f);
        q = fma(q, u, splat(7.42547636e-5f));
        q = fma(q, u, splat(1.89649954e-3f));
        q = fma(q, u, splat(2.8770797e-2f));
        q = fma(q, u, splat(2.52080649e-1f));
        q = fma(q, u, splat(1.0f));
        return mul(above, fma(t, div(p, q), splat(0.5f)));
    }
};

struct Relu {
    static Floats of(Floats x) { return max(zero(), x); }  // NaN stays: of a number and NaN, the second
};

template <class Function>
void activate(const float* x, int size, float* out) {
    each_vector(size, [&](int i, auto get, auto put) { put(out + i, Function::of(get(x + i))); });
}

template <class Function>
void gate(const float* gate, const float* up, int size, float* out) {
    each_vector(size, [&](int i, auto get, auto put) { put(out + i, mul(Function::of(get(gate + i)), get(up + i))); });
}

}  // namespace headrace::HEADRACE_ISA
