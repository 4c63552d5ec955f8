// What happens to single rows, at every level, against the same in double precision.
#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

#include "half.h"
#include "test.h"

namespace headrace::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
const int kSizes[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 64, 100};

// `kernel` writes to its argument, which is longer than `size` by what it must not touch.
std::vector<float> run_guarded(int size, const std::function<void(float*)>& kernel) {
    std::vector<float> out(size + 16, 12345.0f);
    kernel(out.data());
    for (int i = size; i < size + 16; ++i) CHECK(out[i] == 12345.0f, size, i);
    out.resize(size);
    return out;
}

TEST(row_rms_norm) {
    for (const Kernels* level : levels()) {
        for (const int size : kSizes) {
            Random random(size);
            const std::vector<float> x = random.normals(size, 3.0f), weight = random.normals(size);
            double squares = 0.0;
            for (const float value : x) squares += double{value} * value;
            std::vector<double> expected(size);
            for (int i = 0; i < size; ++i) expected[i] = x[i] / std::sqrt(squares / size + 1e-5) * weight[i];
            const auto out = run_guarded(
                size, [&](float* to) { level->rms_norm(x.data(), weight.data(), 1e-5f, size, to); });
            CHECK(distance(out, expected) < 1e-6, level->name, size);
        }
    }
}

TEST(row_layer_norm) {
    for (const Kernels* level : levels()) {
        for (const int size : kSizes) {
            for (const float shift : {0.0f, 1000.0f}) {  // far from zero, differences must survive
                Random random(size);
                std::vector<float> x = random.normals(size, 3.0f);
                for (float& value : x) value += shift;
                const std::vector<float> weight = random.normals(size), bias = random.normals(size);
                double mean = 0.0, squares = 0.0;
                for (const float value : x) mean += double{value} / size;
                for (const float value : x) squares += (value - mean) * (value - mean) / size;
                std::vector<double> plain(size), biased(size);
                for (int i = 0; i < size; ++i) {
                    plain[i] = (x[i] - mean) / std::sqrt(squares + 1e-5) * weight[i];
                    biased[i] = plain[i] + bias[i];
                }
                const auto without = run_guarded(size, [&](float* to) {
                    level->layer_norm(x.data(), weight.data(), nullptr, 1e-5f, size, to);
                });
                const auto in_place = run_guarded(size, [&](float* to) {
                    std::copy(x.begin(), x.end(), to);
                    level->layer_norm(to, weight.data(), bias.data(), 1e-5f, size, to);
                });
                // The mean itself is rounded.
                const double allowed = (2e-6 + 2e-7 * shift) * (size == 1 ? 1000.0 : 1.0);
                CHECK(distance(without, plain) < allowed, level->name, size, shift);
                CHECK(distance(in_place, biased) < allowed, level->name, size, shift);
            }
        }
    }
}

TEST(row_add_and_scale) {
    for (const Kernels* level : levels()) {
        for (const int size : kSizes) {
            Random random(size);
            const std::vector<float> x = random.normals(size), y = random.normals(size);
            std::vector<double> expected(size);
            for (int i = 0; i < size; ++i) expected[i] = (x[i] + y[i]) * 1.5f;
            const auto out = run_guarded(size, [&](float* to) {
                std::copy(x.begin(), x.end(), to);
                level->add(to, y.data(), size);
                level->scale(to, 1.5f, size);
            });
            CHECK(distance(out, expected) == 0.0, level->name, size);
        }
    }
}

// Numbers of all sizes, both signs.
std::vector<float> spread(int size) {
    Random random(size);
    std::vector<float> x = random.normals(size, 4.0f);
    const float extremes[] = {0.0f, -0.0f, 1e-30f, 88.0f, -88.0f, 1000.0f, -1000.0f, 1e-3f};
    for (int i = 0; i < size; i += 3) x[i] = extremes[i / 3 % 8];
    return x;
}

// What a function of the feed-forward layer is; near infinity too.
double activated(Activation activation, double x) {
    switch (activation) {
        case Activation::silu: return x / (1.0 + std::exp(-x));
        case Activation::gelu_tanh: {
            const double root = std::sqrt(2.0 / std::acos(-1.0));
            return 0.5 * x * (1.0 + std::tanh(root * (x + 0.044715 * x * x * x)));
        }
        case Activation::gelu: return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
        default: return x > 0.0 ? x : 0.0;
    }
}

