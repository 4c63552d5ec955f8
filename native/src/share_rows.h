// Work on single rows, shared among threads as far as it is worth it.
#pragma once

#include <algorithm>

#include "thread_pool.h"

namespace headrace {

// Fewer rows than this are not worth waking other threads for work that is not a product.
constexpr int kRowsWorthSharing = 4;

// Calls fn(row) for rows begin:end.
template <class Fn>
void each_row(ThreadPool& pool, int begin, int end, Fn fn) {
    const int count = end - begin;
    const int each = count < kRowsWorthSharing ? count : std::max(1, count / (pool.threads() * 4));
    pool.run((count + each - 1) / each, [&](int index, int) {
        for (int row = begin + index * each; row < std::min(begin + (index + 1) * each, end); ++row) fn(row);
    });
}

}  // namespace headrace
