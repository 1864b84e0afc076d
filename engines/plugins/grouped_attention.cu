// Chooses the kernel's template for given sizes and buffers, and launches it.

#include "grouped_attention.h"

#include <cstdint>

#include "grouped_attention_kernel.cuh"

namespace hicom_edge {
namespace {

constexpr size_t kSharedBytes = 48 * 1024 - (sizeof(int32_t) + sizeof(float)) * kTile;
constexpr int32_t kMaxGrid = 65535;  // of blocks, along y and z

template <typename T, int N>
cudaError_t launch(const GroupedAttentionParams& p, const GridWindows& windows,
                   cudaStream_t stream) {
    const BlockPlan plan = plan_block(p.dk, p.dv, N);
    if (plan.shared_bytes > kSharedBytes || windows.h.count > kMaxGrid ||
        windows.t.count > kMaxGrid) {
        return cudaErrorInvalidValue;
    }
    const auto columns = static_cast<unsigned>(windows.w.count * plan.splits);
    const dim3 blocks(columns, static_cast<unsigned>(windows.h.count),
                      static_cast<unsigned>(windows.t.count));
    const auto threads = static_cast<unsigned>(plan.threads);
    grouped_attention_kernel<T, N>
        <<<blocks, threads, plan.shared_bytes, stream>>>(p, windows, plan);
    return cudaGetLastError();
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <typename T>
cudaError_t launch_widest(const GroupedAttentionParams& p, const GridWindows& windows,
                          cudaStream_t stream) {
    constexpr int kWide = 16 / static_cast<int>(sizeof(T));
    const bool rows_aligned = p.dk % kWide == 0 && p.dv % kWide == 0;
    if (rows_aligned && aligned(p.query) && aligned(p.key) && aligned(p.value) &&
        aligned(p.output)) {
        return launch<T, kWide>(p, windows, stream);
    }
    return launch<T, 1>(p, windows, stream);
}

// Positions and groups must fit into 32 bits.
bool sizes_hold(const GroupedAttentionParams& p) {
    const int32_t sizes[] = {p.t, p.h, p.w, p.kt, p.kh, p.kw, p.dk, p.dv};
    for (const int32_t size : sizes) {
        if (size <= 0 || size > INT32_MAX / 2) {
            return false;
        }
    }
    const int64_t frame = static_cast<int64_t>(p.h) * p.w;
    return frame <= INT32_MAX && p.t <= INT32_MAX / frame;
}

GridWindows windows_of(const GroupedAttentionParams& p) {
    return {axis_windows(p.t, p.kt), axis_windows(p.h, p.kh), axis_windows(p.w, p.kw)};
}

}  // namespace

int32_t groups_of(const GroupedAttentionParams& p) {
    return sizes_hold(p) ? windows_of(p).groups() : 0;
}

cudaError_t launch_grouped_attention(const GroupedAttentionParams& p, cudaStream_t stream) {
    const bool buffers =
        p.query != nullptr && p.key != nullptr && p.value != nullptr && p.output != nullptr;
    if (!buffers || !sizes_hold(p)) {
        return cudaErrorInvalidValue;
    }
    const GridWindows windows = windows_of(p);
    if (p.num_queries != 1 && p.num_queries != windows.groups()) {
        return cudaErrorInvalidValue;
    }
    switch (p.dtype) {
        case kFloat32: return launch_widest<float>(p, windows, stream);
        case kFloat16: return launch_widest<__half>(p, windows, stream);
        case kBfloat16: return launch_widest<__nv_bfloat16>(p, windows, stream);
        default: return cudaErrorInvalidValue;
    }
}

}  // namespace hicom_edge

extern "C" int hicom_edge_grouped_attention(const hicom_edge::GroupedAttentionParams* params,
                                            void* stream) {
    if (params == nullptr) {
        return cudaErrorInvalidValue;
    }
    return hicom_edge::launch_grouped_attention(*params, static_cast<cudaStream_t>(stream));
}