TEST(row_activations_and_gates) {
    for (const Kernels* level : levels()) {
        for (int index = 0; index < kNumActivations; ++index) {
            for (const int size : kSizes) {
                const std::vector<float> x = spread(size), up = Random(size).normals(size);
                std::vector<double> alone(size), times_up(size);
                for (int i = 0; i < size; ++i) {
                    alone[i] = activated(static_cast<Activation>(index), x[i]);
                    times_up[i] = alone[i] * up[i];
                }
                const auto out = run_guarded(size, [&](float* to) { level->activate[index](x.data(), size, to); });
                const auto gated =
                    run_guarded(size, [&](float* to) { level->gate[index](x.data(), up.data(), size, to); });
                CHECK(distance(out, alone) < 2e-6, level->name, index, size);
                CHECK(distance(gated, times_up) < 2e-6, level->name, index, size);
            }
        }
    }
}

// All over the range that the approximation was fitted for, and beyond.
TEST(row_gelu_everywhere) {
    const int size = 20001;
    std::vector<float> x(size);
    std::vector<double> expected(size);
    for (int i = 0; i < size; ++i) {
        x[i] = -10.0f + 1e-3f * static_cast<float>(i);
        expected[i] = activated(Activation::gelu, x[i]);
    }
    for (const Kernels* level : levels()) {
        std::vector<float> out(size);
        level->activate[static_cast<int>(Activation::gelu)](x.data(), size, out.data());
        for (int i = 0; i < size; ++i) {
            CHECK(std::fabs(out[i] - expected[i]) <= 4e-7 * std::max(1.0f, std::fabs(x[i])), level->name, x[i], out[i]);
        }
    }
}

TEST(row_activations_of_what_is_not_a_number) {
    for (const Kernels* level : levels()) {
        for (int index = 0; index < kNumActivations; ++index) {
            std::vector<float> x = Random(1).normals(20), out(20);
            x[3] = x[18] = kNan;
            level->activate[index](x.data(), 20, out.data());
            for (int i = 0; i < 20; ++i) CHECK(std::isnan(out[i]) == (i == 3 || i == 18), level->name, index, i);
        }
    }
}

TEST(row_soft_cap) {
    for (const Kernels* level : levels()) {
        for (const int size : kSizes) {
            const std::vector<float> x = spread(size);
            std::vector<double> expected(size);
            for (int i = 0; i < size; ++i) expected[i] = 30.0 * std::tanh(x[i] / 30.0);
            const auto out = run_guarded(size, [&](float* to) {
                std::copy(x.begin(), x.end(), to);
                level->soft_cap(to, 30.0f, size);
            });
            CHECK(distance(out, expected) < 4e-6, level->name, size);
        }
    }
}

TEST(row_rotate) {
    for (const Kernels* level : levels()) {
        for (const int half : {0, 1, 4, 7, 8, 12, 16, 20, 32, 48, 64}) {
            Random random(half);
            const std::vector<float> x = random.normals(2 * half + 5), angles = random.normals(half, 3.0f);
            std::vector<float> cosine(half), sine(half);
            std::vector<double> expected(x.begin(), x.end());
            for (int i = 0; i < half; ++i) {
                cosine[i] = std::cos(angles[i]);
                sine[i] = std::sin(angles[i]);
                expected[i] = double{x[i]} * cosine[i] - double{x[i + half]} * sine[i];
                expected[i + half] = double{x[i]} * sine[i] + double{x[i + half]} * cosine[i];
            }
            std::vector<float> out = x;
            level->rotate(out.data(), cosine.data(), sine.data(), half);
            CHECK(distance(out, expected) < 1e-6, level->name, half);
        }
    }
}

// Quantile by quantile, against sums in double precision over all tokens in order.
TEST(row_draw) {
    for (const Kernels* level : levels()) {
        for (const int size : {1, 5, 127, 128, 129, 300, 1000}) {
            const std::vector<float> logits = Random(size).normals(size, 3.0f);
            std::vector<double> ends;
            for (const float logit : logits) ends.push_back((ends.empty() ? 0.0 : ends.back()) + std::exp(logit / 0.8));
            std::vector<double> scratch(draw_scratch(size));
            for (int step = 0; step < 200; ++step) {
                const double uniform = step / 200.0;
                float peak;
                const int64_t token = level->draw(logits.data(), size, 0.8f, uniform, scratch.data(), &peak);
                CHECK(peak == *std::max_element(logits.begin(), logits.end()), level->name, size);
                CHECK(token >= 0 && token < size, level->name, size, token);
                if (token < 0 || token >= size) continue;
                // The quantile lies within the token's part, but for what float32 rounds.
                const double low = token > 0 ? ends[token - 1] / ends.back() : 0.0, high = ends[token] / ends.back();
                CHECK(uniform >= low - 1e-5 && uniform <= high + 1e-5, level->name, size, uniform, token);
            }
        }
    }
}

