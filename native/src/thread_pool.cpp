#include "thread_pool.h"

#include <chrono>
#include <stdexcept>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace headrace {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than the gaps inside a step, shorter than what somebody else on this core would miss.
constexpr auto kSpin = std::chrono::microseconds(150);
constexpr int kLooksPerClock = 64;

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits until `ready()`; gives the core away once it has taken long, since what it waits for may need it.
template <class Ready>
void spin_until(Ready ready) {
    for (int looks = 0; !ready(); ++looks) {
        if (looks < 2000) {
            pause();
        } else {
            std::this_thread::yield();
        }
    }
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
    if (threads < 1) throw std::invalid_argument("a thread pool needs at least 1 thread");
    try {
        workers_.reserve(threads - 1);
        for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
    } catch (...) {
        stop();  // those that run already
        throw;
    }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stopping_.store(true);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_shared(int tasks, Call call, void* context) {
    if (static_cast<uint64_t>(tasks) > kMask) throw std::length_error("too many tasks for one run");
    const std::lock_guard<std::mutex> turn(turn_);
    // The last run's tasks are all done, so nobody reads these until the ticket says that there is a new run.
    call_.store(call, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const uint64_t number = (ticket_.load(std::memory_order_relaxed) >> (2 * kBits)) + 1;
    ticket_.store(number << (2 * kBits) | static_cast<uint64_t>(tasks) << kBits);
    if (sleeping_.load() > 0) {
        { const std::lock_guard<std::mutex> lock(mutex_); }
        wake_.notify_all();
    }
    while (take_and_run(0)) {
    }
    spin_until([&] { return done_.load(std::memory_order_acquire) == tasks; });
}

bool ThreadPool::take_and_run(int thread) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (true) {
        const uint64_t next = ticket & kMask;
        if (next >= ((ticket >> kBits) & kMask)) return false;
        // What is read here belongs to this ticket: it can only change after all of the ticket's tasks are done.
        const Call call = call_.load(std::memory_order_relaxed);
        void* const context = context_.load(std::memory_order_relaxed);
        if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) {
            call(context, static_cast<int>(next), thread);
            done_.fetch_add(1, std::memory_order_release);
            return true;
        }
    }
}

void ThreadPool::work(int thread) {
    auto idle_since = Clock::now();
    while (!stopping_.load(std::memory_order_relaxed)) {
        for (int looks = 0; looks < kLooksPerClock; ++looks) {
            if (take_and_run(thread)) {
                looks = 0;
                idle_since = Clock::now();
            } else {
                pause();
            }
        }
        if (Clock::now() - idle_since < kSpin) continue;
        std::unique_lock<std::mutex> lock(mutex_);
        sleeping_.fetch_add(1);
        const uint64_t seen = ticket_.load();
        const bool has_tasks = (seen & kMask) < ((seen >> kBits) & kMask);
        if (!has_tasks) wake_.wait(lock, [&] { return stopping_.load() || ticket_.load() != seen; });
        sleeping_.fetch_sub(1);
        idle_since = Clock::now();
    }
}

}  // namespace headrace
