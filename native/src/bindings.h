// What the files of the Python module share: arrays, and the pool that everything is made with.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "levels.h"
#include "linear.h"
#include "matrix.h"
#include "thread_pool.h"
#include "weight_memory.h"

namespace headrace {

namespace nb = nanobind;
using namespace nb::literals;

template <class Element, int Dims>
using Array = nb::ndarray<Element, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;
using FloatVector = std::optional<Array<const float, 1>>;
using FloatMatrix = std::optional<Array<const float, 2>>;
using Matrices = std::vector<std::shared_ptr<Matrix>>;

// Threads, the kernels that they run, and where the weights for these are kept.
struct Pool {
    Pool(int threads, const std::optional<std::string>& isa)
        : kernels(select_level(isa ? &*isa : nullptr)), threads(std::make_shared<ThreadPool>(threads)) {}

    const Kernels& kernels;
    std::shared_ptr<ThreadPool> threads;
    WeightMemory memory;
};

template <class Vector>
std::vector<float> copy(const std::optional<Vector>& array) {
    if (!array) return {};
    return {array->data(), array->data() + array->size()};
}

inline Linear linear(const Matrices& parts, const FloatVector& bias) {
    return Linear({parts.begin(), parts.end()}, copy(bias));
}

inline void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument(message);
}

inline Activation activation_of(const std::string& name) {
    const char* const names[kNumActivations] = {"silu", "gelu_tanh", "gelu", "relu"};
    for (int index = 0; index < kNumActivations; ++index) {
        if (name == names[index]) return static_cast<Activation>(index);
    }
    throw std::invalid_argument("unknown activation: " + name);
}

// Adds the encoder's classes to the module.
void bind_encoder(nb::module_& m);

}  // namespace headrace