TEST(row_draw_from_nothing) {
    for (const Kernels* level : levels()) {
        for (const int at : {0, 7, 130, 199}) {
            for (const float poison : {kNan, kInfinity}) {
                std::vector<float> logits = Random(1).normals(200);
                logits[at] = poison;
                std::vector<double> scratch(draw_scratch(200));
                float peak;
                CHECK(level->draw(logits.data(), 200, 1.0f, 0.5, scratch.data(), &peak) == 0, level->name, at);
                CHECK(!std::isfinite(peak), level->name, at, poison);
            }
            std::vector<float> masked(200, -kInfinity);
            masked[at] = -3.0f;
            std::vector<double> scratch(draw_scratch(200));
            float peak;
            CHECK(level->draw(masked.data(), 200, 1.0f, 0.999, scratch.data(), &peak) == at, level->name, at);
        }
    }
}

struct Quantised {
    std::vector<int8_t> quants;
    std::vector<int16_t> wide;
    float row_scale = 0.0f;
    std::vector<float> multiples;
    std::vector<int32_t> paired_multiples;
    std::vector<float> sums, half_sums;

    double scale(size_t i) const { return double{row_scale} * multiples[i / kBlock]; }
};

Quantised quantise(const Kernels& level, const std::vector<float>& x) {
    const size_t size = x.size(), blocks = size / kBlock;
    Quantised out;
    out.quants.resize(size);
    out.wide.resize(size);
    for (auto* floats : {&out.multiples, &out.sums}) floats->resize(blocks);
    out.half_sums.resize(2 * blocks);
    out.paired_multiples.resize(blocks);
    level.quantize(x.data(), static_cast<int>(size),
                   {out.quants.data(), level.reads_wide_quants ? out.wide.data() : nullptr, &out.row_scale,
                    out.multiples.data(), out.paired_multiples.data(), out.sums.data(), out.half_sums.data()});
    return out;
}

TEST(row_quantize) {
    for (const Kernels* level : levels()) {
        std::vector<float> x = Random(3).normals(8 * kBlock, 2.0f);
        std::fill(x.begin(), x.begin() + kBlock, 0.0f);
        for (int i = kBlock; i < 2 * kBlock; ++i) x[i] *= 100.0f;
        for (int i = 2 * kBlock; i < 3 * kBlock; ++i) x[i] *= 1e-6f;
        const Quantised out = quantise(*level, x);
        const int order[] = {0, 2, 1, 3};
        for (int i = 0; i < 8 * kBlock; ++i) {
            CHECK(std::fabs(x[i] - out.scale(i) * out.quants[i]) <= out.scale(i) * 0.50001, level->name, i, x[i]);
            CHECK(out.quants[i] >= -127, level->name, i);
            if (level->reads_wide_quants) CHECK(out.wide[i] == out.quants[i / 4 * 4 + order[i % 4]], level->name, i);
        }
        const auto [low, high] = std::minmax_element(x.begin(), x.end());
        const float row_peak = std::max(-*low, *high);
        for (int block = 0; block < 8; ++block) {
            float sums[2] = {0.0f, 0.0f}, peak = 0.0f;
            for (int i = 0; i < kBlock; ++i) {
                sums[i / 16] += out.quants[block * kBlock + i];
                peak = std::max(peak, std::fabs(x[block * kBlock + i]));
            }
            const float multiple = out.multiples[block];
            // No more than one above what the largest element needs.
            CHECK(std::fabs(multiple - peak / row_peak * kMostMultiple) <= 1.001f, level->name, block, multiple);
            CHECK(out.paired_multiples[block] == static_cast<int>(multiple) * 0x10001, level->name, block);
            CHECK(out.sums[block] == multiple * (sums[0] + sums[1]), level->name, block);
            CHECK(out.half_sums[2 * block] == multiple * sums[0], level->name, block);
            CHECK(out.half_sums[2 * block + 1] == multiple * sums[1], level->name, block);
        }
        CHECK(out.multiples[0] == 0.0f && out.multiples[1] == kMostMultiple && out.multiples[2] == 1.0f, level->name);
    }
}

TEST(row_quantize_numbers_near_zero) {
    for (const Kernels* level : levels()) {
        for (const float tiny : {1e-45f, 1e-40f, 1e-37f, 1e-31f, 1e-30f}) {
            std::vector<float> x(kBlock, 0.0f);
            x[3] = tiny;
            x[20] = -tiny / 2.0f;
            const Quantised out = quantise(*level, x);
            for (int i = 0; i < kBlock; ++i) {
                // Half a step, or all of what is too small to have steps.
                const float allowed = tiny / 127.0f * 0.51f + (tiny > 2e-31f ? 0.0f : 2e-31f);
                CHECK(std::fabs(x[i] - out.scale(i) * out.quants[i]) <= allowed, level->name, tiny, i);
            }
            CHECK(std::isfinite(out.sums[0]) && std::isfinite(out.half_sums[1]), level->name, tiny, out.sums[0]);
        }
    }
}

