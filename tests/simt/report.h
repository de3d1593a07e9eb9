/* What a test reads and sets: the errors that emulated launches made, their memory traffic, and how
 * they ran. C and C++. Nothing here aborts: an erroneous launch goes on as far as it can, or is
 * abandoned as a card would abandon it, and the report tells. */
#ifndef TESTS_SIMT_REPORT_H
#define TESTS_SIMT_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */
#define SIMT_KINDS(KIND)                                                                           \
    KIND(LAUNCH_GRID, "grid of no blocks or too many")                                             \
    KIND(LAUNCH_THREADS, "block of no threads or too many")                                        \
    KIND(LAUNCH_SHARED, "too much shared memory")                                                  \
    KIND(BARRIER_DIVERGENCE, "threads of a block at different barriers")                           \
    KIND(BARRIER_EXIT, "thread exited before a barrier that others reached")                       \
    KIND(MASK_CALLER, "caller not in its own mask")                                                \
    KIND(MASK_LANE, "lane named in the mask did not arrive")                                       \
    KIND(SHUFFLE_SOURCE, "shuffle from a lane that takes no part")                                 \
    KIND(TENSOR_DIVERGENCE, "mma or ldmatrix without all 32 lanes")                                \
    KIND(TENSOR_OPERAND, "tf32 operand that was not rounded")                                      \
    KIND(SHARED_BOUNDS, "shared access out of bounds")                                             \
    KIND(SHARED_UNWRITTEN, "read of shared memory never written")                                  \
    KIND(SHARED_RACE, "race in shared memory")                                                     \
    KIND(ARRAY_BOUNDS, "index out of an array's bounds")                                           \
    KIND(GLOBAL_BOUNDS, "global access out of bounds")                                             \
    KIND(GLOBAL_RACE, "race in global memory")                                                     \
    KIND(WILD_ACCESS, "access to memory that no kernel can reach")                                 \
    KIND(MISALIGNED, "misaligned access")                                                          \
    KIND(ASYNC_WAIT, "cp.async destination used before its wait")                                  \
    KIND(ASYNC_COMMIT, "cp.async never committed")                                                 \
    KIND(ASYNC_PENDING, "thread exited with cp.async pending")                                     \
    KIND(ASYNC_SOURCE, "cp.async source changed before the copy")                                  \
    KIND(ASYNC_SIZE, "cp.async source longer than its destination")
/* clang-format on */

enum simt_kind {
#define KIND(name, meaning) SIMT_##name,
    SIMT_KINDS(KIND)
#undef KIND
        SIMT_KIND_COUNT
};

enum { SIMT_TEXTS = 16, SIMT_TEXT_LENGTH = 480 };

/* All errors since simt_reset. A place in the source has a text only once per kind. */
struct simt_report {
    uint64_t count, kinds[SIMT_KIND_COUNT];
    int texts;
    enum simt_kind text_kind[SIMT_TEXTS];
    char text[SIMT_TEXTS][SIMT_TEXT_LENGTH];
};

/* A request is what the lanes of a warp access by the same instruction, the same number of times
 * since they last converged (a barrier, or a _sync operation of all lanes that have not exited).
 * ideal_sectors is how few 32-byte sectors could hold the distinct bytes. */
struct simt_traffic {
    uint64_t requests, sectors, ideal_sectors;
};

/* Wavefronts beyond the first of each 32, 16 or 8 lanes (4, 8, 16 bytes a lane). */
struct simt_banks {
    uint64_t requests, conflicts;
};

/* Of the last launch. cp.async counts as a load from global and a store to shared memory; an atomic
 * as a store. */
struct simt_counters {
    struct simt_traffic global_load, global_store;
    struct simt_banks shared_load, shared_store;
    uint64_t tensor_instructions, tensor_multiply_adds;
    uint64_t accesses; /* by single threads, to global and shared memory */
};

struct simt_options {
    uint64_t seed;    /* of the order in which threads run */
    int architecture; /* 75 80 86 89 90 100 103 120 121: limits, and how mma accumulates */
    /* CUDA lets threads exit before a barrier; our kernels do it by mistake. */
    bool allow_exit_before_barrier;
};

struct simt_options simt_default_options(void);
/* Sets the options, forgets all errors and opt-ins to more shared memory. */
void simt_reset(const struct simt_options *options);
const struct simt_report *simt_errors(void);
const struct simt_counters *simt_last_counters(void);

/* Those since simt_reset, in order, as far as they were within the limits. */
struct simt_launch {
    const char *kernel;
    struct simt_counters counters;
};
int simt_launches(void);
const struct simt_launch *simt_launch_number(int launch);
const char *simt_kind_name(enum simt_kind kind);
/* False in a build (ASan) that runs kernels without watching their accesses. */
bool simt_watches_accesses(void);

/* Calls of the host, since simt_forget_calls; in_loops: those made while a graph with a loop was under
 * way. Copies include memory set; launches are those outside graphs. graph_copies are no calls but the
 * copies that graphs made; in_loops: those in a loop's body. */
struct simt_calls {
    uint64_t allocations, copies, synchronisations, launches, graph_launches, graph_copies;
    struct {
        uint64_t allocations, copies, synchronisations, launches, graph_launches, graph_copies;
    } in_loops;
};
const struct simt_calls *simt_host_calls(void);
void simt_forget_calls(void);

#ifdef __cplusplus
}
#endif
#endif
