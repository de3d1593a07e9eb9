#include "tests/simt/device.h"
#include "tests/simt/simt.h"

void *device_memory(const void *values, size_t bytes)
{
    void *memory = nullptr;
    if (!bytes)
        return memory;
    cudaMalloc(&memory, bytes);
    if (values)
        cudaMemcpy(memory, values, bytes, cudaMemcpyHostToDevice);
    else
        cudaMemset(memory, 0xff, bytes);
    return memory;
}

void device_read(void *values, const void *memory, size_t bytes)
{
    cudaMemcpy(values, memory, bytes, cudaMemcpyDeviceToHost);
}

void device_release(void *memory)
{
    cudaFree(memory);
}
