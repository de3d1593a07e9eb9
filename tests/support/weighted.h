/* A program whose tapes have weights in and outside loops, for tests of memory limits and of what
 * is uploaded. `start` is recorded as replayed once, `step`, with a convolution on each side of a
 * loop, as ten times; `fit` keeps many values for a gradient. x has 16 channels of 4 x 4 pixels. */
#ifndef TESTS_SUPPORT_WEIGHTED_H
#define TESTS_SUPPORT_WEIGHTED_H

#include "runtime/program.h"

enum { WEIGHTED_ELEMENTS = 16 * 4 * 4, WEIGHTED_STEPS = 10 };
enum { WEIGHT_START, WEIGHT_BEFORE, WEIGHT_LOOPED, WEIGHT_AFTER, WEIGHT_BIAS, WEIGHTED_COUNT };

struct weighted {
    struct program *program;
    struct parameter parameters[WEIGHTED_COUNT];
    int x, gradient; /* slots */
    struct tape *start, *body, *step, *fit;
};

void weighted_record(struct weighted *weighted, const struct kernels *kernels);
/* What a parameter's form for these kernels takes. */
size_t weighted_bytes(const struct weighted *weighted, int parameter);
/* Each tape once, from the same x: the x and the gradient that it ends with. */
void weighted_run(struct weighted *weighted, float x[WEIGHTED_ELEMENTS],
                  float gradient[WEIGHTED_ELEMENTS], struct status *status);
void weighted_free(struct weighted *weighted);

#endif
