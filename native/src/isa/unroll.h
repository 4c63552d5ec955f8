// Loops of constant length, written out: accumulators in arrays then stay in registers.
#pragma once

#include <utility>

namespace headrace::HEADRACE_ISA {

template <int Value>
struct Constant {
    static constexpr int value = Value;
    constexpr operator int() const { return Value; }
};

template <class Fn, int... Values>
[[gnu::always_inline]] inline void unrolled(Fn& fn, std::integer_sequence<int, Values...>) {
    (fn(Constant<Values>{}), ...);
}

// Calls fn(0), fn(1), … fn(Count - 1), each argument a constant.
template <int Count, class Fn>
[[gnu::always_inline]] inline void unrolled(Fn fn) {
    unrolled(fn, std::make_integer_sequence<int, Count>{});
}

}  // namespace headrace::HEADRACE_ISA
