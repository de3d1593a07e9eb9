/* The tests' view of a real card, in the emulator's place (`make gpu-check`): device memory, and
 * errors as the CUDA run-time reports them. Nothing is watched or counted. */
#include "tests/simt/device.h"
#include "tests/simt/report.h"

#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>

static simt_report errors;

static void expect(cudaError_t code)
{
    if (code == cudaSuccess)
        return;
    if (errors.texts < SIMT_TEXTS)
        snprintf(errors.text[errors.texts++], SIMT_TEXT_LENGTH, "%s", cudaGetErrorString(code));
    errors.count++;
}

void *device_memory(const void *values, size_t bytes)
{
    void *memory = NULL;
    if (!bytes)
        return memory;
    expect(cudaMalloc(&memory, bytes));
    if (values)
        expect(cudaMemcpy(memory, values, bytes, cudaMemcpyHostToDevice));
    else
        expect(cudaMemset(memory, 0xff, bytes));
    return memory;
}

void device_read(void *values, const void *memory, size_t bytes)
{
    expect(cudaMemcpy(values, memory, bytes, cudaMemcpyDeviceToHost));
}

void device_release(void *memory)
{
    expect(cudaFree(memory));
}

struct simt_options simt_default_options(void)
{
    struct simt_options options = {1, 80, false};
    return options;
}

void simt_reset(const struct simt_options *)
{
    errors = simt_report();
}

const struct simt_report *simt_errors(void)
{
    expect(cudaGetLastError());
    expect(cudaDeviceSynchronize());
    return &errors;
}

const struct simt_counters *simt_last_counters(void)
{
    static const simt_counters none = {};
    return &none;
}

int simt_launches(void)
{
    return 0;
}

const struct simt_launch *simt_launch_number(int)
{
    abort();
}

bool simt_watches_accesses(void)
{
    return false;
}

const struct simt_calls *simt_host_calls(void)
{
    return NULL;
}

void simt_forget_calls(void)
{
}
