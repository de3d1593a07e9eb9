/* Where a program's memory lies when it is not the host's, and how its tapes are replayed there:
 * the interface between the runtime and a backend that may be a library opened at run time. A table
 * of kernels names its device (kernels.h).
 *
 * Everything is ordered on one stream. A recording turns what is launched on stream() into a graph;
 * loops are part of it, so that a whole run of iterations needs no word from the host. Functions
 * answer false or NULL where they failed; error() then says why, once. One host thread at a time.
 */
#ifndef RUNTIME_DEVICE_H
#define RUNTIME_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device_graph;

/* A loop's state in device memory; iterations is valid once the loop has ended. */
struct device_loop {
    int32_t iterations, exited;
};

/* What the host may look at while a graph runs: the innermost loop's progress. */
struct device_progress {
    int32_t iterations;
    float watched;
};

struct device {
    char name[64]; /* "NVIDIA A100-SXM4-80GB" */
    bool loops;    /* record_while and record_exit_if are there */
    /* Of the vendor's libraries, after open_libraries: "cuDNN 9.19.0, cuBLAS 13.1.0", what there
     * is; and why there is no cuDNN, or "". */
    char libraries[64], no_cudnn[160];

    void *(*allocate)(struct device *device, size_t bytes); /* 256-byte aligned, zeroed */
    void (*release)(struct device *device, void *memory);
    /* `host`, which is not pinned, may change on return. */
    bool (*write)(struct device *device, void *to, const void *host, size_t bytes);
    /* Waits for all that went before. */
    bool (*read)(struct device *device, void *host, const void *from, size_t bytes);
    bool (*zero)(struct device *device, void *to, size_t bytes);
    /* Host memory that the device copies from by itself. */
    void *(*allocate_pinned)(struct device *device, size_t bytes);
    void (*release_pinned)(struct device *device, void *pinned);
    /* On stream(), so that it can be recorded: reads `pinned` when its turn comes. */
    bool (*upload)(struct device *device, void *to, const void *pinned, size_t bytes);
    void *(*stream)(struct device *device); /* for a struct kernel_call made now */
    /* What the card spends on all that is launched from time_begin on; time_end_ms waits for it and
     * is negative where that failed. */
    bool (*time_begin)(struct device *device);
    double (*time_end_ms)(struct device *device);

    /* Lets kernels call the vendor's libraries, where there are any. They take memory of their own.
     */
    void (*open_libraries)(struct device *device);

    bool (*record_begin)(struct device *device);
    /* What follows, up to record_end_while, is the body of a loop of at most `limit` iterations;
     * after each of them *watched (may be NULL) is shown to the host. */
    bool (*record_while)(struct device *device, struct device_loop *loop, int64_t limit,
                         const float *watched);
    /* The rest of the innermost loop's body runs only where *stop is 0; else the loop ends. Outside
     * a loop, the rest of the tape. */
    bool (*record_exit_if)(struct device *device, const int32_t *stop);
    bool (*record_end_while)(struct device *device);
    /* NULL where anything since record_begin failed. */
    struct device_graph *(*record_end)(struct device *device);
    void (*free_graph)(struct device *device, struct device_graph *graph);

    bool (*launch)(struct device *device, struct device_graph *graph);
    /* True when all has run, or failed. Never waits. */
    bool (*finished)(struct device *device);
    struct device_progress (*progress)(struct device *device);
    void (*cancel)(
        struct device *device); /* ends the running graph's loops after their iteration */

    /* What went wrong since the last call, or NULL. */
    const char *(*error)(struct device *device);
};

#endif
