// Runs the tests whose name contains the first argument, or all of them.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>

#include "levels.h"
#include "test.h"

namespace headrace::test {
namespace {

struct Test {
    const char* name;
    Body body;
};

constexpr int kShownFailures = 10;  // of one test

// Functions' own: tests register before main, in any order of files.
std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

int& failures() {
    static int count = 0;
    return count;
}

int run(const Test& test) {
    failures() = 0;
    const auto begin = std::chrono::steady_clock::now();
    try {
        test.body();
    } catch (const std::exception& error) {
        fail(test.name, 0, std::string("threw: ") + error.what());
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    std::printf("%-6s %s (%.2f s)\n", failures() ? "FAILED" : "ok", test.name, seconds.count());
    std::fflush(stdout);
    return failures();
}

}  // namespace

bool add(const char* name, Body body) {
    tests().push_back({name, body});
    return true;
}

void fail(const char* file, int line, const std::string& message) {
    if (++failures() <= kShownFailures) std::fprintf(stderr, "%s:%d: %s\n", file, line, message.c_str());
}

std::vector<const Kernels*> levels() {
    std::vector<const Kernels*> all = usable_levels();
    all.push_back(&portable16());
    return all;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

double distance(const std::vector<float>& a, const std::vector<double>& b) {
    double most = a.size() == b.size() ? 0.0 : std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
        if (std::isnan(a[i]) && std::isnan(b[i])) continue;
        const double far = std::fabs(a[i] - b[i]) / (std::fabs(b[i]) + 1.0);
        most = std::isnan(far) ? std::numeric_limits<double>::infinity() : std::max(most, far);
    }
    return most;
}

int run_all(const char* part_of_name) {
    int failed = 0, ran = 0;
    for (const Test& test : tests()) {
        if (!std::strstr(test.name, part_of_name)) continue;
        failed += run(test) > 0;
        ++ran;
    }
    std::printf("%d of %d tests failed\n", failed, ran);
    return failed > 0 || ran == 0;
}

}  // namespace headrace::test

int main(int argc, char** argv) { return headrace::test::run_all(argc > 1 ? argv[1] : ""); }
