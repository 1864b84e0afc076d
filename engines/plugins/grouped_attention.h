// Grouped attention on the GPU: what to compute and where it lies. Needs CUDA's headers alone.
//
// For each window of the (t, h, w) grid, softmax(scale * query . key) over its members, and the
// weighted mean of their values. Tensors are dense, row-major, all of one dtype; the arithmetic is
// float32. The caller owns every buffer; no buffer is aligned unless it wants the 16-byte loads.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace hicom_edge {

enum GroupedAttentionDtype : int32_t { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2 };

struct GroupedAttentionParams {
    const void* query;  // (num_queries, dk)
    const void* key;    // (t, h, w, dk)
    const void* value;  // (t, h, w, dv)
    void* output;       // (groups, dv), groups in (t, h, w) order
    int32_t t, h, w;
    int32_t dk, dv;
    int32_t kt, kh, kw;   // window; an axis shorter than it is one window
    int32_t num_queries;  // 1: shared by all groups; else the number of groups
    int32_t dtype;        // GroupedAttentionDtype
    float scale;  // factor of the scores; with the clip scale exp(logit_scale), its bias cancels
};

// Number of groups, and 0 when a size is not positive or positions do not fit in 32 bits.
int32_t groups_of(const GroupedAttentionParams& params);

// Launches on `stream` and returns at once. cudaErrorInvalidValue: sizes, dtype, a null pointer,
// more than 65,535 windows along t or h (a launch's limit), or a query of more channels than fit in
// 48 KB as float32 (about 12,000).
cudaError_t launch_grouped_attention(const GroupedAttentionParams& params, cudaStream_t stream);

}  // namespace hicom_edge

// The same for callers without C++ (ctypes).
extern "C" int hicom_edge_grouped_attention(const hicom_edge::GroupedAttentionParams* params,
                                            void* stream);
