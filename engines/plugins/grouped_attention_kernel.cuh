// The kernel of grouped attention.
//
// It is memory-bound, with one multiplication per element of K and V. So the design keeps enough
// bytes in flight and reads none of them twice.
//
// The grid has one block per group. A group of the released model (36 members of 1152 channels, 16
// bits) is 166 KB, which takes a multiprocessor several microseconds at its share of the bandwidth:
// long enough to hide the start of blocks (a persistent loop over groups would gain nothing), and
// short enough for an even end. Five such blocks fit on a multiprocessor; on an H200 all 648 groups
// of 32 frames are resident at once.
//
// A block processes the members in tiles. In the first half of a tile each warp takes rows of K,
// whose dot products its lanes share. In the second half each thread takes a column of V and keeps
// its sums in registers, so that it holds one column of the output for any d. The first rows of V
// are requested before K is used, so that memory stays busy across the barrier between the halves.
//
// Loads in flight need registers, and registers limit the number of blocks: 72 per thread, see
// block_plan.h. benchmarks/grouped_attention_sass.py prints what the compiler made of this file.
#pragma once

#include "block_plan.h"
#include "elements.cuh"
#include "grouped_attention.h"
#include "online_softmax.h"
#include "window_rule.h"

namespace hicom_edge {

constexpr unsigned kAllLanes = 0xffffffffu;

#ifdef __CUDACC__
__device__ __forceinline__ float* dynamic_shared() {
    extern __shared__ float4 memory[];  // float4, because it is read 16 bytes at a time
    return reinterpret_cast<float*>(memory);
}
#endif

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(kAllLanes, x, distance);
    }
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
    }
    return x;
}

// Row `index` of an array. Unsigned numbers make the product one instruction instead of four.
template <typename T>
__device__ __forceinline__ const T* row_of(const T* rows, int32_t index, int32_t elements) {
    return rows + static_cast<uint64_t>(static_cast<uint32_t>(index)) *
                      static_cast<uint32_t>(elements);
}

// Stores the scaled query in shared memory as float32: four elements of all columns, then the next
// four, so that neighbouring lanes read neighbouring 16 bytes. Padding columns are zeros.
template <typename T, int N>
__device__ void stage_query(float* staged, const T* query, float scale, const BlockPlan& plan) {
    for (int column = threadIdx.x; column < plan.padded_columns; column += blockDim.x) {
        float x[N];
        Column<T, N>::load_if(column < plan.key_columns, query + column * N).unpack(x);
#pragma unroll
        for (int e = 0; e < N; ++e) {
            const int width = N < 4 ? N : 4;
            staged[(e / width * plan.padded_columns + column) * width + e % width] = x[e] * scale;
        }
    }
}

template <int N>
__device__ __forceinline__ void staged_column(const float* staged, int column,
                                              const BlockPlan& plan, float (&x)[N]) {
    if constexpr (N == 1) {
        x[0] = staged[column];
    } else {
        const float4* quads = reinterpret_cast<const float4*>(staged);
#pragma unroll
        for (int i = 0; i < N / 4; ++i) {
            const float4 quad = quads[i * plan.padded_columns + column];
            x[4 * i] = quad.x;
            x[4 * i + 1] = quad.y;
            x[4 * i + 2] = quad.z;
            x[4 * i + 3] = quad.w;
        }
    }
}

// This lane's part of a row's dot product; `at` is the lane's first column.
template <typename T, int N>
__device__ __forceinline__ float partial_dot(const float* staged, const T* at,
                                             const BlockPlan& plan) {
    float dot = 0.0f;
    for (int sweep = threadIdx.x % kWarp; sweep < plan.padded_columns; sweep += kSweep * kWarp) {
        Column<T, N> columns[kSweep];
#pragma unroll
        for (int s = 0; s < kSweep; ++s) {
            const bool exists = sweep + s * kWarp < plan.key_columns;
            columns[s] = Column<T, N>::load_if(exists, at + s * kWarp * N);
        }
        at += kSweep * kWarp * N;
#pragma unroll
        for (int s = 0; s < kSweep; ++s) {
            float q[N], k[N];
            staged_column<N>(staged, sweep + s * kWarp, plan, q);
            columns[s].unpack(k);
#pragma unroll
            for (int e = 0; e < N; ++e) {
                dot = fmaf(q[e], k[e], dot);
            }
        }
    }
    return dot;
}

// Scores of a tile, whose members are distributed over the warps. One row per warp is 2304 bytes in
// flight for each of some 25 warps of a multiprocessor: by estimate twice what hides the latency of
// an H200.
template <typename T, int N>
__device__ __forceinline__ void score_members(float* scores, const float* staged, const T* key,
                                              int32_t dk, const int32_t* positions, int count,
                                              const BlockPlan& plan) {
    const int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
    key += lane * N;
    for (int m = threadIdx.x / kWarp; m < count; m += warps) {
        const T* columns = row_of(key, positions[m], dk);
        const float score = warp_sum(partial_dot<T, N>(staged, columns, plan));
        if (lane == 0) {
            scores[m] = score;
        }
    }
}

__device__ __forceinline__ float score_or_none(const float* scores, int m, int count) {
    return m < count ? scores[m] : -INFINITY;
}

__device__ __forceinline__ float largest_of(const float* scores, int count) {
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kTile / kWarp; ++i) {
        largest = fmaxf(largest, score_or_none(scores, threadIdx.x % kWarp + i * kWarp, count));
    }
    return warp_max(largest);
}

