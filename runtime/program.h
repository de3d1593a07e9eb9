/* A program: the tapes of one solve, the state they share, one arena for all of it, and replay.
 *
 * Life: program_create; declare state and constants; record tapes; program_plan (offsets; nothing
 * allocated; prints as a table); program_prepare (one allocation, weights packed, constants copied,
 * state zeroed); then program_write / run / read any number of times without allocation.
 *
 * The arena holds the pinned state and constants, then one region that every tape reuses: as large
 * as the largest tape's plan. Values get offsets by best fit over their lifetimes; an output may
 * take its dying input's place where the kernel allows.
 *
 * Under a memory limit a program on a device first offloads weights that no loop needs, those first
 * that cost the least copying: they stay in pinned host memory, and each convolution that needs one
 * finds it in the shared region, where it was uploaded just before. Then, as always on the CPU, a
 * tape that has a backward part recomputes forward segments until it fits. Neither changes a byte
 * of a result. Where that is not enough, and the kernels have them, convolutions take smaller forms
 * of their weights, which round otherwise. */
#ifndef RUNTIME_PROGRAM_H
#define RUNTIME_PROGRAM_H

#include "runtime/tape.h"

#include <signal.h>
#include <stdio.h>

struct memory_report {
    size_t weights_bytes;     /* packed parameters, without those offloaded */
    size_t offloaded_bytes;   /* of weights in pinned host memory; not part of the total */
    size_t pinned_bytes;      /* state and constants */
    size_t activations_bytes; /* the largest tape, its workspaces left out */
    size_t workspace_bytes;   /* what that tape's kernels add to it */
    size_t total_bytes;
    size_t peak_live_bytes; /* of the largest tape: no plan can be smaller */
    int recomputed_nodes;
    double upload_bytes; /* of offloaded weights, by all expected replays */
    bool small_weights;  /* convolutions take their weight's smaller form */
};

/* Called after iterations of a loop's body: each of them on the host; on a device, whose loops do
 * not wait, some of them. watched: the watched scalar as that iteration left it (0 if none is). No
 * state may be read or written here. Return false to stop the program (STATUS_INTERRUPTED). */
struct program_hooks {
    bool (*after_iteration)(void *context, int64_t iteration, double watched);
    void *context;
    const volatile sig_atomic_t *cancelled; /* checked between nodes; may be NULL */
};

/* real: TYPE_F32, or TYPE_F64 with kernels_plain_f64(). NULL on no memory. */
struct program *program_create(const struct kernels *kernels, enum element_type real, int threads);
void program_free(struct program *program);
const struct kernels *program_kernels(const struct program *program);
enum element_type program_real(const struct program *program);

/* State: zeroed by program_prepare, pinned. TYPE_F32 or TYPE_F64 both mean "real". Returns a slot.
 */
int program_state(struct program *program, const char *name, enum element_type type,
                  const int64_t shape[4]);
/* The real scalar that loops show to after_iteration. Before program_prepare. */
void program_watch(struct program *program, int slot);
/* Constants: values are copied now. _real takes doubles and stores the program's real type. */
int program_constant_real(struct program *program, const char *name, const int64_t shape[4],
                          const double *values);
int program_constant_f64(struct program *program, const char *name, const int64_t shape[4],
                         const double *values);
int program_constant_i32(struct program *program, const char *name, const int64_t shape[4],
                         const int32_t *values);
/* Each distinct constant content is stored once per call; names are for messages. */

struct tape *program_tape(struct program *program, const char *name);
const char *tape_name(const struct tape *tape);

/* How often a whole run replays this tape, at most; 1 where it is not said. Before program_plan,
 * which offloads the weights of rare tapes first. */
void program_expect(struct tape *tape, int64_t replays);
/* memory_limit_bytes 0: none. Fails with STATUS_BAD_INPUT, naming the least that fits. */
int program_plan(struct program *program, size_t memory_limit_bytes, struct status *status);
void program_memory(const struct program *program, struct memory_report *report);
/* The bytes that a replay of the tape uploads, and how many replays are expected. */
struct tape_uploads {
    size_t bytes;
    int64_t replays;
};
struct tape_uploads program_uploads(const struct tape *tape);
void program_print_plan(const struct program *program, FILE *file); /* each tape, largest values */
/* Bytes that every value of a tape occupies, for tests of the planner: calls visit with lifetime
 * [first, last] (positions in the replay order), offset and bytes in the arena's shared region. */
void program_visit_plan(const struct program *program, const struct tape *tape,
                        void (*visit)(void *context, int first, int last, size_t offset,
                                      size_t bytes),
                        void *context);

/* The kernel calls of a planned tape in replay order: labels, attributes, and tensors with shapes
 * but no memory (an absent one has no elements). Loops are left out: their bodies are tapes. */
void program_visit_calls(const struct tape *tape,
                         void (*visit)(void *context, enum kernel_id kernel, const char *label,
                                       const struct kernel_call *call),
                         void *context);

int program_prepare(struct program *program, struct status *status);

/* Copies between host arrays and state. Floats on the host; f64 programs convert. The nchw forms
 * convert between the host's [N,C,H,W] and the engine's layout. */
void program_write(struct program *program, int slot, const float *values);
void program_read(const struct program *program, int slot, float *values);
void program_write_nchw(struct program *program, int slot, const float *values);
void program_read_nchw(const struct program *program, int slot, float *values);
void program_write_i32(struct program *program, int slot, const int32_t *values);
void program_read_i32(const struct program *program, int slot, int32_t *values);
void program_write_f64(struct program *program, int slot, const double *values); /* real state */
void program_read_f64(const struct program *program, int slot, double *values);  /* real state */
void program_zero(struct program *program, int slot);
double program_read_scalar(const struct program *program, int slot);
const int64_t *program_shape(const struct program *program, int slot);

/* Replays a tape. check: looks at every node's results and fails (STATUS_FAILURE) at the first that
 * is not finite, naming label and op. Returns a status code. */
int program_run(struct program *program, struct tape *tape, const struct program_hooks *hooks,
                struct status *status);
int program_run_checked(struct program *program, struct tape *tape, struct status *status);
/* Iterations that the last run of this loop body made (counting the one that exited). */
int64_t program_iterations(const struct tape *body);

/* Seconds per (label, op), accumulated over runs when profiling is on. */
void program_profile(struct program *program, bool on);
void program_print_profile(const struct program *program, FILE *file);

#endif
