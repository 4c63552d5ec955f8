// What the native tests are written with: tests that register themselves, checks that say what they saw, and the
// kernels under test.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "kernels.h"

namespace headrace::test {

using Body = void (*)();

// Puts `body` on the list of tests. Returns true.
bool add(const char* name, Body body);

// Notes a failure of the running test; it goes on, so that one run shows all of them.
void fail(const char* file, int line, const std::string& message);

// Every level that this machine can run, and `portable16`.
std::vector<const Kernels*> levels();

// The portable level with 16 lanes.
const Kernels& portable16();

// Random numbers that are the same in every run.
class Random {
public:
    explicit Random(uint32_t seed) : engine_(seed) {}

    float normal() { return normal_(engine_); }
    // From `low` to `high`, both included.
    int whole(int low, int high) { return low + static_cast<int>(engine_() % static_cast<uint32_t>(high - low + 1)); }
    uint8_t byte() { return static_cast<uint8_t>(engine_()); }
    std::vector<float> normals(int64_t count, float scale = 1.0f) {
        std::vector<float> values(count);
        for (float& value : values) value = scale * normal();
        return values;
    }

private:
    std::mt19937 engine_;
    std::normal_distribution<float> normal_;
};

// Whether the bits of both are the same: NaN equals itself, and 0 is not -0.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b);

// The largest |a - b| / (|b| + 1); infinite where one is NaN and the other is not.
double distance(const std::vector<float>& a, const std::vector<double>& b);

}  // namespace headrace::test

namespace headrace::test {

template <class... Values>
void check(const char* file, int line, const char* source, bool holds, const Values&... values) {
    if (holds) return;
    std::ostringstream out;
    out << source;
    ((out << " | " << values), ...);
    fail(file, line, out.str());
}

// Whether calling `fn` throws an `Error`.
template <class Error, class Fn>
bool throws(Fn fn) {
    try {
        fn();
    } catch (const Error&) {
        return true;
    }
    return false;
}

}  // namespace headrace::test

#define TEST(name)                                                                      \
    static void name();                                                                 \
    [[maybe_unused]] static const bool name##_added = headrace::test::add(#name, name); \
    static void name()

// CHECK(condition, values...): where the condition does not hold, the values are printed too.
#define CHECK(...) headrace::test::check(__FILE__, __LINE__, #__VA_ARGS__, __VA_ARGS__)
