// The kernel itself, line for line, with its blocks run by cuda_on_host.h.

#include "cuda_on_host.h"

#include "grouped_attention_kernel.cuh"

using namespace hicom_edge;

namespace {

template <typename T, int N>
void run_grid(const GroupedAttentionParams& p, uint32_t seed) {
    const GridWindows windows{axis_windows(p.t, p.kt), axis_windows(p.h, p.kh),
                              axis_windows(p.w, p.kw)};
    const BlockPlan plan = plan_block(p.dk, p.dv, N);
    std::mt19937 random(seed);
    const auto columns = static_cast<uint32_t>(windows.w.count * plan.splits);
    for (uint32_t z = 0; z < static_cast<uint32_t>(windows.t.count); ++z) {
        for (uint32_t y = 0; y < static_cast<uint32_t>(windows.h.count); ++y) {
            for (uint32_t x = 0; x < columns; ++x) {
                blockIdx = {x, y, z};
                host_block::run(static_cast<uint32_t>(plan.threads), plan.shared_bytes, random,
                                [&] { grouped_attention_kernel<T, N>(p, windows, plan); });
            }
        }
    }
}

}  // namespace

// `wide`: 16 bytes a load, which the caller's sizes and buffers must allow.
extern "C" void kernel_on_host(const GroupedAttentionParams* params, int32_t wide, uint32_t seed) {
    switch (params->dtype) {
        case kFloat32:
            return wide ? run_grid<float, 4>(*params, seed) : run_grid<float, 1>(*params, seed);
        case kFloat16:
            return wide ? run_grid<__half, 8>(*params, seed) : run_grid<__half, 1>(*params, seed);
        default:
            return wide ? run_grid<__nv_bfloat16, 8>(*params, seed)
                        : run_grid<__nv_bfloat16, 1>(*params, seed);
    }
}
