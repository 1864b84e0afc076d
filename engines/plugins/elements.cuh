// Loads fp32, fp16 or bf16 elements as float32, one element or 16 bytes at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

namespace hicom_edge {

template <int Bytes>
struct BitsOf;
template <>
struct BitsOf<2> {
    using Type = uint16_t;
};
template <>
struct BitsOf<4> {
    using Type = uint32_t;
};
template <>
struct BitsOf<16> {
    using Type = uint4;
};

// Loads 16 bytes, or returns zeros if the condition is false. K and V are read once, so L1 is
// bypassed: they would only evict each other. The condition is a predicate of the instruction, so
// that loads at constant distances share one address register; a branch around each load would take
// more registers and make the last load wait for the first.
__device__ __forceinline__ uint4 load_once_if(bool wanted, const uint4* at) {
    uint4 bits = {};
#ifdef __CUDA_ARCH__
    asm volatile(
        "{\n\t"
        ".reg .pred wanted;\n\t"
        "setp.ne.u32 wanted, %5, 0;\n\t"
        "@wanted ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n\t"
        "}"
        : "+r"(bits.x), "+r"(bits.y), "+r"(bits.z), "+r"(bits.w)
        : "l"(__cvta_generic_to_global(at)), "r"(static_cast<unsigned>(wanted)));
#else
    if (wanted) {
        bits = *at;
    }
#endif
    return bits;
}

// Element-wise loads use L1, because neighbouring lanes read the same sector.
template <typename Bits>
__device__ __forceinline__ Bits load_once_if(bool wanted, const Bits* at) {
#ifdef __CUDA_ARCH__
    return wanted ? __ldg(at) : Bits{};
#else
    return wanted ? *at : Bits{};
#endif
}

// N elements as stored in memory. Loading and unpacking are separate steps, so that many loads are
// in flight before the first value is needed.
template <typename T, int N>
struct Column {
    using Bits = typename BitsOf<sizeof(T) * N>::Type;
    Bits bits;

    static __device__ __forceinline__ Column load_if(bool wanted, const T* at) {
        return {load_once_if(wanted, reinterpret_cast<const Bits*>(at))};
    }

    __device__ __forceinline__ void unpack(float (&x)[N]) const {
        T elements[N];
        memcpy(static_cast<void*>(elements), &bits, sizeof bits);
#pragma unroll
        for (int e = 0; e < N; ++e) {
            x[e] = static_cast<float>(elements[e]);
        }
    }

    static __device__ __forceinline__ void store(T* at, const float (&x)[N]) {
        T elements[N];
#pragma unroll
        for (int e = 0; e < N; ++e) {
            elements[e] = static_cast<T>(x[e]);
        }
        Bits packed;
        memcpy(&packed, elements, sizeof packed);
        *reinterpret_cast<Bits*>(at) = packed;
    }
};

}  // namespace hicom_edge
