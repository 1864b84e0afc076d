// As much of CUDA as the kernel uses, on the host: every thread of a block is a coroutine.
//
// A coroutine runs until it waits at a barrier or a shuffle; who runs next is drawn at random, so
// that a missing barrier shows as a wrong or changing result. A barrier that not every thread
// reaches aborts.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#ifndef __forceinline__
#define __forceinline__ inline
#endif
#undef __global__
#undef __device__
#undef __shared__
#undef __launch_bounds__
#define __global__
#define __device__
#define __shared__ static  // blocks run one after another
#define __launch_bounds__(...)

#include <cuda_bf16.h>
#include <cuda_fp16.h>

using std::min;

struct HostIndex {
    uint32_t x, y, z;
};
inline HostIndex threadIdx, blockIdx, blockDim;

namespace host_block {

constexpr size_t kStackBytes = 128 * 1024;
constexpr uint32_t kLanes = 32;

struct Barrier {
    uint32_t size = 0, arrived = 0, generation = 0;
};

struct Thread {
    ucontext_t context{};
    std::vector<char> stack = std::vector<char>(kStackBytes);
    const Barrier* waits_at = nullptr;
    uint32_t waits_for = 0;  // the barrier's generation that lets it go on
    bool done = false;
};

inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline Barrier block_barrier;
inline std::vector<Barrier> warp_barriers;
inline std::vector<float> exchanged[2];  // by the generation's parity: a warp is never two ahead
inline std::vector<float> shared;
inline std::function<void()> body;
// For racecheck.cpp: whether a thread of the kernel runs, and which stretch between two barriers.
inline bool in_kernel = false;
inline uint64_t interval = 0;


inline void wait(Barrier& barrier) {
    in_kernel = false;
    Thread& self = threads[threadIdx.x];
    self.waits_at = &barrier;
    self.waits_for = barrier.generation + 1;
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        ++barrier.generation;
        interval += &barrier == &block_barrier;
    }
    swapcontext(&self.context, &scheduler);
    in_kernel = true;
}

inline void start() {
    in_kernel = true;
    body();
    in_kernel = false;
    threads[threadIdx.x].done = true;
}

// Runs one block of `count` threads; `shared_bytes` begin as NaN.
inline void run(uint32_t count, size_t shared_bytes, std::mt19937& random,
                std::function<void()> kernel) {
    body = std::move(kernel);
    blockDim = {count, 1, 1};
    threads.resize(count);
    block_barrier = {count};
    warp_barriers.assign(count / kLanes, Barrier{kLanes});
    for (auto& slots : exchanged) {
        slots.assign(count, NAN);
    }
    // A new allocation of just this size, whose end AddressSanitizer knows.
    shared = std::vector<float>(shared_bytes / sizeof(float), NAN);
    ++interval;
    for (Thread& thread : threads) {
        thread.done = false;
        thread.waits_at = nullptr;
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = thread.stack.size();
        thread.context.uc_link = &scheduler;
        makecontext(&thread.context, start, 0);
    }
    std::vector<uint32_t> order(count);
    for (uint32_t i = 0; i < count; ++i) {
        order[i] = i;
    }
    for (uint32_t running = count; running > 0;) {
        std::shuffle(order.begin(), order.end(), random);
        bool moved = false;
        for (const uint32_t index : order) {
            Thread& thread = threads[index];
            const bool waiting =
                thread.waits_at != nullptr && thread.waits_at->generation < thread.waits_for;
            if (thread.done || waiting) {
                continue;
            }
            moved = true;
            threadIdx = {index, 0, 0};
            swapcontext(&scheduler, &thread.context);
            running -= thread.done;
        }
        if (!moved) {
            std::fprintf(stderr, "a barrier was not reached by every thread\n");
            std::abort();
        }
    }
}

}  // namespace host_block

inline void __syncthreads() { host_block::wait(host_block::block_barrier); }

inline float __shfl_xor_sync(uint32_t, float x, int distance) {
    using namespace host_block;
    const uint32_t self = threadIdx.x;
    Barrier& barrier = warp_barriers[self / kLanes];
    in_kernel = false;  // what the lanes exchange is no memory of the kernel's
    std::vector<float>& slots = exchanged[barrier.generation % 2];
    slots[self] = x;
    wait(barrier);
    in_kernel = false;
    const float received = slots[self ^ static_cast<uint32_t>(distance)];
    in_kernel = true;
    return received;
}

namespace hicom_edge {

inline float* dynamic_shared() { return host_block::shared.data(); }

}  // namespace hicom_edge
