// Online softmax: weights are relative to the largest score so far, and corrected when it grows.
//
// Scores are in base 2 (the query is multiplied by log2(e)), because 2^x is one instruction. A
// constant added to every score, such as the bias of the clip scale, cancels and is left out.
#pragma once

#include <cfloat>
#include <cmath>

#include "host_device.h"

namespace hicom_edge {

constexpr float kLog2E = 1.4426950408889634f;

// 2^(score - largest). On the GPU, weights under 2^-126 become zero, which saves four instructions.
HICOM_EDGE_HOST_DEVICE float softmax_weight(float score, float largest) {
#ifdef __CUDA_ARCH__
    float weight;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(weight) : "f"(score - largest));
    return weight;
#else
    return std::exp2(score - largest);
#endif
}

// Partial result of one thread: N columns of sum(weight * value), and sum(weight).
template <int N>
struct RunningMean {
    // Not -inf, so that a score of -inf gets the weight 2^-inf = 0 and not 2^(inf - inf) = NaN.
    float largest = -FLT_MAX;
    float weights = 0.0f;
    float columns[N] = {};

    // Must be called before `add` for scores of which `score` is the largest.
    HICOM_EDGE_HOST_DEVICE void raise_largest(float score) {
        if (score <= largest) {
            return;
        }
        const float correction = softmax_weight(largest, score);  // first: of zero sums
        weights *= correction;
#pragma unroll
        for (int e = 0; e < N; ++e) {
            columns[e] *= correction;
        }
        largest = score;
    }

    HICOM_EDGE_HOST_DEVICE void add(float score, const float (&value)[N]) {
        const float weight = softmax_weight(score, largest);  // 0 for a score of -inf
        weights += weight;
#pragma unroll
        for (int e = 0; e < N; ++e) {
            columns[e] = std::fma(weight, value[e], columns[e]);
        }
    }
};

}  // namespace hicom_edge
