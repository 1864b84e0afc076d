// Distribution of one group over the threads of a block.
//
// A row of K or V consists of columns, each loaded at once: 16 bytes, or one element if rows are
// not aligned. In the first half of a tile every warp processes whole rows of K, with a lane per
// column. In the second half every thread processes one column of V, and `slices` threads share the
// members of a column.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"

namespace hicom_edge {

constexpr int kWarp = 32;
constexpr int kMinThreads = 128;
// A row of 1152 channels of 32 bits. With three such blocks on a multiprocessor, a thread may have
// 72 registers at most: a warp's registers lie in one of four partitions of 16384, which then hold
// seven warps each, and so five blocks of 160 threads. With 73 registers there are only four.
constexpr int kMaxThreads = 288;
constexpr int kMinBlocks = 3;
// Members whose scores are kept at once. One tile covers the released model's 36; larger windows
// take several tiles, which the online softmax combines.
constexpr int kTile = 64;
// Loads of K that a lane has in flight: five of 32 columns cover a row of 1152 channels of 16 bits
// (144 columns) in one sweep.
constexpr int kSweep = 5;
// Rows of V that a thread loads at once, before it uses them; two such sets alternate.
constexpr int kAhead = 4;

struct BlockPlan {
    int32_t elements;        // per column
    int32_t key_columns;     // of a row of K
    int32_t padded_columns;  // rounded up to whole sweeps; the query is padded with zeros
    int32_t split_columns;   // of a row of V, for one block
    int32_t splits;          // blocks per group; each of them reads all of K
    int32_t threads;
    int32_t slices;
    size_t shared_bytes;  // dynamic shared memory: the query, then the slices' sums
};

HICOM_EDGE_HOST_DEVICE int32_t round_up(int32_t size, int32_t multiple) {
    return (size + multiple - 1) / multiple * multiple;
}

HICOM_EDGE_HOST_DEVICE BlockPlan plan_block(int32_t dk, int32_t dv, int32_t elements) {
    BlockPlan plan;
    const int32_t value_columns = dv / elements;
    plan.elements = elements;
    plan.key_columns = dk / elements;
    plan.padded_columns = round_up(plan.key_columns, kSweep * kWarp);
    plan.splits = (value_columns + kMaxThreads - 1) / kMaxThreads;
    plan.split_columns = (value_columns + plan.splits - 1) / plan.splits;
    const int32_t threads = round_up(plan.split_columns, kWarp);
    plan.threads = threads < kMinThreads ? kMinThreads : threads;
    plan.slices = plan.threads / plan.split_columns;
    const int32_t query = plan.padded_columns * elements;
    const int32_t sums = plan.slices > 1 ? plan.threads * (elements + 1) : 0;
    plan.shared_bytes = sizeof(float) * static_cast<size_t>(query > sums ? query : sums);
    return plan;
}

}  // namespace hicom_edge
