/* Measurement operators y = A(x) + noise: from a task file to nodes on a tape. A(.) is recorded on
 * tapes like a network; its VJP is the tape's, the exact transpose. Pictures x are [N,H,W,C] in
 * [-1,1] (operators.md). One file per operator; operators/registry.c lists them. */
#ifndef OPERATORS_OPERATOR_H
#define OPERATORS_OPERATOR_H

#include "runtime/program.h"

#include <stdint.h>

struct task; /* a parsed task file */

struct operator {
    const char *name;
    int64_t image_shape[4], measurement_shape[4]; /* NHWC */
    bool linear;
    double reachable_fraction;                    /* algorithm.md section 11: entries of y that A reaches */
    const struct operator_kind *kind;
    void *data; /* the kind's own: kernels, masks, angles; made by create, freed by destroy */
};

struct operator_kind {
    const char *name; /* as in task files */
    int (*create)(struct operator *operator, const struct task *task, uint64_t seed,
                  struct status *status);
    /* Declares the constants in a program; may be called for several programs. Returns via `data`
     * kept per program: the caller passes the opaque pointer back to record. */
    void *(*bind)(const struct operator *operator, struct program *program, struct status *status);
    value (*record)(const struct operator *operator, const void *bound, struct tape *tape, value x);
    /* A^T of the linear part, recorded (dot tests, `resample adjoint`). */
    value (*record_adjoint)(const struct operator *operator, const void *bound, struct tape *tape,
                            value y);
    void (*unbind)(void *bound);
    void (*destroy)(struct operator *operator);
    /* A picture of a measurement for people: the baseline in image space (FBP, nearest
     * enlargement, the blurred picture itself), [N,C,H,W] as the image. NULL: y itself is one. */
    int (*baseline)(const struct operator *operator, const float *measurement_nchw,
                    float *image_nchw, struct status *status);
    const char *baseline_name; /* "FBP", "measurement", ... for labels */
};

/* Task files: the official YAMLs, read unchanged, and our additions (cli.md). Errors name file, key,
 * line. */
struct task *task_open(const char *path, struct status *status);
void task_free(struct task *task);
const char *task_data_root(const struct task *task); /* data.root or NULL */
double task_noise_sigma(const struct task *task);    /* gaussian sigma; 0 for clean; negative: unknown */
const char *task_noise_name(const struct task *task); /* "gaussian", "poisson", "clean" */
/* Notes about accepted keys that do nothing; NULL-terminated. */
const char *const *task_notes(const struct task *task);
/* The measurement.operator node, for operator kinds: typed look-ups with defaults; an error names
 * the key. Unknown keys are found by task_check_keys(known, ...) */
int task_integer(const struct task *task, const char *key, int64_t fallback, int64_t least,
                 int64_t most, int64_t *result, struct status *status);
int task_real(const struct task *task, const char *key, double fallback, double least, double most,
              double *result, struct status *status);
const char *task_string(const struct task *task, const char *key); /* NULL: absent */

/* Image shape {N,H,W,C} known: creates the operator. `seed` makes random masks. */
int operator_create(struct operator *operator, const struct task *task, const int64_t image[4],
                    uint64_t seed, struct status *status);
/* Image size from a measurement's shape (NCHW), for solving without a truth: 0 if it implies none
 * (CT with unknown detectors/size relation falls back to the model's). */
int operator_implied_size(const struct task *task, const int64_t measurement_nchw[4],
                          int64_t *height, int64_t *width, struct status *status);
void operator_destroy(struct operator *operator);

/* y (NCHW) = A(x) [+ noise of the task: gaussian sigma, poisson rate] from Philox stream
 * NOISE_STREAM_MEASUREMENT. Runs a small program of its own on the CPU. */
int operator_measure(const struct operator *operator, const struct task *task,
                     const float *image_nchw, bool noiseless, double sigma, uint64_t seed,
                     int threads, float *measurement_nchw, struct status *status);
int operator_adjoint(const struct operator *operator, const float *measurement_nchw, int threads,
                     float *image_nchw, struct status *status);

/* Philox streams: what each is for, so that no two uses share numbers. */
enum {
    NOISE_STREAM_MEASUREMENT = 0,
    NOISE_STREAM_MASK = 1,
    NOISE_STREAM_SAMPLER = 2
};

#endif
