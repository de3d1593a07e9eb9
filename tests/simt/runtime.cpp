/* The CUDA run-time calls that host code makes beside its launches. */
#include "tests/simt/internal.h"

#include <stdlib.h>
#include <string.h>

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    enum : size_t { ALIGNMENT = 256 };
    if (!simt::WATCHED) {
        *pointer = nullptr;
        /* exactly as long as asked for, so that ASan sees the first byte beyond */
        return posix_memalign(pointer, ALIGNMENT, bytes) ? cudaErrorMemoryAllocation : cudaSuccess;
    }
    *pointer = simt::allocate_global(bytes);
    return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *pointer)
{
    if (!pointer)
        return cudaSuccess;
    if (!simt::WATCHED) {
        free(pointer);
        return cudaSuccess;
    }
    return simt::free_global(pointer) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpy(void *target, const void *source, size_t bytes, cudaMemcpyKind)
{
    memmove(target, source, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *target, int value, size_t bytes)
{
    memset(target, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}
