// Worker threads for work that comes in bursts of many short pieces.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace headrace {

// Runs tasks on its workers and on the calling thread. Workers spin for a moment between runs, then sleep.
//
// A run ends when its tasks are done, not when every worker has looked at it: a worker that the system has put aside
// holds nobody up unless it is in the middle of a task. Runs of several threads take turns. Tasks must not throw.
class ThreadPool {
public:
    // `threads` counts the caller. Throws std::invalid_argument if it is less than 1, std::system_error
    // if the system gives no more threads.
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls task(index, thread) for every index below `tasks`, thread being 0 (the caller) to threads() - 1.
    template <class Task>
    void run(int tasks, Task&& task) {
        if (tasks <= 0) return;
        if (tasks == 1 || workers_.empty()) {
            for (int index = 0; index < tasks; ++index) task(index, 0);
            return;
        }
        using Plain = std::remove_reference_t<Task>;
        run_shared(tasks, [](void* context, int index, int thread) { (*static_cast<Plain*>(context))(index, thread); },
                   const_cast<void*>(static_cast<const void*>(&task)));
    }

private:
    using Call = void (*)(void* context, int index, int thread);

    void stop();
    void run_shared(int tasks, Call call, void* context);
    void work(int thread);
    bool take_and_run(int thread);

    // What there is to do, in one word, so that it is taken all at once: run number, tasks, next task.
    static constexpr int kBits = 20;
    static constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;

    alignas(64) std::atomic<uint64_t> ticket_{0};
    alignas(64) std::atomic<int> done_{0};
    alignas(64) std::atomic<Call> call_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<int> sleeping_{0};
    std::atomic<bool> stopping_{false};
    std::mutex turn_;  // held by the thread whose run it is
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

}  // namespace headrace
