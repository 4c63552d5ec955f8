#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "test.h"
#include "thread_pool.h"

namespace headrace::test {
namespace {

// Work that a compiler cannot leave out.
int spend(int steps) {
    volatile int value = 0;
    for (int i = 0; i < steps; ++i) value = value + i;
    return value;
}

// One run of `tasks` tasks of random lengths; every task has to be called once, and what it wrote has to be seen.
void run_once(ThreadPool& pool, Random& random, int tasks) {
    std::vector<int> lengths(tasks), calls(tasks, 0);
    for (int& length : lengths) length = random.whole(0, 20) ? random.whole(0, 100) : random.whole(0, 20000);
    pool.run(tasks, [&](int index, int thread) {
        spend(lengths[index]);
        calls[index] += thread >= 0 && thread < pool.threads() ? 1 : 1000;
    });
    CHECK(calls == std::vector<int>(tasks, 1), tasks, pool.threads());
}

TEST(pool_runs_every_task_once) {
    for (const int threads : {1, 2, 3, 8}) {
        Random random(threads);
        ThreadPool pool(threads);
        for (int run = 0; run < 1500; ++run) run_once(pool, random, random.whole(0, 40));
    }
}

// What a worker took from one run must never be called with the context of another.
TEST(pool_does_not_mix_runs) {
    ThreadPool pool(8);
    for (int run = 0; run < 3000; ++run) {
        std::vector<int> first(5, 0), second(9, 0);
        pool.run(5, [&](int index, int) { first[index] += 1; });
        pool.run(9, [&](int index, int) { second[index] += 2; });
        CHECK(first == std::vector<int>(5, 1) && second == std::vector<int>(9, 2), run);
    }
}

TEST(pool_wakes_sleeping_workers) {
    Random random(1);
    ThreadPool pool(8);
    for (int burst = 0; burst < 60; ++burst) {
        // Around the time for which workers spin, so that some are on their way to sleep.
        std::this_thread::sleep_for(std::chrono::microseconds(random.whole(0, 600)));
        for (int run = 0; run < 5; ++run) run_once(pool, random, random.whole(2, 30));
    }
}

TEST(pool_ends_whatever_its_workers_do) {
    for (int round = 0; round < 40; ++round) {
        ThreadPool pool(4);
        if (round % 2) pool.run(20, [](int index, int) { spend(100 * index); });
        if (round % 4 > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

TEST(pool_uses_its_workers) {
    ThreadPool pool(2);
    std::atomic<int> arrived{0};
    // Neither task can end before the other one has begun.
    pool.run(2, [&](int, int) {
        arrived.fetch_add(1);
        while (arrived.load() < 2) std::this_thread::yield();
    });
    CHECK(arrived.load() == 2);
}

TEST(pool_refuses_what_it_cannot_count) {
    CHECK(throws<std::invalid_argument>([] { ThreadPool pool(0); }));
    ThreadPool pool(2);
    CHECK(throws<std::length_error>([&] { pool.run(1 << 20, [](int, int) {}); }));
}

}  // namespace
}  // namespace headrace::test
