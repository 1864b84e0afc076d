// Reports data races of the kernel as it runs on the host, as compute-sanitizer's racecheck does.
//
// The kernel is compiled with -fsanitize=thread, so that every access to memory calls one of the
// functions below; GCC's own run-time library, which knows no coroutines, is left out. Two threads
// race when both touch a place between two barriers of the block and one of them writes. Shuffles
// order nothing here: they promise nothing about memory. What the threads did in another order does
// not matter, so that one run shows a race that no result betrays.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>

#include "cuda_on_host.h"

namespace {

constexpr uintptr_t kBytes = 2;  // of a place: the smallest element
constexpr uint32_t kNobody = UINT32_MAX, kSeveral = UINT32_MAX - 1;

// Who touched a place since the last barrier.
struct Place {
    uint64_t interval = 0;
    uint32_t writer = kNobody, reader = kNobody;
};

std::unordered_map<uintptr_t, Place> places;

// Of the thread's own stack, or no memory of the kernel's at all.
bool is_private(uintptr_t address) {
    if (address == reinterpret_cast<uintptr_t>(&host_block::in_kernel)) {
        return true;
    }
    const auto& stack = host_block::threads[threadIdx.x].stack;
    const auto start = reinterpret_cast<uintptr_t>(stack.data());
    return address >= start && address < start + stack.size();
}

bool is_other(uint32_t thread) { return thread != kNobody && thread != threadIdx.x; }

[[noreturn]] void report(uintptr_t address, const Place& place, bool writes) {
    const uint32_t other = is_other(place.writer) ? place.writer : place.reader;
    const auto shared = reinterpret_cast<uintptr_t>(host_block::shared.data());
    const bool dynamic = address - shared < host_block::shared.size() * sizeof(float);
    std::printf("race: thread %u %s what ", threadIdx.x, writes ? "writes" : "reads");
    std::printf(other == kSeveral ? "several threads" : "thread %u", other);
    std::printf(" %s before the next barrier, in %s\n", is_other(place.writer) ? "wrote" : "read",
                dynamic ? "dynamic shared memory" : "static or global memory");
    std::fflush(stdout);
    std::_Exit(1);
}

void touch(uintptr_t address, bool writes) {
    Place& place = places[address / kBytes];
    if (place.interval != host_block::interval) {
        place = {host_block::interval, kNobody, kNobody};
    }
    if (is_other(place.writer) || (writes && is_other(place.reader))) {
        report(address, place, writes);
    }
    if (writes) {
        place.writer = threadIdx.x;
    } else {
        place.reader = is_other(place.reader) ? kSeveral : threadIdx.x;
    }
}

void see(const void* start, size_t size, bool writes) {
    if (!host_block::in_kernel) {
        return;
    }
    host_block::in_kernel = false;  // the containers may be instrumented themselves
    const auto address = reinterpret_cast<uintptr_t>(start);
    for (size_t byte = 0; !is_private(address) && byte < size; byte += kBytes) {
        touch(address + byte, writes);
    }
    host_block::in_kernel = true;
}

}  // namespace

#define ACCESSES(size)                                                   \
    void __tsan_read##size(void* at) { see(at, size, false); }           \
    void __tsan_write##size(void* at) { see(at, size, true); }           \
    void __tsan_unaligned_read##size(void* at) { see(at, size, false); } \
    void __tsan_unaligned_write##size(void* at) { see(at, size, true); }

extern "C" {
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* at, size_t size) { see(at, size, false); }
void __tsan_write_range(void* at, size_t size) { see(at, size, true); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
