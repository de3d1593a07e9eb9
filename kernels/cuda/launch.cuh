/* LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...) is kernel<<<...>>>(arguments...)
 * on a card, and runs in the SIMT emulator (tests/simt) where the host compiler builds this file. A
 * kernel with commas in its template arguments goes in parentheses. */
#ifndef KERNELS_CUDA_LAUNCH_CUH
#define KERNELS_CUDA_LAUNCH_CUH

#ifdef __CUDACC__
#include <cuda_runtime.h>
enum { EMULATED = 0 };
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#else
enum { EMULATED = 1 };
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    simt_launch(kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)
#endif

#endif
