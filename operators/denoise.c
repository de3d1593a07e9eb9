/* Denoising: y is x itself (operators.md section 7; the official code calls it "noise"). */
#include "operators/kinds.h"

#include <stdlib.h>

static int create(struct operator *self, const struct task *task, uint64_t seed,
                  struct status *status)
{
    (void)task, (void)seed;
    for (int i = 0; i < 4; i++)
        self->measurement_shape[i] = self->image_shape[i];
    return status->code;
}

static void *bind(const struct operator *self, struct program *program, struct status *status)
{
    (void)self, (void)program, (void)status;
    return NULL;
}

static value identity(const struct operator *self, const void *bound, struct tape *tape, value x)
{
    (void)self, (void)bound, (void)tape;
    return x;
}

const struct operator_kind operator_denoise = {
    .name = "denoise",
    .alias = "noise",
    .keys = (const char *const[]){NULL},
    .ignored_keys = (const char *const[]){"in_shape", NULL},
    .create = create,
    .bind = bind,
    .unbind = free,
    .record = identity,
    .record_adjoint = identity,
    .baseline_name = "measurement",
};
