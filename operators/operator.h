/* Measurement operators y = A(x) + noise: from a task file to nodes on a tape. A(.) is recorded on
 * tapes like a network; its VJP is the tape's, the exact transpose. Pictures x are [N,H,W,C] in
 * [-1,1] (operators.md). One file per operator; operators/registry.c lists them. */
#ifndef OPERATORS_OPERATOR_H
#define OPERATORS_OPERATOR_H

#include "operators/task.h"
#include "runtime/program.h"

#include <stdint.h>

struct operator_kind;

struct operator
{
    const char *name;
    int64_t image_shape[4], measurement_shape[4]; /* NHWC */
    bool linear;
    /* algorithm.md section 11: the share of y's entries that A reaches. Below 1 only for a mask,
     * where A A^T y is what it keeps of y. */
    double reachable_fraction;
    const struct operator_kind *kind;
    void *data; /* the kind's own: kernels, masks, angles; made by create, freed by destroy */
};

struct operator_kind {
    const char *name, *alias;        /* as in task files; alias may be NULL */
    const char *const *keys;         /* of measurement.operator beside name; NULL-terminated */
    const char *const *ignored_keys; /* accepted with a note */
    /* Image shape and kind are set; fills measurement_shape, data and what differs from linear =
     * true, reachable_fraction = 1. */
    int (*create)(struct operator *self, const struct task *task, uint64_t seed,
                  struct status *status);
    /* Declares the constants in a program; may be called for several programs. What it returns goes
     * to record for that program's tapes, and to unbind in the end; may be NULL without an error.
     */
    void *(*bind)(const struct operator *self, struct program *program, struct status *status);
    void (*unbind)(void *bound);
    value (*record)(const struct operator *self, const void *bound, struct tape *tape, value x);
    /* A^T of the linear part, recorded (dot tests, `resample adjoint`). */
    value (*record_adjoint)(const struct operator *self, const void *bound, struct tape *tape,
                            value y);
    void (*destroy)(struct operator *self); /* frees data; NULL: free() will do */
    /* A picture of a measurement for people: the baseline in image space (FBP, nearest
     * enlargement), [N,C,H,W] as the image. NULL: y itself is one. */
    int (*baseline)(const struct operator *self, const float *measurement_nchw, float *image_nchw,
                    struct status *status);
    const char *baseline_name; /* "FBP", "measurement", ... for labels */
    /* The picture's size from a measurement's [N,C,H,W]; 0 where it does not follow. NULL: the
     * measurement's own. */
    int (*implied_size)(const struct task *task, const int64_t measurement_nchw[4], int64_t *height,
                        int64_t *width, struct status *status);
};

/* Every operator, NULL-terminated; and by name or alias, NULL if unknown. */
const struct operator_kind *const *operator_kinds(void);
const struct operator_kind *operator_kind_find(const char *name);

/* Image shape {N,H,W,C} known: creates the operator. `seed` makes random masks. */
int operator_create(struct operator *self, const struct task *task, const int64_t image[4],
                    uint64_t seed, struct status *status);
void operator_destroy(struct operator *self);
/* Image size from a measurement's shape (NCHW), for solving without a truth: 0 if it implies none
 * (CT whose number of detectors is set apart from the size). */
int operator_implied_size(const struct task *task, const int64_t measurement_nchw[4],
                          int64_t *height, int64_t *width, struct status *status);

/* y (NCHW) = A(x) + the task's noise from Philox stream NOISE_STREAM_MEASUREMENT: gaussian of
 * deviation sigma (negative: the task's, an error if that is unknown too), or poisson of the task's
 * rate on clamp((y+1)/2, 0, 1) (operators.md section 8). Runs a small program of its own on the
 * CPU. */
int operator_measure(const struct operator *self, const struct task *task, const float *image_nchw,
                     bool noiseless, double sigma, uint64_t seed, int threads,
                     float *measurement_nchw, struct status *status);
int operator_adjoint(const struct operator *self, const float *measurement_nchw, int threads,
                     float *image_nchw, struct status *status);

/* Philox streams: what each is for, so that no two uses share numbers. */
enum {
    NOISE_STREAM_MEASUREMENT = 0,
    NOISE_STREAM_MASK = 1,
    NOISE_STREAM_SAMPLER = 2,
    NOISE_STREAM_PICTURES = 3, /* 3..: training */
    NOISE_STREAM_WEIGHTS = 4,
    NOISE_STREAM_CODES = 5,
    NOISE_STREAM_DIFFUSION = 6,
    NOISE_STREAM_EVALUATION = 7
};

#endif
