#include "bench/card/convolutions.h"
#include "kernels/cuda/launch.cuh"

#include <math.h>

/* Milliseconds of `count` calls on the stream, which waits for them. */
static float batch_ms(void (*run)(void *context), void *context, cudaStream_t stream, int count,
                      cudaEvent_t begin, cudaEvent_t end)
{
    float ms = NAN;
    cudaEventRecord(begin, stream);
    for (int i = 0; i < count; i++)
        run(context);
    cudaEventRecord(end, stream);
    cudaEventSynchronize(end);
    return cudaEventElapsedTime(&ms, begin, end) == cudaSuccess ? ms : NAN;
}

double card_ms(void (*run)(void *context), void *context, void *stream, int repetitions)
{
    const float long_enough_ms = 2; /* for an event's resolution of half a microsecond */
    cudaEvent_t begin, end;
    cudaEventCreate(&begin);
    cudaEventCreate(&end);
    cudaStream_t on = static_cast<cudaStream_t>(stream);
    float once = batch_ms(run, context, on, 1, begin, end);
    int count = once < long_enough_ms ? (int)(long_enough_ms / fmaxf(once, 0.01f)) : 1;
    float least = INFINITY;
    for (int i = 0; i < repetitions; i++)
        least = fminf(least, batch_ms(run, context, on, count, begin, end) / count);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return cudaGetLastError() == cudaSuccess && isfinite(once) ? least : NAN;
}
