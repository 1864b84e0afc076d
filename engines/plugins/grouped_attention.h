// Launches grouped attention on the GPU. Needs only CUDA's headers.
//
// For each window of the (t, h, w) grid: softmax(scale * query . key) over its members, and the
// weighted mean of their values. Tensors are dense, row-major and of one dtype; the arithmetic is
// float32. The caller owns all buffers. Buffers need no alignment, but 16-byte loads are used only
// if they are aligned.
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
    int32_t kt, kh, kw;   // window size; an axis shorter than it is one window
    int32_t num_queries;  // 1 (shared by all groups) or the number of groups
    int32_t dtype;        // GroupedAttentionDtype
    float scale;  // of the scores; for the clip scale exp(logit_scale), whose bias cancels
};

// Number of groups; 0 if a size is not positive or positions do not fit into 32 bits.
int32_t groups_of(const GroupedAttentionParams& params);

// Launches on `stream` and returns at once. cudaErrorInvalidValue: wrong sizes or dtype, a null
// pointer, more than 65,535 windows along t or h (the limit of a launch), or a query of more
// channels than fit into 48 KB as float32 (about 12,000).
cudaError_t launch_grouped_attention(const GroupedAttentionParams& params, cudaStream_t stream);

}  // namespace hicom_edge

// The same functions for callers without C++ (ctypes).
extern "C" int hicom_edge_grouped_attention(const hicom_edge::GroupedAttentionParams* params,
                                            void* stream);
