/* What the tests' own cuDNN and cuBLAS share: one product in double over values in f32 or bf16, and
 * refusals that say where. They insist on what the real ones document, and on what the engine
 * promises besides. */
#ifndef TESTS_SIMT_LIBRARIES_LIBRARY_H
#define TESTS_SIMT_LIBRARIES_LIBRARY_H

#include "kernels/bfloat16.h"
#include "tests/simt/enqueue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition, status)                                                                 \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: refused: %s\n", __FILE__, __LINE__, #condition);               \
            return status;                                                                         \
        }                                                                                          \
    } while (0)

static inline double value_at(const void *values, bool bf16, size_t i)
{
    return bf16 ? float_from_bfloat16(static_cast<const uint16_t *>(values)[i])
                : static_cast<const float *>(values)[i];
}

static inline void store_at(void *values, bool bf16, size_t i, double value)
{
    if (bf16)
        static_cast<uint16_t *>(values)[i] = bfloat16_from_float((float)value);
    else
        static_cast<float *>(values)[i] = (float)value;
}

/* alpha*sum + beta*old, where old is not read for beta 0. */
static inline void store_scaled(void *values, bool bf16, size_t i, double sum, float alpha,
                                float beta)
{
    store_at(values, bf16, i, alpha * sum + (beta != 0 ? beta * value_at(values, bf16, i) : 0));
}

/* What a run may have left in its workspace. */
static inline void spoil(void *workspace, size_t bytes)
{
    if (bytes)
        memset(workspace, 0xff, bytes);
}

/* The variable of that name says how many threads the emulator's clock counts: 1 by default, so
 * that nothing is faster. */
template <typename Job>
static inline void enqueue(void *stream, const char *variable, const Job &job)
{
    const char *threads = getenv(variable);
    void *copy = malloc(sizeof job);
    if (!copy)
        abort();
    memcpy(copy, &job, sizeof job);
    simt_enqueue(
        stream, threads ? strtoull(threads, nullptr, 10) : 1,
        [](const void *context) { static_cast<const Job *>(context)->run(); }, copy);
}

static inline bool aligned(const void *pointer, size_t bytes)
{
    return pointer && reinterpret_cast<size_t>(pointer) % bytes == 0;
}

#endif