// Loads the next kAhead rows of this thread's column of V, from member m on, in steps of `slices`.
template <typename T, int N>
__device__ __forceinline__ void load_ahead(Column<T, N> (&ahead)[kAhead], const T* column,
                                           int32_t dv, const int32_t* positions, int m, int count,
                                           int slices) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
        const int member = m + i * slices;
        // Past the end nothing is loaded, but the address must be valid: that of position 0.
        const int32_t position = member < count ? positions[member] : 0;
        ahead[i] = Column<T, N>::load_if(member < count, row_of(column, position, dv));
    }
}

template <typename T, int N>
__device__ __forceinline__ void add_rows(RunningMean<N>& mean, const Column<T, N> (&rows)[kAhead],
                                         const float* scores, int m, int count, int slices) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
        float v[N];
        rows[i].unpack(v);
        mean.add(score_or_none(scores, m + i * slices, count), v);
    }
}

// Two sets of rows alternate: one is loaded while the other is used. Copying one set into the other
// would be shorter, but the copy would wait for the loads and leave none in flight.
template <typename T, int N>
__device__ __forceinline__ void add_values(RunningMean<N>& mean, Column<T, N> (&ahead)[kAhead],
                                           const float* scores, const T* column, int32_t dv,
                                           const int32_t* positions, int slice, int count,
                                           int slices) {
    const int step = kAhead * slices;
    for (int m = slice; m < count; m += 2 * step) {
        Column<T, N> next[kAhead];
        load_ahead<T, N>(next, column, dv, positions, m + step, count, slices);
        add_rows<T, N>(mean, ahead, scores, m, count, slices);
        load_ahead<T, N>(ahead, column, dv, positions, m + 2 * step, count, slices);
        add_rows<T, N>(mean, next, scores, m + step, count, slices);
    }
}

// Adds up the sums of a column's slices in slice 0. All threads used the same largest scores, so
// the sums need no correction. `sums` reuses the memory of the query, which the caller's last
// barrier has freed.
template <int N>
__device__ void join_slices(RunningMean<N>& mean, float* sums, const BlockPlan& plan) {
    const int threads = blockDim.x, thread = threadIdx.x;
#pragma unroll
    for (int e = 0; e < N; ++e) {
        sums[e * threads + thread] = mean.columns[e];
    }
    sums[N * threads + thread] = mean.weights;
    __syncthreads();
    if (thread >= plan.split_columns) {
        return;
    }
    for (int slice = 1; slice < plan.slices; ++slice) {
        const int other = slice * plan.split_columns + thread;
#pragma unroll
        for (int e = 0; e < N; ++e) {
            mean.columns[e] += sums[e * threads + other];
        }
        mean.weights += sums[N * threads + other];
    }
}

template <typename T, int N>
__global__ void __launch_bounds__(kMaxThreads, kMinBlocks)
    grouped_attention_kernel(const GroupedAttentionParams p, const GridWindows windows,
                             const BlockPlan plan) {
    __shared__ int32_t positions[kTile];
    __shared__ float scores[kTile];
    float* staged = dynamic_shared();
    const int thread = threadIdx.x;

    const int32_t ww = plan.splits == 1 ? blockIdx.x : blockIdx.x / plan.splits;
    const int32_t split = blockIdx.x - ww * plan.splits;
    const int32_t group = windows.group(blockIdx.z, blockIdx.y, ww);
    const int32_t members = windows.members();
    const T* key = static_cast<const T*>(p.key);

    const int slice = thread / plan.split_columns;
    const int column = split * plan.split_columns + thread - slice * plan.split_columns;
    const bool active = slice < plan.slices && column < p.dv / N;
    const T* values = static_cast<const T*>(p.value);
    const T* value = active ? values + column * N : nullptr;  // null: this thread works on K only

    RunningMean<N> mean;
    for (int first = 0; first < members; first += kTile) {
        const int count = min(kTile, members - first);
        const int own = value != nullptr ? count : 0;
        if (thread < count) {
            // Computed here and not before the loop, where it would occupy a register.
            positions[thread] = windows.first_position(blockIdx.z, blockIdx.y, ww) +
                                windows.offset(first + thread);
        }
        __syncthreads();
        Column<T, N> ahead[kAhead];
        load_ahead<T, N>(ahead, value, p.dv, positions, slice, own, plan.slices);
        if (first == 0) {
            const int64_t row = p.num_queries == 1 ? 0 : group;
            stage_query<T, N>(staged, static_cast<const T*>(p.query) + row * p.dk, p.scale * kLog2E,
                              plan);
            __syncthreads();
        }
        score_members<T, N>(scores, staged, key, p.dk, positions, count, plan);
        __syncthreads();
        mean.raise_largest(largest_of(scores, count));
        add_values<T, N>(mean, ahead, scores, value, p.dv, positions, slice, own, plan.slices);
        __syncthreads();  // the next tile or the slices' sums overwrite shared memory
    }
    if (plan.slices > 1) {
        join_slices<N>(mean, staged, plan);
    }
    if (value != nullptr && slice == 0) {
        const float share = 1.0f / mean.weights;
#pragma unroll
        for (int e = 0; e < N; ++e) {
            mean.columns[e] *= share;
        }
        T* output = static_cast<T*>(p.output) + static_cast<int64_t>(group) * p.dv;
        Column<T, N>::store(output + (value - values), mean.columns);
    }
}

}  // namespace hicom_edge
