// Functions that the kernel, the plugin and a plain C++ compiler share.
#pragma once

#ifdef __CUDACC__
#define HICOM_EDGE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HICOM_EDGE_HOST_DEVICE inline
#endif