TEST(row_quantize_poison) {
    for (const Kernels* level : levels()) {
        for (const float poison : {kNan, -kNan, kInfinity, -kInfinity}) {
            for (int at = 0; at < 2 * kBlock; ++at) {
                std::vector<float> x = Random(4).normals(2 * kBlock);
                x[at] = poison;
                const Quantised out = quantise(*level, x);
                CHECK(std::isnan(out.row_scale), level->name, poison, at);
                for (const float multiple : out.multiples) {
                    CHECK(multiple >= 0.0f && multiple <= kMostMultiple, level->name, poison, at, multiple);
                }
            }
        }
    }
}

TEST(row_quantize_short) {
    for (const Kernels* level : levels()) {
        for (const int size : {2, 30, kRun, kRun + 2, 2 * kRun + 70}) {
            std::vector<float> x = Random(size).normals(size, 2.0f);
            if (size > kRun) std::fill(x.begin(), x.begin() + kRun, 0.0f);
            std::vector<int16_t> shorts(size + 16, 77);
            std::vector<float> scales(3, 5.0f);
            level->quantize_short(x.data(), size, shorts.data(), scales.data());
            for (int i = 0; i < size; ++i) {
                const double scale = scales[i / kRun];
                CHECK(std::fabs(x[i] - scale * shorts[i]) <= scale * 0.501, level->name, size, i);
                CHECK(std::abs(shorts[i]) <= kMostShort, level->name, size, i);
            }
            for (int i = size; i < size + 16; ++i) CHECK(shorts[i] == 77, level->name, size, i);
            for (int run = (size + kRun - 1) / kRun; run < 3; ++run) CHECK(scales[run] == 5.0f, level->name, size);
        }
        for (const float poison : {kNan, kInfinity}) {
            std::vector<float> x = Random(4).normals(2 * kRun);
            x[kRun + 3] = poison;
            std::vector<int16_t> shorts(2 * kRun);
            float scales[2];
            level->quantize_short(x.data(), 2 * kRun, shorts.data(), scales);
            CHECK(std::isfinite(scales[0]) && std::isnan(scales[1]), level->name, poison);
            for (const int16_t value : shorts) CHECK(std::abs(value) <= kMostShort, level->name, poison, value);
        }
    }
}

float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

TEST(half_there_and_back) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const float value = widen(Half{static_cast<uint16_t>(bits)});
        if (std::isnan(value)) {
            CHECK(std::isnan(widen(narrow(value))), bits);
        } else {
            CHECK(narrow(value).bits == bits, bits, value);
        }
    }
}

// Half way between neighbours, and just off it: to the nearest, ties to even.
TEST(half_rounding_at_every_level) {
    for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
        const float low = widen(Half{static_cast<uint16_t>(bits)});
        const float high = bits == 0x7bff ? 65536.0f : widen(Half{static_cast<uint16_t>(bits + 1)});
        const float middle = low + (high - low) / 2.0f;
        const float values[] = {std::nextafter(middle, low), -middle, std::nextafter(middle, high), low};
        const uint16_t expected[] = {static_cast<uint16_t>(bits), static_cast<uint16_t>(0x8000 | (bits + bits % 2)),
                                     static_cast<uint16_t>(bits + 1), static_cast<uint16_t>(bits)};
        for (int i = 0; i < 4; ++i) CHECK(narrow(values[i]).bits == expected[i], values[i]);
        if (bits % 8 > 1) continue;
        for (const Kernels* level : levels()) {
            uint16_t stored[4];
            level->store_value(values, 4, KvKind::f16, reinterpret_cast<uint8_t*>(stored), nullptr);
            for (int i = 0; i < 4; ++i) CHECK(stored[i] == expected[i], level->name, values[i]);
        }
    }
}

TEST(brain_rounding_at_every_level) {
    for (const Kernels* level : levels()) {
        const float values[] = {from_bits(0x3f808000), from_bits(0x3f818000), from_bits(0x3f808001), kNan, kInfinity,
                                from_bits(0x7fffffff), from_bits(0x7f7fffff), -0.0f};
        const uint16_t expected[] = {0x3f80, 0x3f82, 0x3f81, 0, 0x7f80, 0, 0x7f80, 0x8000};
        uint16_t stored[8];
        level->store_value(values, 8, KvKind::bf16, reinterpret_cast<uint8_t*>(stored), nullptr);
        for (int i = 0; i < 8; ++i) {
            const bool nan = (stored[i] & 0x7fff) > 0x7f80;
            CHECK(std::isnan(values[i]) ? nan : stored[i] == expected[i], level->name, values[i], stored[i]);
        }
    }
}

}  // namespace
}  // namespace headrace::test
