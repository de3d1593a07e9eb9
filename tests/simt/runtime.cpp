/* The CUDA run-time calls that host code makes beside its launches. */
#include "tests/simt/internal.h"

#include <map>
#include <stdlib.h>
#include <string.h>

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    simt::count_allocation();
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
    simt::wait_for_streams(); /* what is queued may still use it */
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
    simt::wait_for_streams();
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t code)
{
    return code == cudaSuccess                         ? "no error"
           : code == cudaErrorMemoryAllocation         ? "out of memory"
           : code == cudaErrorInvalidConfiguration     ? "invalid configuration argument"
           : code == cudaErrorNoDevice                 ? "no CUDA-capable device is detected"
           : code == cudaErrorLaunchFailure            ? "unspecified launch failure"
           : code == cudaErrorStreamCaptureUnsupported ? "operation not permitted when capturing"
                                                       : "invalid argument";
}

/* SIMT_CARDS=0: none. */
cudaError_t cudaGetDeviceCount(int *count)
{
    const char *cards = getenv("SIMT_CARDS");
    *count = cards ? atoi(cards) : 1;
    return *count ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int)
{
    *properties = {"emulated card", 8, 0};
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

/* Pinned memory: where each piece begins, and its bytes. */
static std::map<const char *, size_t> pinned;

bool simt::is_pinned(const void *pointer, size_t bytes)
{
    const char *first = static_cast<const char *>(pointer);
    auto next = pinned.upper_bound(first);
    if (next == pinned.begin())
        return false;
    auto piece = std::prev(next);
    return first + bytes <= piece->first + piece->second;
}

/* SIMT_PINNED_BYTES: the largest piece that there is. */
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned)
{
    const char *most = getenv("SIMT_PINNED_BYTES");
    *pointer = nullptr;
    if (most && bytes > strtoull(most, nullptr, 10))
        return cudaErrorMemoryAllocation;
    cudaError_t code = cudaMalloc(pointer, bytes);
    if (code == cudaSuccess)
        pinned[static_cast<char *>(*pointer)] = bytes;
    return code;
}

cudaError_t cudaHostGetDevicePointer(void **mapped, void *pointer, unsigned)
{
    *mapped = pointer;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *pointer)
{
    pinned.erase(static_cast<char *>(pointer));
    return cudaFree(pointer);
}
